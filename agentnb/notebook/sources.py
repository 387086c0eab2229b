"""What views look at: runs, groups and sessions behind one protocol (display.ViewSource)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentnb.notebook.budget import Budget
from agentnb.notebook.live import LiveRun
from agentnb.notebook.snapshot import RunSnapshot, Segment, Snapshot
from agentnb.notebook.waiting import cancel_all


class RunSource:
    """One run."""

    def __init__(self, run: LiveRun) -> None:
        """Look at `run`."""
        self._run = run

    def snapshot(self) -> RunSnapshot:
        """Its state now, with its steps."""
        return self._run.detail()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._run.done

    def detail(self, run_id: str) -> RunSnapshot | None:
        """The same, if it is this run."""
        return self._run.detail() if run_id == self._run.id else None

    def version(self) -> int:
        """Rises with each change."""
        budget = self._run.budget
        return self._run.version + (budget.version if budget else 0)

    def output_since(self, run_id: str, seq: int) -> tuple[int, list[Segment], bool]:
        """Its live output after piece `seq`."""
        return self._run.output_since(seq) if run_id == self._run.id else (seq, [], False)

    def watch(self, run_ids: list[str], on: bool) -> None:  # noqa: FBT001 - the protocol of display.ViewSource
        """Ask for live output, or no longer."""
        if self._run.id in run_ids:
            self._run.watch(on=on)

    def request_cancel(self, run_ids: list[str] | None) -> None:
        """Ask for its end."""
        if run_ids is None or self._run.id in run_ids:
            cancel_all([self._run], "cancelled in its view")

    def call_when_done(self, callback: Callable[[], None]) -> None:
        """Call back at its end."""
        self._run.when_done(callback)


class RunsSource:
    """Several runs: a group, or a session's."""

    def __init__(
        self,
        runs: Callable[[], Sequence[LiveRun]],
        snapshot: Callable[[], Snapshot],
        cancel: Callable[[str], None],
        when_done: Callable[[Callable[[], None]], None],
        budget: Callable[[], Budget | None],
        *,
        is_open: Callable[[], bool] = lambda: False,
    ) -> None:
        """`runs` may grow while the view is open: as long as `is_open` says so, also when all have ended."""
        self._is_open = is_open
        self._budget = budget
        self._runs = runs
        self._snapshot = snapshot
        self._cancel = cancel
        self.call_when_done = when_done

    def snapshot(self) -> Snapshot:
        """Their state now."""
        return self._snapshot()

    def done(self) -> bool:
        """Whether all have ended, and no other one can come."""
        return not self._is_open() and all(run.done for run in self._runs())

    def detail(self, run_id: str) -> RunSnapshot | None:
        """One of them with its steps."""
        found = self._find([run_id])
        return found[0].detail() if found else None

    def version(self) -> int:
        """Rises with each change of any of them."""
        runs = self._runs()
        budget = self._budget()
        return sum(run.version for run in runs) + len(runs) + (budget.version if budget else 0)

    def output_since(self, run_id: str, seq: int) -> tuple[int, list[Segment], bool]:
        """Live output of one of them after piece `seq`."""
        found = self._find([run_id])
        return found[0].output_since(seq) if found else (seq, [], False)

    def watch(self, run_ids: list[str], on: bool) -> None:  # noqa: FBT001 - the protocol of display.ViewSource
        """Ask for live output of these, or no longer."""
        for run in self._find(run_ids):
            run.watch(on=on)

    def request_cancel(self, run_ids: list[str] | None) -> None:
        """Ask for the end of these, or of all."""
        if run_ids is None:
            self._cancel("cancelled in its view")
        else:
            cancel_all(self._find(run_ids), "cancelled in its view")

    def _find(self, run_ids: Sequence[str]) -> list[LiveRun]:
        wanted = set(run_ids)
        return [run for run in self._runs() if run.id in wanted]
