"""Is a history whole? Its database, what its rows refer to, and what of its files nothing refers to (only reads)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agentnb.errors import ArtifactCorrupted, StoreError, StoreTooNew
from agentnb.history.artifacts import Blobs
from agentnb.history.keeping.collected import size_text
from agentnb.history.keeping.files_lock import files_held
from agentnb.history.keeping.orphans import NAMING, Sweep, Swept, unknown_runs
from agentnb.history.keeping.write_ahead import wal_fault
from agentnb.history.reader import reading
from agentnb.history.store import DATABASE
from agentnb.history.tombstone import last_removal

#: More than this is only looked at in part, unless a deep check is asked for: bytes of a database, rows, bytes of artifacts.
FULL_BYTES, MOST_ROWS, MOST_BYTES = 128 << 20, 20_000, 256 << 20
_PATIENCE_S = 10.0
_SHOWN = 3
_AGAIN = "copy them back from a backup, or run what made them again"
_RESTORE = (
    "restore a backup (`agentnb backup` makes them), or save what can be read with `sqlite3 {path} .recover | sqlite3 new.db`, "
    "or move it away to start a new one"
)
_TEXTS = {"runs": ("target", "params", "tags", "error", "detail", "usage"), "events": ("data",), "artifacts": ("location",)}


class Trouble(NamedTuple):
    """Something that is not as it should be: what, where, and what to do."""

    what: str
    where: str
    advice: str

    def __str__(self) -> str:
        """In a line."""
        return f"{self.what}: {self.where}; {self.advice}"


@dataclass(slots=True)
class Checked:
    """What a check found; `said`: what it looked at."""

    troubles: list[Trouble] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def check(root: Path, *, deep: bool = False) -> Checked:
    """Check the store at `root`; with `deep` all of it, also where that takes long. Nothing is changed, and no gc removes files meanwhile.

    Raises StoreError when it cannot be read at all.
    """
    checked = Checked()
    path = root / DATABASE
    wal = path.with_name(f"{DATABASE}-wal")
    if not any((root / "owners").glob("*.lock")) and (fault := wal_fault(wal)):  # else it is written just now
        checked.troubles.append(
            Trouble("what was written last is lost", f"{wal}: {fault}", "compare with a backup; the next session goes on without it")
        )
    if (root / "blobs").is_dir():
        with files_held(root, alone=False, patience_s=_PATIENCE_S):
            _check_all(root, checked, deep=deep)
    else:
        _check_all(root, checked, deep=deep)
    return checked


def _check_all(root: Path, checked: Checked, *, deep: bool) -> None:
    path = root / DATABASE
    try:
        with reading(root) as db:
            if damage := _damage(db, path, checked, deep=deep):
                checked.troubles.append(Trouble("the database is damaged", f"{path}: {damage}", _RESTORE.format(path=path)))
            else:
                _Check(db, root, checked, deep=deep).run()
    except StoreTooNew:
        raise
    except StoreError as bad:
        if not isinstance(bad.__cause__, sqlite3.DatabaseError):
            raise
        checked.troubles.append(Trouble("the database cannot be read", f"{path}: {bad.__cause__}", _RESTORE.format(path=path)))


def _damage(db: sqlite3.Connection, path: Path, checked: Checked, *, deep: bool) -> str:
    """What SQLite finds wrong with the database; nothing when it is sound."""
    size, start = path.stat().st_size, time.perf_counter()
    how = "integrity_check" if deep or size <= FULL_BYTES else "quick_check"
    rows = [str(row) for (row,) in db.execute(f"PRAGMA {how}(100)")]
    less = "" if how == "integrity_check" else ", without its indexes"
    checked.said.append(f"{how} of {size_text(size)} in {time.perf_counter() - start:.1f} s{less}")
    return "" if rows == ["ok"] else _few(rows)


class _Check:
    """The check of a store whose database is sound."""

    def __init__(self, db: sqlite3.Connection, root: Path, checked: Checked, *, deep: bool) -> None:
        self._db, self._root, self._checked, self._deep = db, root, checked, deep
        self._blobs = Blobs(root / "blobs")

    def run(self) -> None:
        self._links()
        if self._deep or (self._root / DATABASE).stat().st_size <= FULL_BYTES:
            self._texts()
        self._artifacts()
        self._logs()
        self._leftovers()

    def _tell(self, what: str, found: Sequence[str], advice: str) -> None:
        if found:
            self._checked.troubles.append(Trouble(f"{what} ({len(found)})", _few(found), advice))

    def _links(self) -> None:
        for table in NAMING:
            found = [f"run {run}" for run in unknown_runs(self._db, table)]
            self._tell(f"runs have {table}, but no row of their own", found, "`agentnb gc` removes what is left of them")

    def _texts(self) -> None:
        found = []
        for table, columns in _TEXTS.items():
            bad = " OR ".join(f"NOT json_valid(coalesce({column}, 'null'))" for column in columns)
            found += [f"{table}, row {row}" for (row,) in self._db.execute(f"SELECT rowid FROM {table} WHERE {bad}")]  # noqa: S608
        self._tell("rows hold JSON that does not parse", found, "restore them from a backup; frames that read them fail")

    def _part(self, count: int) -> str:
        """A condition that holds for all rows of a table, or, of a large one, for as many as are looked at."""
        return "1" if self._deep or count <= MOST_ROWS else f"rowid % {-(-count // MOST_ROWS)} = 0"

    def _count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0])  # noqa: S608

    def _artifacts(self) -> None:
        part = self._part(self._count("artifacts"))
        rows = self._db.execute(
            f"SELECT checksum, max(size), min(id) FROM artifacts WHERE location LIKE '%\"local\"%' AND {part} GROUP BY checksum"  # noqa: S608
        ).fetchall()
        missing, changed, left, verified = [], [], MOST_BYTES, 0
        for checksum, size, artifact in rows:
            try:
                path = self._blobs.locate(checksum or "")
                if path.stat().st_size != size:
                    changed.append(f"artifact {artifact}, {path}")
                elif self._deep or size <= left:
                    left, verified = left - size, verified + 1
                    self._blobs.path(checksum)
            except ArtifactCorrupted:
                changed.append(f"artifact {artifact}, {path}")
            except (StoreError, OSError) as bad:
                missing.append(f"artifact {artifact}, {getattr(bad, 'filename', None) or bad}")
        whole = "" if part == "1" else " (a sample)"
        self._checked.said.append(f"{len(rows)} artifact contents{whole}, the checksums of {verified}")
        self._tell("artifact contents are missing", missing, _AGAIN)
        self._tell("artifact contents are not what was kept", changed, _AGAIN)

    def _logs(self) -> None:
        part = self._part(self._count("logs"))
        rows = self._db.execute(f"SELECT run_id, path, size FROM logs WHERE path IS NOT NULL AND {part}").fetchall()  # noqa: S608
        missing, changed = [], []
        for run_id, path, size in rows:
            file = self._root / path
            if not file.is_file() or not file.resolve().is_relative_to(self._root.resolve()):
                missing.append(f"run {run_id}, {file}")
            elif file.stat().st_size != size:
                changed.append(f"run {run_id}, {file}: {file.stat().st_size} bytes, recorded were {size}")
        self._checked.said.append(f"{len(rows)} logs{'' if part == '1' else ' (a sample)'}")
        self._tell("logs are missing", missing, "copy them back from a backup; the other records of these runs can be read")
        self._tell("logs have another size than was recorded", changed, "copy them back from a backup; what is there can be read")

    def _leftovers(self) -> None:
        if self._deep or self._count("artifacts") + self._count("runs") <= MOST_ROWS:
            try:
                with closing(sqlite3.connect(self._root / DATABASE, isolation_level=None, timeout=_PATIENCE_S)) as db:
                    left = Sweep(db, self._root, dry_run=True).run()
            except (StoreError, sqlite3.Error) as bad:
                self._checked.said.append(f"leftovers were not looked for: {bad}")
                return
            count = left.blobs + left.files
            if count and not self._count("runs") and last_removal(self._root) is None:
                self._lost(left)
            elif count:
                told = f"files and folders that nothing refers to: {count} ({size_text(left.bytes)})"
                self._checked.said.append(f"{told}, `agentnb gc` removes them")

    def _lost(self, left: Swept) -> None:
        what = f"the history has no run, but {left.blobs} artifact contents and {left.files} folders are there"
        advice = f"was {DATABASE}, or {DATABASE}-wal, removed? then restore a backup; else `agentnb gc` removes them"
        self._checked.troubles.append(Trouble(what, str(self._root), advice))


def _few(found: Sequence[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"
