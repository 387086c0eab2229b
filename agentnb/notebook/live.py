"""A run as the engine tells of it: changed on the engine's loop thread, read from any."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agentnb import requests
from agentnb.events import (
    HostCancel,
    HostStart,
    Json,
    Message,
    OutputTail,
    RunFinished,
    RunRetrying,
    RunStarted,
    StepFinished,
    StepStarted,
    StepUsed,
    UsageReported,
    UsageSample,
)
from agentnb.notebook.aftermath import look_up
from agentnb.notebook.budget import Budget, budget_at
from agentnb.notebook.ending import End
from agentnb.notebook.hosting import Hosted, Make
from agentnb.notebook.load import Load
from agentnb.notebook.reading import OutputReader, log_record
from agentnb.notebook.snapshot import RunSnapshot, Segment
from agentnb.notebook.step_feed import StepFeed
from agentnb.states import RunStatus

if TYPE_CHECKING:
    from agentnb.engine.client import Client

_TAIL_PIECES = 400
_TAIL_CHARS = 16 * 1024

#: Versions only rise, whichever thread takes the next one.
_versions = itertools.count(1)


class LiveRun(End):
    """One run's state; it can be waited for. `version` rises with each change; `final` is its last event.

    `detached`: its supervisor goes on without this process.
    """

    detached = False

    __slots__ = (
        "_attempt", "_cancelling", "_final_tail", "_hosted", "_load", "_notes", "_observer", "_root", "_run", "_started", "_steps", "_tail",
        "_tail_chars", "_usage", "_waits", "_watchers", "client", "final", "grace_s", "id", "name", "status",
        "tail_seq", "version",
    )  # fmt: skip

    def __init__(self, client: Client, root: Path, run: Json, *, grace_s: float, hosted: Make | None = None) -> None:
        """`run`: as in requests.Launch; `root`: the store's folder; `hosted`: makes the coroutine of a run that lives in this process."""
        super().__init__()
        self.id: str = run["id"]
        self.name: str = run["name"]
        self.client = client
        self.grace_s = grace_s
        self.status = RunStatus.PENDING
        self.final: RunFinished | None = None
        self._root = root
        self.version = 0
        self.tail_seq = 0
        self._run = run
        self._hosted: Hosted | None = None
        if hosted is not None:
            self._hosted = Hosted(self.id, self.name, hosted, lambda report: client.send([requests.Report(run["id"], report)]), self.note)
        self._observer: Callable[[Message], None] | None = None
        self._started: int | None = None
        self._attempt = 0
        self._cancelling = False
        self._notes: tuple[str, ...] = ()
        self._waits: tuple[float, str] = (0.0, "")
        self._usage: UsageReported | None = None
        self._tail: deque[Segment] | None = None
        self._tail_chars = 0
        self._final_tail: tuple[Segment, ...] | None = None
        self._steps: StepFeed | None = None
        self._load: Load | None = None
        self._watchers = 0

    @property
    def launched(self) -> Json:
        """The run as in requests.Launch."""
        return self._run

    @property
    def output(self) -> OutputReader:
        """What reads its output."""
        return OutputReader(self._root, self)

    @property
    def trace_id(self) -> str | None:
        """The trace it belongs to."""
        return self._run.get("trace_id")

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.final is not None

    @property
    def attempt(self) -> int:
        """The attempt that runs, or ran last; 0 before the first."""
        return self._attempt

    @property
    def budget(self) -> Budget | None:
        """Its own budget, if it has one."""
        if (bounds := self._run.get("budget")) is None:
            return None
        return budget_at("run", bounds, self.client.budgets.get(self.id), self.final.at / 1e6 if self.final else None)

    def note(self, text: str) -> None:
        """A warning that the engine was told of, for views; at the end the engine tells it."""
        self._notes = tuple(dict.fromkeys([*self._notes, text]))
        self.version = next(_versions)

    @property
    def agent_session(self) -> str | None:
        """Under which its agent keeps the conversation; None when it told none."""
        return self._usage.agent_session if self._usage else None

    @property
    def shown_status(self) -> str:
        """Its status for people: ``cancelling`` from the request to the end."""
        return "cancelling" if self._cancelling and self.final is None else self.status.value

    # --- what is asked of it

    def note_cancelling(self) -> None:
        """Its end was asked for."""
        self._cancelling = True
        self.version = next(_versions)

    def observe(self, observer: Callable[[Message], None], prepare: Callable[[], object]) -> None:
        """Tell `observer` of every event before anybody else hears of it; `prepare` is called in the context of a hosted coroutine."""
        self._observer = observer
        if self._hosted is not None:
            self._hosted.prepare(prepare)

    def watch(self, *, on: bool) -> None:
        """Ask the engine for live output and steps, or no longer. Each view asks for itself; called on the loop thread."""
        self._watchers += 1 if on else -1
        if self.done or self._watchers != on:
            return
        if on and self._tail:  # the engine begins with the tail so far: whoever read the old one gets that whole
            self._tail.clear()
            self._tail_chars, self.tail_seq = 0, self.tail_seq + 1
        if not on and self._steps is not None:
            self._steps.unwatched()
        self.client.send([requests.Watch([self.id], on)])

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, on any thread, at the end; at once if that was already."""
        self.call(callback)

    # --- events, on the loop thread

    def on_event(self, event: Message) -> None:
        """The engine says something about this run."""
        unheard = None
        if self._started is None and isinstance(event, RunFinished):  # of a start and an end in one batch only the end is sent
            unheard = self._started = (event.detail.get("metadata") or {}).get("started_at")
        try:
            if self._observer is not None:
                if unheard is not None:
                    self._observer(RunStarted(self.id, at=unheard))
                self._observer(event)
        finally:  # an observer that fails holds up nothing
            self._take(event)

    def _take(self, event: Message) -> None:
        match event:
            case RunFinished():
                self._finish(event)
            case RunStarted():
                self.status, self._started, self._attempt = RunStatus.RUNNING, event.at, 1
            case OutputTail():
                self._add_tail(event)
            case UsageReported():
                self._usage = event
            case UsageSample() | StepStarted() | StepFinished() | StepUsed():
                self._look(event)
            case RunRetrying():
                self._attempt = event.attempt
                self._waits = (event.at / 1e6 + event.delay_s, waiting(event))
            case HostStart() if self._hosted is not None:
                self._hosted.start(event.attempt)
            case HostCancel() if self._hosted is not None:
                self._hosted.cancel()
        self.version = next(_versions)

    def _look(self, event: UsageSample | StepStarted | StepFinished | StepUsed) -> None:
        """What only who watches the run is told."""
        if isinstance(event, UsageSample):
            self._load = (self._load or Load()).taken(event)
        elif self._steps is not None:
            self._steps.on_event(event)

    def on_lost(self, message: str) -> None:
        """The supervisor is gone: because it died, or because it was done. The history, not the loss, says what became of the run."""
        if self._hosted is not None:
            self._hosted.cancel()
        look_up(self, message)

    def give_up(self, message: str) -> None:
        """The history knows nothing of its end."""
        if self.done:
            return
        running = self.status is RunStatus.RUNNING
        final = RunFinished(self.id, "interrupted" if running else "cancelled", attempts=self._attempt)
        final.error = {"kind": "interrupted", "message": message}
        final.stdout = log_record(self._root, self.id, "stdout", self._attempt)
        final.stderr = log_record(self._root, self.id, "stderr", self._attempt)
        self.on_event(final)

    def _finish(self, event: RunFinished) -> None:
        self.status = RunStatus(event.status)
        self._attempt = event.attempts
        self.final = event
        self.version = next(_versions)
        if not self.come:
            self.announce()

    def _add_tail(self, event: OutputTail) -> None:
        if self._tail is None:
            self._tail = deque()
        tail = self._tail
        for stream, text in event.segments:
            tail.append((stream, text))
            self.tail_seq += 1
            self._tail_chars += len(text)
        while len(tail) > 1 and (len(tail) > _TAIL_PIECES or self._tail_chars > _TAIL_CHARS):
            self._tail_chars -= len(tail.popleft()[1])

    # --- what views look at

    def output_since(self, seq: int) -> tuple[int, list[Segment], bool]:
        """Live output after piece number `seq`: (new seq, pieces, whether some were lost and these are the whole tail)."""
        now, tail = self.tail_seq, list(self._tail or ())
        new = now - seq
        if 0 <= new <= len(tail):
            return now, tail[len(tail) - new :], False
        return now, tail, True

    def detail(self) -> RunSnapshot:
        """Its state now, with its steps as far as they are known; to be asked for what is looked at only."""
        if self._steps is None:
            self._steps = StepFeed(self._root, self.id, self.client, self._changed)
        log = self._steps.log(watched=self._watchers > 0, done=self.done)
        return replace(self.snapshot(), steps=log.shown(), steps_cut=log.cut)

    def _changed(self) -> None:
        self.version = next(_versions)

    def snapshot(self) -> RunSnapshot:
        """Its state now, as views show it, but for its steps."""
        final, run, usage, target = self.final, self._run, self._usage, self._run["target"]
        started = self._started / 1e6 if self._started else None
        used = (final.usage if final else None) or {}
        return RunSnapshot(
            id=self.id,
            name=self.name,
            kind=target["kind"],
            command=target["display"],
            status=self.shown_status,
            created_at=run["created_at"] / 1e6,
            started_at=started,
            finished_at=final.at / 1e6 if final else None,
            elapsed_s=final.run_s if final else (time.time() - started if started else None),
            attempt=self._attempt,
            exit_code=final.exit_code if final else None,
            error=final.error["message"] if final and final.error else None,
            params=run["params"],
            cpu_s=used.get("cpu_time"),
            peak_memory_bytes=used.get("peak_memory_bytes"),
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            tokens_per_s=usage.tokens_per_s if usage else None,
            cost_usd=usage.cost_usd if usage else None,
            stdout_bytes=_size(final.stdout) if final else 0,
            stderr_bytes=_size(final.stderr) if final else 0,
            tail=self._last_output(final) if final else tuple(self._tail or ()),
            tail_seq=self.tail_seq,
            warnings=tuple(final.detail.get("warnings") or ()) if final else self._notes,
            budget=self.budget,
            replay_of=run.get("replay_of"),
            reused_from=run.get("reused_from"),
            note=self._waits[1] if final is None and time.time() < self._waits[0] else "",
            turns=usage.turns if usage else None,
            model=usage.model if usage else None,
            **(self._load.shown() if self._load else {}),
        )

    def _last_output(self, final: RunFinished) -> tuple[Segment, ...]:
        if self._final_tail is None:  # read once: views and groups ask several times a second
            try:
                self._final_tail = tuple(self.output.tail_segments(final))
            except OSError:  # the store was removed meanwhile; the view still shows the rest
                self._final_tail = tuple(self._tail or ())
        return self._final_tail


def waiting(event: RunRetrying) -> str:
    """What a run waits for between two attempts."""
    far = event.delay_s > 12 * 3600
    what = "for the rate limit until" if (event.error or {}).get("kind") == "rate_limited" else f"for attempt {event.attempt} until"
    try:
        until = datetime.fromtimestamp(event.at / 1e6 + event.delay_s).astimezone()
    except (ValueError, OverflowError, OSError):  # later than any calendar goes
        return f"{what} the end of days"
    return f"{what} {until:%Y-%m-%d %H:%M}" if far else f"{what} {until:%H:%M:%S}"


def _size(record: Json | None) -> int:
    return record["size"] if record else 0
