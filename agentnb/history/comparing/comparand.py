"""What is compared: the columns of a frame, checked and read."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from agentnb.errors import ConfigError
from agentnb.history.comparing.resampling import Array

_LIVE = frozenset({"pending", "running", "cancelling"})


def keys_of(df: Any, names: Any, option: str) -> list[Any]:
    """The columns that `names`, one or several, mean; of the `option` by or pair."""
    if isinstance(names, str) or (names is not None and not isinstance(names, Iterable)):
        return [names]
    if names is None or isinstance(names, pd.DataFrame):
        raise ConfigError(f"compare: {option}={names!r} names no column; name the one that tells the groups apart, such as by='param.x'")
    if isinstance(names, tuple) and isinstance(df, pd.DataFrame) and _is_hashable(names) and names in df.columns:
        return [names]  # of several levels of columns
    if not (keys := list(dict.fromkeys(_named(list(names))))):
        raise ConfigError(f"compare: {option} is empty; name the column that tells {'the groups' if option == 'by' else 'pairs'} apart")
    return keys


def _named(names: list[Any]) -> list[Any]:
    for name in names:
        if not _is_hashable(name):
            raise ConfigError(f"compare: {name!r} is no column's name")
    return names


def standing(df: pd.DataFrame) -> tuple[Array, Array]:
    """Which rows completed, and which are not finished."""
    if "status" not in df:
        return np.ones(len(df), dtype=bool), np.zeros(len(df), dtype=bool)
    texts = [status if isinstance(status, str) else "" for status in df["status"]]
    return np.array([text == "completed" for text in texts], dtype=bool), np.array([text in _LIVE for text in texts], dtype=bool)


def measured(df: pd.DataFrame, groups: Array) -> Array:
    """Which rows are the first of their group to tell of a measurement: a reused run tells of that of another, which counts once."""
    if not {"id", "reused_from"} <= set(df.columns):
        return np.ones(len(df), dtype=bool)
    origins = df["reused_from"].astype("object").where(df["reused_from"].notna(), df["id"].astype("object"))
    again: Array = pd.DataFrame({"group": groups, "origin": origins.to_numpy()}).duplicated().to_numpy()
    return ~again


def check_columns(df: Any, keys: list[Any], metric: Any) -> None:
    """Raise ConfigError unless these columns are there, once, can be told apart, and the metric is a number."""
    if not isinstance(df, pd.DataFrame):
        raise ConfigError(f"compare: {type(df).__name__} is no DataFrame; give it one of runs, such as group.df() or runs_df()")
    for name in _named([*keys, metric]):
        _check_column(df, name)
    if "status" in df:
        _check_column(df, "status")
    if not _is_number(df[metric]) and not _is_span(df[metric]):
        raise ConfigError(f"compare: metric {metric!r} is {df[metric].dtype}, not a number; try 'run_s' or 'cost_usd'")
    for key in keys:
        odd = next((value for value in df[key] if not _is_hashable(value)), None) if df[key].dtype == object else None
        if odd is not None:
            raise ConfigError(f"compare: by={key!r} has {type(odd).__name__} values, which make no groups; make them text first")


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _check_column(df: pd.DataFrame, name: Any) -> None:
    if name not in df.columns:
        near = get_close_matches(str(name), [str(c) for c in df.columns], n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(map(str, df.columns))}"
        raise ConfigError(f"compare: there is no column {name!r}; {hint}")
    if not isinstance(df[name], pd.Series):
        raise ConfigError(f"compare: there is more than one column {name!r}; keep one: df.loc[:, ~df.columns.duplicated()]")


def check_resampling(confidence: Any, resamples: Any, seed: Any) -> None:
    """Raise ConfigError for options that make no intervals."""
    if isinstance(confidence, bool) or not isinstance(confidence, float | int | np.floating) or not 0 < confidence < 1:
        raise ConfigError(f"compare: confidence={confidence!r} must lie between 0 and 1, such as 0.95")
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ConfigError(f"compare: resamples={resamples!r} must be a whole number, 1 or more")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"compare: seed={seed!r} must be a whole number, zero or more")


def check_center(center: Any) -> None:
    """Raise ConfigError for a center that there is not."""
    if center not in {None, "median", "mean"}:
        raise ConfigError(f"compare: center={center!r} must be 'median' or 'mean'")


def check_pairs(partners: list[Any], paired: Any) -> None:
    """Raise ConfigError for options that say no, or two, ways to make pairs."""
    if paired is not None and not isinstance(paired, bool):
        raise ConfigError(f"compare: paired={paired!r} must be True or False; name the columns that make pairs by pair=")
    if partners and paired is False:
        raise ConfigError(f"compare: pair={partners!r} makes pairs and paired=False forbids them; leave one of them out")


def numbers(values: pd.Series[Any]) -> Array:
    """The metric as floats, NaN where it is not known."""
    plain = values.dt.total_seconds() if _is_span(values) else values
    floats: Array = plain.astype("Float64").to_numpy(dtype="float64", na_value=np.nan)
    return floats


def _is_number(values: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_complex_dtype(values.dtype)


def _is_span(values: pd.Series[Any]) -> bool:
    return pd.api.types.is_timedelta64_dtype(values.dtype)


def is_whole(values: pd.Series[Any]) -> bool:
    """Whether they count something."""
    return pd.api.types.is_integer_dtype(values.dtype)


def declared_unit(df: pd.DataFrame, metric: Any) -> str:
    """The unit that the frame declares of its column."""
    if _is_span(df[metric]):
        return "s"
    told = df.attrs.get("agentnb")
    column = told.get(metric) if isinstance(told, dict) else None
    return str(column.get("unit") or "") if isinstance(column, dict) else ""


def place_of(names: list[tuple[Any, ...]], baseline: Any) -> int | None:
    """Which group is the baseline; None when there are no groups."""
    if not names:
        return None
    if baseline is None:
        return 0
    wanted = tuple(baseline) if isinstance(baseline, tuple | list) else (baseline,)
    for place, name in enumerate(names):
        if len(name) == len(wanted) and all(map(_same, name, wanted)):
            return place
    known = ", ".join(repr(name[0] if len(name) == 1 else name) for name in names[:10])
    raise ConfigError(f"compare: there is no group {baseline!r} to be the baseline; there are: {known}")


def _same(one: Any, other: Any) -> bool:
    """Whether two values of `by` are equal; what is missing equals what is missing."""
    if missing(one) or missing(other):
        return missing(one) and missing(other)
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # an array, such as no group has
        return False


def missing(value: Any) -> bool:
    """Whether it is None, NA, NaN or NaT."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))
