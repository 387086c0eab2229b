"""The history as DataFrames: columns as declared in columns.py, filters pushed into SQL, dtypes the same on every read."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from agentnb.errors import ArtifactCorrupted, ConfigError
from agentnb.events import now_us
from agentnb.history import arrays, columns, filters
from agentnb.history.artifacts import digest_of
from agentnb.history.columns import Column, Frame, column_docs
from agentnb.history.condition import double_quoted
from agentnb.history.filters import Filters, suggestion
from agentnb.history.reader import output_bytes, reading

__all__ = ["artifacts_df", "column_docs", "events_df", "group_df", "runs_df", "sessions_df", "steps_df"]


def runs_df(root: Path, **given: Unpack[Filters]) -> pd.DataFrame:
    """One row per run of the store at `root`, in the order of creation; see `column_docs` for columns, dtypes and units.

    Filters, all optional: `session` (id, name or Session), `group` (id or RunGroup) and `run` (id, RunHandle or RunGroup), one or
    several of each; `status` (text or several); `since` (included) and `until` (excluded): a datetime, ISO text (UTC unless it says
    otherwise) or a span before now ("7d"); `where`: SQL over the frame's columns, ``param.x`` and ``tag.x``, (SQL with ``?``, values),
    or a mapping of such a name to a value, a list of values or None; `limit`: the newest n; `columns`: only these, in this order;
    `full=True`: also `stdout` and `stderr`. An odd name in SQL text is quoted: ``where='"param.learning rate" > 0.1'``.
    Raises ConfigError for a name or value that makes no sense, StoreError when the store cannot be read.
    """
    return _frame(columns.RUNS, root, given)


def steps_df(root: Path, **given: Unpack[Filters]) -> pd.DataFrame:
    """One row per step, in the order of creation. Filters and errors: see `runs_df` (`status` is the step's)."""
    return _frame(columns.STEPS, root, given)


def _apart(names: list[str], taken: set[str]) -> list[str]:
    """The names, with ``base.`` before each that is taken, as often as it needs."""
    own, used, found = set(names), set(taken), []
    for name in names:
        free = name
        while free in used or (free != name and free in own):
            free = f"base.{free}"
        used.add(free)
        found.append(free)
    return found


def artifacts_df(root: Path, **given: Unpack[Filters]) -> pd.DataFrame:
    """One row per artifact, in the order of creation. Filters and errors: see `runs_df`, without `status`.

    ``full=True`` adds `content`, verified: ArtifactCorrupted when the bytes are not those of the checksum.
    """
    return _frame(columns.ARTIFACTS, root, given)


def events_df(root: Path, **given: Unpack[Filters]) -> pd.DataFrame:
    """One row per event, in the order of recording. Filters and errors: see `runs_df`, without `status`. ``full=True`` adds `data`."""
    return _frame(columns.EVENTS, root, given)


def sessions_df(root: Path, **given: Unpack[Filters]) -> pd.DataFrame:
    """One row per session, in the order of creation, with counts of its runs. Filters and errors: see `runs_df`, without run and group."""
    return _frame(columns.SESSIONS, root, given)


def group_df(root: Path, run_ids: Sequence[str], base: pd.DataFrame | None = None, *, rows: Sequence[int] | None = None) -> pd.DataFrame:
    """One row per run of a group, in launch order, parameters as columns.

    With `base`, the DataFrame that the group was mapped over, its columns come first and its index is kept; run number i belongs to
    its row number ``rows[i]`` (default: i). A column of `base` that has the name of a run's column is called ``base.<name>``.
    Raises ConfigError when runs and rows do not match.
    """
    found = runs_df(root, run=list(run_ids))
    order = pd.Index(found["id"]).get_indexer(pd.Index(pd.array(list(run_ids), dtype="string")))
    if (order < 0).any():
        raise ConfigError(f"run {run_ids[int((order < 0).argmax())]} of this group is not in {root}")
    runs = found.take(order).reset_index(drop=True)
    if base is None:
        return runs
    places = list(range(len(run_ids))) if rows is None else list(rows)
    if len(places) != len(runs) or any(not 0 <= place < len(base) for place in places):
        raise ConfigError(f"the group has {len(runs)} runs, the DataFrame {len(base)} rows: give rows=, the row's number of each run")
    left = base.take(places)
    taken = set(runs.columns)
    names = [".".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in left.columns]
    left = left.set_axis(_apart(names, taken), axis="columns")
    joined = pd.concat([left, runs.set_axis(left.index, axis="index")], axis="columns")
    joined.attrs = dict(runs.attrs)
    return joined


def _frame(frame: Frame, root: Path, given: Filters) -> pd.DataFrame:
    filters.check_names(frame, given)
    now = now_us()
    with reading(root) as db:
        wanted = _wanted(frame, given)
        names, rows = _query(db, frame, given, wanted, now)
        cells = dict(zip(names, zip(*rows, strict=True) if rows else ((),) * len(names), strict=True))
        made = {
            c.name: arrays.series(c, _whole_values(db, root, frame, c.name, cells[c.name]) if c.full else cells[c.name]) for c in wanted
        }
    for prefix in frame.maps:
        made |= _spread(prefix, cells[f"{prefix}s"])
    chosen = given.get("columns")
    result = pd.DataFrame(made, index=pd.RangeIndex(len(rows)))
    if chosen is not None:
        result = _choose(result, list(chosen))
    result.attrs["agentnb"] = {name: _meaning(frame, str(name)) for name in result.columns}
    return result


def _wanted(frame: Frame, given: Filters) -> list[Column]:
    chosen, full = given.get("columns"), bool(given.get("full"))
    if chosen is None:
        return [column for column in frame.columns if full or not column.full]
    if isinstance(chosen, str):
        raise ConfigError(f"columns: {chosen!r} is one text; write a list, [{chosen!r}]")
    if not isinstance(chosen, Iterable):
        raise ConfigError(f"columns: {chosen!r} is no list of names; write such as ['id', 'status']")
    for name in chosen:
        if frame.column(name) is None and str(name).partition(".")[0] not in frame.maps:
            raise ConfigError(f"columns: {frame.name}_df has no column {name!r}; {suggestion(str(name), [c.name for c in frame.columns])}")
    return [column for column in frame.columns if column.name in chosen]


def _query(db: sqlite3.Connection, frame: Frame, given: Filters, wanted: Sequence[Column], now: int) -> tuple[list[str], list[Any]]:
    inner = [f'{column.sql.replace(":now", str(now))} AS "{column.name}"' for column in frame.columns]
    inner += [f'{sql} AS "{prefix}s"' for prefix, sql in frame.maps.items()]
    if frame.column("seq") is None:
        inner.append(f"{frame.source.split()[1]}.rowid AS seq")
    found = filters.conditions(frame, db, given, now)
    values: list[Any] = [value for _, part in found for value in part]
    names = [column.name for column in wanted] + [f"{prefix}s" for prefix in frame.maps]
    outer = [*dict.fromkeys([*names, *frame.order])]
    sql = f"SELECT {', '.join(map(_quoted, outer))} FROM (SELECT {', '.join(inner)} FROM {frame.source})"  # noqa: S608 - our own columns; what users give is bound, or their own `where`
    if found:
        sql += f" WHERE {' AND '.join(text for text, _ in found)}"
    if (limit := given.get("limit")) is not None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
            raise ConfigError(f"limit: {limit!r} must be a whole number, zero or more")
        sql += f" ORDER BY {', '.join(f'{name} DESC' for name in frame.order)} LIMIT {limit}"
    return outer, _fetch(db, f"SELECT * FROM ({sql}) ORDER BY {', '.join(frame.order)}", values, frame, given.get("where"))  # noqa: S608


def _quoted(name: str) -> str:
    return f'"{name}"'


def _fetch(db: sqlite3.Connection, sql: str, values: list[Any], frame: Frame, where: Any) -> list[Any]:
    try:
        try:
            return db.execute(sql, values).fetchall()
        except sqlite3.OperationalError as bad:
            if "decode" not in str(bad).lower():
                raise
            db.text_factory = lambda data: data.decode(errors="replace")  # an error's message may hold half a character
            return db.execute(sql, values).fetchall()
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as bad:
        text = str(bad)
        if text.startswith("no such column: "):
            raise _unknown(frame, text.removeprefix("no such column: ").partition(" - should this be")[0], where) from None
        if getattr(bad, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR:
            raise ConfigError(f"where: SQLite does not take this condition: {text}") from None
        raise


def _unknown(frame: Frame, name: str, where: Any) -> ConfigError:
    text = f"where: {frame.name}_df has no column {name!r}; {suggestion(name, [c.name for c in frame.columns])}"
    sql = where[0] if isinstance(where, tuple) else where
    if isinstance(sql, str) and double_quoted(sql, name):
        text += "; a text value stands in single quotes: '{}'".format(name.replace("'", "''"))
    return ConfigError(text)


def _spread(prefix: str, texts: Sequence[str]) -> dict[str, pd.Series[Any]]:
    """One column per key of the JSON objects `texts`, in the order in which the keys first come."""
    rows = [json.loads(text) if text and text != "{}" else {} for text in texts]
    keys = dict.fromkeys(key for row in rows for key in row)
    return {f"{prefix}.{key}": arrays.inferred(f"{prefix}.{key}", [row.get(key) for row in rows]) for key in keys}


def _choose(result: pd.DataFrame, chosen: list[str]) -> pd.DataFrame:
    for name in chosen:
        if name not in result:
            if len(result):
                raise ConfigError(f"columns: no row has {name!r}; {suggestion(name, map(str, result.columns))}")
            result[name] = pd.array([], dtype="string")
    return result[list(dict.fromkeys(chosen))].copy()


def _meaning(frame: Frame, name: str) -> dict[str, str]:
    column = frame.column(name)
    if column is not None:
        return {"meaning": column.meaning, "unit": column.unit}
    prefix, _, key = name.partition(".")
    return {"meaning": f"value of {'parameter' if prefix == 'param' else prefix} {key}", "unit": ""}


def _whole_values(db: sqlite3.Connection, root: Path, frame: Frame, stream: str, cells: Sequence[Any]) -> list[Any]:
    """What only `full` reads: output by run id, an artifact's bytes by location, an event's data."""
    if frame is columns.EVENTS:
        return [json.loads(cell) for cell in cells]
    if frame is columns.ARTIFACTS:
        return [_content(root, *cell.split(" ", 1)) for cell in cells]
    return [_stream(db, root, run_id, stream) for run_id in cells]


def _stream(db: sqlite3.Connection, root: Path, run_id: str, stream: str) -> str | None:
    row = db.execute("SELECT inline, path FROM logs WHERE run_id = ? AND stream = ?", (run_id, stream)).fetchone()
    return output_bytes(root, *row).decode(errors="replace") if row else None


def _content(root: Path, checksum: str, location: str) -> bytes | None:
    kept = json.loads(location)
    if kept.get("type") == "inline":
        data = base64.b64decode(kept.get("data") or "")
    elif kept.get("type") == "local":
        path = root / str(kept.get("path"))
        try:
            data = path.read_bytes()
        except OSError as bad:
            raise ArtifactCorrupted(f"the artifact {path} should have checksum {checksum}, but it cannot be read: {bad.strerror}") from bad
    else:
        return None
    if digest_of(data) != checksum:
        raise ArtifactCorrupted(f"the artifact {kept.get('path', '(inline)')} should have checksum {checksum}, but has {digest_of(data)}")
    return data
