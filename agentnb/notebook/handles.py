"""Handles of runs: what a launch returns, kept up to date by the engine's events."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import itertools
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from agentnb import requests
from agentnb.commands import CommandResult, CommandStatus
from agentnb.events import (
    HostCancel,
    HostStart,
    Json,
    Message,
    OutputTail,
    RunFinished,
    RunRetrying,
    RunStarted,
    UsageReported,
    now_us,
)
from agentnb.history import reader
from agentnb.notebook import loop as loops
from agentnb.notebook.reading import OutputReader
from agentnb.notebook.snapshot import RunSnapshot, Segment
from agentnb.states import RETRYABLE, ErrorKind, RunStatus

if TYPE_CHECKING:
    from agentnb.agents.compile import Target
    from agentnb.engine.client import Client
    from agentnb.model import Artifact, Step

OnInterrupt = Literal["cancel", "detach"]
Stream = Literal["stdout", "stderr"]

#: An awaited run looks up this often whether the awaiting cell was interrupted: an idle loop does not notice.
_SLICE_S = 0.1
#: After an interrupt the ladder gets its grace and this long more.
_LADDER_S = 12.0
_TAIL_PIECES = 400
_TAIL_CHARS = 16 * 1024

_COMMAND_STATUS = {
    RunStatus.COMPLETED: CommandStatus.SUCCESS,
    RunStatus.TIMEOUT: CommandStatus.TIMED_OUT,
    RunStatus.CANCELLED: CommandStatus.CANCELLED,
}


class RunHandle:
    """One run. As a cell's last line it shows itself live; ``wait()`` blocks until its end, ``await run`` awaits it.

    Its attributes may be read at any time: `id`, `name`, `status` (a RunStatus), `result` (None until the end), `stdout`,
    `stderr`, `output`, `error`, `steps`, `artifacts`, `params`.
    """

    __slots__ = (
        "_attempt", "_callbacks", "_cancelling", "_client", "_command", "_context", "_created", "_done", "_final", "_grace_s",
        "_hosted", "_kind", "_result", "_root", "_started", "_tail", "_tail_chars", "_tail_seq", "_task", "_usage", "_version",
        "_warnings", "id", "name", "params", "session_id", "status", "spec",
    )  # fmt: skip

    def __init__(
        self,
        client: Client,
        root: Path,
        *,
        run_id: str,
        session_id: str,
        name: str,
        target: Target,
        params: dict[str, Any],
        grace_s: float,
        hosted: Callable[[Callable[[Json], None], int], Any] | None = None,
    ) -> None:
        """Made by Session.launch. `hosted` makes the coroutine of a run that lives in this process."""
        self.id = run_id
        self.name = name
        self.session_id = session_id
        self.params = params
        self.spec: dict[str, Any] = target.spec
        self.status = RunStatus.PENDING
        self._kind = target.kind.value
        self._command = target.display
        self._client = client
        self._root = root
        self._grace_s = grace_s
        self._hosted = hosted
        self._context = contextvars.copy_context() if hosted else None
        self._task: asyncio.Task[None] | None = None
        self._created = now_us()
        self._started: int | None = None
        self._attempt = 0
        self._cancelling = False
        self._final: RunFinished | None = None
        self._result: CommandResult | None = None
        self._done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._usage: UsageReported | None = None
        self._tail: deque[Segment] = deque()
        self._tail_chars = 0
        self._tail_seq = 0
        self._version = 0
        self._warnings: list[str] = []

    # --- what it is

    @property
    def result(self) -> CommandResult | None:
        """The outcome; None until the run has ended."""
        final = self._final
        if self._result is None and final is not None:
            self._result = self._make_result(final)
        return self._result

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._done.done()

    @property
    def error(self) -> Json | None:
        """Why it did not succeed ({"kind", "message", ...}); None while it runs and when it completed."""
        return self._final.error if self._final else None

    @property
    def output(self) -> Any:
        """Its structured output: what a Python agent returned, a model's answer, JSON that was found in stdout."""
        return self._final.output if self._final else None

    @property
    def stdout(self) -> str:
        """All of its stdout so far, as text."""
        return self._bytes("stdout").decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """All of its stderr so far, as text."""
        return self._bytes("stderr").decode("utf-8", "replace")

    @property
    def steps(self) -> list[Step]:
        """Its steps so far (attempts, turns, tools, handlers, checks), from the history."""
        from agentnb.notebook.records import step_record

        self._settle()
        return [step_record(row) for row in reader.read_steps(self._root, self.id)]

    @property
    def artifacts(self) -> list[Artifact]:
        """Its artifacts so far, from the history."""
        from agentnb.notebook.records import artifact_record

        self._settle()
        return [artifact_record(row) for row in reader.read_artifacts(self._root, self.id)]

    # --- waiting

    def wait(self, timeout: float | None = None, *, on_interrupt: OnInterrupt = "cancel") -> CommandResult:
        """Block until it has ended and return its result; a failed run raises nothing here.

        After `timeout` seconds TimeoutError is raised, and the run goes on. An interrupt (stop button) cancels the run, waits for
        its end and is raised again; with ``on_interrupt="detach"`` the run goes on. Raises RuntimeError on an agent's loop thread.
        """
        loops.refuse_to_block("wait()")
        wait_all([self], timeout, on_interrupt)
        return cast("CommandResult", self.result)

    def __await__(self) -> Generator[Any, None, CommandResult]:
        """``await run``: as `wait`. When the awaiting task is cancelled or interrupted, the run is too."""
        return self._wait_async().__await__()

    async def _wait_async(self) -> CommandResult:
        await await_all([self])
        return cast("CommandResult", self.result)

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Ask for its end; returns at once. The whole process tree gets SIGTERM, then SIGKILL after the grace period."""
        if not self.done:
            self._cancelling = True
            self._version += 1
            self._client.send([requests.Cancel([self.id], reason)])

    # --- its output and input

    def tail(self, n: int = 20) -> str:
        """The last `n` lines of its output so far; lines of stderr follow those of stdout where their order is not known."""
        return self._reader().tail(n)

    async def lines(self, stream: Stream = "stdout") -> AsyncIterator[str]:
        """The lines of a stream from its beginning, each as it comes, without its line end; ends with the run."""
        async for line in self._reader().lines(stream):
            yield line

    def send(self, text: str, *, eof: bool = False) -> None:
        """Write `text` to its stdin, which must have been kept open (``stdin=True``); `eof` closes it after that.

        Returns when the text is written. Raises RuntimeError when the run has no open stdin or does not read it.
        """
        loops.refuse_to_block("send()")
        reply = self._client.request(lambda number: requests.SendInput(number, self.id, text, eof))
        try:
            reply.result()
        except RuntimeError as bad:
            raise RuntimeError(f"run {self.name!r}: {bad}") from None

    def _reader(self) -> OutputReader:
        return OutputReader(self._root, self.id, lambda: self._client, lambda: self._final)

    def _bytes(self, stream: str) -> bytes:
        return self._reader().read(cast("Stream", stream))

    def _settle(self) -> None:
        if self._client.alive and not loops.on_loop_thread():
            self._client.request(lambda number: requests.Ping(number)).result(_LADDER_S)

    # --- events, on the loop thread

    def on_event(self, event: Message) -> None:
        """The engine says something about this run."""
        match event:
            case RunFinished():
                self._finish(event)
            case RunStarted():
                self.status, self._started, self._attempt = RunStatus.RUNNING, event.at, 1
            case OutputTail():
                self._add_tail(event)
            case UsageReported():
                self._usage = event
            case RunRetrying():
                self._attempt = event.attempt
            case HostStart():
                loops.agents_loop().call_soon(self._host, event.attempt)
            case HostCancel():
                loops.agents_loop().call_soon(self._unhost)
        self._version += 1

    def on_lost(self, message: str) -> None:
        """The supervisor died; it ended the run's processes, and the history will say the same."""
        loops.agents_loop().call_soon(self._unhost)
        error = {"kind": "interrupted", "message": message}
        status = "interrupted" if self.status is RunStatus.RUNNING else "cancelled"
        self._finish(RunFinished(self.id, status, error=error))
        self._version += 1

    def _finish(self, event: RunFinished) -> None:
        self._final = event
        self.status = RunStatus(event.status)
        self._attempt = event.attempts
        self._cancelling = False
        self._version += 1
        if not self._done.done():
            self._done.set_result(None)

    def _add_tail(self, event: OutputTail) -> None:
        for stream, text in event.segments:
            self._tail.append((stream, text))
            self._tail_seq += 1
            self._tail_chars += len(text)
        while self._tail and (len(self._tail) > _TAIL_PIECES or self._tail_chars > _TAIL_CHARS) and len(self._tail) > 1:
            self._tail_chars -= len(self._tail.popleft()[1])

    def _host(self, attempt: int) -> None:
        assert self._hosted is not None  # noqa: S101 - only hosted runs are told to start here
        client, run_id = self._client, self.id
        coroutine = self._hosted(lambda report: client.send([requests.Report(run_id, report)]), attempt)
        self._task = asyncio.get_running_loop().create_task(coroutine, name=f"agentnb {self.name}", context=self._context)

    def _unhost(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # --- the result

    def _make_result(self, final: RunFinished) -> CommandResult:
        detail, error = dict(final.detail), final.error
        kind = ErrorKind(error["kind"]) if error else None
        over = kind is ErrorKind.RESOURCE_LIMIT_EXCEEDED
        return CommandResult(
            command_id=self.id,
            name=self.name,
            spec=self.spec,
            status=self.status,
            command_status=CommandStatus.RESOURCE_LIMIT_EXCEEDED if over else _COMMAND_STATUS.get(self.status, CommandStatus.FAILED),
            reason=detail.get("reason"),
            retryable=kind is not None and RETRYABLE[kind],
            output=final.output,
            output_source=detail.get("output_source"),
            stdout_bytes=(final.stdout or {}).get("size", 0),
            stderr_bytes=(final.stderr or {}).get("size", 0),
            duration=final.run_s,
            usage=final.usage or {},
            exit_code=final.exit_code,
            signal=final.signal,
            error=error,
            validation=detail.get("validation") or (),
            metadata=_stamps(detail.get("metadata") or {}),
            warnings=detail.get("warnings") or (),
            attempts=final.attempts,
        ).reading(self._bytes)

    # --- how it shows itself

    def snapshot(self) -> RunSnapshot:
        """Its state now, as views show it."""
        final, usage, now = self._final, self._usage, time.time()
        started = self._started / 1e6 if self._started else None
        used = (final.usage if final else None) or {}
        streams = ((final.stdout or {}).get("size", 0), (final.stderr or {}).get("size", 0)) if final else (0, 0)
        elapsed = final.run_s if final else (now - started if started else None)
        return RunSnapshot(
            id=self.id,
            name=self.name,
            kind=self._kind,
            command=self._command,
            status="cancelling" if self._cancelling and final is None else self.status.value,
            created_at=self._created / 1e6,
            started_at=started,
            finished_at=final.at / 1e6 if final else None,
            elapsed_s=elapsed,
            attempt=self._attempt,
            exit_code=final.exit_code if final else None,
            error=final.error["message"] if final and final.error else None,
            params=self.params,
            cpu_s=used.get("cpu_time"),
            peak_memory_bytes=used.get("peak_memory_bytes"),
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            tokens_per_s=usage.tokens_per_s if usage else None,
            cost_usd=usage.cost_usd if usage else None,
            stdout_bytes=streams[0],
            stderr_bytes=streams[1],
            tail=tuple(self._final_tail(final)) if final else tuple(self._tail),
            tail_seq=self._tail_seq,
            warnings=tuple(final.detail.get("warnings") or ()) if final else tuple(self._warnings),
        )

    def _final_tail(self, final: RunFinished) -> list[Segment]:
        try:
            return self._reader().tail_segments(final)
        except OSError:  # the store was removed meanwhile; the view still shows the rest
            return list(self._tail)

    @property
    def version(self) -> int:
        """Rises with each change."""
        return self._version

    @property
    def tail_seq(self) -> int:
        """How many pieces of live output came so far."""
        return self._tail_seq

    def output_since(self, seq: int) -> tuple[int, list[Segment], bool]:
        """Live output after piece number `seq`: (new seq, pieces, whether some were lost and these are the whole tail)."""
        tail, now = list(self._tail), self._tail_seq
        new = now - seq
        if 0 <= new <= len(tail):
            return now, tail[len(tail) - new :], False
        return now, tail, True

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, on any thread, at the end; at once if that was already."""
        self._done.add_done_callback(lambda _: callback())

    def watch(self, *, on: bool) -> None:
        """Ask the engine for live output, or no longer."""
        if not self.done:
            self._client.send([requests.Watch([self.id], on)])

    def _ipython_display_(self) -> None:
        from agentnb.notebook.display import show
        from agentnb.notebook.sources import RunSource

        show(RunSource(self), loops.engine_loop())

    def __repr__(self) -> str:
        """One line: name, status, and why it failed."""
        status = "cancelling" if self._cancelling and not self.done else self.status.value
        why = f": {self.error['message']}" if self.error else ""
        return f"<RunHandle {self.name!r} {status}{why}>"


def _stamps(metadata: Json) -> Json:
    from datetime import UTC, datetime

    found = dict(metadata)
    for name in ("started_at", "completed_at"):
        if isinstance(found.get(name), int):
            found[name] = datetime.fromtimestamp(found[name] / 1e6, UTC)
    return found


def wait_all(runs: list[RunHandle], timeout: float | None, on_interrupt: OnInterrupt) -> None:
    """Block until all of `runs` have ended; see RunHandle.wait."""
    if on_interrupt not in ("cancel", "detach"):
        raise ValueError(f"on_interrupt: {on_interrupt!r} is neither 'cancel' nor 'detach'")
    ended = threading.Event()
    call_after_all(runs, ended.set)  # one wake-up for all of them
    try:
        if not ended.wait(timeout):
            live = [run.name for run in runs if not run.done]
            raise TimeoutError(f"{len(live)} of {len(runs)} runs had not ended after {timeout:g} s and go on: {', '.join(live[:3])}")
    except KeyboardInterrupt:
        if on_interrupt == "cancel":
            cancel_all(runs, "interrupted by the user")
            concurrent.futures.wait([run._done for run in runs], _patience(runs))
        raise


def call_after_all(runs: list[RunHandle], callback: Callable[[], None]) -> None:
    """Call `callback` once, on any thread, when all of `runs` have ended; at once if they have."""
    live = [run for run in runs if not run.done]
    left = itertools.count(len(live) - 1, -1)  # next() is atomic, whichever threads the runs end on
    if not live:
        callback()
    for run in live:
        run.when_done(lambda: callback() if next(left) == 0 else None)


def cancel_all(runs: list[RunHandle], reason: str) -> None:
    """Ask for the end of all of `runs` in one message."""
    live = [run for run in runs if not run.done]
    for run in live:
        run._cancelling = True
        run._version += 1
    by_client: dict[int, tuple[Client, list[str]]] = {}
    for run in live:
        by_client.setdefault(id(run._client), (run._client, []))[1].append(run.id)
    for client, ids in by_client.values():
        client.send([requests.Cancel(ids, reason)])


def _patience(runs: list[RunHandle]) -> float:
    return max((run._grace_s for run in runs), default=0.0) + _LADDER_S


async def await_all(runs: list[RunHandle]) -> None:
    """Await the end of all of `runs`; if the awaiting task is cancelled, cancel them and await their end first."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    left = [run for run in runs if not run.done]
    count = len(left)

    def one_ended() -> None:
        nonlocal count
        count -= 1
        if count == 0:
            ended.set()

    def notify(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(one_ended)

    if not left:
        return
    for run in left:
        run._done.add_done_callback(notify)
    try:
        while not ended.is_set():
            await _within(ended, _SLICE_S)
    except asyncio.CancelledError:
        cancel_all(left, "the cell or task that awaited it was interrupted or cancelled")
        deadline = loop.time() + _patience(left)
        while not ended.is_set() and loop.time() < deadline:
            await _within(ended, _SLICE_S)
        raise


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
