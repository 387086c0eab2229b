"""Groups of runs: what a map returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from agentnb.notebook import loop as loops
from agentnb.notebook.budget import Budget, budget_at
from agentnb.notebook.exports import Exports
from agentnb.notebook.handles import RunHandle, live_runs
from agentnb.notebook.snapshot import GroupSnapshot
from agentnb.notebook.waiting import OnInterrupt, Timeout, await_all, call_after_all, cancel_all, wait_all
from agentnb.results import CommandResult

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from agentnb.events import Json
    from agentnb.notebook.session import Session


class RunGroup(Exports):
    """Runs that were launched together, in the order of their points; a sequence of RunHandle.

    As a cell's last line it shows itself live; ``wait()`` blocks until all have ended, ``await group`` awaits them.
    """

    def __init__(
        self,
        group_id: str,
        name: str,
        runs: list[RunHandle],
        root: Path,
        *,
        base: pd.DataFrame | None,
        rows: list[int],
        session: Session,
        budget: Json | None = None,
    ) -> None:
        """Made by Session.map. `base`: the DataFrame that was mapped over; `rows[i]`: which of its rows run i came from.

        `budget`: what the group may spend.
        """
        self.session = session
        self._bounds = budget
        self.id = group_id
        self.name = name
        self._runs = runs
        self._live = live_runs(runs)
        self._root = root
        self._base = base
        self._rows = rows

    def __len__(self) -> int:
        """How many runs."""
        return len(self._runs)

    def __iter__(self) -> Iterator[RunHandle]:
        """The runs in order."""
        return iter(self._runs)

    @overload
    def __getitem__(self, index: int) -> RunHandle: ...

    @overload
    def __getitem__(self, index: slice) -> list[RunHandle]: ...

    def __getitem__(self, index: int | slice) -> RunHandle | list[RunHandle]:
        """A run, or a list of runs for a slice."""
        return self._runs[index]

    @property
    def done(self) -> bool:
        """Whether all have ended."""
        return all(run.done for run in self._runs)

    @property
    def results(self) -> list[CommandResult | None]:
        """The results in order; None for a run that has not ended."""
        return [run.result for run in self._runs]

    @property
    def budget(self) -> Budget | None:
        """Its budget: what is spent, what remains; None when it has none of its own."""
        if self._bounds is None or not self._live:
            return None
        until = max(run.final.at for run in self._live if run.final) / 1e6 if self.done else None
        return budget_at("group", self._bounds, self._live[0].client.budgets.get(self.id), until)

    def counts(self) -> dict[str, int]:
        """How many runs have each status."""
        counts: dict[str, int] = {}
        for run in self._live:
            counts[run.shown_status] = counts.get(run.shown_status, 0) + 1
        return counts

    def wait(self, timeout: Timeout = None, *, on_interrupt: OnInterrupt = "cancel") -> RunGroup:
        """Block until all have ended and return the group; timeout and interrupts as in RunHandle.wait, for all of them."""
        wait_all(self._live, timeout, on_interrupt)
        return self

    def __await__(self) -> Generator[Any, None, RunGroup]:
        """``await group``: as `wait`."""
        return self._wait_async().__await__()

    async def _wait_async(self) -> RunGroup:
        await await_all(self._live)
        return self

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Ask for the end of all that have not ended; returns at once."""
        cancel_all(self._live, reason)

    def raise_for_status(self) -> RunGroup:
        """Return the group if every run completed; else raise what the first other run's result raises."""
        for run in self._runs:
            if run.result is None:
                raise RuntimeError(f"run {run.name!r} has not ended; wait for the group first")
            run.result.raise_for_status()
        return self

    def df(self) -> pd.DataFrame:
        """One row per run, in order, parameters as columns ``param.x``; mapped over a DataFrame, its columns stand beside them."""
        from agentnb.history.frames import frames
        from agentnb.notebook.launching import settle

        settle(self._root)
        return frames.group_df(self._root, [run.id for run in self._runs], self._base, rows=self._rows if self._base is not None else None)

    def timeline(self, **options: Any) -> Figure:
        """A Gantt chart of its runs, as Session.timeline."""
        from agentnb.history.frames import frames
        from agentnb.notebook.plots import timeline

        runs = self.df()
        steps = frames.steps_df(self._root, run=[run.id for run in self._runs])
        return timeline(runs.loc[:, ~runs.columns.duplicated()], steps, **({"title": self.name} | options))

    def plot_compare(self, by: Any, metric: Any = "run_s", **options: Any) -> Figure:
        """Its runs compared, as a chart: see agentnb.plot_compare."""
        from agentnb.notebook.strips import plot_compare

        return plot_compare(self.df(), by, metric, **options)

    def export(self, folder: str | os.PathLike[str], **options: Any) -> list[Path]:
        """Write each of its runs to a file of its own in `folder`, in order; returns their paths. All must have ended.

        Play them with ``session.map(nb.Replay("{{file}}"), [{"file": file} for file in files])``. Options and errors: as RunHandle.export.
        """
        from agentnb.notebook.export import write_all
        from agentnb.notebook.launching import settle

        settle(self._root)
        return write_all(self._root, [(run.id, run.name) for run in self._runs], folder, options)

    def _exported(self) -> dict[str, Any]:
        return {"store": self._root, "run": [run.id for run in self._runs]}

    def snapshot(self) -> GroupSnapshot:
        """Its state now, as views show it."""
        return GroupSnapshot(self.id, self.name, "group", [run.snapshot() for run in self._live], budget=self.budget)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, on any thread, when all have ended."""
        call_after_all(self._live, callback)

    def _ipython_display_(self) -> None:
        from agentnb.notebook.display import show
        from agentnb.notebook.sources import RunsSource

        show(RunsSource(lambda: self._live, self.snapshot, self.cancel, self.when_done, lambda: self.budget), loops.engine_loop())

    def __repr__(self) -> str:
        """One line: name and counts."""
        return f"<RunGroup {self.name!r} of {len(self._runs)}: {', '.join(f'{n} {status}' for status, n in self.counts().items())}>"
