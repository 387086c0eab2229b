"""The history as a dataset of Parquet files, for duckdb, polars, Spark and pandas; written in batches, whatever the number of rows.

    folder/sessions/sessions.parquet
    folder/runs/day=2026-11-22/runs.parquet           also steps/, artifacts/, events/: by the day (UTC) of their run's launch

Columns are those of the frames; parameters and tags are JSON texts, `params` and `tags`, so that files of sessions with other parameters
make one table. `day` is the partition (hive style). A table without a row has one empty file, ``day=1970-01-01``, so that queries work.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb._version import __version__
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.events import now_us
from agentnb.history.exporting.selection import Row, pick_runs, rows, snapshot, source_sql
from agentnb.history.frames import columns
from agentnb.history.frames.filters import Filters
from agentnb.history.whole_file import remove_left, whole_file

if TYPE_CHECKING:
    from agentnb.history.exporting.parquet import Table

#: Changes when the files of earlier versions must be written again.
FORMAT = 1
TABLES = (columns.RUNS, columns.STEPS, columns.ARTIFACTS, columns.EVENTS)

_DAY_US, _LAST_DAY = 86_400 * 1_000_000, 2_932_896  # 9999-12-31
_CHUNK = 500
_RUNS = """SELECT min(max(at, 0) / ?1, ?2) AS day, id, live, (SELECT count(*) FROM events e WHERE e.run_id = p.id),
    (SELECT max(seq) FROM events e WHERE e.run_id = p.id) FROM picked p ORDER BY day, id"""
_NO_RUN = """SELECT min(max(at, 0) / ?1, ?2) AS day, seq FROM events
    WHERE run_id IS NULL AND session_id IN (SELECT value FROM json_each(?3)) ORDER BY day, seq"""


class _Day:
    """What is in the files of one day: the runs launched on it, and the events of sessions that belong to no run."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.events: list[int] = []
        self.live = False
        self._seen = sha256(f"{FORMAT} {__version__}".encode())

    def add_run(self, run_id: str, live: int, *events: int | None) -> None:
        """Count a run, whose number of events and last event tell whether it changed."""
        self.runs.append(run_id)
        self.live = self.live or bool(live)
        self._seen.update(f"\n{run_id} {events}".encode())

    def add_event(self, seq: int) -> None:
        """Count an event that belongs to no run."""
        self.events.append(seq)
        self._seen.update(f"\n{seq}".encode())

    @property
    def state(self) -> str:
        """The same as long as the files would be; "" while a run is live, whose durations grow."""
        return "" if self.live else self._seen.hexdigest()


def write_parquet(root: Path, folder: Path, given: Filters) -> dict[str, int]:
    """Make `folder` the dataset of the runs that the filters choose, with all that belongs to them; returns the rows of each table.

    Each file is replaced whole or not at all; one of which nothing changed since an earlier export is left as it is, and those of days
    that are not chosen any more are removed. Raises ConfigError for what makes no sense, among it a folder that holds something else,
    RuntimeUnavailable without pyarrow, StoreError when something cannot be read or written.
    """
    try:
        from agentnb.history.exporting.parquet import Table
    except ImportError:
        raise RuntimeUnavailable('pyarrow is not installed; get it with: pip install "agentnb[parquet]"') from None
    _check_folder(folder)
    now = now_us()
    with snapshot(root) as db:
        pick_runs(db, given)
        sessions = _sessions(db, given)
        counts = {"sessions": _write_sessions(db, folder, Table(columns.SESSIONS), sessions, now)}
        days = _days(db, sessions)
        for frame in TABLES:
            counts[frame.name] = _write_table(db, folder, Table(frame), days, now)
    return counts


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"to_parquet: {str(folder)!r} is a file; give a folder, which becomes the dataset")
    known = {frame.name for frame in columns.FRAMES}
    if strange := sorted(entry.name for entry in folder.glob("[!.]*") if entry.name not in known):
        raise ConfigError(
            f"to_parquet: {str(folder)!r} holds other things ({', '.join(strange[:3])}); give a new folder, or that of an earlier export"
        )


def _sessions(db: sqlite3.Connection, given: Filters) -> list[str]:
    """The sessions that are chosen: also those without runs, unless it is the runs that were asked for."""
    if {*given} <= {"session"}:
        return [str(session) for (session,) in rows(db, columns.SESSIONS, ["id"], given)]
    return [str(session) for (session,) in db.execute("SELECT DISTINCT session_id FROM picked WHERE session_id IS NOT NULL")]


def _days(db: sqlite3.Connection, sessions: list[str]) -> dict[int, _Day]:
    days: dict[int, _Day] = {}
    for day, *run in db.execute(_RUNS, (_DAY_US, _LAST_DAY)):
        days.setdefault(day, _Day()).add_run(*run)
    for day, seq in db.execute(_NO_RUN, (_DAY_US, _LAST_DAY, json.dumps(sessions))):
        days.setdefault(day, _Day()).add_event(seq)
    return days


def _write_sessions(db: sqlite3.Connection, folder: Path, table: Table, sessions: list[str], now: int) -> int:
    found = _in_chunks(db, table, "id", sessions, now)
    with whole_file(folder / "sessions" / "sessions.parquet", overwrite=True, what="to_parquet") as file:
        return table.write(file, found, "")


def _write_table(db: sqlite3.Connection, folder: Path, table: Table, days: dict[int, _Day], now: int) -> int:
    """Write what changed of one table; returns the number of rows that the dataset has of it now."""
    home, name = folder / table.frame.name, f"{table.frame.name}.parquet"
    total, kept = 0, set()
    for number, day in sorted(days.items()):
        target = home / f"day={date(1970, 1, 1) + timedelta(days=number)}" / name
        there = table.unchanged(target, day.state)
        if there is None:
            there = _write_day(db, table, target, day, now)
        if there:
            kept.add(target)
            total += there
    if not kept:
        kept.add(empty := home / "day=1970-01-01" / name)
        with whole_file(empty, overwrite=True, what="to_parquet") as file:
            table.write(file, iter(()), "")
    _remove_others(home, name, kept)
    return total


def _write_day(db: sqlite3.Connection, table: Table, target: Path, day: _Day, now: int) -> int:
    """Write one file; returns its number of rows. Of none there is no file."""
    found = _in_chunks(db, table, str(table.frame.run), day.runs, now)
    if table.frame is columns.EVENTS:
        found = _and_then(found, _in_chunks(db, table, "seq", day.events, now))
    first = next(found, None)
    if first is None:
        return 0
    with whole_file(target, overwrite=True, what="to_parquet") as file:
        return table.write(file, _and_then(iter((first,)), found), day.state)


def _and_then(*parts: Iterator[Row]) -> Iterator[Row]:
    for part in parts:
        yield from part


def _in_chunks(db: sqlite3.Connection, table: Table, key: str, values: list[Any], now: int) -> Iterator[Row]:
    """The rows whose `key` is among `values`, in the order of these: some hundreds at a time, by the key's index."""
    names = ", ".join(f'"{name}"' for name in table.names)
    source = source_sql(table.frame, [key, *table.names], now)
    query = f'SELECT {names} FROM ({source}) WHERE "{key}" IN (SELECT value FROM json_each(?)) ORDER BY "{key}", seq'  # noqa: S608
    for start in range(0, len(values), _CHUNK):
        yield from db.execute(query, (json.dumps(values[start : start + _CHUNK]),))


def _remove_others(home: Path, name: str, kept: set[Path]) -> None:
    """Remove the files of days that are not part of the dataset any more, and what an export that was killed left behind."""
    for path in home.glob(f"day=*/{name}"):
        if path not in kept:
            path.unlink(missing_ok=True)
    for folder in home.glob("day=*"):
        remove_left(folder, name)
        with suppress(OSError):
            folder.rmdir()  # one that is not empty stays
