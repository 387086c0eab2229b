"""Runs of the history as runs of MLflow: parameters, metrics, tags, children, and artifacts where they are asked for (needs mlflow).

A run is found again by its tag ``agentnb.run_id``, so that exporting twice doubles nothing. What MLflow cannot hold is cut or renamed, and
the tags ``agentnb.cut``, ``agentnb.renamed`` and ``agentnb.left_out`` say so. Nothing is sent anywhere but to the tracking store.
"""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.errors import ConfigError, RuntimeUnavailable, StoreError
from agentnb.history.exporting import tracked_files
from agentnb.history.exporting.selection import opened, pick_runs, records
from agentnb.history.exporting.tracked import Figure, Tracked
from agentnb.history.frames.filters import Filters

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: One request to MLflow may have 100 parameters, 100 tags, 1000 things in all, and 1 MB.
_PER_BATCH, _METRICS_PER_BATCH, _BYTES_PER_BATCH = 100, 800, 400_000
_RUN_ID, _DONE, _PARENT = "agentnb.run_id", "agentnb.exported", "mlflow.parentRunId"
_STATUS = {
    "pending": "SCHEDULED",
    "running": "RUNNING",
    "completed": "FINISHED",
    "failed": "FAILED",
    "timeout": "FAILED",
    "cancelled": "KILLED",
    "interrupted": "KILLED",
}
_PICKED = "SELECT id FROM picked ORDER BY at, id"
_RUN = "SELECT r.*, s.name AS session FROM runs r LEFT JOIN sessions s ON s.id = r.session_id WHERE r.id = ?"
_STEPS = "SELECT * FROM steps WHERE run_id = ? ORDER BY rowid"


def write_mlflow(root: Path, given: Filters, *, experiment: str | None, tracking_uri: str | None, artifacts: bool) -> dict[str, str]:
    """Bring the runs that the filters choose into a tracking store of MLflow; returns the id there of each run's id here.

    `experiment`: its name; None: of each session's runs, the session's name. `tracking_uri`: None is what MLflow itself takes. A live run
    is RUNNING there, and gets its metrics when it is exported again after its end. Raises ConfigError for what makes no sense,
    RuntimeUnavailable without mlflow, StoreError when a store cannot be read or written.
    """
    for name, value in (("experiment", experiment), ("tracking_uri", tracking_uri)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise ConfigError(f"to_mlflow: {name}={value!r} must be a text that is not empty")
    with opened(root) as db, _mlflow() as client_of:
        pick_runs(db, given)
        export = _Export(root, db, client_of(tracking_uri=tracking_uri), experiment, artifacts=artifacts)
        ids = [run_id for (run_id,) in db.execute(_PICKED)]  # each run is read when it is its turn: a server may be slow
        return {run["id"]: export.run(run) for run_id in ids for run in list(records(db, _RUN, (run_id,)))}


@contextmanager
def _mlflow() -> Iterator[type[MlflowClient]]:
    """MLflow's client; while the block runs its usage statistics are off, and its deprecation warnings are its own affair."""
    before = os.environ.get("MLFLOW_DISABLE_TELEMETRY")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            try:
                from mlflow.exceptions import MlflowException
                from mlflow.tracking import MlflowClient
            except ImportError as bad:
                raise _missing(bad) from None
            try:
                yield MlflowClient
            except ImportError as bad:  # a store in a database needs more than a folder does
                raise _missing(bad) from None
            except (MlflowException, OSError) as bad:
                raise StoreError(f"to_mlflow: the tracking store refused it: {bad}; check tracking_uri=, or MLFLOW_TRACKING_URI") from bad
    finally:
        if before is None:
            del os.environ["MLFLOW_DISABLE_TELEMETRY"]
        else:
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = before


def _missing(bad: ImportError) -> RuntimeUnavailable:
    get = 'pip install --upgrade "agentnb[mlflow]"'
    if isinstance(bad, ModuleNotFoundError):
        return RuntimeUnavailable(f"to_mlflow: {(bad.name or 'mlflow').partition('.')[0]} is not installed; get it with: {get}")
    return RuntimeUnavailable(f"to_mlflow: MLflow and what it needs do not fit each other ({bad}); get versions that do with: {get}")


class _Export:
    """Brings runs, one after the other, parents before their children."""

    def __init__(self, root: Path, db: sqlite3.Connection, client: MlflowClient, experiment: str | None, *, artifacts: bool) -> None:
        self._root = root
        self._db = db
        self._client = client
        self._experiment = experiment
        self._artifacts = artifacts
        self._experiments: dict[str, str] = {}

    def run(self, run: dict[str, Any]) -> str:
        """Bring one run; returns its id in MLflow."""
        home = self._home(self._experiment or run["session"] or "agentnb")
        there = self._find(home, run["id"])
        done = set((there.data.tags.get(_DONE) or "").split()) if there is not None else set()
        ended = run["status"] not in {"pending", "running"}
        tracked = Tracked(run)
        run_id = str(there.info.run_id) if there is not None else self._create(home, run, tracked)
        if "run" not in done:
            self._put(run_id, run, tracked, ended=ended)
        if self._artifacts and ended and "artifacts" not in done:
            tracked_files.put(self._client, run_id, tracked_files.files(self._root, self._db, run["id"]), tracked.notes)
            done.add("artifacts")
        if ended:
            self._close(run_id, run, tracked, done | {"run"})
        return run_id

    def _home(self, name: str) -> str:
        """The id of the experiment of that name, which is made when there is none."""
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == "deleted":
                raise ConfigError(f"to_mlflow: the experiment {name!r} is deleted in MLflow; restore it there, or give another experiment=")
            self._experiments[name] = str(found.experiment_id if found is not None else self._client.create_experiment(name))
        return self._experiments[name]

    def _find(self, home: str, run_id: str) -> Any:
        text = run_id.replace("'", "''")
        found = self._client.search_runs([home], f"tags.`{_RUN_ID}` = '{text}'", max_results=1)
        return found[0] if found else None

    def _create(self, home: str, run: dict[str, Any], tracked: Tracked) -> str:
        start = run["started_at"] if run["started_at"] is not None else run["created_at"]
        tags = {_RUN_ID: run["id"]}
        if run["parent_run_id"] and (parent := self._find(home, run["parent_run_id"])) is not None:
            tags[_PARENT] = parent.info.run_id
        made = self._client.create_run(home, start_time=(start or 0) // 1000, tags=tags, run_name=tracked.name)
        return str(made.info.run_id)

    def _put(self, run_id: str, run: dict[str, Any], tracked: Tracked, *, ended: bool) -> None:
        from mlflow.entities import Metric, Param, RunTag

        figures = tracked.metrics(records(self._db, _STEPS, (run["id"],))) if ended else iter(())
        parts: Iterator[tuple[list[Any], ...]] = zip_longest(
            _pieces(tracked.params()), _pieces(tracked.tags()), _batches(figures), fillvalue=[]
        )
        for params, tags, metrics in parts:
            self._client.log_batch(
                run_id,
                metrics=[Metric(name, value, at // 1000, step) for name, value, at, step in metrics],
                params=[Param(*pair) for pair in params],
                tags=[RunTag(*pair) for pair in tags],
            )
        if not ended:
            self._client.update_run(run_id, status=_STATUS[run["status"]])

    def _close(self, run_id: str, run: dict[str, Any], tracked: Tracked, done: set[str]) -> None:
        """Say that all is there; last, so that an export that was cut off is done again."""
        from mlflow.entities import RunTag

        self._client.set_terminated(run_id, _STATUS[run["status"]], end_time=(run["finished_at"] or 0) // 1000)
        tags = [*tracked.notes.tags(), (_DONE, " ".join(sorted(done)))]
        self._client.log_batch(run_id, tags=[RunTag(*pair) for pair in tags])


def _pieces(pairs: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Parameters or tags in lists that fit a request."""
    piece: list[tuple[str, str]] = []
    size = 0
    for pair in pairs:
        length = len(json.dumps(pair))
        if piece and (len(piece) == _PER_BATCH or size + length > _BYTES_PER_BATCH):
            yield piece
            piece, size = [], 0
        piece.append(pair)
        size += length
    if piece:
        yield piece


def _batches(figures: Iterator[Figure]) -> Iterator[list[Figure]]:
    while batch := list(islice(figures, _METRICS_PER_BATCH)):
        yield batch
