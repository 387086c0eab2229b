"""What a session shows of the history: its own rows as DataFrames, and its timeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.notebook.exports import Exports
from agentnb.notebook.launching import settle

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class SessionHistory(Exports):
    """The history of one session; `store`: the folder, `id` and `name`: the session's."""

    store: Path
    id: str
    name: str

    def runs_df(self, **filters: Any) -> pd.DataFrame:
        """Its runs, one row each; `filters` as in agentnb.runs_df."""
        return self._frame("runs_df", filters)

    def steps_df(self, **filters: Any) -> pd.DataFrame:
        """The steps of its runs, one row each."""
        return self._frame("steps_df", filters)

    def artifacts_df(self, **filters: Any) -> pd.DataFrame:
        """The artifacts of its runs, one row each."""
        return self._frame("artifacts_df", filters)

    def events_df(self, **filters: Any) -> pd.DataFrame:
        """Its events, one row each."""
        return self._frame("events_df", filters)

    def sessions_df(self, **filters: Any) -> pd.DataFrame:
        """Its own row among the sessions."""
        return self._frame("sessions_df", filters)

    def _exported(self) -> dict[str, Any]:
        return {"store": self.store, "session": self.id}

    def _frame(self, name: str, filters: dict[str, Any]) -> pd.DataFrame:
        from agentnb.history.frames import frames

        settle(self.store)
        result: pd.DataFrame = getattr(frames, name)(self.store, **({"session": self.id} | filters))
        return result

    def timeline(self, **options: Any) -> Figure:
        """A Gantt chart of its runs: queue, attempts, steps, tools; its `alt` says it in words. `options`: `ax`, `title`.

        Raises RuntimeUnavailable without matplotlib.
        """
        from agentnb.notebook.plots import timeline

        return timeline(self.runs_df(), self.steps_df(), **({"title": self.name} | options))

    def plot_compare(self, by: Any, metric: Any = "run_s", **options: Any) -> Figure:
        """Its runs compared, as a chart: see agentnb.plot_compare."""
        from agentnb.notebook.strips import plot_compare

        return plot_compare(self.runs_df(), by, metric, **options)
