"""Files of a store that nothing refers to: blobs without an artifact, folders of runs that are not known, what a kill left half-done.

A supervisor puts bytes into the store before it writes the rows that name them. So what a living one may still be about to refer to is
left alone: all that was touched since its oldest live run began, or in the last minute; and everything while it has events that the
history would not take.
"""

from __future__ import annotations

import os
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import TypeVar

from agentnb.history.artifacts import ASIDE, UNFINISHED, Blobs
from agentnb.history.jsontext import dumps
from agentnb.history.keeping.removable import LIVE
from agentnb.history.keeping.removal import delete_rows, remove_tree, size_of, writing
from agentnb.history.owners import is_behind

#: Between bytes and the row that names them pass milliseconds; a clock that was set back may make it look like more.
MARGIN_S = 60.0
_AT_ONCE = 100
_DIGEST = "sha256:"
#: Tables and their columns that name a run.
NAMING = {"steps": "run_id", "artifacts": "source_run", "events": "run_id", "logs": "run_id"}
#: The runs that a table names and that are not known, each once: a jump through its index, whatever the number of rows.
_UNKNOWN = """WITH RECURSIVE named(run) AS (SELECT min({column}) FROM {table} UNION ALL
    SELECT (SELECT min({column}) FROM {table} WHERE {column} > run) FROM named WHERE run IS NOT NULL)
    SELECT run FROM named WHERE run IS NOT NULL AND run NOT IN (SELECT id FROM runs)"""
#: What opening a store tries out (locking.py) and leaves behind when it is killed.
_TRIED = ".locks-*"
T = TypeVar("T")


@dataclass(slots=True)
class Swept:
    """What went, or would go. `bytes`: of the files; `waiting`: blobs and folders that a living supervisor may still refer to."""

    blobs: int = 0
    files: int = 0
    rows: int = 0
    bytes: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    kept: list[str] = field(default_factory=list)


class Sweep:
    """One search through the files of a store, which nobody else removes anything from meanwhile (see files_lock.py)."""

    def __init__(self, db: sqlite3.Connection, root: Path, *, dry_run: bool) -> None:
        """`db`: an open connection, that may write."""
        self._db, self._root, self._dry_run = db, root, dry_run
        self._blobs = Blobs(root / "blobs")
        self.swept = Swept()

    def run(self) -> Swept:
        """Look through everything. Raises StoreError."""
        self._unfinished()
        self._strays()
        self._folders()
        self._workspaces()
        self._rows()
        return self.swept

    def _horizon(self) -> float:
        """What was touched before (seconds since the epoch) nobody is about to refer to. To be asked with the write lock held."""
        if is_behind(self._root / "owners"):
            return 0.0
        if not is_written(self._db, self._root):
            return time() + 1  # nobody is there who could
        query = f"SELECT min(created_at) FROM runs WHERE status IN ({', '.join('?' * len(LIVE))})"  # noqa: S608
        [(oldest,)] = self._db.execute(query, LIVE)
        return min(time(), (oldest or 9e18) / 1e6) - MARGIN_S

    # --- blobs

    def _strays(self) -> None:
        """Blobs that no artifact refers to."""
        self._db.execute("BEGIN")
        referred, last = _Referred(self._db), self._last_artifact()
        self._db.execute("COMMIT")
        for paths in _portions(path for path in _blob_files(self._blobs.root) if path.parent.name + path.name not in referred):
            with writing(self._db, self._root):
                new = {text for (text,) in self._db.execute("SELECT checksum FROM artifacts WHERE rowid > ?", (last,))}
                horizon = self._horizon()
                for path in paths:
                    if f"{_DIGEST}{path.parent.name}{path.name}" not in new:
                        self._stray(path, horizon)

    def _last_artifact(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(rowid), 0) FROM artifacts").fetchone()[0])

    def _stray(self, path: Path, horizon: float) -> None:
        with suppress(FileNotFoundError):
            found = path.stat()
            late = found.st_mtime >= horizon
            freed = found.st_size if self._dry_run else None if late else self._blobs.remove(path, horizon)
            if late or freed is None:
                self.swept.waiting += 1
                self.swept.waiting_bytes += found.st_size
            else:
                self.swept.blobs += 1
                self.swept.bytes += freed

    def _unfinished(self) -> None:
        """Bytes that a process was writing when it was killed, and blobs that a gc was removing."""
        for path in (*sorted(self._blobs.root.glob(".*")), *sorted(self._root.glob(_TRIED))):
            if path.name.startswith((ASIDE, UNFINISHED, _TRIED[:-1])):
                with writing(self._db, self._root):
                    self._half_done(path, self._horizon())

    def _half_done(self, path: Path, horizon: float) -> None:
        checksum = _DIGEST + path.name.removeprefix(ASIDE)
        if path.name.startswith(ASIDE) and self._db.execute("SELECT 1 FROM artifacts WHERE checksum = ?", (checksum,)).fetchone():
            if not self._dry_run:
                self._blobs.restore(path)
        else:
            self._remove(path, horizon)

    def _remove(self, path: Path, horizon: float) -> None:
        """Remove a file or a folder, if nobody may still write to it."""
        if newest(path) >= horizon:
            self.swept.waiting += 1
            self.swept.waiting_bytes += size_of(path)
            return
        self.swept.files += 1
        self.swept.bytes += size_of(path) if self._dry_run else remove_tree(path)

    # --- folders and rows of runs that are not known

    def _folders(self) -> None:
        names = (entry.name for entry in _entries(self._root / "runs"))
        for some in _portions(sorted(names)):
            with writing(self._db, self._root):
                horizon = self._horizon()
                for name in sorted(set(some) - self._known(some)):
                    if not workspaces_of(self._root, name):  # else there is what its changes are told by
                        self._remove(self._root / "runs" / name, horizon)

    def _workspaces(self) -> None:
        """Folders of workspaces are only told of: there may be work in them."""
        names = {path.name: path.name.partition(".")[0] for path in _entries(self._root / "workspaces")}
        known = self._known(names.values())
        self.swept.kept += [
            f"{self._root / 'workspaces' / name} belongs to no run that is known; look into it, and remove it by hand"
            for name, run in sorted(names.items())
            if run not in known
        ]

    def _known(self, names: Collection[str]) -> set[str]:
        query = "SELECT id FROM runs WHERE id IN (SELECT value FROM json_each(?))"
        return {run for (run,) in self._db.execute(query, (dumps(list(names)),))}

    def _rows(self) -> None:
        """Rows of steps, artifacts and logs without a run, which only damage, or somebody's own SQL, can have made."""
        for table, column in NAMING.items():
            for some in _portions(unknown_runs(self._db, table)):
                with writing(self._db, self._root):
                    if is_written(self._db, self._root):
                        return
                    runs = sorted(set(some) - self._known(some))
                    count = f"SELECT count(*) FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names
                    self.swept.rows += int(self._db.execute(count, (dumps(runs),)).fetchone()[0])
                    if not self._dry_run:
                        delete_rows(self._db, runs)


class _Referred:
    """The blobs that artifacts refer to: eight bytes of each checksum, sorted; a wrong guess only lets a blob stay."""

    def __init__(self, db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT substr(checksum, 8, 16) FROM artifacts WHERE checksum LIKE 'sha256:%'")
        self._sorted = array("Q", sorted(array("Q", (number for (text,) in rows if (number := _number(text)) is not None))))

    def __contains__(self, name: str) -> bool:
        if (number := _number(name)) is None:
            return False
        place = bisect_left(self._sorted, number)
        return place < len(self._sorted) and self._sorted[place] == number


def _number(name: str) -> int | None:
    try:
        return int(name[:16], 16)
    except ValueError:
        return None


def unknown_runs(db: sqlite3.Connection, table: str) -> list[str]:
    """The runs that `table` names and that have no row of their own."""
    return [run for (run,) in db.execute(_UNKNOWN.format(table=table, column=NAMING[table]))]


def is_written(db: sqlite3.Connection, root: Path) -> bool:
    """Whether a supervisor may be there that writes to the store: the dead ones were recovered before."""
    return any((root / "owners").glob("*.lock")) or db.execute("SELECT 1 FROM owners").fetchone() is not None


def workspaces_of(root: Path, run_id: str) -> list[Path]:
    """The folders of workspaces of this run (one for each attempt) that are there."""
    folder = root / "workspaces"
    return sorted(path for path in (folder / run_id, *folder.glob(f"{_literal(run_id)}.[0-9]*")) if os.path.lexists(path))


def _literal(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def newest(path: Path) -> float:
    """When a file, or anything in a folder, was touched last, in seconds since the epoch."""
    last = 0.0
    with suppress(OSError):
        last = path.lstat().st_mtime
    if path.is_dir() and not path.is_symlink():
        last = max([last, *(newest(entry) for entry in _entries(path))])
    return last


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _blob_files(root: Path) -> Iterator[Path]:
    for folder in sorted(path for path in _entries(root) if len(path.name) == 2 and path.is_dir() and not path.is_symlink()):
        yield from _entries(folder)


def _portions(items: Iterable[T]) -> Iterator[list[T]]:
    portion: list[T] = []
    for item in items:
        portion.append(item)
        if len(portion) == _AT_ONCE:
            yield portion
            portion = []
    if portion:
        yield portion
