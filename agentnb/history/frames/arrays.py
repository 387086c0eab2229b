"""Values from the store as pandas arrays of exactly the declared dtypes, empty or not, in two steps.

`raw` makes what numpy or Arrow holds of some rows' values; `finished` makes the array of all of them. A raw column is: codes (int8) of
categories, int64 of stamps, (int64, mask) of counts, float64 of numbers, an Arrow array (objects, where there is no Arrow) of texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd

from agentnb.history.frames.columns import Column

Numbers = np.ndarray[Any, Any]

_INT64 = 2**63
#: numpy's number for "no time"
NO_TIME = -_INT64
_NONE = type(None)
_NUMBERS = frozenset({float, int, _NONE})


def array(column: Column, values: Sequence[Any]) -> Any:
    """`values` as an array of the column's dtype; a value that does not fit it is missing."""
    return finished(column, [raw(column, values)])


def raw(column: Column, values: Sequence[Any]) -> Any:
    """The raw column of plain values."""
    if column.dtype == "category":
        index = _index(column.categories)
        return np.fromiter(map(index.get, values, repeat(-1)), dtype="int8", count=len(values))
    return _RAW[column.dtype](values)


def finished(column: Column, parts: list[Any]) -> Any:
    """The array of the raw parts, one after the other (at least one); the list is emptied."""
    if column.dtype == "category":
        return pd.Categorical.from_codes(_own(merged(parts)), dtype=_category(column.categories), validate=False)
    return _FINISHED[column.dtype](merged(parts))


def merged(parts: list[Any]) -> Any:
    """One raw column of several, one after the other; the list is emptied."""
    if len(parts) == 1:
        return parts.pop()
    if isinstance(parts[0], tuple):
        numbers, masks = [part[0] for part in parts], [part[1] for part in parts]
        whole: Any = np.concatenate(numbers), np.concatenate(masks)
    elif isinstance(parts[0], np.ndarray):
        whole = np.concatenate(parts)
    else:
        import pyarrow as pa

        whole = pa.concat_arrays(pa.chunked_array(parts).chunks, memory_pool=pa.system_memory_pool())
    parts.clear()
    return whole


def by_arrow() -> bool:
    """Whether texts are Arrow's, as pandas is set up here, or objects."""
    return bool(pd.StringDtype().storage == "pyarrow")


@cache
def _index(categories: tuple[str, ...]) -> dict[Any, int]:
    return {name: code for code, name in enumerate(categories)}


@cache
def _category(categories: tuple[str, ...]) -> pd.CategoricalDtype:
    return pd.CategoricalDtype(list(categories))


def _own(numbers: Numbers) -> Numbers:
    return numbers if numbers.flags.writeable else numbers.copy()


def _whole(values: Sequence[Any], missing: int) -> tuple[Numbers, Numbers]:
    kinds = set(map(type, values))
    if kinds <= {_NONE}:
        return np.full(len(values), missing, dtype="int64"), np.ones(len(values), dtype=bool)
    try:
        if kinds == {int}:
            return np.array(values, dtype="int64"), np.zeros(len(values), dtype=bool)
        if kinds == {int, _NONE}:
            cells = np.array(values, dtype=object)
            mask = np.asarray(pd.isna(cells))
            cells[mask] = missing
            return cells.astype("int64"), mask
    except OverflowError:
        pass
    fits = [type(v) is int and -_INT64 <= v < _INT64 for v in values]
    numbers = np.array([v if ok else missing for v, ok in zip(values, fits, strict=True)], dtype="int64")
    return numbers, ~np.array(fits, dtype=bool)


def _raw_counts(values: Sequence[Any]) -> tuple[Numbers, Numbers]:
    return _whole(values, 0)


def _counts(whole: tuple[Numbers, Numbers]) -> Any:
    return pd.arrays.IntegerArray(_own(whole[0]), _own(whole[1]))


def _raw_stamps(values: Sequence[Any]) -> Numbers:
    return _whole(values, NO_TIME)[0]


def _stamps(whole: Numbers) -> Any:
    return pd.DatetimeIndex(_own(whole).view("datetime64[us]")).tz_localize("UTC").array


def _raw_numbers(values: Sequence[Any]) -> Numbers:
    if set(map(type, values)) <= _NUMBERS:  # numpy makes NaN of None
        return np.array(values, dtype="float64")
    return np.array([v if isinstance(v, int | float) and not math.isnan(v) else None for v in values], dtype="float64")


def _amounts(whole: Numbers) -> Any:
    numbers = _own(whole)
    missing = np.isnan(numbers)
    numbers[missing] = 0.0
    return pd.arrays.FloatingArray(numbers, missing)


def _raw_texts(values: Sequence[Any]) -> Any:
    kinds = set(map(type, values))
    if kinds <= {str, _NONE}:
        try:
            return _cells(values, missing=_NONE in kinds)
        except UnicodeEncodeError:
            pass
    return _cells([_text(v) for v in values], missing=True)


def _cells(values: Sequence[str | None], *, missing: bool) -> Any:
    if by_arrow():
        import pyarrow as pa

        # The system's allocator gives back what the default one keeps.
        return pa.array(values, type=pa.large_string(), memory_pool=pa.system_memory_pool())
    cells = np.empty(len(values), dtype=object)
    cells[:] = values
    if missing:
        cells[pd.isna(cells)] = pd.NA
    return cells


def _texts(whole: Any) -> Any:
    dtype: Any = pd.StringDtype()  # its stubs know nothing of __from_arrow__
    return pd.array(whole, dtype=dtype, copy=False) if isinstance(whole, np.ndarray) else dtype.__from_arrow__(whole)


def _text(value: Any) -> str | None:
    """Text that Arrow can hold: a lone surrogate, which is no character, becomes a visible escape."""
    if value is None:
        return None
    text = value if isinstance(value, str) else value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _raw_objects(values: Sequence[Any]) -> Numbers:
    cells = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # one by one: numpy would take bytes and dicts apart
        cells[place] = value
    return cells


_RAW: dict[str, Callable[[Sequence[Any]], Any]] = {
    "string": _raw_texts,
    "datetime64[us, UTC]": _raw_stamps,
    "Int64": _raw_counts,
    "float64": _raw_numbers,
    "Float64": _raw_numbers,
    "object": _raw_objects,
}
_FINISHED: dict[str, Callable[[Any], Any]] = {
    "string": _texts,
    "datetime64[us, UTC]": _stamps,
    "Int64": _counts,
    "float64": _own,
    "Float64": _amounts,
    "object": _own,
}


def inferred(values: Sequence[Any]) -> Any:
    """Values of a parameter: boolean, Int64, Float64 or string, by what all of them are; anything else as JSON text (string)."""
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return pd.array(list(values), dtype="boolean")
    if kinds and kinds <= {int, float} and all(abs(v) < _INT64 for v in values if type(v) is int):
        return _counts(_raw_counts(values)) if kinds == {int} else _amounts(_raw_numbers(values))
    return _texts(_raw_texts([v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]))
