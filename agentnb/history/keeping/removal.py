"""Removing runs from a history: their rows first, in short transactions, then their files.

Killed at any point, it leaves files without rows, which the next gc finds (orphans.py), and never rows without files.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from agentnb.errors import StoreError
from agentnb.history.faults import is_full, store_fault
from agentnb.history.keeping.removable import still_removable
from agentnb.history.store import DATABASE

#: Runs that go in one transaction: few, so that nobody waits long for the lock, and that a full disk has room for it.
_AT_ONCE = 50
_OF_RUNS = "IN (SELECT value FROM json_each(?))"
#: The row of a run goes last.
_TABLES = (("events", "run_id"), ("steps", "run_id"), ("artifacts", "source_run"), ("logs", "run_id"), ("runs", "id"))
_EMPTY = """id IN (SELECT value FROM json_each(?)) AND (status <> 'active' OR owner IS NULL)
    AND NOT EXISTS (SELECT 1 FROM runs WHERE session_id = sessions.id)"""


@contextmanager
def writing(db: sqlite3.Connection, root: Path) -> Iterator[None]:
    """One transaction that holds the database's write lock from its beginning. Raises StoreError."""
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # a full disk may have rolled it back already
                db.execute("ROLLBACK")
            raise
    except sqlite3.Error as bad:
        raise store_fault(bad, root / DATABASE, "removing runs from") from bad


def remove_runs(db: sqlite3.Connection, root: Path, run_ids: Sequence[str], since: int) -> list[str]:
    """Remove these runs with all their rows and log files; returns the ids of those that went. Raises StoreError.

    One that cannot go any more stays; `since`: before they were chosen, in microseconds UTC.
    """
    gone: list[str] = []
    start, count = 0, _AT_ONCE
    while start < len(run_ids):
        try:
            free = _remove_some(db, root, run_ids[start : start + count], since)
        except StoreError as bad:
            if not is_full(bad):
                raise
            if count == 1:
                raise StoreError(f"{bad}; gc itself needs some 300 KB to begin with: remove a file elsewhere on that disk") from bad
            count = max(1, count // 4)
        else:
            gone += free
            start += count
        if count < _AT_ONCE:  # the disk is full: what the log of the database takes is used again
            db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    return gone


def _remove_some(db: sqlite3.Connection, root: Path, run_ids: Sequence[str], since: int) -> list[str]:
    with writing(db, root):
        free = still_removable(db, run_ids, since)
        delete_rows(db, free)
    for run_id in free:
        if is_plain(run_id):
            remove_tree(root / "runs" / run_id)
    return free


def delete_rows(db: sqlite3.Connection, run_ids: Collection[str]) -> None:
    """Delete all rows of these runs, in the transaction that is open."""
    wanted = (json.dumps(list(run_ids)),)
    for table, column in _TABLES:
        db.execute(f"DELETE FROM {table} WHERE {column} {_OF_RUNS}", wanted)  # noqa: S608 - our own names


def remove_sessions(db: sqlite3.Connection, root: Path, session_ids: Collection[str]) -> int:
    """Remove those of these sessions that are over and have no run (left); returns how many. Raises StoreError."""
    wanted = (json.dumps(list(session_ids)),)
    with writing(db, root):
        empty = [session for (session,) in db.execute(f"SELECT id FROM sessions WHERE {_EMPTY}", wanted)]  # noqa: S608
        wanted = (json.dumps(empty),)
        db.execute(f"DELETE FROM events WHERE run_id IS NULL AND session_id {_OF_RUNS}", wanted)  # noqa: S608
        db.execute(f"DELETE FROM sessions WHERE id {_OF_RUNS}", wanted)  # noqa: S608
    return len(empty)


def is_plain(run_id: str) -> bool:
    """Whether a run's id can name a folder below `runs`, and nothing else."""
    return bool(run_id) and not run_id.startswith(".") and "/" not in run_id and "\0" not in run_id


def remove_tree(path: Path) -> int:
    """Remove a file, a link or a folder with all that is in it, following no link; returns the bytes that this freed."""
    freed = size_of(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return freed - size_of(path)


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; 0 for what is not there. Follows no link."""
    total, folders = 0, [os.fspath(path)]
    with suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    with suppress(OSError):
                        total += entry.stat(follow_symlinks=False).st_size
    return total
