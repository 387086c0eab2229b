"""RunContext: what a Python agent says about itself while it works.

It speaks to a `send` callable that takes reports (engine/reports.py): in a child process that is the channel to the engine, in
the notebook's process a function of the client. Only the standard library is imported: the start of every child pays for it.
"""

# importing pathlib would cost every child some milliseconds
# ruff: noqa: PTH100, PTH113, PTH123, PTH202
from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Literal, Self

from agentnb.agents.jsonable import clean, jsonable
from agentnb.errors import ConfigError
from agentnb.states import StepKind

Report = dict[str, Any]
Send = Callable[[Report], None]
#: Launches a child run: (target, options) -> its result, or, for an async agent, its handle.
Launch = Callable[[Any, Mapping[str, Any]], Any]

#: Largest artifact that can be given as data, in bytes; and the size up to which a file is read at once.
MAX_DATA = 5 * 1024 * 1024
_INLINE = 1024 * 1024
_MAX_NAME = 255

_current: ContextVar[str | None] = ContextVar("agentnb_step", default=None)


class _Usage:
    """Counts of tokens and cost that only rise."""

    def __init__(self) -> None:
        self.input_tokens = self.output_tokens = 0
        self.cost_usd = 0.0
        self._lock = threading.RLock()  # re-entrant: a signal may interrupt the thread that holds it

    def add(self, input_tokens: int, output_tokens: int, cost_usd: float) -> None:
        """Add to the counts. Raises ConfigError for what is no count."""
        for name, value in (("input_tokens", input_tokens), ("output_tokens", output_tokens)):
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
                raise ConfigError(f"usage: {name}={value!r} must be a whole number of tokens, zero or more")
        if isinstance(cost_usd, bool) or not hasattr(cost_usd, "__float__") or not 0 <= cost_usd < float("inf"):
            raise ConfigError(f"usage: cost_usd={cost_usd!r} must be an amount in US dollars, zero or more")
        with self._lock:
            self.input_tokens += int(input_tokens)
            self.output_tokens += int(output_tokens)
            self.cost_usd += float(cost_usd)

    def report(self) -> Report:
        """The totals so far."""
        return {"t": "usage", "input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "cost_usd": self.cost_usd}


class Step:
    """One part of a run, open as long as its ``with`` block; made by `RunContext.step`.

    `output`: set it to what the part gave (JSON data, or what `jsonable` makes of it).
    """

    def __init__(self, context: RunContext, send: Send, opening: Report) -> None:
        """Wait for ``with``."""
        self.id: str = opening["id"]
        self.output: Any = None
        self._context = context
        self._send = send
        self._opening = opening
        self._usage = _Usage()
        self._token: Token[str | None] | None = None

    def usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Add to the tokens and cost of this step, and of the run. Raises ConfigError for what is no count."""
        self._usage.add(input_tokens, output_tokens, cost_usd)
        self._context.usage(input_tokens=input_tokens, output_tokens=output_tokens, cost_usd=cost_usd)

    def __enter__(self) -> Self:
        """Report that the step runs; steps opened inside of it are its children."""
        if self._token is not None:
            raise ConfigError(f"step {self._opening['name']!r} is open already; make a new one with ctx.step(...)")
        self._send(self._opening | {"parent": _current.get()})
        self._token = _current.set(self.id)
        return self

    def __exit__(self, kind: type[BaseException] | None, bad: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        """Report how the step ended; an exception fails it and goes on."""
        if self._token is not None:
            _current.reset(self._token)
        end: Report = {"t": "step", "id": self.id, "status": "completed"}
        if bad is not None:
            end |= {"status": "cancelled" if _is_cancellation(bad, self._context) else "failed", "error": describe(bad)}
        try:
            if self.output is not None:
                end["output"] = jsonable(self.output, f"the output of step {self._opening['name']!r}")
        except ConfigError as unfit:
            if bad is None:
                self._send(end | {"status": "failed", "error": describe(unfit)})
                raise
        used = self._usage
        if used.input_tokens or used.output_tokens:
            end["tokens"] = {"input": used.input_tokens, "output": used.output_tokens}
        if used.cost_usd:
            end["cost_usd"] = used.cost_usd
        self._send(end)
        return False


class RunContext:
    """The run, seen from inside of a Python agent: annotate the first parameter with it to get one. Safe to use from any thread.

    `run_id`: the run's id. `params`: the run's parameters, such as its grid point. `attempt`: 1 for the first try.
    """

    def __init__(
        self, send: Send, *, run_id: str = "", params: Mapping[str, Any] | None = None, attempt: int = 1, launch: Launch | None = None
    ) -> None:
        """Report to `send`, which takes one report at a time and may be called from any thread; `launch` is for child runs."""
        self._launch = launch
        self.run_id = run_id
        self.params: dict[str, Any] = dict(params or {})
        self.attempt = attempt
        self._send = send
        self._usage = _Usage()
        self._steps = 0
        self._lock = threading.RLock()  # re-entrant: a signal may interrupt the thread that holds it
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether the run was told to stop: clean up and return."""
        return self._cancelled.is_set()

    def log(self, text: object) -> None:
        """Write a line to the run's stdout."""
        self._send({"t": "log", "text": clean(str(text))})

    def step(self, name: str, kind: str = "tool", input: Any = None) -> Step:  # noqa: A002 - the word of the history
        """Open a step: ``with ctx.step("search", input=query) as step: step.output = ...``.

        `kind`: a states.StepKind, such as tool, turn, worker or check. Raises ConfigError for another kind, and for an input
        that JSON cannot hold.
        """
        if kind not in {str(known) for known in StepKind}:
            raise ConfigError(f"step {name!r}: there is no kind {kind!r}; the kinds are {', '.join(StepKind)}")
        with self._lock:
            self._steps += 1
            step_id = f"{self.attempt}.{self._steps}"
        opening: Report = {"t": "step", "id": step_id, "name": _name(name, "step"), "kind": str(kind), "status": "running"}
        if input is not None:
            opening["input"] = jsonable(input, f"the input of step {name!r}")
        return Step(self, self._send, opening)

    def artifact(self, name: str, data_or_path: object, content_type: str | None = None) -> None:
        """Keep something that the run made.

        `data_or_path`: a ``pathlib.Path`` of a file (past 1 MiB it has to stay there until the run has ended); bytes; text; or
        a dict or list, kept as JSON. The run's secrets are masked in all but files. `content_type`: default by the ending of `name`.
        Raises ConfigError for data above 5 MiB, for a file that is not there, and for other types.
        """
        report: Report = {"t": "artifact", "name": _name(name, "artifact")}
        fallback, data, path = _content(name, data_or_path)
        report["content_type"] = content_type or _content_type(name, path, fallback)
        if data is None:
            report["path"] = path
        else:
            from base64 import b64encode  # not needed by most runs

            report["data"] = b64encode(data).decode()
            if isinstance(data_or_path, os.PathLike):
                report["file"] = True
        self._send(report)

    def usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Add to the run's tokens and cost (US dollars). Raises ConfigError for what is no count."""
        with self._lock:
            self._usage.add(input_tokens, output_tokens, cost_usd)
            self._send(self._usage.report())

    def run(self, target: Any, **options: Any) -> Any:
        """Launch a child run of this one, in the same session: ``ctx.run(nb.Shell("make"), timeout="5m")``.

        In a plain function it blocks until the child has ended and returns its CommandResult; an ``async def`` agent gets the handle:
        ``result = await ctx.run(...)``. A child that fails raises nothing; see its `status`, `output`, `stdout`, `error`. The waiting
        run lends its place, so that nesting never comes to a standstill. Children are cancelled with their parent, and none outlives it;
        what they use counts for its budgets. `target`, `options`: as for ``session.launch``, without ``detach``. A child of a plain
        function begins in its folder and with its environment, and cannot be ``async def``. Raises ConfigError for what cannot be
        launched, and RuntimeError outside of a run.
        """
        if self._launch is None:
            raise RuntimeError("ctx.run: there is no run that could have children; launch the agent with session.python(...)")
        return self._launch(target, options)

    def _cancel(self) -> None:
        self._cancelled.set()


def _is_cancellation(bad: BaseException, context: RunContext) -> bool:
    asyncio = sys.modules.get("asyncio")
    return (asyncio is not None and isinstance(bad, asyncio.CancelledError)) or (context.cancelled and isinstance(bad, SystemExit))


def takes_context(function: Callable[..., Any]) -> bool:
    """Whether the first parameter of `function` is annotated with RunContext, as the class, in text, or as optional."""
    from inspect import signature  # heavy; a child is told instead of looking itself

    try:
        first = next(iter(signature(function).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    return first is not None and first.kind is not first.KEYWORD_ONLY and _means_context(first.annotation)


def _means_context(annotation: object) -> bool:
    if isinstance(annotation, str):
        parts = annotation.replace("Optional[", "").replace("]", "").split("|")
        return any(part.strip(" '\"").rpartition(".")[2] == "RunContext" for part in parts)
    return annotation is RunContext or any(part is RunContext for part in getattr(annotation, "__args__", ()))


def describe(bad: BaseException) -> str:
    """One exception as one line or more: ``ValueError: what it says``."""
    try:
        text = clean(str(bad))
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure
        text = "(its text cannot be shown)"
    limit = 10_000
    text = text if len(text) <= limit else text[:limit] + "..."
    return f"{type(bad).__qualname__}: {text}" if text else type(bad).__qualname__


def _name(name: str, what: str) -> str:
    if not isinstance(name, str) or not name or len(name) > _MAX_NAME or "\0" in name:
        raise ConfigError(f"{what}: the name {name!r} must be text of 1 to {_MAX_NAME} characters")
    return clean(name)


def _content(name: str, given: object) -> tuple[str, bytes | None, str]:
    """(content type if the name tells none, data or None, path or "")."""
    if isinstance(given, os.PathLike):
        path = os.path.abspath(os.fsdecode(given))
        if not os.path.isfile(path):
            raise ConfigError(f"artifact {name!r}: there is no file {path}")
        if os.path.getsize(path) > _INLINE:
            return "application/octet-stream", None, path
        with open(path, "rb") as file:
            return "application/octet-stream", file.read(), path
    if isinstance(given, str):
        if len(given) <= _MAX_NAME and "\0" not in given and os.path.isfile(given):
            advice = f"write pathlib.Path({given!r}) to keep the file, or bytes to keep the text"
            raise ConfigError(f"artifact {name!r}: {given!r} is the name of a file; {advice}")
        fallback, data = "text/plain", clean(given).encode()
    elif isinstance(given, bytes | bytearray | memoryview):
        fallback, data = "application/octet-stream", bytes(given)
    elif isinstance(given, dict | list):
        from json import dumps

        fallback, data = "application/json", dumps(jsonable(given, f"artifact {name!r}"), ensure_ascii=False, indent=1).encode()
    else:
        raise ConfigError(f"artifact {name!r}: a {type(given).__name__} cannot be kept; give a pathlib.Path, bytes, text, a dict or a list")
    if len(data) > MAX_DATA:
        size = f"{len(data) / 2**20:.1f} MiB, more than {MAX_DATA // 2**20} MiB"
        raise ConfigError(f"artifact {name!r} has {size}: write it to a file and give its pathlib.Path")
    return fallback, data, ""


def _content_type(name: str, path: str, fallback: str) -> str:
    from mimetypes import guess_type  # reads system files

    return guess_type(name)[0] or (guess_type(path)[0] if path else None) or fallback
