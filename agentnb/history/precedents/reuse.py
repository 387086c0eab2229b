"""Completed runs to be returned instead of run again: finding them by their cache keys, and telling a new run what came of them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from agentnb.errors import ArtifactCorrupted
from agentnb.events import ArtifactSaved, Json, Message, RunFinished, RunStarted, StepFinished, StepStarted, UsageReported, WorkspaceChanged
from agentnb.history.artifacts import Blobs
from agentnb.history.reader import read_logs, read_runs, reading, rows_of
from agentnb.ids import new_id

#: An artifact of at most so many bytes is read and held against its checksum before its run is reused; a larger one by its size.
VERIFIED_BYTES = 16 * 2**20

_BY_KEY = """SELECT id, cache_key FROM runs WHERE cache_key IN (SELECT value FROM json_each(?)) AND +status = 'completed'
    AND +reused_from IS NULL ORDER BY created_at DESC, id DESC"""
_OF = "IN (SELECT value FROM json_each(?))"
_LOGS = f"SELECT run_id, stream, size, path FROM logs WHERE path IS NOT NULL AND run_id {_OF}"  # noqa: S608 - our own words
_ARTIFACTS = f"SELECT * FROM artifacts WHERE source_run {_OF} ORDER BY created_at, rowid"  # noqa: S608
_STEPS = f"SELECT * FROM steps WHERE run_id {_OF} ORDER BY created_at, rowid"  # noqa: S608
_TOTALS = tuple(field.name for field in fields(UsageReported) if field.name not in {"run_id", "at"})
_COUNTS = ("files_changed", "insertions", "deletions")


class Found:
    """The runs that a history has for keys: `runs`, key -> id; `damaged`, key -> why the latest run of that key cannot be reused."""

    def __init__(self) -> None:
        """Nothing is found yet."""
        self.runs: dict[str, str] = {}
        self.damaged: dict[str, str] = {}


def find(root: Path, keys: Collection[str]) -> Found:
    """The latest completed run of each of these keys whose output and artifacts are all there. Raises StoreError."""
    found = Found()
    with reading(root) as db:
        candidates: dict[str, list[str]] = {}
        for run_id, key in db.execute(_BY_KEY, (json.dumps(list(dict.fromkeys(keys))),)):
            candidates.setdefault(key, []).append(run_id)
        while candidates:
            latest = {key: ids.pop(0) for key, ids in candidates.items()}
            damage = _damage(root, db, latest.values())
            for key, run_id in latest.items():
                if run_id in damage:
                    found.damaged.setdefault(key, damage[run_id])
                else:
                    found.runs[key] = run_id
            candidates = {key: ids for key, ids in candidates.items() if ids and key not in found.runs}
    return found


def _damage(root: Path, db: sqlite3.Connection, run_ids: Iterable[str]) -> dict[str, str]:
    """What those of these runs lack that are not whole any more."""
    wanted = (json.dumps(list(run_ids)),)
    found: dict[str, str] = {}
    for run_id, stream, size, path in db.execute(_LOGS, wanted):
        if _size(root / path) != size:
            found.setdefault(run_id, f"its {stream} is not complete: {root / path}")
    blobs, known = Blobs(root / "blobs"), dict[str, str]()
    for artifact in rows_of(db.execute(_ARTIFACTS, wanted)):
        identity = f"{artifact['checksum']} {artifact['location']}"
        if identity not in known:
            known[identity] = _lacks(root, blobs, artifact)
        if known[identity]:
            found.setdefault(artifact["source_run"], f"its artifact {artifact['name']!r} {known[identity]}")
    return found


def _lacks(root: Path, blobs: Blobs, artifact: Json) -> str:
    """Why an artifact cannot be had, or ""."""
    location = artifact["location"] or {}
    if location.get("type") != "local":
        return ""
    path = root / str(location.get("path"))
    size = _size(path)
    if size is None:
        return f"is gone: {path}"
    if size != artifact["size"]:
        return f"has {size} bytes instead of {artifact['size']}: {path}"
    try:
        if size <= VERIFIED_BYTES and path.is_relative_to(blobs.root):
            blobs.path(artifact["checksum"])
    except ArtifactCorrupted as bad:
        with suppress(OSError):  # bytes that are not those of their name help nobody, and would keep the right ones out
            path.unlink()
        return f"was damaged: {bad}"
    return ""


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - once for each run of a grid
    except OSError:
        return None


# --- what the new run is told -----------------------------------------------------------------------------------------------


def retold(root: Path, wanted: Mapping[str, str]) -> Iterator[tuple[str, list[Message]]]:
    """For each new run (id -> id of the one it is reused from) the events from its start to its end; none when that one is gone.

    Steps, artifacts, usage and result are as recorded, output is where it was; ids and stamps are new. Raises StoreError.
    """
    originals = list(dict.fromkeys(wanted.values()))
    rows = {row["id"]: row for row in read_runs(root, originals) if row["status"] == "completed"}
    logs = read_logs(root, originals)
    steps, artifacts = dict[str, list[Json]](), dict[str, list[Json]]()
    with reading(root) as db:
        for query, column, kept in ((_STEPS, "run_id", steps), (_ARTIFACTS, "source_run", artifacts)):
            for row in rows_of(db.execute(query, (json.dumps(originals),))):
                kept.setdefault(row[column], []).append(row)
    for run_id, original in wanted.items():
        events: list[Message] = []
        if original in rows:
            told = _Retelling(run_id, rows[original])
            events = [*told.begun(), *told.steps(steps.get(original, [])), *told.artifacts(artifacts.get(original, []))]
            events.append(told.ended(logs.get(original, {})))
        yield run_id, events


class _Retelling:
    """The events of one new run."""

    def __init__(self, run_id: str, row: Json) -> None:
        self._id, self._row = run_id, row
        self._steps: dict[str, str] = {}

    def begun(self) -> Iterator[Message]:
        row = self._row
        started = RunStarted(self._id, f"run:{row['id']}")
        self._at = started.at
        yield started
        if any(row[name] is not None for name in _TOTALS):
            yield UsageReported(self._id, **{name: row[name] for name in _TOTALS})
        if row["workspace"]:
            yield WorkspaceChanged(self._id, row["workspace"], **{name: row[name] for name in _COUNTS})

    def steps(self, rows: list[Json]) -> Iterator[Message]:
        for number, row in enumerate(rows, start=1):
            step = self._steps[row["id"]] = f"{self._id}-{number}"
            parent = self._steps.get(row["parent_id"] or "")
            yield StepStarted(self._id, step, row["kind"], row["name"], row["attempt"], parent, row["input"])
        for row in rows:
            took = row["run_s"]
            if took is None and row["started_at"] is not None and row["finished_at"] is not None:
                took = max(row["finished_at"] - row["started_at"], 0) / 1e6
            told = {name: row[name] for name in ("error", "exit_code", "usage", "tokens", "cost_usd", "output")}
            yield StepFinished(self._id, self._steps[row["id"]], row["status"], **told, run_s=took)

    def artifacts(self, rows: list[Json]) -> Iterator[Message]:
        for row in rows:
            names = ("name", "content_type", "size", "location", "checksum", "schema_version")
            own = {"id": new_id(), "source_run": self._id, "source_step": self._steps.get(row["source_step"] or "")}
            yield ArtifactSaved(self._id, {name: row[name] for name in names} | own)

    def ended(self, logs: Mapping[str, Json]) -> Message:
        """Of the circumstances, the stamps are of the new run's record; the others tell of the work that was done."""
        row, detail = self._row, self._row["detail"] or {}
        event = RunFinished(
            self._id, "completed", exit_code=row["exit_code"], signal=row["signal"], output=row["output"], stdout=self._log(logs, "stdout"),
            stderr=self._log(logs, "stderr"), usage=row["usage"], attempts=row["attempts"] or 1, run_s=_took(row),
        )  # fmt: skip
        metadata: Json = detail.get("metadata") or {}
        own = {"started_at": self._at, "completed_at": event.at, "trace_id": None}
        event.detail = detail | {"metadata": metadata | own}
        return event

    def _log(self, logs: Mapping[str, Json], stream: str) -> Json | None:
        empty = {"size": 0, "text": "", "path": None} if self._row[f"{stream}_bytes"] is not None else None
        return logs.get(stream, empty)


def _took(row: Json) -> float | None:
    if row["run_s"] is not None or row["started_at"] is None or row["finished_at"] is None:
        found: float | None = row["run_s"]
        return found
    return max(int(row["finished_at"]) - int(row["started_at"]), 0) / 1e6
