"""Handles of runs: what a launch returns, kept up to date by the engine's events."""

from __future__ import annotations

import concurrent.futures
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agentnb import requests
from agentnb.agents.compile import check_text
from agentnb.errors import ConfigError
from agentnb.events import Json
from agentnb.history import reader
from agentnb.notebook import loop as loops
from agentnb.notebook.live import LiveRun
from agentnb.notebook.outcome import make_result
from agentnb.notebook.reading import Stream
from agentnb.notebook.snapshot import RunSnapshot
from agentnb.notebook.waiting import OnInterrupt, Timeout, await_all, cancel_all, wait_all
from agentnb.results import CommandError, CommandResult
from agentnb.states import RunStatus

if TYPE_CHECKING:
    from agentnb.model import Artifact, Step

_SETTLE_S = 10.0
_SHOWN_NAME = 100


class RunHandle:
    """One run. As a cell's last line it shows itself live; ``wait()`` blocks until its end, ``await run`` awaits it.

    Its attributes may be read at any time: `id`, `name`, `status` (a RunStatus), `result` (None until the end), `stdout`,
    `stderr`, `output`, `error`, `steps`, `artifacts`, `params`.
    """

    __slots__ = ("_result", "_root", "_run", "params", "session_id", "spec")

    def __init__(self, run: LiveRun, root: Path, launched: Json) -> None:
        """Made by Session.launch. `root`: the store's folder; `launched`: the run as in requests.Launch."""
        self._run = run
        self._root = root
        self._result: CommandResult | None = None
        self.session_id: str = launched["session_id"]
        self.params: dict[str, Any] = launched["params"]
        self.spec: dict[str, Any] = launched["target"]["spec"]

    # --- what it is

    @property
    def id(self) -> str:
        """Its id; later runs sort later."""
        return self._run.id

    @property
    def name(self) -> str:
        """Its name: the one given, or the start of its command."""
        return self._run.name

    @property
    def trace_id(self) -> str | None:
        """The W3C trace id, 32 hexadecimal digits, under which its processes (TRACEPARENT) and its span can be found."""
        return self._run.trace_id

    @property
    def status(self) -> RunStatus:
        """Where it stands."""
        return self._run.status

    @property
    def result(self) -> CommandResult | None:
        """The outcome; None until the run has ended."""
        final = self._run.final
        if self._result is None and final is not None:
            self._result = make_result(final, name=self.name, spec=self.spec, root=self._root, trace_id=self.trace_id)
        return self._result

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._run.done

    @property
    def error(self) -> CommandError | None:
        """Why it did not succeed (`kind`, `message`, `details`); None while it runs and when it completed."""
        error = self._run.final.error if self._run.final else None
        return CommandError(**error) if error else None

    @property
    def output(self) -> Any:
        """Its structured output: what a Python agent returned, a model's answer, JSON that was found in stdout."""
        return self._run.final.output if self._run.final else None

    @property
    def stdout(self) -> str:
        """All of its stdout so far, as text. Raises StoreError when it cannot be read."""
        return self._run.output.read("stdout").decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """All of its stderr so far, as text. Raises StoreError when it cannot be read."""
        return self._run.output.read("stderr").decode("utf-8", "replace")

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

    def wait(self, timeout: Timeout = None, *, on_interrupt: OnInterrupt = "cancel") -> CommandResult:
        """Block until it has ended and return its result; a failed run raises nothing here.

        After `timeout` (seconds, or text such as "5m") TimeoutError is raised, and the run goes on. An interrupt (stop button)
        cancels the run, waits for its end and is raised again; with ``on_interrupt="detach"`` the run goes on. Raises
        RuntimeError on an agent's loop thread, and in a forked copy of the process.
        """
        wait_all([self._run], timeout, on_interrupt)
        return cast("CommandResult", self.result)

    def __await__(self) -> Generator[Any, None, CommandResult]:
        """``await run``: as `wait`. When the awaiting task is cancelled or interrupted, the run is too."""
        return self._wait_async().__await__()

    async def _wait_async(self) -> CommandResult:
        await await_all([self._run])
        return cast("CommandResult", self.result)

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Ask for its end; returns at once. The whole process tree gets SIGTERM, then SIGKILL after the grace period."""
        cancel_all([self._run], reason)

    # --- its output and input

    def tail(self, n: int = 20) -> str:
        """The last `n` lines of its output so far; lines of stderr follow those of stdout where their order is not known."""
        return self._run.output.tail(n)

    async def lines(self, stream: Stream = "stdout") -> AsyncIterator[str]:
        """The lines of a stream from its beginning, each as it comes, without its line end; ends with the run."""
        async for line in self._run.output.lines(stream):
            yield line

    def send(self, text: str, *, eof: bool = False) -> None:
        """Write `text` to its stdin, which must have been kept open (``stdin=True``); `eof` closes it after that.

        Returns when the text is written. Raises RuntimeError when the run has no open stdin or ends before it has read it.
        """
        loops.refuse_to_block("send()")
        if not isinstance(text, str):
            raise ConfigError(f"send: {type(text).__name__} is no text; decode bytes first")
        check_text("send", text)
        reply = self._run.client.request(lambda number: requests.SendInput(number, self.id, text, eof))
        try:
            reply.result()
        except RuntimeError as bad:
            raise RuntimeError(f"run {self.name!r}: {bad}") from None

    def _settle(self) -> None:
        """Wait until what is known of it is in the history."""
        client = self._run.client
        if client.alive and not loops.on_loop_thread():
            try:
                client.request(requests.Ping).result(_SETTLE_S)
            except (RuntimeError, concurrent.futures.TimeoutError):  # it died: what is in the history is all there is
                return

    # --- how it shows itself

    def snapshot(self) -> RunSnapshot:
        """Its state now, as views show it."""
        return self._run.snapshot()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, on any thread, at the end; at once if that was already."""
        self._run.when_done(callback)

    def _ipython_display_(self) -> None:
        from agentnb.notebook.display import show
        from agentnb.notebook.sources import RunSource

        show(RunSource(self._run), loops.engine_loop())

    def __repr__(self) -> str:
        """One line: name, status, and why it failed."""
        why = f": {self.error.message}" if self.error else ""
        name = self.name if len(self.name) <= _SHOWN_NAME else f"{self.name[: _SHOWN_NAME - 1]}…"
        return f"<RunHandle {name!r} {self._run.shown_status}{why}>"


def live_runs(handles: list[RunHandle]) -> list[LiveRun]:
    """What is behind these handles, for groups and sessions."""
    return [handle._run for handle in handles]  # noqa: SLF001 - the other half of the handle
