"""The history of a whole store as DataFrames, of any session and any kernel, and comparing runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from agentnb.history.store import Store

if TYPE_CHECKING:
    import pandas as pd

Location = str | os.PathLike[str] | None


def runs_df(*, store: Location = None, **filters: Any) -> pd.DataFrame:
    """Runs, one row each. `filters`: see agentnb.history.frames (session, status, since, until, where, limit, columns, full ...).

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


def compare(df: pd.DataFrame, by: str | list[str], metric: str = "run_s", **options: Any) -> pd.DataFrame:
    """Compare groups of runs by a metric; see agentnb.history.compare.compare for options and columns."""
    from agentnb.history.compare import compare as compare_frames

    return compare_frames(df, by, metric, **options)


def _read(name: str, store: Location, filters: dict[str, Any]) -> pd.DataFrame:
    from agentnb.history import frames
    from agentnb.notebook.launching import settle

    root = Store.locate(store)
    settle(root)
    result: pd.DataFrame = getattr(frames, name)(root, **filters)
    return result
