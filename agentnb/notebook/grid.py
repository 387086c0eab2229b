"""Grids of parameters, and what else can be mapped over."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from agentnb.agents.jsonable import clean, jsonable
from agentnb.errors import ConfigError


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the given values, as a list of dicts; the last axis varies fastest.

    ``grid(seconds=[0.1, 0.2], word=["a", "b c"])`` has four points. Raises ConfigError for an axis that is empty or is one
    text or one value instead of several.
    """
    if not axes:
        raise ConfigError("grid: it has no axes; write grid(seconds=[0.1, 0.2], word=['a', 'b'])")
    values = {name: _axis(name, axis) for name, axis in axes.items()}
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


def _axis(name: str, axis: Iterable[Any]) -> list[Any]:
    if isinstance(axis, str | bytes | Mapping) or not isinstance(axis, Iterable):
        raise ConfigError(f"grid: {name}={axis!r} is one value; write a list, {name}=[{axis!r}]")
    values = list(axis)
    if not values:
        raise ConfigError(f"grid: {name} has no values, so the grid would be empty")
    return values


def points(items: Any, reserved: Collection[str] = ()) -> list[dict[str, Any]]:
    """The rows of a DataFrame, or the mappings of any iterable, as dicts of JSON data with text keys; none for an empty one.

    The names of a column index with levels are joined by dots. Raises ConfigError for what is neither, for a name that stands
    twice or is one of `reserved`, and for a value that is no JSON data (which one, and where).
    """
    rows = _records(items) if hasattr(items, "to_dict") and hasattr(items, "columns") else items
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise ConfigError(f"map: {type(items).__name__} cannot be mapped over; give a list of dicts, nb.grid(...) or a DataFrame")
    return [_point(number, row, reserved) for number, row in enumerate(rows)]


def _records(frame: Any) -> list[dict[Any, Any]]:
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise ConfigError(f"map: the DataFrame has more than one column {twice!r}; rename one of them")
    names = list(frame.columns)
    return [dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None)]


def _point(number: int, row: Any, reserved: Collection[str]) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ConfigError(f"map: item {number} is a {type(row).__name__}, not a mapping; write {{'name': value}}")
    point: dict[str, Any] = {}
    for key, value in row.items():
        name = clean(".".join(map(str, key)) if isinstance(key, tuple) else str(key))
        if name in reserved:
            raise ConfigError(f"map: item {number} has a parameter {name!r}, which numbers the repeats; call it something else")
        if name in point:
            raise ConfigError(f"map: item {number} has two parameters that read {name!r} as text; rename one of them")
        point[name] = jsonable(value, f"map: item {number}, {key!r}")
    return point
