"""One table of the history as a Parquet file: its schema, with each column's meaning, and its rows (needs pyarrow)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from agentnb._version import __version__
from agentnb.history.exporting.selection import Row
from agentnb.history.frames.columns import COUNT, EVENTS, NUMBER, SECONDS, STAMP, Frame

_KEY = b"agentnb"
#: Rows that are Python objects at a time, and bytes of text in them; row groups are made of several such batches.
_ROWS, _TEXT = 8192, 32 * 1024 * 1024
_GROUP_ROWS, _GROUP_BYTES = 65_536, 64 * 1024 * 1024
_TYPES = {STAMP: pa.timestamp("us", tz="UTC"), COUNT: pa.int64(), SECONDS: pa.float64(), NUMBER: pa.float64()}
_MAPS = {"param": "its parameters, a JSON object", "tag": "its tags, a JSON object"}


class Table:
    """How a frame's rows are kept: `names` of the cells of a row, and the schema."""

    def __init__(self, frame: Frame) -> None:
        """For the frame's columns, without what is large (but what an event says), and its maps as JSON."""
        self.frame = frame
        chosen = [column for column in frame.columns if not column.full or frame is EVENTS]
        self.names = [column.name for column in chosen] + [f"{prefix}s" for prefix in frame.maps]
        fields = [pa.field(c.name, _TYPES.get(c.dtype, pa.string()), metadata={"meaning": c.meaning, "unit": c.unit}) for c in chosen]
        fields += [pa.field(f"{prefix}s", pa.string(), metadata={"meaning": _MAPS[prefix], "unit": ""}) for prefix in frame.maps]
        self.schema = pa.schema(fields)

    def write(self, file: BinaryIO, rows: Iterator[Row], state: str) -> int:
        """Write all rows; returns their number. `state`: what `unchanged` will look for."""
        about = {"table": self.frame.name, "agentnb": __version__, "state": state}
        schema = self.schema.with_metadata({_KEY: json.dumps(about)})
        total = 0
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for group in _groups(self._batches(rows)):
                writer.write_table(pa.Table.from_batches(group, schema))
                total += sum(batch.num_rows for batch in group)
        return total

    def unchanged(self, path: Path, state: str) -> int | None:
        """The number of rows in the file, if it was written by this version in this state; else None."""
        if not state or not path.exists():
            return None
        try:
            found = pq.read_metadata(path)
            about = json.loads((found.metadata or {}).get(_KEY, b"{}"))
        except (OSError, ValueError, pa.ArrowException):
            return None
        return int(found.num_rows) if about.get("state") == state and about.get("table") == self.frame.name else None

    def _batches(self, rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
        batch: list[Row] = []
        size = 0
        for row in rows:
            batch.append(row)
            size += sum(len(cell) for cell in row if type(cell) is str)
            if len(batch) >= _ROWS or size >= _TEXT:
                yield self._batch(batch)
                batch, size = [], 0
        if batch:
            yield self._batch(batch)

    def _batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        cells = zip(*rows, strict=True)
        arrays = [_array(list(values), field.type) for values, field in zip(cells, self.schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(part.num_rows for part in group) >= _GROUP_ROWS or sum(part.nbytes for part in group) >= _GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    stored = pa.int64() if pa.types.is_timestamp(kind) else kind
    try:
        found = pa.array(values, stored)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # SQLite keeps whatever it is given, whatever the column
        found = pa.array([_as(value, stored) for value in values], stored)
    return found.cast(kind) if found.type != kind else found


def _as(value: Any, kind: pa.DataType) -> Any:
    """The value as one of that type; None for what is none."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if value is None or pa.types.is_string(kind):
        return value if value is None or isinstance(value, str) else str(value)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if pa.types.is_floating(kind) else int(value)
