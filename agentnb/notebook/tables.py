"""The history of a whole store as DataFrames, of any session and any kernel, and comparing runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from agentnb.errors import ConfigError
from agentnb.history.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Location = str | os.PathLike[str] | None


def runs_df(*, store: Location = None, **filters: Any) -> pd.DataFrame:
    """Runs, one row each. `filters`: see agentnb.history.frames.frames (session, status, since, until, where, limit, columns, full ...).

    `store`: the store's folder; default AGENTNB_HOME, else ``./.agentnb``. Raises ConfigError for an unknown filter or column
    and StoreError when there is no store.
    """
    return _read("runs_df", store, filters)


def steps_df(*, store: Location = None, **filters: Any) -> pd.DataFrame:
    """Steps of runs (attempts, turns, tools, handlers, checks), one row each; see `runs_df`."""
    return _read("steps_df", store, filters)


def artifacts_df(*, store: Location = None, **filters: Any) -> pd.DataFrame:
    """Artifacts, one row each; see `runs_df`. ``full=True`` adds their bytes, verified."""
    return _read("artifacts_df", store, filters)


def events_df(*, store: Location = None, **filters: Any) -> pd.DataFrame:
    """Events in the order they were recorded, one row each; see `runs_df`."""
    return _read("events_df", store, filters)


def sessions_df(*, store: Location = None, **filters: Any) -> pd.DataFrame:
    """Sessions, one row each; see `runs_df`."""
    return _read("sessions_df", store, filters)


def compare(
    df: pd.DataFrame,
    by: Any,
    metric: Any = "run_s",
    *,
    baseline: Any = None,
    pair: Any = None,
    paired: bool | None = None,
    center: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Set groups of runs side by side: one row per group of equal values in the column(s) `by`, of any number, bool or timedelta `metric`.

    Counts, failures, median, p90, mean with its bootstrap interval, ratio and difference to the `baseline` (default: the first group) with
    theirs, an effect size, and a sentence: "B is 1.8x slower than A (1.6-2.1), 12 pairs". Runs are paired by the other ``param.*``
    columns when df is a grid of them, or by `pair`; ``paired=False`` forbids it. A DataFrame, which a notebook shows styled.
    All columns, options, definitions and errors: ``help(agentnb.history.comparing.compare.compare)``.
    """
    from agentnb.history.comparing.compare import compare as compare_frames
    from agentnb.notebook.comparison import styled

    options: dict[str, Any] = {"baseline": baseline, "pair": pair, "paired": paired, "center": center}
    return styled(compare_frames(df, by, metric, confidence=confidence, resamples=resamples, seed=seed, **options))


def plot_compare(df: pd.DataFrame, by: Any, metric: Any = "run_s", **options: Any) -> Figure:
    """Draw what `compare` compares: all values of each group, their median with its interval, lines between pairs, ratios at the side.

    `options`: those of `compare`, and `ax` (draw into these axes), `title`, `log` (a logarithmic axis; default: where values spread
    widely). A matplotlib figure, whose `alt` says in words what it shows. Raises what `compare` raises, and RuntimeUnavailable
    without matplotlib.
    """
    from agentnb.notebook.strips import plot_compare as plot

    return plot(df, by, metric, **options)


def waterfall(run: Any, *, store: Location = None, ax: Axes | None = None, title: str | None = None) -> Figure:
    """Draw the steps of a run of the history: each turn and tool on a row, when it was, how long it took, what it used, what failed.

    `run`: a RunHandle, or an id, a name (its newest run) or the start of an id in the store (default AGENTNB_HOME, else ``./.agentnb``).
    Also of a run that works, of a replay, and of one from long ago. `ax`: draw into these axes; `title`: instead of the run's name. A
    matplotlib figure, whose `alt` says in words what it shows. Raises ConfigError when no run is meant, StoreError when there is no
    store, RuntimeUnavailable without matplotlib.
    """
    from agentnb.notebook.handles import RunHandle
    from agentnb.notebook.launching import settle
    from agentnb.notebook.waterfall import waterfall as draw

    if isinstance(run, RunHandle):
        return run.waterfall(ax=ax, title=title)
    if not isinstance(run, str):
        raise ConfigError(f"waterfall: {type(run).__name__} is no run; give it a RunHandle, an id or a name")
    root = Store.locate(store)
    settle(root)
    return draw(root, run, ax=ax, title=title)


def typed(df: pd.DataFrame, frame: str | None = None) -> pd.DataFrame:
    """A DataFrame of the history that was read from a file, CSV for instance, with its dtypes; see agentnb.history.frames.typed.typed."""
    from agentnb.history.frames.typed import typed as with_dtypes

    return with_dtypes(df, frame)


def _read(name: str, store: Location, filters: dict[str, Any]) -> pd.DataFrame:
    from agentnb.history.frames import frames
    from agentnb.notebook.launching import settle

    root = Store.locate(store)
    settle(root)
    result: pd.DataFrame = getattr(frames, name)(root, **filters)
    return result
