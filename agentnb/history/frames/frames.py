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
from agentnb.history.artifacts import digest_of
from agentnb.history.frames import arrays, columns, filters, sources
from agentnb.history.frames.columns import Column, Frame, column_docs
from agentnb.history.frames.filters import Filters, suggestion
from agentnb.history.frames.query import query
from agentnb.history.reader import output_bytes, reading
from agentnb.history.tombstone import why_gone

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
        raise ConfigError(f"run {run_ids[int((order < 0).argmax())]} of this group is not in {root}; it {why_gone(root)}")
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
    wanted = _wanted(frame, given)
    with reading(root) as db:
        db.execute("BEGIN")
        asked = query(frame, db, given, wanted, now_us())
        block = sources.read(root, asked, db)
        made = {c.name: _whole(db, root, frame, c, block[c.name]) if c.full else block[c.name] for c in wanted}
    rows = len(block["seq"])
    for prefix in frame.maps:
        made |= _spread(prefix, block[f"{prefix}s"])
    result = pd.DataFrame(made, index=pd.RangeIndex(rows), copy=False)
    chosen = given.get("columns")
    if chosen is not None:
        result = _choose(result, list(chosen))
    result.attrs["agentnb"] = {name: columns.meaning(frame, str(name)) for name in result.columns}
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


def _spread(prefix: str, texts: Any) -> dict[str, Any]:
    """One column per key of the JSON objects `texts`, in the order in which the keys first come."""
    codes, several = pd.factorize(texts)  # grids repeat themselves
    known = [json.loads(text) if isinstance(text, str) else {} for text in several.tolist()]
    keys = dict.fromkeys(key for row in known for key in row)
    return {f"{prefix}.{key}": arrays.inferred([*(row.get(key) for row in known), None]).take(codes) for key in keys}


def _choose(result: pd.DataFrame, chosen: list[str]) -> pd.DataFrame:
    for name in chosen:
        if name not in result:
            if len(result):
                raise ConfigError(f"columns: no row has {name!r}; {suggestion(name, map(str, result.columns))}")
            result[name] = pd.array([], dtype="string")
    return result[list(dict.fromkeys(chosen))].copy()


def _whole(db: sqlite3.Connection, root: Path, frame: Frame, column: Column, cells: Any) -> Any:
    """What only `full` reads: output by run id, an artifact's bytes by location, an event's data."""
    if frame is columns.EVENTS:
        values: list[Any] = [json.loads(cell) for cell in cells]
    elif frame is columns.ARTIFACTS:
        values = [_content(root, *cell.split(" ", 1)) for cell in cells]
    else:
        values = [_stream(db, root, run_id, column.name) for run_id in cells]
    return arrays.array(column, values)


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
