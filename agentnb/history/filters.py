"""The filters of the *_df functions, as SQL conditions over a frame's own column names (no pandas here)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import Any, TypedDict

from agentnb import units
from agentnb.errors import ConfigError
from agentnb.history.columns import Frame
from agentnb.history.fold import stamp
from agentnb.history.jsontext import bindable, dumps

Moment = datetime | date | timedelta | str
Where = str | tuple[str, Sequence[Any]] | Mapping[str, Any]
Condition = tuple[str, list[Any]]


class Filters(TypedDict, total=False):
    """What every *_df function takes; see frames.runs_df."""

    session: str | None
    status: str | Iterable[str] | None
    since: Moment | None
    until: Moment | None
    where: Where | None
    limit: int | None
    columns: Sequence[str] | None
    full: bool
    group: str | None
    run: str | Iterable[str] | None


def check_names(frame: Frame, given: Mapping[str, Any]) -> None:
    """Raise ConfigError for a filter that does not exist, naming a near one."""
    for name in given:
        if name not in Filters.__annotations__:
            raise ConfigError(f"{frame.name}_df has no filter {name!r}; {suggestion(name, Filters.__annotations__)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """A near name, or all that there are."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def conditions(frame: Frame, db: sqlite3.Connection, given: Filters, now: int) -> list[Condition]:
    """All conditions that `given` asks for. Raises ConfigError for values that make no sense."""
    found: list[Condition] = []
    if (session := given.get("session")) is not None:
        ids = [row[0] for row in db.execute("SELECT id FROM sessions WHERE id = ? OR name = ?", (bindable(str(session)),) * 2)]
        found.append(_one_of("id" if frame.run is None else "session_id", ids))
    if (status := given.get("status")) is not None:
        found.append(_one_of("status", _statuses(frame, status)))
    if (since := given.get("since")) is not None:
        found.append((f"{frame.at} >= ?", [moment_us(since, now, what="since")]))
    if (until := given.get("until")) is not None:
        found.append((f"{frame.at} < ?", [moment_us(until, now, what="until")]))
    if (group := given.get("group")) is not None:
        found.append((f"{_supported(frame, 'group', frame.group)} = ?", [bindable(str(group))]))
    if (run := given.get("run")) is not None:
        found.append(_one_of(_supported(frame, "run", frame.run), [run] if isinstance(run, str) else list(run)))
    if (where := given.get("where")) is not None:
        found += _where(frame, where)
    return found


def moment_us(value: Moment, now: int, *, what: str) -> int:
    """Microseconds UTC: a datetime, a date or ISO 8601 text (UTC unless it says otherwise), or a span before now ("7d")."""
    if isinstance(value, datetime):
        return stamp(value, 0)
    if isinstance(value, date):
        return stamp(datetime(value.year, value.month, value.day, tzinfo=UTC), 0)
    if isinstance(value, str):
        try:
            return stamp(datetime.fromisoformat(value.strip()), 0)
        except ValueError:
            pass
    try:
        return now - round(units.seconds(value, what=what) * 1e6)
    except ConfigError:
        raise ConfigError(
            f"{what}: {value!r} is no time; write a datetime, ISO text ('2026-11-22', '2026-11-22T08:00Z') or a span ('7d', '90m')"
        ) from None


def _supported(frame: Frame, name: str, column: str | None) -> str:
    if column is None:
        raise ConfigError(f"{frame.name}_df cannot be filtered by {name}=; use runs_df")
    return column


def _one_of(column: str, texts: Sequence[str]) -> Condition:
    """One bound value, however many texts: SQLite limits the number of ``?`` in a statement."""
    return f'"{column}" IN (SELECT value FROM json_each(?))', [dumps([str(text) for text in texts])]  # noqa: S608 - our own column names


def _statuses(frame: Frame, given: str | Iterable[str]) -> list[str]:
    column = frame.column("status")
    if column is None:
        raise ConfigError(f"{frame.name} have no status; filter with run= or where= instead")
    wanted = [str(status) for status in ([given] if isinstance(given, str) else given)]
    for status in wanted:
        if status not in column.categories:
            raise ConfigError(f"status: {status!r} is no status of {frame.name}; {suggestion(status, column.categories)}")
    return wanted


def _where(frame: Frame, where: Where) -> list[Condition]:
    if isinstance(where, str):
        return [(f"({where}\n)", [])]  # the newline ends a trailing comment
    if isinstance(where, Mapping):
        return [_equals(frame, str(name), value) for name, value in where.items()]
    if isinstance(where, tuple) and len(where) == 2 and isinstance(where[0], str):
        return [(f"({where[0]}\n)", [_value(value) for value in where[1]])]
    raise ConfigError(f"where: {where!r} must be SQL text, (SQL text with ?, values), or a mapping of column to value")


def _equals(frame: Frame, name: str, value: Any) -> Condition:
    kind, _, key = name.partition(".")
    if key and kind in frame.maps:
        column, before = "json_extract({}, ?)".format(f'"{kind}s"'), ['$."{}"'.format(key.replace('"', '\\"'))]
    elif frame.column(name) is not None:
        column, before = f'"{name}"', []
    else:
        raise ConfigError(f"where: {frame.name}_df has no column {name!r}; {suggestion(name, [c.name for c in frame.columns])}")
    if value is None:
        return f"{column} IS NULL", list(before)
    if isinstance(value, list | tuple | set | frozenset):
        return f"{column} IN ({', '.join('?' * len(value))})", [*before, *map(_value, value)]
    return f"{column} = ?", [*before, _value(value)]


def _value(value: Any) -> Any:
    """What SQLite compares with: stamps as microseconds, numbers and text as they are (numpy's too)."""
    if isinstance(value, datetime):
        return stamp(value, 0)
    plain = value.item() if hasattr(value, "item") else value
    if plain is None or isinstance(plain, str | int | float | bytes):
        return bindable(plain)
    raise ConfigError(f"where: {value!r} cannot be compared with; use text, a number, a datetime or None")
