"""What an agent reports of itself (see reports.py) becomes steps, artifacts, usage, output and a result."""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from agentnb.engine.keeping import CUT_SHORT
from agentnb.errors import StoreError
from agentnb.events import ArtifactSaved, Json, StepFinished, StepStarted, StepUsed, UsageReported, now_us
from agentnb.ids import new_id
from agentnb.states import ErrorKind, StepKind

if TYPE_CHECKING:
    from agentnb.engine.capture import Stream
    from agentnb.engine.executor import Execution
    from agentnb.engine.outcome import Outcome

_ENDS = {"completed", "failed", "skipped", "cancelled", "timeout", "interrupted"}
#: What an agent says freely; a run's secrets are masked in it.
_FREE = ("name", "input", "output", "error", "message", "details")
_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "turns")
_USAGE = (*_COUNTS, "cost_usd", "tokens_per_s")
_TEXTS = ("model", "agent_session")
_MAX_TEXT, _MAX_WARNING = 500, 2000
_RATE = "tokens_per_s"
_ERRORS = frozenset(map(str, ErrorKind))
_MAX_CODE = 2**31


#: Of so many of the latest steps that have ended it may be said later what they used.
MAX_ENDED = 10_000
#: More tokens, dollars or tokens a second than this are nonsense (so are NaN and negative ones).
MAX_USAGE = 1e15


def _counts(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number of something."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_USAGE


def _tokens(data: Any) -> Json | None:
    """What of a step's tokens makes sense."""
    known = [name.removesuffix("_tokens") for name in _COUNTS[:4]]
    return {name: int(data[name]) for name in known if _counts(data.get(name))} or None if isinstance(data, dict) else None


def _kind(given: Any) -> str:
    """The kind of an error, as far as there is such a kind."""
    return given if isinstance(given, str) and given in _ERRORS else "execution_failed"


def _code(given: Any) -> int | None:
    """An exit code, if it can be one."""
    return given if isinstance(given, int) and not isinstance(given, bool) and abs(given) < _MAX_CODE else None


class AgentLog:
    """The reports of one run; each attempt starts afresh."""

    def __init__(self, execution: Execution) -> None:
        """Belong to this run."""
        self._of = execution
        self.hosted_done = False
        self._root = ""
        self._open: dict[str, str] = {}
        self._ended: dict[str, str] = {}
        self._usage: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._steps: dict[str, float] = {}
        self._lent: dict[str, float] = {}
        self._facts: dict[str, str] = {}
        self._result: list[Any] = []
        self._error: Json | None = None
        self._saving: set[asyncio.Future[None]] = set()

    def begin(self, step: str) -> None:
        """An attempt starts; its steps go below `step`. What earlier ones used stays used."""
        self._before = self._totals()
        self.hosted_done = False
        self._root = step
        self._open = {}
        self._ended = {}
        self._usage = {}
        self._steps = {}
        self._result = []
        self._error = None

    def take(self, data: Json) -> None:
        """Take one report; what is not understood becomes a warning."""
        handler = getattr(self, f"_on_{data.get('t')}", None)
        if handler is None:
            self._of.warn(f"an unknown report was left out: {data}", _MAX_TEXT)
            return
        try:
            handler(data | {name: self._of.masked(data[name]) for name in _FREE if name in data})
        except (LookupError, TypeError, ValueError, ArithmeticError, binascii.Error) as bad:
            self._of.warn(f"a malformed report was left out ({type(bad).__name__}: {bad}): {data}", _MAX_TEXT)

    def _on_log(self, data: Json) -> None:
        self._of.add_output("stdout", f"{data['text']}\n".encode("utf-8", "replace"))

    def _on_output(self, data: Json) -> None:
        stream = "stderr" if data.get("stream") == "stderr" else "stdout"
        self._of.add_output(stream, str(data["text"]).encode("utf-8", "replace"))

    def _on_step(self, data: Json) -> None:
        name = str(data["id"])
        if data["status"] == "running":
            if name in self._open:
                raise ValueError(f"step {name!r} is running already")
            kind = StepKind(data.get("kind", "tool")).value
            parent = self._open.get(str(data.get("parent")), self._root)
            step = self._open[name] = new_id()
            shown = str(data["name"]) if "name" in data else str(self._of.masked(name))
            self._of.emit(StepStarted(self._of.run_id, step, kind, shown, self._of.attempt, parent, data.get("input")))
        elif data["status"] in _ENDS:
            step = self._open.pop(name)
            error = {"kind": _kind(data.get("error_kind")), "message": str(data["error"])} if data.get("error") else None
            self._of.emit(
                StepFinished(
                    self._of.run_id,
                    step,
                    data["status"],
                    error,
                    exit_code=_code(data.get("exit_code")),
                    tokens=_tokens(data.get("tokens")),
                    cost_usd=float(cost) if _counts(cost := data.get("cost_usd")) else None,
                    output=data.get("output"),
                )
            )
            self._note_end(name, step)
            self._add_step(data)
        else:
            raise ValueError(f"status {data['status']!r}")

    def _note_end(self, name: str, step: str) -> None:
        self._ended.pop(name, None)
        self._ended[name] = step
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _on_used(self, data: Json) -> None:
        step, tokens, cost = self._ended.get(str(data["id"])), _tokens(data.get("tokens")), data.get("cost_usd")
        if step is not None and (tokens is not None or _counts(cost)):  # else it ended too long ago, or nothing is told
            self._of.emit(StepUsed(self._of.run_id, step, tokens, float(cost) if _counts(cost) else None))

    def _on_usage(self, data: Json) -> None:
        for name in _USAGE:
            if _counts(value := data.get(name)):
                self._usage[name] = value
        for name in _TEXTS:
            if isinstance(text := data.get(name), str) and text:
                self._facts[name] = self._of.masked(text)[:_MAX_TEXT]
        self._tell_usage()

    def _totals(self) -> dict[str, float]:
        """What the run used in all its attempts; the speed is that of the current one."""
        rate = {name: self._usage[name] for name in (_RATE,) if name in self._usage}
        counts = [name for name in _USAGE if name != _RATE and (name in self._usage or name in self._before)]
        return {name: self._before.get(name, 0) + self._usage.get(name, 0) for name in counts} | rate

    def _tell_usage(self) -> None:
        totals = {name: int(value) if name in _COUNTS else float(value) for name, value in self._totals().items()}
        self._of.emit(UsageReported(self._of.run_id, **totals, **self._facts))  # type: ignore[arg-type]
        own = {name: max(value - self._lent.get(name, 0), 0) for name, value in totals.items()} if self._lent else totals
        self._of.used(sum(int(value) for name, value in own.items() if name.endswith("_tokens")), own.get("cost_usd", 0.0))

    def _add_step(self, data: Json) -> None:
        """The steps of an agent that says nothing of the whole are its use; of one that does, they are a part of it."""
        tokens = _tokens(data.get("tokens")) or {}
        found = {f"{name}_tokens": value for name, value in tokens.items()} | {"cost_usd": data.get("cost_usd")}
        more = False
        for name, value in found.items():
            if name in _USAGE and _counts(value):
                self._steps[name] = self._steps.get(name, 0) + value
                if self._steps[name] > self._usage.get(name, 0):
                    self._usage[name] = self._steps[name]
                    more = True
        if more:
            self._tell_usage()

    def totals(self) -> dict[str, float]:
        """The tokens and dollars that the run used so far, in all its attempts."""
        return {name: value for name, value in self._totals().items() if name.endswith("_tokens") or name == "cost_usd"}

    def add(self, used: dict[str, float]) -> None:
        """A child run has used this, which counts for it; here it is a part of the sum that the run shows."""
        for name, value in used.items():
            self._usage[name] = self._usage.get(name, 0) + value
            self._lent[name] = self._lent.get(name, 0) + value
        self._tell_usage()

    def _on_warning(self, data: Json) -> None:
        self._of.warn(str(data["text"]), _MAX_WARNING)

    def _on_result(self, data: Json) -> None:
        self._result = [data["output"]]

    def _on_error(self, data: Json) -> None:
        details = {"details": data["details"]} if data.get("details") else {}
        self._error = {"kind": _kind(data.get("kind")), "message": str(data["message"])} | details

    def _on_done(self, _: Json) -> None:
        self.hosted_done = True
        self._of.overdue_soon()

    def _on_cancelled(self, _: Json) -> None:
        self.hosted_done = True
        self._error = {"kind": "cancelled", "message": "it cancelled itself"}

    def _on_artifact(self, data: Json) -> None:
        name, kind = str(data["name"]), data.get("content_type")
        kind = self._of.masked(kind)[:_MAX_TEXT] if isinstance(kind, str) else None
        if "data" in data:
            content = base64.b64decode(data["data"], validate=True)
            self._start(self._keep_bytes(name, content if data.get("file") else self._of.masked_bytes(content), kind))
        else:
            self._start(self.keep_file(name, Path(self._of.work["cwd"]) / data["path"], kind))

    async def keep_stream(self, name: str, stream: Stream) -> None:
        """Keep a finished stream as an artifact: its file becomes the artifact's. A disk that refuses costs a warning."""
        blobs = self._of.store.blobs
        try:
            if stream.path is None:
                checksum, size = await asyncio.to_thread(blobs.put_bytes, stream.content())
            else:
                checksum, size = await asyncio.to_thread(blobs.adopt, stream.path)
        except StoreError as bad:
            self._of.warn(str(bad))
        else:
            self._saved(name, checksum, size, "application/x-ndjson")

    def _start(self, saving: Awaitable[None]) -> None:
        task = asyncio.ensure_future(saving)
        self._saving.add(task)

    async def keep_file(self, name: str, path: Path, content_type: str | None) -> None:
        """Keep a file as an artifact. Raises StoreError."""
        checksum, size = await asyncio.to_thread(self._put_file, path)
        self._saved(name, checksum, size, content_type)

    def _put_file(self, path: Path) -> tuple[str, int]:
        try:
            if path.exists() and not path.is_file():  # reading a pipe or a device might never end
                raise StoreError(f"{path} cannot be kept as an artifact: it is no plain file")
            return self._of.store.blobs.put_file(path, lambda: self._of.keeping.hurried)
        except ValueError as bad:
            raise StoreError(f"{str(path)!r} cannot be kept as an artifact: {bad}") from None

    async def _keep_bytes(self, name: str, data: bytes, content_type: str | None) -> None:
        checksum, size = await asyncio.to_thread(self._of.store.blobs.put_bytes, data)
        self._saved(name, checksum, size, content_type)

    def saved(self, name: str, checksum: str, size: int, content_type: str) -> None:
        """Record an artifact whose bytes are in the store already."""
        self._saved(name, checksum, size, content_type)

    def _saved(self, name: str, checksum: str, size: int, content_type: str | None) -> None:
        store = self._of.store
        artifact = {
            "id": new_id(),
            "name": name,
            "content_type": content_type or mimetypes.guess_type(name)[0] or "application/octet-stream",
            "size": size,
            "location": {"type": "local", "path": str(store.blobs.locate(checksum).relative_to(store.root))},
            "checksum": checksum,
            "created_at": now_us(),
            "source_run": self._of.run_id,
            "source_step": self._root or None,
        }
        self._of.emit(ArtifactSaved(self._of.run_id, artifact))

    async def end(self, outcome: Outcome) -> None:
        """The attempt is over: wait for artifacts, take over result and error, close the steps that were left open."""
        while self._saving:
            saving, self._saving = self._saving, set()
            await self._of.keeping.see_through(saving)
            for done in saving:
                bad = None if done.cancelled() else done.exception()
                if done.cancelled() or (bad is not None and self._of.keeping.hurried):
                    self._of.warn(CUT_SHORT)
                elif bad is not None:
                    outcome.fail("artifact_error" if isinstance(bad, StoreError) else "runtime_error", str(bad))
        if self._result:
            outcome.output, outcome.output_source = self._result[0], "returned"
        elif self._error is None and self._of.work.get("channel"):
            outcome.fail("execution_failed", "the process ended without returning")
        own = outcome.ok or (outcome.error is not None and outcome.error["kind"] == "execution_failed")  # else it was stopped
        if self._error is not None and own and (outcome.ok or outcome.signal is None):
            outcome.status = "cancelled" if self._error["kind"] == "cancelled" else "failed"
            outcome.error = self._error
        status = "completed" if outcome.ok else outcome.status
        for step in reversed(self._open.values()):
            self._of.emit(StepFinished(self._of.run_id, step, status, outcome.error))
        self._open = {}

    def tokens(self, step: str) -> Json | None:
        """The tokens to show on the attempt's own step."""
        if step != self._root or not self._usage:
            return None
        found = {name.removesuffix("_tokens"): int(self._usage[name]) for name in _COUNTS[:4] if name in self._usage}
        return found or None

    def cost(self, step: str) -> float | None:
        """The cost to show on the attempt's own step."""
        return self._usage.get("cost_usd") if step == self._root else None
