"""The history as JSON lines: one object per row, for jq, log shippers and whatever reads text; bounded memory for any number.

A line of events is ``{"seq", "at", "type", "session_id", "group_id", "run_id", "step_id", "data"}``, where `data` is what the event says
(agentnb/events.py). Lines of the other tables have the columns of their frames, and ``param.x`` and ``tag.x`` where a row has them. Stamps
are ISO 8601 in UTC with microseconds, durations seconds, what is not known is null. Names may be added, never changed.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from agentnb.errors import ConfigError
from agentnb.history.exporting.selection import rows, snapshot
from agentnb.history.frames.columns import ARTIFACTS, EVENTS, FRAMES, STAMP, Column, Frame
from agentnb.history.frames.filters import Filters, suggestion
from agentnb.history.reader import output_bytes
from agentnb.history.whole_file import whole_file

TABLES = {frame.name: frame for frame in FRAMES}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder(parse_constant=int).decode  # NaN and Infinity are no JSON: a ValueError
_Cell = Callable[[Any], str]


def write_jsonl(root: Path, target: Path, table: str, given: Filters, *, overwrite: bool) -> int:
    """Write the rows to the file `target`, whole or not at all; returns their number. Errors: as `lines`, and StoreError."""
    frame = table_of(table)
    with snapshot(root) as db:
        found = lines(db, root, frame, given)
        first = next(found, None)  # a filter that makes no sense is told before there is a file
        with whole_file(target, overwrite=overwrite, what="to_jsonl") as file:
            return 0 if first is None else _write(file, first, found)


def stream_jsonl(root: Path, write: Callable[[bytes], object], table: str, given: Filters) -> None:
    """Hand the rows to `write`, a line at a time, as they are read."""
    with snapshot(root) as db:
        for line in lines(db, root, table_of(table), given):
            write(line)


def table_of(name: str) -> Frame:
    """The table of that name. Raises ConfigError."""
    if name not in TABLES:
        raise ConfigError(f"to_jsonl: there is no table {name!r}; {suggestion(str(name), TABLES)}")
    return TABLES[name]


def lines(db: sqlite3.Connection, root: Path, frame: Frame, given: Filters) -> Iterator[bytes]:
    """A line for each row that the filters choose. Raises ConfigError for what makes no sense."""
    wanted = _wanted(frame, given)
    names = [column.name for column in wanted] + [f"{prefix}s" for prefix in frame.maps]
    cells = [(_encode(column.name), _cell(column, db, root)) for column in wanted]
    chosen = given.get("columns")
    kept = {name: value for name, value in given.items() if name not in {"columns", "full"}}
    for row in rows(db, frame, names, cast("Filters", kept)):
        parts = [f"{name}:{cell(value)}" for (name, cell), value in zip(cells, row, strict=False)]
        for prefix, text in zip(frame.maps, row[len(cells) :], strict=True):
            if text != "{}":
                parts += _spread(prefix, text, chosen)
        yield f"{{{','.join(parts)}}}\n".encode(errors="replace")


def _write(file: BinaryIO, first: bytes, found: Iterator[bytes]) -> int:
    file.write(first)
    number = 1
    for line in found:
        file.write(line)
        number += 1
    return number


def _wanted(frame: Frame, given: Filters) -> list[Column]:
    full, chosen = bool(given.get("full")), given.get("columns")
    if frame is ARTIFACTS and (full or "content" in (chosen or ())):
        raise ConfigError("to_jsonl: JSON has no bytes; read an artifact's with artifacts_df(full=True), or its file at `location`")
    if chosen is None:
        return [column for column in frame.columns if full or not column.full or frame is EVENTS]
    if isinstance(chosen, str):
        raise ConfigError(f"columns: {chosen!r} is one text; write a list, [{chosen!r}]")
    for name in chosen:
        if frame.column(name) is None and str(name).partition(".")[0] not in frame.maps:
            raise ConfigError(f"columns: {frame.name} have no column {name!r}; {suggestion(str(name), [c.name for c in frame.columns])}")
    return [column for name in dict.fromkeys(chosen) if (column := frame.column(name)) is not None]


def _cell(column: Column, db: sqlite3.Connection, root: Path) -> _Cell:
    if column.name == "data":
        return _json_text
    if column.full:
        return lambda run_id: _encode(_stream(db, root, run_id, column.name))
    return _stamp if column.dtype == STAMP else _value


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return _encode(value.decode(errors="replace"))
    return _encode(finite(value))


def _stamp(value: Any) -> str:
    if value is None:
        return "null"
    try:
        return f'"{(_EPOCH + timedelta(microseconds=value)).isoformat(timespec="microseconds")[:-6]}Z"'
    except (OverflowError, TypeError):  # no time that a calendar has
        return "null"


def _json_text(text: Any) -> str:
    """What the store has as JSON, on one line; what is none (it was tampered with) as a text."""
    try:
        found = _decode(text)
    except (TypeError, ValueError, RecursionError):
        return _value(text)
    if "e999" in text or "\\ud" in text:  # the store's infinities and half characters, which other readers do not take
        return _encode(finite(found))
    return str(text).replace("\n", " ").replace("\r", " ")


def finite(value: Any) -> Any:
    """JSON data with null for what is no finite number."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _spread(prefix: str, text: str, chosen: Any) -> Iterator[str]:
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return
    for key, value in found.items() if isinstance(found, dict) else ():
        name = f"{prefix}.{key}"
        if chosen is None or name in chosen:
            yield f"{_encode(name)}:{_encode(finite(value))}"


def _stream(db: sqlite3.Connection, root: Path, run_id: str, stream: str) -> str | None:
    row = db.execute("SELECT inline, path FROM logs WHERE run_id = ? AND stream = ?", (run_id, stream)).fetchone()
    return output_bytes(root, *row).decode(errors="replace") if row else None
