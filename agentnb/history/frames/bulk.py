"""Whole tables by way of Arrow, where its extra is installed: several times faster than row by row, with the same result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from agentnb.history.frames import arrays, blocks, bulk_child
from agentnb.history.frames.columns import COUNT, STAMP, STRING, Column
from agentnb.history.frames.query import Query, cells
from agentnb.history.store import BUSY_MS, DATABASE

if TYPE_CHECKING:
    import pyarrow as pa

#: With fewer rows, starting the child and importing what it needs takes longer than reading them row by row.
WORTH = 60_000
#: Longer than this no table takes that fits into memory: what is wrong then is not known, and another way is tried.
PATIENCE_S = 600
_KINDS = {STRING: "string", "category": "string", STAMP: "int64", COUNT: "int64"}
Columns = dict[str, "pa.ChunkedArray"]


def able() -> bool:
    """Whether what is needed is installed; nothing is imported."""
    try:
        return all(find_spec(name) is not None for name in ("pyarrow", "adbc_driver_sqlite", "adbc_driver_manager"))
    except (ImportError, ValueError):  # blocked by whoever wants to be without
        return False


def read(root: Path, asked: Query, facts: dict[str, str]) -> tuple[blocks.Block, dict[str, Any]] | None:
    """The arrays of a plain query, and the numbers that the statements `facts` give at the same moment; None when it cannot be done."""
    import pyarrow as pa

    try:
        with ExitStack() as stack:
            tables = [_own(asked), *_linked(asked)]
            files = [stack.enter_context(_memory()) for _ in range(2 * len(tables))]
            for place, table in enumerate(tables):
                table["files"] = files[2 * place : 2 * place + 2]
            found = _child({"uri": _uri(root), "busy_ms": BUSY_MS, "path": sys.path, "tables": tables, "facts": facts}, files)
            return _arrays(asked, files), found
    except (OSError, ValueError, MemoryError, subprocess.SubprocessError, pa.ArrowException):
        return None


def _uri(root: Path) -> str:
    return f"file:{quote(str(root / DATABASE))}?mode=ro"


def _own(asked: Query) -> dict[str, Any]:
    frame = asked.frame
    return _table(f"{frame.table} {frame.alias}", f"{frame.alias}.rowid", asked.columns, asked.now)


def _linked(asked: Query) -> list[dict[str, Any]]:
    link = asked.frame.link
    if not asked.linked or link is None:
        return []
    key = Column("id", f"{link.alias}.id", STRING, "")
    row = Column("row", f"{link.alias}.rowid", COUNT, "")
    return [_table(f"{link.table} {link.alias}", row.sql, [key, *asked.linked, row], asked.now)]


def _table(source: str, row: str, columns: Sequence[Column], now: int) -> dict[str, Any]:
    kinds = [(column.name, _KINDS.get(column.dtype, "double")) for column in columns]
    return {"source": source, "row": row, "columns": kinds, "cells": cells(columns, now)}


@contextmanager
def _memory() -> Iterator[int]:
    file = os.memfd_create("agentnb")
    try:
        yield file
    finally:
        os.close(file)


def _child(order: dict[str, Any], files: list[int]) -> dict[str, Any]:
    argv = [sys.executable, "-I", "-S", str(Path(bulk_child.__file__))]
    told = json.dumps(order).encode()
    done = subprocess.run(
        argv, input=told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=files, check=True, timeout=PATIENCE_S
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _columns(file: int) -> Columns:
    """The columns of a stream without the sentinels before each batch; they stay in the file's memory."""
    import pyarrow as pa

    with pa.memory_map(f"/proc/self/fd/{file}") as source:
        stream = pa.ipc.open_stream(source)
        table = pa.Table.from_batches([batch.slice(1) for batch in stream], stream.schema)
    table.validate(full=True)  # bytes that are no text would be found out by whoever looks at them
    return dict(zip(table.column_names, table.columns, strict=True))


def _arrays(asked: Query, files: list[int]) -> blocks.Block:
    made: blocks.Block = {}
    for file in files[:2]:
        found = _columns(file)
        for column in asked.columns:
            if column.name in found:
                if asked.linked and asked.frame.link and column.name == asked.frame.link.key:
                    made |= _looked_up(asked, found[column.name], _columns(files[2]))
                made[column.name] = array(column, found.pop(column.name))
    return made


def _looked_up(asked: Query, keys: pa.ChunkedArray, known: Columns) -> blocks.Block:
    import pyarrow.compute as pc

    places = pc.index_in(keys, value_set=known["id"].combine_chunks())
    return {column.name: array(column, known[column.name].combine_chunks().take(places)) for column in asked.linked}


def array(column: Column, cells: pa.ChunkedArray) -> Any:
    """The array of the column's dtype; its memory is its own."""
    return arrays.finished(column, [raw(column, cells)])


def arrow_type(column: Column) -> pa.DataType:
    """What Arrow holds the column's cells as."""
    import pyarrow as pa

    return {"string": pa.string(), "int64": pa.int64()}.get(_KINDS.get(column.dtype, ""), pa.float64())


def raw(column: Column, cells: pa.ChunkedArray) -> Any:
    """The raw column (see arrays) of what Arrow has as int64, double or (large) string."""
    if column.dtype == "category":
        return _codes(column, cells)
    if column.dtype == STRING:
        return _texts(cells)
    if column.dtype == COUNT:
        return _filled(cells, "int64", 0)
    return _filled(cells, "int64", arrays.NO_TIME)[0] if column.dtype == STAMP else _filled(cells, "float64", float("nan"))[0]


def _codes(column: Column, cells: pa.ChunkedArray) -> arrays.Numbers:
    index = {name: code for code, name in enumerate(column.categories)}
    parts = [np.empty(0, dtype="int8")]
    for chunk in cells.dictionary_encode().chunks:
        codes = np.array([*(index.get(text, -1) for text in chunk.dictionary.to_pylist()), -1], dtype="int8")
        parts.append(codes[chunk.indices.fill_null(len(codes) - 1).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts)


def _filled(cells: pa.ChunkedArray, kind: str, missing: float) -> tuple[arrays.Numbers, arrays.Numbers]:
    """The numbers, `missing` in the place of nulls; and where those are; in memory of its own, since frames can be written to."""
    numbers, mask, start = np.empty(len(cells), dtype=kind), np.zeros(len(cells), dtype=bool), 0
    for chunk in cells.chunks:
        end = start + len(chunk)
        numbers[start:end] = np.frombuffer(chunk.buffers()[1], dtype=kind, count=len(chunk), offset=8 * chunk.offset) if len(chunk) else ()
        if chunk.null_count:
            mask[start:end] = chunk.is_null().to_numpy(zero_copy_only=False)
            numbers[start:end][mask[start:end]] = missing
        start = end
    return numbers, mask


def _texts(cells: pa.ChunkedArray) -> Any:
    import pandas as pd
    import pyarrow as pa

    whole = cells.cast(pa.large_string())
    if arrays.by_arrow():
        return whole
    texts = whole.to_numpy(zero_copy_only=False)
    texts[pd.isna(texts)] = pd.NA
    return texts
