"""Stores with runs that have logs and artifacts, and what is in them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from agentnb.events import ArtifactSaved, Message, SessionEnded
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, started_session, table, whole_run

#: Files that were touched before are of nobody who lives.
LONG_AGO = T0 / SECOND - 86_400


def kept_run(store: Store, run_id: str, *, at: int = T0, data: bytes | None = None, aged: bool = True, **more: Any) -> list[Message]:
    """A completed run with a log file of 1000 bytes and an artifact (default: of its own), whose files are made at once, long ago."""
    checksum, size = store.blobs.put_bytes(data if data is not None else f"kept by {run_id}".encode())
    if aged:
        os.utime(store.blobs.locate(checksum), (LONG_AGO, LONG_AGO))
    log = store.root / "runs" / run_id / "stdout.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"x" * 1000)
    events = whole_run(run_id, at=at, **more)
    events[-1].stdout = {"size": 1000, "text": None, "path": f"runs/{run_id}/stdout.log"}  # type: ignore[attr-defined]
    location = {"type": "local", "path": str(store.blobs.locate(checksum).relative_to(store.root))}
    artifact = {"id": f"{run_id}-a", "name": "kept", "size": size, "location": location, "checksum": checksum, "created_at": at}
    return [*events[:-1], ArtifactSaved(run_id, artifact | {"source_run": run_id}, at=at), events[-1]]


def made(root: Path, run_ids: str, *, session: str = "S", **more: Any) -> None:
    """A session that is over with these runs (a word each), each an hour after the one before."""
    with Store.open(root) as store:
        store.apply([started_session(session, session)])
        for n, run_id in enumerate(run_ids.split()):
            store.apply(kept_run(store, run_id, at=T0 + n * 3600 * SECOND, session_id=session, **more))
        store.apply([SessionEnded(session, "ended", at=T0 + len(run_ids.split()) * 3600 * SECOND)])


def ids(root: Path) -> str:
    """The runs that the history has, as words."""
    return " ".join(sorted(row["id"] for row in table(root, "runs")))


def write(root: Path, sql: str, *values: object) -> None:
    """Somebody's own SQL."""
    with closing(sqlite3.connect(root / "history.db")) as db, db:
        db.execute(sql, values)


def files(root: Path) -> dict[str, bytes]:
    """All files of a store but the database's, with their content."""
    found = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("history.db"))
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def check_whole(root: Path) -> None:
    """Every row has its run, and every log and artifact that a row names is there."""
    runs = set(ids(root).split())
    for name, column in (("steps", "run_id"), ("artifacts", "source_run"), ("logs", "run_id"), ("events", "run_id")):
        assert {row[column] for row in table(root, name)} <= {*runs, None}
    assert all((root / row["path"]).is_file() for row in table(root, "logs") if row["path"])
    for row in table(root, "artifacts"):
        assert (root / "blobs" / row["checksum"][7:9] / row["checksum"][9:]).is_file()
