"""Plain Python values from the store as pandas arrays of exactly the declared dtype, empty or not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from agentnb.history.columns import Column

_INT64 = 2**63
#: numpy's number for "no time"
_NO_TIME = -_INT64


def series(column: Column, values: Sequence[Any]) -> pd.Series[Any]:
    """`values` as a Series of the column's dtype; a value that does not fit it is missing."""
    if column.dtype == "category":
        fixed = set(column.categories)
        return pd.Series(pd.Categorical([v if v in fixed else None for v in values], categories=list(column.categories)), name=column.name)
    return pd.Series(_ARRAYS[column.dtype](values), name=column.name)


def _numbers(values: Sequence[Any]) -> list[float | None]:
    return [v if isinstance(v, int | float) and not math.isnan(v) else None for v in values]


def _whole(values: Sequence[Any], missing: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    fits = [isinstance(v, int) and -_INT64 <= v < _INT64 for v in values]
    numbers = np.array([v if ok else missing for v, ok in zip(values, fits, strict=True)], dtype="int64")
    return numbers, ~np.array(fits, dtype=bool)


def _counts(values: Sequence[Any]) -> Any:
    return pd.arrays.IntegerArray(*_whole(values, 0))


def _stamps(values: Sequence[Any]) -> Any:
    numbers, _ = _whole(values, _NO_TIME)
    return pd.DatetimeIndex(numbers.view("datetime64[us]")).tz_localize("UTC")


def _seconds(values: Sequence[Any]) -> Any:
    return np.array(_numbers(values), dtype="float64")


def _amounts(values: Sequence[Any]) -> Any:
    numbers = _seconds(values)
    missing = np.isnan(numbers)
    numbers[missing] = 0.0
    return pd.arrays.FloatingArray(numbers, missing)


def _strings(values: Sequence[Any]) -> Any:
    return pd.array([_text(v) for v in values], dtype="string")


def _text(value: Any) -> str | None:
    """Text that Arrow can hold: a lone surrogate, which is no character, becomes a visible escape."""
    if value is None:
        return None
    text = value if isinstance(value, str) else value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _objects(values: Sequence[Any]) -> Any:
    cells = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # one by one: numpy would take bytes and dicts apart
        cells[place] = value
    return cells


_ARRAYS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "string": _strings,
    "datetime64[us, UTC]": _stamps,
    "Int64": _counts,
    "float64": _seconds,
    "Float64": _amounts,
    "object": _objects,
}


def inferred(name: str, values: Sequence[Any]) -> pd.Series[Any]:
    """Values of a parameter: boolean, Int64, Float64 or string, by what all of them are; anything else as JSON text (string)."""
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return pd.Series(pd.array(list(values), dtype="boolean"), name=name)
    if kinds and kinds <= {int, float} and all(abs(v) < _INT64 for v in values if type(v) is int):
        return pd.Series(_counts(values) if kinds == {int} else _amounts(values), name=name)
    return pd.Series(_strings([v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]), name=name)
