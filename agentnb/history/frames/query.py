"""What a frame reads of the database: one statement for its filters, and what is looked up for the rows that it finds (no pandas)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, TypeVar

from agentnb.errors import ConfigError
from agentnb.history.frames import filters
from agentnb.history.frames.columns import COUNT, STRING, Column, Frame
from agentnb.history.frames.condition import double_quoted
from agentnb.history.frames.filters import Filters, suggestion
from agentnb.history.jsontext import dumps

#: Rows that are fetched at a time: so few that they stay in the processor's cache while they become columns.
CHUNK = 2000
Rows = list[tuple[Any, ...]]
Made = TypeVar("Made")


def seq_of(frame: Frame) -> Column:
    """The order of recording."""
    return frame.column("seq") or Column("seq", f"{frame.alias}.rowid", COUNT, "")


@dataclass(frozen=True, slots=True)
class Query:
    """A statement and what its columns are; `linked` columns are looked up by the frame's link. `plain`: neither filters nor limit."""

    frame: Frame
    columns: tuple[Column, ...]
    linked: tuple[Column, ...]
    sql: str
    values: list[Any]
    where: Any
    plain: bool
    now: int

    def beyond(self, last: int, also: list[int]) -> Query:
        """A plain query for the rows after row number `last`, and these."""
        row = seq_of(self.frame).sql
        sql = f"{self.sql} WHERE {row} > ? OR {row} IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own names
        return replace(self, sql=sql, values=[last, dumps(also)], plain=False)

    def run(self, db: sqlite3.Connection, read: Callable[[], Made]) -> Made:
        """What `read` makes of `chunks`, called again where text turns out to be none. Raises ConfigError for an odd `where`."""
        try:
            try:
                return read()
            except sqlite3.OperationalError as bad:
                if "decode" not in str(bad).lower():
                    raise
                db.text_factory = lambda data: data.decode(errors="replace")  # an error's message may hold half a character
                return read()
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as bad:
            raise fault(self.frame, self.where, bad) from None

    def chunks(self, db: sqlite3.Connection) -> Iterator[Rows]:
        """The rows, some thousands at a time."""
        cursor = db.execute(self.sql, self.values)
        while rows := cursor.fetchmany(CHUNK):
            yield rows


def fault(frame: Frame, where: Any, bad: sqlite3.Error) -> Exception:
    """What to raise when SQLite refuses a statement with the user's condition `where`: a ConfigError where that is wrong."""
    text = str(bad)
    if text.startswith("no such column: "):
        return _unknown(frame, where, text.removeprefix("no such column: ").partition(" - should this be")[0])
    if getattr(bad, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR:
        return ConfigError(f"where: SQLite does not take this condition: {text}")
    return bad


def _unknown(frame: Frame, where: Any, name: str) -> ConfigError:
    text = f"where: {frame.name}_df has no column {name!r}; {suggestion(name, [c.name for c in frame.columns])}"
    sql = where[0] if isinstance(where, tuple) else where
    if isinstance(sql, str) and double_quoted(sql, name):
        text += "; a text value stands in single quotes: '{}'".format(name.replace("'", "''"))
    return ConfigError(text)


def newest(frame: Frame, limit: Any) -> str:
    """The clause for the newest `limit` rows, from 0 up. Raises ConfigError for anything else."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ConfigError(f"limit: {limit!r} must be a whole number, zero or more")
    return f"ORDER BY {', '.join(f'{_quoted(name)} DESC' for name in frame.order)} LIMIT {limit}"


def query(frame: Frame, db: sqlite3.Connection, given: Filters, wanted: Iterable[Column], now: int) -> Query:
    """The query for these columns, the frame's maps, and all that puts its rows in order. Raises ConfigError for odd filters."""
    wanted = list(wanted)
    linked = tuple(column for column in wanted if frame.linked(column))
    hidden = [frame.column(name) or seq_of(frame) for name in (*frame.order, "seq")]
    if linked and frame.link:
        hidden += [column for column in frame.columns if column.name == frame.link.key]
    read = [column for column in wanted if not frame.linked(column)] + maps_of(frame) + hidden
    columns = tuple({column.name: column for column in read}.values())
    found = filters.conditions(frame, db, given, now)
    values = [value for _, part in found for value in part]
    plain = not found and given.get("limit") is None
    if plain:
        sql = f"SELECT {cells(columns, now)} FROM {frame.table} {frame.alias}"  # noqa: S608 - our own columns
    else:
        sql = _filtered(frame, columns, [text for text, _ in found], given.get("limit"), now)
    return Query(frame, columns, linked, sql, values, given.get("where"), plain, now)


def maps_of(frame: Frame) -> list[Column]:
    """The JSON objects that become columns: ``params``, ``tags``."""
    return [Column(f"{prefix}s", sql, STRING, "") for prefix, sql in frame.maps.items()]


def cells(columns: Iterable[Column], now: int) -> str:
    """The columns as SQL, over the frame's own table."""
    return ", ".join(f'{_typed(column, column.sql.replace(":now", str(now)))} AS "{column.name}"' for column in columns)


def _typed(column: Column, sql: str) -> str:
    """Text is text: an expression over JSON may give anything."""
    return f"CAST({sql} AS TEXT)" if column.dtype in {STRING, "category"} and not _is_plain(column) else sql


def _is_plain(column: Column) -> bool:
    return column.sql.replace(".", "").replace("_", "").isalnum()


def _filtered(frame: Frame, columns: Iterable[Column], conditions: list[str], limit: Any, now: int) -> str:
    inner = {column.name: column.sql.replace(":now", str(now)) for column in (*frame.columns, *maps_of(frame), seq_of(frame))}
    source = ", ".join(f'{sql} AS "{name}"' for name, sql in inner.items())
    chosen = ", ".join(f'{_typed(column, _quoted(column.name))} AS "{column.name}"' for column in columns)
    sql = f"SELECT {chosen} FROM (SELECT {source} FROM {frame.source})"  # noqa: S608 - what users give is bound, or their own `where`
    if conditions:
        sql += f" WHERE {' AND '.join(conditions)}"
    if limit is not None:
        last = newest(frame, limit)
        if frame.run is None and not conditions:  # sessions, whose counts cost much: those of the newest are enough
            sql = f"{sql[:-1]} WHERE {frame.alias}.rowid IN (SELECT rowid FROM {frame.table} {last}))"  # noqa: S608
        sql += f" {last}"
    return sql


def _quoted(name: str) -> str:
    return f'"{name}"'


def linked_values(db: sqlite3.Connection, asked: Query, keys: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """The linked columns' values for rows (at least one) whose keys are these."""
    link = asked.frame.link
    if link is None or not asked.linked:
        return {}
    names = ", ".join(column.sql for column in asked.linked)
    several = dumps([key for key in dict.fromkeys(keys) if isinstance(key, str)])
    rows = db.execute(
        f"SELECT {link.alias}.id, {names} FROM {link.table} {link.alias} WHERE {link.alias}.id IN (SELECT value FROM json_each(?))",  # noqa: S608
        (several,),
    )
    found = {key: values for key, *values in rows}
    missing = [None] * len(asked.linked)
    cells = zip(*map(found.get, keys, repeat(missing)), strict=True)
    return {column.name: values for column, values in zip(asked.linked, cells, strict=True)}
