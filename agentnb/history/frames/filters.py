"""The filters of the *_df functions, as SQL conditions over a frame's own column names (no pandas here)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Protocol, TypedDict

from agentnb import units
from agentnb.errors import ConfigError
from agentnb.history.fold import stamp
from agentnb.history.frames.columns import Frame
from agentnb.history.frames.condition import condition, value_of
from agentnb.history.jsontext import bindable, dumps

Moment = datetime | date | timedelta | str
Where = str | tuple[str, Sequence[Any]] | Mapping[str, Any]
Condition = tuple[str, list[Any]]


class Identified(Protocol):
    """A Session, a RunHandle, a RunGroup, a record ...: what has an id."""

    @property
    def id(self) -> str:
        """The id, as the history has it."""


Which = str | Identified | Iterable[str | Identified]


class Filters(TypedDict, total=False):
    """What every *_df function takes; see frames.runs_df."""

    session: Which | None
    status: str | Iterable[str] | None
    since: Moment | None
    until: Moment | None
    where: Where | None
    limit: int | None
    columns: Sequence[str] | None
    full: bool
    group: Which | None
    run: Which | None


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
        found.append(_of_runs(frame, "id" if frame.run is None else "session_id", _sessions(db, _ids("session", session, db))))
    if (status := given.get("status")) is not None:
        found.append(_one_of("status", _statuses(frame, status)))
    if (since := given.get("since")) is not None:
        found.append((f"{frame.at} >= ?", [moment_us(since, now, what="since")]))
    if (until := given.get("until")) is not None:
        found.append((f"{frame.at} < ?", [moment_us(until, now, what="until")]))
    if (group := given.get("group")) is not None:
        found.append(_of_runs(frame, _supported(frame, "group", frame.group), _ids("group", group, db)))
    if (run := given.get("run")) is not None:
        found.append(_one_of(_supported(frame, "run", frame.run), _ids("run", run, db)))
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


_TEXTS = "IN (SELECT value FROM json_each(?1))"
#: What of the texts in a JSON list is the id of each thing (for a session: or its name).
_HOMES = {
    "session": f"SELECT id FROM sessions WHERE id {_TEXTS} UNION SELECT name FROM sessions WHERE name {_TEXTS}",  # noqa: S608
    "run": f"SELECT id FROM runs WHERE id {_TEXTS}",  # noqa: S608
    "group": f"SELECT group_id FROM runs WHERE group_id {_TEXTS}",  # noqa: S608
}
_SESSIONS = f"SELECT id FROM sessions WHERE id {_TEXTS} OR name {_TEXTS}"  # noqa: S608


def _ids(what: str, given: Any, db: sqlite3.Connection) -> list[str]:
    """Ids (of sessions: or names) from one or several texts or objects that have an id; a group's runs where runs are wanted."""
    several = [given] if isinstance(given, str) else _members(given) if what == "run" else None
    if several is None:
        several = [given] if isinstance(getattr(given, "id", None), str) else _items(what, given)
    ids = [str(bindable(str(_id(what, one)))) for one in several]
    if strange := set(ids) - _among(db, what, ids):  # an id that is nowhere is no mistake: its run may be new
        for other in _HOMES:
            if found := _among(db, other, strange):
                raise ConfigError(f"{what}: {min(found)!r} is the id of a {other}; write {other}= instead")
    return ids


def _members(given: Any) -> list[Any] | None:
    """The runs of a group; None for anything that is none."""
    if isinstance(getattr(given, "id", None), str) and isinstance(given, Iterable):
        found = list(given)
        return found if found and all(hasattr(one, "id") for one in found) else None
    return None


def _items(what: str, given: Any) -> list[Any]:
    if isinstance(given, Iterable) and not isinstance(given, bytes | bytearray | Mapping) and not hasattr(given, "columns"):
        return list(given)
    raise _no_id(what, given)


def _id(what: str, one: Any) -> str:
    found = one if isinstance(one, str) else getattr(one, "id", None)
    if not isinstance(found, str):
        raise _no_id(what, one)
    return found


def _no_id(what: str, given: Any) -> ConfigError:
    one = {"session": "its id or name, the Session itself", "run": "its id, the RunHandle itself", "group": "its id, the RunGroup itself"}
    return ConfigError(f"{what}: {_short(given)} is no {what}; write {one[what]}, or a list of such")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"


def _among(db: sqlite3.Connection, what: str, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are the id of a `what`."""
    return {found for (found,) in db.execute(_HOMES[what], (dumps(list(ids)),))}


def _sessions(db: sqlite3.Connection, keys: Sequence[str]) -> list[str]:
    return [found for (found,) in db.execute(_SESSIONS, (dumps(list(keys)),))]


def _one_of(column: str, texts: Sequence[str]) -> Condition:
    """One bound value, however many texts: SQLite limits the number of ``?`` in a statement."""
    return f'"{column}" IN (SELECT value FROM json_each(?))', [dumps([str(text) for text in texts])]  # noqa: S608 - our own column names


def _of_runs(frame: Frame, name: str, texts: Sequence[str]) -> Condition:
    """Rows whose column has one of the texts; where it is their run's, by way of the runs: there is an index by run, a join reads all."""
    column = frame.column(name)
    text, values = _one_of(name, texts)
    if column is None or frame.link is None or frame.link.table != "runs" or not frame.linked(column):
        return text, values
    return f'"{frame.link.key}" IN (SELECT id FROM runs WHERE {text})', values  # noqa: S608 - our own column names


def _statuses(frame: Frame, given: str | Iterable[str]) -> list[str]:
    column = frame.column("status")
    if column is None:
        raise ConfigError(f"{frame.name} have no status; filter with run= or where= instead")
    if not isinstance(given, Iterable):
        raise ConfigError(f"status: {_short(given)} is no status; write one of {', '.join(column.categories)}, or a list of them")
    wanted = [str(status) for status in ([given] if isinstance(given, str) else given)]
    for status in wanted:
        if status not in column.categories:
            raise ConfigError(f"status: {status!r} is no status of {frame.name}; {suggestion(status, column.categories)}")
    return wanted


def _where(frame: Frame, where: Where) -> list[Condition]:
    match where:
        case str():
            return [(_text(frame, where), [])]
        case Mapping():
            return [_equals(frame, str(name), value) for name, value in where.items()]
        case (str() as text, values) if isinstance(where, tuple) and isinstance(values, Iterable) and not isinstance(values, str):
            return [(_text(frame, text), [_value(value) for value in values])]
    raise ConfigError(f"where: {_short(where)} must be SQL text, (SQL text with ?, [values]), or a mapping of column to value")


def _text(frame: Frame, where: str) -> str:
    return f"({condition(frame, where)}\n)"  # the newline ends a trailing comment


def _equals(frame: Frame, name: str, value: Any) -> Condition:
    kind, _, key = name.partition(".")
    if key and kind in frame.maps:
        column, before = value_of(kind), [bindable(key)]
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
