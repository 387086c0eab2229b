"""A model's answer as it comes, in a child process: text to stdout, the turn, figures and the result to the channel.

Chunks are those of the chat completions of OpenAI and llama.cpp. Only the standard library is imported.
"""

from __future__ import annotations

import json
import re
import signal
import time
from typing import Any, NamedTuple

from agentnb.agents.channel import Channel, write_out
from agentnb.formats import without_iri

#: Seconds between two reports of usage.
_INTERVAL_S = 0.25
_STEP_ID = "turn"
#: No answer has so many tokens.
_NONSENSE = 10**12
#: An answer longer than this is cut off and fails (characters).
MAX_TEXT = 16 * 1024 * 1024


class NoAnswer(Exception):
    """The server or the model said why there is no answer. `kind`: a states.ErrorKind."""

    def __init__(self, kind: str, message: str, **details: Any) -> None:
        """Keep the parts of the report."""
        super().__init__(message)
        self.kind, self.message, self.details = kind, message, details


class Asked(NamedTuple):
    """What was asked. `shown`: the input of the turn, for the record; `prices`: US dollars for a million tokens read and written."""

    model: str
    shown: dict[str, Any]
    schema: dict[str, Any] | None = None
    max_tokens: int | None = None
    prices: tuple[float, float] | None = None


def end_at_signals() -> None:
    """Let SIGTERM and SIGINT end this process at once: C code and reads from the network would keep a Python handler waiting."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class _Figures:
    """Tokens and speed, as far as they are known. The server's count wins over ours, its clock over ours."""

    def __init__(self) -> None:
        self.input = self.output = self.pieces = 0
        self.cached: int | None = None
        self.speed: float | None = None
        self.first: float | None = None
        self.last = 0.0

    def heard(self) -> None:
        """A piece of text came."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        self.pieces += 1
        self.output = max(self.output, self.pieces)

    def take(self, chunk: dict[str, Any]) -> None:
        """What a chunk tells."""
        if isinstance(timings := chunk.get("timings"), dict):
            self.input, self.output = _count(timings.get("prompt_n")), _count(timings.get("predicted_n"))
            # no speed before two tokens: the time of the first is the time of reading the prompt
            speed = timings.get("predicted_per_second")
            self.speed = float(speed) if self.output > 1 and isinstance(speed, int | float) and 0 < speed < _NONSENSE else None
        if isinstance(usage := chunk.get("usage"), dict):
            read, self.output = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
            details = usage.get("prompt_tokens_details")
            self.cached = min(_count(details.get("cached_tokens")), read) if isinstance(details, dict) else None
            self.input = read - (self.cached or 0)  # the server counts those among the others, and we do not

    def tokens_per_s(self) -> float | None:
        """Tokens after the first, by the time since the first."""
        if self.speed is None and self.first is not None and self.output > 1 and self.last > self.first:
            return (self.output - 1) / (self.last - self.first)
        return self.speed


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _NONSENSE else 0


def _written(content: Any) -> Any:
    """The text of a message; some servers send it in parts that have a type."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(part for part in parts if isinstance(part, str))


class Answer:
    """One answer. `finish`: why the model stopped ("stop", "length" ...); None while it writes."""

    def __init__(self, channel: Channel, asked: Asked, stdout: int = 1, stderr: int = 2) -> None:
        """`stdout` and `stderr`: descriptors."""
        self.channel = channel
        self.asked = asked
        self.stdout, self.stderr = stdout, stderr
        self.finish: str | None = None
        self._pieces: list[str] = []
        self._size = 0
        self._figures = _Figures()
        self._reported = 0.0

    @property
    def size(self) -> int:
        """Characters so far."""
        return self._size

    def open(self) -> None:
        """The turn begins."""
        self._step("running", name=self.asked.model, kind="turn", parent=None, input=self.asked.shown)

    def take(self, chunk: Any) -> None:
        """One chunk of the stream. Raises NoAnswer for an error that the server tells in it, and for what is no chunk."""
        if isinstance(chunk, dict) and (error := chunk.get("error")):
            raise told(error)
        try:
            for choice in chunk.get("choices") or ():
                self._choice(choice)
            self._figures.take(chunk)
        except (AttributeError, TypeError):
            raise NoAnswer("runtime_error", f"the server sent what is no part of an answer: {str(chunk)[:200]}") from None
        if time.monotonic() - self._reported >= _INTERVAL_S and self._figures.output:
            self._report()

    def _choice(self, choice: dict[str, Any]) -> None:
        message = choice.get("delta") or choice.get("message") or {}
        text = _written(message.get("content")) or message.get("refusal")
        if isinstance(text, str) and text:
            self._figures.heard()
            self._pieces.append(text)
            self._size += len(text)
            write_out(self.stdout, text)
            if self._size > MAX_TEXT:
                raise NoAnswer("resource_limit_exceeded", f"the answer is longer than {MAX_TEXT} characters; bound it with max_tokens")
        self.finish = str(choice.get("finish_reason") or "") or self.finish

    def fail(self, bad: NoAnswer) -> int:
        """Report why there is no answer; the exit code. What came so far stays in stdout, and in the turn's output."""
        if self._figures.output:
            self._report()
        self._step("failed", error=bad.message, **({"output": text} if (text := self._text()) else {}))
        self.channel.send({"t": "error", "kind": bad.kind, "message": bad.message, "details": bad.details})
        write_out(self.stderr, bad.message + "\n")
        return 1

    def close(self) -> int:
        """Report the end; the exit code."""
        text = self._text()
        output: Any = text
        if self.finish == "content_filter":
            return self.fail(NoAnswer("execution_failed", "the server's content filter cut the answer; ask differently"))
        if not text and self.finish in {"tool_calls", "function_call"}:
            return self.fail(NoAnswer("execution_failed", "the model asked for a tool instead of answering, and nothing runs tools here"))
        if not text and self.finish == "length" and self.asked.schema is None:
            bound = f"max_tokens={self.asked.max_tokens}" if self.asked.max_tokens else "the most tokens that the server allows"
            return self.fail(NoAnswer("execution_failed", f"the model came to no word of its answer within {bound}; give max_tokens more"))
        if self.asked.schema is not None:
            try:
                output = self._parsed(text, self.asked.schema)
            except NoAnswer as bad:
                return self.fail(bad)
        self._report()
        tokens = {"input": self._figures.input, "output": self._figures.output}
        if self._figures.cached:
            tokens["cache_read"] = self._figures.cached
        cost = self._cost()
        self._step("completed", output=output, tokens=tokens, **({"cost_usd": cost} if cost is not None else {}))
        self.channel.send({"t": "result", "output": output})
        return 0

    def _text(self) -> str:
        return "".join(self._pieces).strip()

    def _parsed(self, text: str, schema: dict[str, Any]) -> Any:
        try:
            found = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as bad:
            if self.finish == "length":
                bound = f"max_tokens={self.asked.max_tokens}" if self.asked.max_tokens else "the most tokens that the server allows"
                raise NoAnswer("validation_error", f"the answer was cut at {bound}, so it is no JSON; give max_tokens more") from None
            raise NoAnswer("validation_error", f"the answer is no JSON, though json_schema asks for it: {bad}") from None
        without_iri()
        from jsonschema.validators import validator_for  # it takes a while to import, and only some answers need it

        for fault in validator_for(schema)(schema).iter_errors(found):
            raise NoAnswer("validation_error", f"the answer does not fit json_schema: {fault.message} (at {fault.json_path})")
        return found

    def _report(self) -> None:
        self._reported = time.monotonic()
        figures = self._figures
        usage = {"t": "usage", "model": self.asked.model, "input_tokens": figures.input, "output_tokens": figures.output}
        if (speed := figures.tokens_per_s()) is not None:
            usage["tokens_per_s"] = round(speed, 2)
        if figures.cached is not None:
            usage["cache_read_tokens"] = figures.cached
        if (cost := self._cost()) is not None:
            usage["cost_usd"] = cost
        self.channel.send(usage)

    def _cost(self) -> float | None:
        if self.asked.prices is None:
            return None
        reading, writing = self.asked.prices
        return ((self._figures.input + (self._figures.cached or 0)) * reading + self._figures.output * writing) / 1e6

    def _step(self, status: str, **fields: Any) -> None:
        self.channel.send({"t": "step", "id": _STEP_ID, "status": status} | fields)


def told(error: Any) -> NoAnswer:
    """What a server's error object says, as the reason why there is no answer."""
    message = error.get("message") if isinstance(error, dict) else None
    if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
        counts = f"{_count(error.get('n_prompt_tokens'))} tokens, and the model reads at most {_count(error.get('n_ctx'))}"
        return NoAnswer("invalid_config", f"the prompt is too long: it has {counts}; shorten the prompt, the history or the system prompt")
    return NoAnswer(_kind(error), f"the model failed: {str(message or error)[:2000]}")


def _kind(error: Any) -> str:
    """What an error in the middle of a stream means: its code is a status, or a word, as is its type."""
    words = [str(error.get(name)).lower() for name in ("code", "type", "status") if error.get(name)] if isinstance(error, dict) else []
    if "429" in words or any("rate_limit" in word for word in words):
        return "rate_limited"
    if any(re.fullmatch("5..|408", word) or "overloaded" in word or word in {"server_error", "api_error"} for word in words):
        return "runtime_error"
    return "execution_failed"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
