"""Where a frame's rows come from: row by row out of the database, whole tables by way of Arrow, or a snapshot and what came since."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from agentnb.history.frames import arrays, blocks, bulk, snapshots
from agentnb.history.frames.blocks import Block
from agentnb.history.frames.columns import ARTIFACTS, RUNS, STEPS, Column, Frame
from agentnb.history.frames.query import Query, maps_of, seq_of
from agentnb.states import RunStatus

if TYPE_CHECKING:
    import pyarrow as pa

_LIVE = {"pending", "running"}
#: Whether a step's, an artifact's run is over; no column of any frame.
_RUN_STATUS = Column("run_status", "r.status", "category", "", categories=tuple(str(status.value) for status in RunStatus))


def read(root: Path, asked: Query, db: sqlite3.Connection) -> Block:
    """All rows of the query as arrays in the frame's order, by the way that costs least; the result is the same by each."""
    block = None
    index_only = not any(column.full for column in asked.columns)
    if asked.plain and index_only and bulk.able() and _span(db, asked.frame) >= bulk.WORTH:
        block = _kept(root, asked, db) or _whole(root, asked)
    return blocks.ordered(asked.frame, block or blocks.read(asked, db))


def _span(db: sqlite3.Connection, frame: Frame, after: int | None = None) -> int:
    """At most so many rows has the table (after a row number): quickly told."""
    row = seq_of(frame).sql
    table = f"{frame.table} {frame.alias}"
    first, last = db.execute(f"SELECT (SELECT min({row}) FROM {table}), (SELECT max({row}) FROM {table})").fetchone()  # noqa: S608
    return 0 if last is None else last - (first - 1 if after is None else after)


def _columns(frame: Frame) -> list[Column]:
    """All that a snapshot of the frame holds; nothing for frames that have none."""
    if frame not in (RUNS, STEPS, ARTIFACTS):  # in a tuple: they hold dicts, which have no hash
        return []
    return [column for column in frame.columns if not column.full] + maps_of(frame) + [seq_of(frame)]


def _kept(root: Path, asked: Query, db: sqlite3.Connection) -> Block | None:
    """The rows of the snapshot and those that it does not have; None where there is no snapshot, or it is not true."""
    frame, wanted = asked.frame, [*asked.columns, *asked.linked]
    held = _columns(frame)
    found = snapshots.find(db, frame, held) if held and {c.name for c in wanted} <= {c.name for c in held} else None
    if found is None or _span(db, frame, found.last) > max(snapshots.LEAST, snapshots.GROWN * found.rows):
        return None
    cells = snapshots.load(root, found, [column.name for column in wanted])
    if cells is None:
        return None
    gathered = blocks.Gathering(wanted)
    gathered.add({column.name: _raw(column, cells.pop(column.name)) for column in wanted})
    missing = asked.beyond(found.last, found.open)
    rows = missing.run(db, lambda: [blocks.of_rows(missing, db, rows) | {"": len(rows)} for rows in missing.chunks(db)])
    [(count,)] = db.execute(f"SELECT count(*) FROM {frame.table}")  # noqa: S608 - our own name
    if count != found.rows + sum(part.pop("") for part in rows):
        return None
    for part in rows:
        gathered.add(part)
    return gathered.arrays()


def _whole(root: Path, asked: Query) -> Block | None:
    """The table by way of Arrow; the second time it is read like that, it is kept as a snapshot."""
    frame = asked.frame
    held = {column.name for column in _columns(frame)}
    keep = bool(held) and held <= {c.name for c in (*asked.columns, *asked.linked)} and snapshots.asked_again(root, frame)
    if keep and frame is not RUNS:
        asked = replace(asked, linked=(*asked.linked, _RUN_STATUS))
    done = bulk.read(root, asked, {"seen": snapshots.CHANGES})
    if done is None:
        return None
    block, facts = done
    if keep:
        _keep(root, frame, block, facts["seen"])
    block.pop(_RUN_STATUS.name, None)
    return block


def _keep(root: Path, frame: Frame, block: Block, seen: int) -> None:
    numbers = np.asarray(block["seq"].to_numpy(dtype="int64"))
    settled = _settled(frame, block)
    opened = np.sort(numbers[~settled])
    last = int(numbers.max())
    if len(opened) > snapshots.MOST_OPEN:
        last = int(opened[snapshots.MOST_OPEN]) - 1
        settled &= numbers <= last
    if settled.sum() < snapshots.LEAST:
        return
    table = _table(_columns(frame), block, settled)
    snapshots.keep(root, frame, _columns(frame), table, opened=opened[opened <= last].tolist(), last=last, seen=seen)


def _settled(frame: Frame, block: Block) -> Any:
    """Which rows nothing changes any more."""
    if frame is RUNS:
        known = ~pd.isna(block["session"]) | pd.isna(block["session_id"])  # a session that is not recorded yet may get a name
        return np.asarray(_over(block["status"]) & ~pd.isna(block["finished_at"]) & known)
    over = _over(block[_RUN_STATUS.name])
    return over & _over(block["status"]) & ~np.asarray(pd.isna(block["finished_at"])) if frame is STEPS else over


def _over(status: Any) -> Any:
    ends = [code for code, name in enumerate(status.categories) if name not in _LIVE]
    return np.isin(status.codes, ends)


def _table(columns: Sequence[Column], block: Block, rows: Any) -> pa.Table:
    """These rows as Arrow holds them in a file."""
    import pyarrow as pa

    everything = bool(rows.all())
    return pa.table({c.name: _cells(block[c.name] if everything else block[c.name][rows]) for c in columns})


def _cells(values: Any) -> Any:
    import pyarrow as pa

    if isinstance(values, pd.Categorical):
        return pa.array(values.codes)
    if isinstance(values, pd.arrays.DatetimeArray):
        numbers = pd.DatetimeIndex(values).asi8
        cells = pa.array(numbers, mask=numbers == arrays.NO_TIME)
    else:
        cells = pa.array(values, from_pandas=True)
    return pa.nulls(len(values)) if cells.null_count == len(values) else cells


def _raw(column: Column, cells: pa.ChunkedArray) -> Any:
    """The raw column of what `_cells` made."""
    import pyarrow as pa

    if column.dtype == "category":
        return np.asarray(cells.to_numpy()).astype("int8", copy=False)
    if pa.types.is_null(cells.type):
        cells = cells.cast(bulk.arrow_type(column))
    return bulk.raw(column, cells)
