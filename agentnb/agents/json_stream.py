"""JSON lines of any program as reports of a run, by the keys that such programs use; standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentnb.events import Json

_LINES = ("text", "content", "message")
_OUTPUTS = ("result", "output", "answer")
_TOKENS = {
    "input_tokens": "input_tokens",
    "prompt_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "completion_tokens": "output_tokens",
    "cache_read_tokens": "cache_read_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
    "cost_usd": "cost_usd",
    "total_cost_usd": "cost_usd",
}
_NAMES = {"model": "model", "session_id": "agent_session"}


class JsonStream:
    """Makes reports of the objects of one process; see engine/parsing.py for the protocol."""

    def __init__(self, *, text: str | None = None, output: str | None = None) -> None:
        """`text`, `output`: dotted paths of what is printed, and of the run's output; None: the usual keys."""
        self._text = text
        self._output = output
        self._last: Json | None = None
        self._told = False

    def feed(self, event: Json) -> Iterable[Json]:
        """The reports of one object."""
        if isinstance(event.get("t"), str):
            self._told = self._told or event["t"] in {"result", "error"}
            return (event,)
        self._last = event
        return [*self._printed(event), *self._usage(event), *self._outcome(event)]

    def end(self, exit_code: int | None, signal: int | None, stderr: str) -> Iterable[Json]:
        """The last object is the output when nothing else was."""
        del signal, stderr
        if self._told or self._last is None or exit_code != 0:
            return ()
        return ({"t": "result", "output": self._last},)

    def _printed(self, event: Json) -> Iterable[Json]:
        if self._text is not None:
            found = at(event, self._text)
            return ({"t": "output", "text": found},) if isinstance(found, str) else ()
        if isinstance(delta := event.get("delta"), str):
            return ({"t": "output", "text": delta},)
        return [{"t": "log", "text": event[key]} for key in _LINES if isinstance(event.get(key), str)]

    def _usage(self, event: Json) -> Iterable[Json]:
        usage = event.get("usage")
        told = {**event, **usage} if isinstance(usage, dict) else event
        found = {name: told[key] for key, name in _TOKENS.items() if isinstance(told.get(key), int | float)}
        found |= {name: event[key] for key, name in _NAMES.items() if isinstance(event.get(key), str)}
        return ({"t": "usage", **found},) if found else ()

    def _outcome(self, event: Json) -> Iterable[Json]:
        if error := event.get("error"):
            self._told = True
            message = error.get("message") if isinstance(error, dict) else error
            return ({"t": "error", "kind": "execution_failed", "message": str(message or error), "details": {"event": event}},)
        if self._output is not None:
            found = at(event, self._output)
            outputs = [] if found is None else [found]
        else:
            outputs = [event[key] for key in _OUTPUTS if event.get(key) is not None]
        self._told = self._told or bool(outputs)
        return [{"t": "result", "output": output} for output in outputs[:1]]


def at(event: Any, path: str) -> Any:
    """What is at a dotted path, whose numbers index lists; None when there is nothing."""
    for key in path.split("."):
        if isinstance(event, dict):
            event = event.get(key)
        elif isinstance(event, list) and key.isdigit() and int(key) < len(event):
            event = event[int(key)]
        else:
            return None
    return event
