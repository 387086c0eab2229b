"""Frames of the history that went through a file which keeps no dtypes, such as CSV, as they were."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from agentnb.errors import ConfigError
from agentnb.history.frames import arrays, columns
from agentnb.history.frames.columns import Column, Frame

_WHOLE = re.compile(r"-?(0|[1-9]\d*)")
_TRUTH = {"True": True, "False": False}


def typed(df: pd.DataFrame, frame: str | None = None) -> pd.DataFrame:
    """A copy of `df`, a DataFrame of the history that was read from a file, with the dtypes (and the meanings) of its columns.

    Parquet files that pandas wrote need no such thing. CSV holds text only, and is best read as such, so that nothing is guessed::

        df.to_csv("runs.csv", index=False)
        same = nb.typed(pd.read_csv("runs.csv", dtype=str, keep_default_na=False))

    Empty cells are missing values. ``param.x`` and ``tag.x`` get the dtype that all their values have: texts that all look like numbers
    come back as numbers. Columns that are not the history's stay as they are. `frame` ("runs", "steps", "artifacts", "events",
    "sessions") is needed only when the columns do not tell. Raises ConfigError when a value is none of its column's, or `frame` unclear.
    """
    if not isinstance(df, pd.DataFrame):
        raise ConfigError(f"typed: {type(df).__name__} is no DataFrame; write nb.typed(pd.read_csv(...))")
    which = _which(df, frame)
    made = {name: _array(which, str(name), df[name]) for name in df.columns}
    result = pd.DataFrame(made, index=df.index, columns=df.columns)
    result.attrs = {
        **df.attrs,
        "agentnb": {str(name): columns.meaning(which, str(name)) for name in df.columns if _known(which, str(name))},
    }
    return result


def _which(df: pd.DataFrame, name: str | None) -> Frame:
    if not df.columns.is_unique:
        raise ConfigError("typed: two columns have the same name; rename one")
    if name is not None:
        found = next((frame for frame in columns.FRAMES if frame.name == name), None)
        if found is None:
            raise ConfigError(f"typed: frame={name!r} is none of {', '.join(frame.name for frame in columns.FRAMES)}")
        return found
    fits = {frame.name: sum(frame.column(str(c)) is not None for c in df.columns) for frame in columns.FRAMES}
    best = [frame for frame in columns.FRAMES if fits[frame.name] == max(fits.values())]
    kinds = [[(c.name, c.dtype, c.categories) for c in frame.columns if c.name in df.columns] for frame in best]
    if not kinds[0] or any(kind != kinds[0] for kind in kinds):
        raise ConfigError(
            f"typed: these columns may be those of {' or '.join(frame.name for frame in best)}; say which: frame={best[0].name!r}"
        )
    return best[0]


def _known(frame: Frame, name: str) -> bool:
    prefix, dot, _ = name.partition(".")
    return frame.column(name) is not None or bool(dot and prefix in frame.maps)


def _array(frame: Frame, name: str, cells: pd.Series[Any]) -> Any:
    column = frame.column(name)
    if not _known(frame, name) or (column and column.dtype == "object"):
        return cells.array
    if column and isinstance(cells.dtype, pd.DatetimeTZDtype):
        return cells.dt.tz_convert("UTC").dt.as_unit("us").array
    values = [None if missing or value == "" else value for value, missing in zip(cells.tolist(), cells.isna(), strict=True)]
    if column is None:
        return arrays.inferred(_guessed(values))
    return arrays.array(column, [_value(column, value, row) for row, value in zip(cells.index, values, strict=True)])


def _value(column: Column, value: Any, row: Any) -> Any:
    """The value as the store has it."""
    try:
        made = None if value is None else _MAKE.get(column.dtype, str)(value)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(f"typed: {column.name!r} of row {row!r} is {value!r}, which is no {column.dtype}") from None
    if made is not None and column.dtype == "category" and made not in column.categories:
        raise ConfigError(f"typed: {column.name!r} of row {row!r} is {value!r}, which is none of {', '.join(column.categories)}")
    return made


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _stamp(value: Any) -> int:
    moment = pd.Timestamp(value)
    return int((moment if moment.tzinfo else moment.tz_localize("UTC")).as_unit("us").asm8.view("int64"))


_MAKE: dict[str, Callable[[Any], Any]] = {columns.COUNT: _whole, columns.STAMP: _stamp, columns.SECONDS: float, columns.NUMBER: float}


def _guessed(values: Sequence[Any]) -> Sequence[Any]:
    """Values of a parameter that may have become texts."""
    texts = [value for value in values if isinstance(value, str)]
    if not texts or len(texts) < sum(value is not None for value in values):
        return [value.item() if hasattr(value, "item") else value for value in values]
    if all(text in _TRUTH for text in texts):
        return [None if value is None else _TRUTH[value] for value in values]
    if all(_WHOLE.fullmatch(text) for text in texts):
        return [None if value is None else int(value) for value in values]
    try:
        return [None if value is None else float(value) for value in values]
    except ValueError:
        return values
