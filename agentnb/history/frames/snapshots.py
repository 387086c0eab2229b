"""Rows of finished runs, kept ready as Arrow files beside the store, for frames of large histories that are read again and again.

A row is kept when its run is over (a step: and it, too), since nothing changes it from then on. The database says which file holds
the rows of which frame, up to which row number, which of those rows were not over yet, and what the file's checksum is. What deletes
rows, or changes them by hand, strikes that record in the same transaction (triggers of migrations.py), and counts the change, so that
a file that was being written meanwhile is never recorded. A file that is missing, damaged or of another layout is not read.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from agentnb.events import now_us
from agentnb.history.frames.columns import Column, Frame
from agentnb.history.store import DATABASE

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "snapshots"
#: Fewer rows are not worth a file; nor are those that came since, until they are so many, and this part of what is kept.
LEAST = 100_000
GROWN = 0.25
#: Rows that are not over are remembered one by one; where there are more, the rest of the table is left out.
MOST_OPEN = 10_000
_BUSY_S = 2.0
_FORMAT = 1
_CURRENT = "SELECT file, last, anchor, rows, open, size, checksum FROM snapshots WHERE frame = ? AND layout = ?"
_INSERT = "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
#: Says that nothing was changed meanwhile.
CHANGES = "SELECT seen FROM snapshot_changes"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The record of a file: its rows are those up to row number `last`, except for those in `open`."""

    file: str
    last: int
    anchor: str
    rows: int
    open: list[int]
    size: int
    checksum: str


def drop(root: Path) -> None:
    """Forget all snapshots of the store and remove their files; to be called after rows of runs that are over were changed.

    Rows that are deleted are seen to by the database itself; this frees the space of the files at once. Raises sqlite3.Error when the
    database cannot be written; a store without snapshots is left as it is.
    """
    with closing(sqlite3.connect(root / DATABASE, timeout=_BUSY_S, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM snapshots")
        db.execute("UPDATE snapshot_changes SET seen = seen + 1")
        db.execute("COMMIT")
    if not (root / FOLDER).is_dir():
        return
    with _alone(root) as mine:
        if mine:
            _sweep(root, None)


def layout(columns: Sequence[Column]) -> str:
    """A name for what the columns are: another version may mean other things by the same names."""
    text = json.dumps([_FORMAT, [[c.name, c.sql, c.dtype, c.categories] for c in columns]])
    return sha256(text.encode()).hexdigest()[:32]


def find(db: sqlite3.Connection, frame: Frame, columns: Sequence[Column]) -> Snapshot | None:
    """The frame's snapshot, if there is one that is true as far as the database knows; `columns`: all that it holds."""
    row = db.execute(_CURRENT, (frame.name, layout(columns))).fetchone()
    if row is None:
        return None
    file, last, anchor, rows, opened, size, checksum = row
    found = Snapshot(file, last, anchor, rows, json.loads(opened), size, checksum)
    return found if _anchor(db, frame, last) == anchor else None


def _anchor(db: sqlite3.Connection, frame: Frame, last: int) -> str | None:
    """The key of the row that has this number: numbers change when a database is rebuilt."""
    key = f"{frame.alias}.run_id || '/' || {frame.alias}.id" if frame.name == "steps" else f"{frame.alias}.id"
    row = db.execute(f"SELECT {key} FROM {frame.table} {frame.alias} WHERE {frame.alias}.rowid = ?", (last,)).fetchone()  # noqa: S608
    return row[0] if row else None


def load(root: Path, found: Snapshot, names: Sequence[str]) -> dict[str, pa.ChunkedArray] | None:
    """The columns of these names; None when the file is not what was recorded."""
    import pyarrow as pa

    path = root / FOLDER / found.file
    try:
        if _checksum(path, found.size) != found.checksum:
            return None
        with pa.OSFile(str(path)) as file:
            places = sorted(pa.ipc.open_file(file).schema.get_field_index(name) for name in names)
            options = pa.ipc.IpcReadOptions(included_fields=places)
            table = pa.ipc.open_file(file, options=options, memory_pool=pa.system_memory_pool()).read_all()
    except (OSError, ValueError, pa.ArrowException):
        return None
    return dict(zip(table.column_names, table.columns, strict=True)) if table.num_rows == found.rows else None


def _checksum(path: Path, size: int) -> str | None:
    block, total = memoryview(bytearray(1 << 20)), 0
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != size:
            return None
        while count := file.readinto(block):
            total = zlib.crc32(block[:count], total)
    return f"crc32:{total:08x}"


def asked_again(root: Path, frame: Frame) -> bool:
    """Whether the frame was read as a whole before; from now on it was. False where that cannot be written down."""
    mark = root / FOLDER / f"{frame.name}.read"
    try:
        if mark.exists():
            return True
        mark.parent.mkdir(mode=0o700, exist_ok=True)
        mark.touch()
    except OSError:
        pass
    return False


def keep(root: Path, frame: Frame, columns: Sequence[Column], table: pa.Table, *, opened: list[int], last: int, seen: int) -> bool:
    """Write the rows of `table` down as the frame's snapshot, unless rows were changed since `seen` was read with them.

    They are all rows up to row number `last` but those in `opened`. Returns whether that was done.

    Whatever is in the way (a full disk, no right to write, another process that does the same) leaves things as they were.
    """
    with _alone(root) as mine:
        if not mine or shutil.disk_usage(root).free < 2 * table.nbytes:
            return False
        path = root / FOLDER / f"{frame.name}-{secrets.token_hex(8)}.arrow"
        try:
            _write(path, table)
            size = path.stat().st_size
            found = Snapshot(path.name, last, "", table.num_rows, opened, size, _checksum(path, size) or "")
            done = _record(root, frame, layout(columns), found, seen)
        except (OSError, sqlite3.Error):
            done = None
        _sweep(root, done)
        return bool(done and path.name in done)


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table.combine_chunks())  # as one batch: what is read is then what the frame holds, without a copy
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # else the record might outlive what it speaks of
    finally:
        os.close(descriptor)


def _record(root: Path, frame: Frame, layout_: str, new: Snapshot, seen: int) -> list[str]:
    """Record a file, if it is true; returns the files that are recorded then."""
    with closing(sqlite3.connect(root / DATABASE, timeout=_BUSY_S, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        anchor = _anchor(db, frame, new.last)
        if anchor is not None and db.execute(CHANGES).fetchone() == (seen,):
            db.execute("DELETE FROM snapshots WHERE frame = ?", (frame.name,))
            values = (new.file, frame.name, layout_, new.last, anchor, new.rows, json.dumps(new.open), new.size, new.checksum, now_us())
            db.execute(_INSERT, values)
        db.execute("COMMIT")
        return [known for (known,) in db.execute("SELECT file FROM snapshots")]


@contextmanager
def _alone(root: Path) -> Iterator[bool]:
    """Whether this process may write snapshots now: one at a time does, and others leave it to that one."""
    try:
        (root / FOLDER).mkdir(mode=0o700, exist_ok=True)
        lock = os.open(root / FOLDER / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def _sweep(root: Path, known: Sequence[str] | None) -> None:
    """Remove files that no record names; with None, which are recorded is asked again."""
    with suppress(OSError, sqlite3.Error):
        if known is None:
            with closing(sqlite3.connect(f"file:{root / DATABASE}?mode=ro", uri=True, timeout=_BUSY_S)) as db:
                known = [file for (file,) in db.execute("SELECT file FROM snapshots")]
        for path in (root / FOLDER).glob("*.arrow"):
            if path.name not in known:
                path.unlink(missing_ok=True)
