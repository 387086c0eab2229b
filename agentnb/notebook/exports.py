"""Handing the history to other tools: JSON lines, OpenTelemetry, Parquet datasets, MLflow.

``export`` makes recordings of runs, which agentnb plays again; these make what others read.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from agentnb.errors import ConfigError
from agentnb.history.store import Store
from agentnb.notebook.launching import settle

Location = str | os.PathLike[str] | None
_File = str | os.PathLike[str]


def to_jsonl(file: _File, table: str = "events", *, overwrite: bool = False, store: Location = None, **filters: Any) -> Path:
    """Write the events, or another `table` (runs, steps, artifacts, sessions), to a file of JSON lines, one object each; returns its path.

    An event is ``{"seq", "at", "type", "session_id", "group_id", "run_id", "step_id", "data"}``; other rows have the columns of their
    DataFrame. Stamps are ISO 8601 in UTC, durations seconds. Memory stays small for any number. `filters`: as those of ``events_df`` (or
    of the table's), ``columns`` and ``full`` too. `store`: the store's folder; default AGENTNB_HOME, else ``./.agentnb``. The file is
    written whole or not at all. Raises ConfigError for what makes no sense and for a file that is there (unless `overwrite`), StoreError.
    """
    from agentnb.history.exporting.jsonl import write_jsonl

    target, root = _path(file, "to_jsonl"), _root(store)
    write_jsonl(root, target, table, filters, overwrite=overwrite)  # type: ignore[arg-type]
    return target


def to_otlp(
    file: _File, *, content: bool = False, service: str = "agentnb", overwrite: bool = False, store: Location = None, **filters: Any
) -> Path:
    """Write ended runs and their steps as OpenTelemetry spans to a file of OTLP/JSON lines; returns its path. Needs no OpenTelemetry.

    Each line is an ExportTraceServiceRequest: the collector's otlpjsonfile receiver reads the file, and an OTLP endpoint takes a line by
    POST to ``/v1/traces``. Names follow the semantic conventions for generative AI: invoke_agent, execute_tool, chat. `content`: also
    what went into runs, turns and tools and what came out (texts are cut to 16,384 characters); `service`: service.name. Runs that are
    live are left out. `filters`: those of ``runs_df`` (session, group, run, status, since, until, where, limit). Errors: as `to_jsonl`.
    """
    from agentnb.history.exporting.otlp import write_otlp

    if not isinstance(service, str) or not service:
        raise ConfigError(f"to_otlp: service={service!r} must be a text that is not empty")
    target, root = _path(file, "to_otlp"), _root(store)
    write_otlp(root, target, filters, content=content, service=service, overwrite=overwrite)  # type: ignore[arg-type]
    return target


def to_parquet(folder: _File, *, store: Location = None, **filters: Any) -> Path:
    """Make `folder` a dataset of Parquet files, which duckdb and polars read with one glob a table; returns its path. Needs pyarrow.

    Read it with ``SELECT * FROM 'folder/runs/**/*.parquet'`` in duckdb (where the column "at" needs its quotes),
    ``polars.scan_parquet("folder/runs")`` or ``pandas.read_parquet("folder/runs")``.
    ``folder/runs/day=2026-11-22/runs.parquet``, and so steps, artifacts and events, by the day (UTC) of their run's launch; also
    ``folder/sessions/sessions.parquet``. Columns and dtypes are those of the DataFrames (categories as text), with their meanings in the
    schema; parameters and tags are JSON texts, `params` and `tags`; an event has its `data`; output and artifacts' bytes stay in the store.
    Runs are chosen by `filters` as in ``runs_df``, all that belongs to them comes along; live ones as they are now. Exporting to the
    same folder again writes only days on which something changed, replaces files whole, and removes days that are not chosen any more.
    Raises ConfigError for a folder that holds something else, RuntimeUnavailable without pyarrow, StoreError.
    """
    from agentnb.history.exporting.dataset import write_parquet

    target, root = _path(folder, "to_parquet"), _root(store)
    write_parquet(root, target, filters)  # type: ignore[arg-type]
    return target


def to_mlflow(
    experiment: str | None = None,
    *,
    tracking_uri: str | None = None,
    artifacts: bool = False,
    store: Location = None,
    **filters: Any,
) -> dict[str, str]:
    """Bring runs into a tracking store of MLflow; returns the id there of each run's id here. Needs the extra ``agentnb[mlflow]``.

    `experiment`: its name; default: for each run the name of its session. `tracking_uri`: such as ``sqlite:///mlflow.db`` or a server's
    address; default: MLflow's own (MLFLOW_TRACKING_URI). Parameters become params; durations, usage, tokens, cost and the numbers of the
    output metrics; figures of steps metrics with a history (``turn.output_tokens``); the rest tags. Child runs are nested.
    ``artifacts=True`` copies artifacts and output, too. Exporting again doubles nothing: a run is found by its tag ``agentnb.run_id``,
    and what has not ended is brought up to date. What MLflow has no room for is cut, and tags say so. `filters`: as in ``runs_df``.
    Raises ConfigError for what makes no sense, RuntimeUnavailable without mlflow, StoreError when a store cannot be read or written.
    """
    from agentnb.history.exporting.tracking import write_mlflow

    return write_mlflow(_root(store), filters, experiment=experiment, tracking_uri=tracking_uri, artifacts=artifacts)  # type: ignore[arg-type]


class Exports(ABC):
    """What a session and a group can hand to other tools: their own runs."""

    @abstractmethod
    def _exported(self) -> dict[str, Any]:
        """The store, and the filters that choose what is theirs."""

    def to_jsonl(self, file: _File, table: str = "events", **options: Any) -> Path:
        """Write its events, or another table, to a file of JSON lines; see agentnb.to_jsonl."""
        return to_jsonl(file, table, **(self._exported() | options))

    def to_otlp(self, file: _File, **options: Any) -> Path:
        """Write its ended runs and their steps as OpenTelemetry spans to a file of OTLP/JSON lines; see agentnb.to_otlp."""
        return to_otlp(file, **(self._exported() | options))

    def to_parquet(self, folder: _File, **filters: Any) -> Path:
        """Make `folder` a dataset of Parquet files of its history; see agentnb.to_parquet."""
        return to_parquet(folder, **(self._exported() | filters))

    def to_mlflow(self, experiment: str | None = None, **options: Any) -> dict[str, str]:
        """Bring its runs into a tracking store of MLflow; see agentnb.to_mlflow."""
        return to_mlflow(experiment, **(self._exported() | options))


def _root(store: Location) -> Path:
    root = Store.locate(store)
    settle(root)
    return root


def _path(path: _File, what: str) -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in os.fspath(path):
        raise ConfigError(f"{what}: {path!r} is no path; write such as {what}('exported/{what[3:]}')")
    return Path(path).expanduser().absolute()
