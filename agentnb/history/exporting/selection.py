"""Rows of the history one after the other, as the filters of the frames choose them: bounded memory however many there are (no pandas)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentnb.errors import ConfigError
from agentnb.events import now_us
from agentnb.history.frames import columns, filters
from agentnb.history.frames.columns import Frame
from agentnb.history.frames.filters import Filters
from agentnb.history.frames.query import fault, newest
from agentnb.history.reader import reading

Row = tuple[Any, ...]


@contextmanager
def opened(root: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection whose texts are never refused; StoreError as `reading`."""
    with reading(root) as db:
        db.text_factory = lambda data: data.decode(errors="replace")  # an error's message may hold half a character
        yield db


@contextmanager
def snapshot(root: Path) -> Iterator[sqlite3.Connection]:
    """As `opened`, and it sees one moment of the store, however long it is read and whoever writes.

    The writers' log is not cleared meanwhile, so nothing slow (a server) may be waited for.
    """
    with opened(root) as db:
        db.execute("BEGIN")
        yield db


def rows(db: sqlite3.Connection, frame: Frame, names: Sequence[str], given: Filters, *, now: int | None = None) -> Iterator[Row]:
    """The cells `names` (columns of the frame, or its ``params``, ``tags``) of each row that the filters choose, in order of recording.

    Raises ConfigError for filters that make no sense, before the first row.
    """
    filters.check_names(frame, given)
    sql, values = _statement(frame, names, given, db, now_us() if now is None else now)
    return _execute(db, sql, values, frame, given.get("where"))


def pick_runs(db: sqlite3.Connection, given: Filters, *, ended: bool = False) -> int:
    """Make a temporary table ``picked`` (id, session_id, at, live) of the runs that the filters of runs_df choose; return their number.

    `ended`: only those that have ended. `at` is the time of launch, us.
    """
    for name in ("columns", "full"):
        if given.get(name) is not None:
            raise ConfigError(
                f"{name}: an export has the columns it has; choose runs with session, group, run, status, since, until, where"
            )
    filters.check_names(columns.RUNS, given)
    sql, values = _statement(columns.RUNS, ["id", "session_id", "created_at", "status"], given, db, now_us())
    picked = f"SELECT id, session_id, coalesce(created_at, 0) AS at, status IN ('pending', 'running') AS live FROM ({sql})"  # noqa: S608
    _execute(
        db,
        f"CREATE TEMP TABLE picked AS {picked} WHERE NOT live" if ended else f"CREATE TEMP TABLE picked AS {picked}",
        values,
        columns.RUNS,
        given.get("where"),
    )
    db.execute("CREATE UNIQUE INDEX temp.picked_by_id ON picked (id)")
    [(number,)] = db.execute("SELECT count(*) FROM picked")
    return int(number)


def records(db: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
    """The rows of any query of ours, as dicts."""
    cursor = db.execute(query, values)
    names = [name for name, *_ in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def source_sql(frame: Frame, names: Sequence[str], now: int) -> str:
    """The frame's source with these cells under their names, and ``seq``, the order of recording."""
    known = {column.name: column.sql for column in frame.columns} | {f"{prefix}s": sql for prefix, sql in frame.maps.items()}
    known.setdefault("seq", f"{frame.source.split()[1]}.rowid")
    cells = [f'{known[name].replace(":now", str(now))} AS "{name}"' for name in dict.fromkeys([*names, "seq"])]
    return f"SELECT {', '.join(cells)} FROM {frame.source}"  # noqa: S608 - our own columns


def _statement(frame: Frame, names: Sequence[str], given: Mapping[str, Any], db: sqlite3.Connection, now: int) -> tuple[str, list[Any]]:
    limit = given.get("limit")
    every = [column.name for column in frame.columns] + [f"{prefix}s" for prefix in frame.maps]
    kept = ", ".join(f'"{name}"' for name in dict.fromkeys([*names, *frame.order, "seq"]))
    sql = f"SELECT {kept} FROM ({source_sql(frame, every, now)})"  # noqa: S608
    found = filters.conditions(frame, db, given, now)  # type: ignore[arg-type]
    if found:
        sql += f" WHERE {' AND '.join(text for text, _ in found)}"
    if limit is not None:
        sql += f" {newest(frame, limit)}"
    cells = ", ".join(f'"{name}"' for name in names)
    return f"SELECT {cells} FROM ({sql}) ORDER BY seq", [value for _, part in found for value in part]  # noqa: S608


def _execute(db: sqlite3.Connection, sql: str, values: Sequence[Any], frame: Frame, where: Any) -> sqlite3.Cursor:
    try:
        return db.execute(sql, values)
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as bad:
        raise fault(frame, where, bad) from None
