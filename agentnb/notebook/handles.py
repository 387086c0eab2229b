"""Handles of runs: what a launch returns, kept up to date by the engine's events."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agentnb import requests
from agentnb.agents.compile import check_text
from agentnb.errors import ConfigError
from agentnb.events import Json
from agentnb.history import reader
from agentnb.notebook import loop as loops
from agentnb.notebook.budget import Budget
from agentnb.notebook.live import LiveRun
from agentnb.notebook.outcome import make_result
from agentnb.notebook.reading import Stream
from agentnb.notebook.snapshot import RunSnapshot
from agentnb.notebook.waiting import OnInterrupt, Timeout, await_all, cancel_all, wait_all
from agentnb.results import CommandError, CommandResult
from agentnb.states import RunStatus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agentnb.model import Artifact, Step
    from agentnb.notebook.replying import Origin

_SETTLE_S = 10.0
_SHOWN_NAME = 100


class RunHandle:
    """One run. As a cell's last line it shows itself live; ``wait()`` blocks until its end, ``await run`` awaits it.

    Its attributes may be read at any time: `id`, `name`, `status` (a RunStatus), `result` (None until the end), `stdout`,
    `stderr`, `output`, `error`, `steps`, `artifacts`, `params`.
    """

    __slots__ = ("_origin", "_result", "_root", "_run", "params", "session_id", "spec")

    def __init__(self, run: LiveRun, root: Path, launched: Json, origin: Origin | None = None) -> None:
        """Made by Session.launch. `root`: the store's folder; `launched`: the run as in requests.Launch; `origin`: by whom, and how."""
        self._origin = origin
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
    def reused_from(self) -> str | None:
        """The id of the completed run that was returned instead of running this one; None for one that ran."""
        found: str | None = self._run.launched.get("reused_from")
        return found

    @property
    def resumed_from(self) -> str | None:
        """The id of the run that was cut off, and that this one was launched again for; None for any other."""
        found: str | None = self._run.launched.get("resumed_from")
        return found

    @property
    def budget(self) -> Budget | None:
        """Its budget: what is spent, what remains; None when it has none of its own."""
        return self._run.budget

    @property
    def agent_session(self) -> str | None:
        """The id under which its agent keeps the conversation, for ``resume=``; None when it told none."""
        if self._run.agent_session is None and self.done:  # attached to after its agent told it
            found: str | None = reader.read_run(self._root, self.id).get("agent_session")
            return found
        return self._run.agent_session

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
        """Its steps so far (attempts, turns, tools, handlers, checks), from the history. Raises StoreError once it was removed there."""
        from agentnb.notebook.records import step_record

        self._settle()
        return [step_record(row) for row in self._known(reader.read_steps(self._root, self.id))]

    @property
    def artifacts(self) -> list[Artifact]:
        """Its artifacts so far, from the history. Raises StoreError when it was removed from there."""
        from agentnb.notebook.records import artifact_record

        self._settle()
        return [artifact_record(row) for row in self._known(reader.read_artifacts(self._root, self.id))]

    def _known(self, rows: list[Json]) -> list[Json]:
        """The rows; none may also mean that a gc removed the run, which raises StoreError."""
        if not rows and self.done:
            reader.check_known(self._root, self.id)
        return rows

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

    def export(self, file: str | os.PathLike[str], **options: Any) -> Path:
        """Write this finished run to one file, which ``session.replay(file)`` plays without key or network; returns its path.

        The file has its events and output with their times, and its artifacts, but neither the machine's name nor folders of it that
        agentnb itself notes; what the run printed, its command and its artifacts are in it as they are (secrets are masked, but in files):
        look before publishing, and leave out with ``artifacts=False`` what names folders, such as the raw stream of claude.
        Options: ``artifacts=True`` (their bytes, too), ``max_artifact_bytes="10MiB"`` (of a larger one only the checksum, with a warning),
        ``params=True``, ``overwrite=False``. Raises ConfigError for a run that has not ended or a file that is there, StoreError.
        """
        from agentnb.notebook.export import write

        self._settle()
        return write(self._root, self.id, file, options)

    def waterfall(self, **options: Any) -> Figure:
        """Its steps so far as a chart: each turn and tool on a row, when it was, how long it took, what it used, and what failed.

        `options`: `ax` and `title`. agentnb.waterfall draws any run of the history. Raises RuntimeUnavailable without matplotlib.
        """
        from agentnb.notebook.waterfall import waterfall

        self._settle()
        return waterfall(self._root, self.id, **options)

    # --- its workspace

    @property
    def workspace(self) -> Path | None:
        """The folder of its workspace; None when it has none (any more, or yet)."""
        from agentnb.notebook import changes

        self._settle()
        return changes.folder(self._root, self.id)

    @property
    def diff(self) -> str:
        """What changed in its workspace, as a patch in text; "" for nothing. Of a run that was cut off, what is in its folder now.

        Raises ConfigError for a run that has no workspace or is not over, StoreError when nothing is known of the changes.
        """
        from agentnb.notebook import changes

        self._settle()
        return changes.patch(self._root, self.id).decode("utf-8", "replace")

    def apply(self, repo: str | os.PathLike[str] | None = None) -> list[str]:
        """Bring what changed in its workspace into the files of the checkout or folder it was made of, or of `repo`; returns their names.

        Only files are changed: nothing is staged, nothing committed, no branch moved. A file that changed there meanwhile is merged;
        when that cannot be done ApplyConflict names the files, and nothing at all is changed. Raises ConfigError for a run that has
        no workspace, is not over, worked in a shared folder or whose changes are there already; StoreError, RuntimeUnavailable without git.
        """
        from agentnb.notebook import changes

        self._settle()
        return changes.apply(self._root, self.id, repo)

    def reply(self, text: str, **options: Any) -> RunHandle:
        """Launch a run of the same session that goes on with `text` where this one ended; returns at once.

        It has the options of this run (timeout, env, working_dir, limits ...) unless `options` say otherwise; they may also change fields
        of its spec, such as ``model=``. Its tag ``reply_to`` is this run's id. `text` is no template. Raises ConfigError when this run has
        not ended, was not launched by this process, or is of a kind that has no conversations.
        """
        from agentnb.notebook.replying import reply

        return reply(self, self._origin, text, options)

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
        mark = " (reused)" if self.reused_from else " (replay)" if self._run.launched.get("replay_of") else ""
        return f"<RunHandle {name!r} {self._run.shown_status}{mark}{why}>"


def live_runs(handles: list[RunHandle]) -> list[LiveRun]:
    """What is behind these handles, for groups and sessions."""
    return [handle._run for handle in handles]  # noqa: SLF001 - the other half of the handle
