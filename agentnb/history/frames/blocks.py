"""The cells of a DataFrame, column by column: raw parts made of rows, joined to arrays of the declared dtypes, put in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from agentnb.history.frames import arrays
from agentnb.history.frames.columns import Column, Frame
from agentnb.history.frames.query import Query, Rows, linked_values

#: Raw columns by name (see arrays), or arrays, all of one length.
Block = dict[str, Any]


def of_rows(asked: Query, db: sqlite3.Connection, rows: Rows) -> Block:
    """The raw columns of these rows of the query, with what is linked to them."""
    values = dict(zip((column.name for column in asked.columns), zip(*rows, strict=True), strict=True))
    made = {column.name: arrays.raw(column, values[column.name]) for column in asked.columns}
    if asked.linked and asked.frame.link:
        found = linked_values(db, asked, values[asked.frame.link.key])
        made |= {column.name: arrays.raw(column, found[column.name]) for column in asked.linked}
    return made


class Gathering:
    """Blocks of raw columns of some thousand rows each; Arrow's are put together on the way, since small pieces leave gaps in memory."""

    _MOST = 64

    def __init__(self, columns: Sequence[Column]) -> None:
        """Start with no rows of these columns."""
        self._columns = columns
        self._done: list[Block] = []
        self._new: list[Block] = []

    def add(self, block: Block) -> None:
        """Take the next rows."""
        self._new.append(block)
        if len(self._new) >= self._MOST and arrays.by_arrow():
            self._done.append({column.name: arrays.merged([one.pop(column.name) for one in self._new]) for column in self._columns})
            self._new.clear()

    def arrays(self) -> Block:
        """All of them as arrays of the declared dtypes; the pieces are given up column by column."""
        return joined(self._columns, self._done + self._new)


def read(asked: Query, db: sqlite3.Connection) -> Block:
    """All rows of the query as arrays. Raises ConfigError for a `where` that SQLite does not take."""

    def whole() -> Block:
        found = Gathering([*asked.columns, *asked.linked])
        for rows in asked.chunks(db):
            found.add(of_rows(asked, db, rows))
        return found.arrays()

    return asked.run(db, whole)


def joined(columns: Sequence[Column], blocks: list[Block]) -> Block:
    """The arrays of these blocks of raw columns, which are emptied on the way: one column at a time is held twice."""
    if not blocks:
        return {column.name: arrays.array(column, ()) for column in columns}
    return {column.name: arrays.finished(column, [block.pop(column.name) for block in blocks]) for column in columns}


def ordered(frame: Frame, block: Block) -> Block:
    """The block in the frame's order; the same arrays when it is in order already."""
    order = _order([block[name] for name in frame.order])
    return block if order is None else {name: block.pop(name).take(order) for name in list(block)}


def _order(keys: list[Any]) -> np.ndarray[Any, Any] | None:
    first, others = _numbers(keys[0]), keys[1:]
    if (first[1:] > first[:-1]).all():
        return None
    order = np.argsort(first, kind="stable")
    same = np.diff(first[order]) == 0
    if others and same.any():
        places = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
        tied = order[places]
        cells = zip(first[tied].tolist(), *(_comparable(key.take(tied)) for key in others), tied.tolist(), strict=True)
        order[places] = [row[-1] for row in sorted(cells)]
    return None if (order[1:] > order[:-1]).all() else order


def _numbers(key: Any) -> np.ndarray[Any, Any]:
    """Stamps and whole numbers as integers, missing ones first, as SQLite has them."""
    if isinstance(key, pd.arrays.DatetimeArray):
        return np.asarray(pd.DatetimeIndex(key).asi8)
    return np.asarray(key.to_numpy(dtype="int64", na_value=arrays.NO_TIME))


def _comparable(key: Any) -> list[Any]:
    return [("" if value is pd.NA else value) for value in key.tolist()]
