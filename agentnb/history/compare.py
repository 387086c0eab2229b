"""Groups of runs side by side: counts, medians, means with bootstrap intervals, ratios to a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from agentnb.errors import ConfigError

#: With fewer values than this, an interval from resampling would only pretend to know.
ENOUGH = 5

_LIVE = frozenset({"pending", "running", "cancelling"})
_NUMBERS = ("median", "p90", "mean", "mean_low", "mean_high", "ratio")


def compare(
    df: pd.DataFrame,
    by: str | Sequence[str],
    metric: str = "run_s",
    *,
    baseline: Any = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group of equal values in the column(s) `by`, in the order in which the groups first come.

    Columns: `n` (all runs), `failures` (runs that ended, and did not complete), then of `metric`, in its own unit: `median`, `p90`, `mean`,
    `mean_low` and `mean_high` (percentile bootstrap of the mean at `confidence`, from `resamples` seeded resamples; NA for fewer than 5
    values), and `ratio` of the median to the baseline group's. `baseline`: the value (for several columns: the tuple of values) of a
    group; default: the first group. Only completed runs enter the metric, so a group that only failed keeps its row with NA figures; a
    metric that is NA or infinite does not enter either. A DataFrame without a `status` column has no failures. The index holds the
    values of `by`. Raises ConfigError for what is no DataFrame, a column or a baseline that is not there, a column that is there twice,
    values of `by` that cannot be told apart (lists, dicts), a metric that is no number, or a bad option.
    """
    keys = _keys(by)
    _check_columns(df, keys, metric)
    _check_options(confidence, resamples)
    values = _numbers(df[metric])
    done, live = _standing(df)
    rng = _generator(seed)
    rows, names, firsts = [], [], []
    for name, places in _groups(df, keys):
        good = done[places]
        sample = _finite(values[places][good])
        rows.append({"n": len(places), "failures": int((~good & ~live[places]).sum()), **_figures(sample, confidence, resamples, rng)})
        names.append(name)
        firsts.append(int(places[0]))
    result = pd.DataFrame(rows, columns=["n", "failures", *_NUMBERS[:-1]], index=_index(df, keys, firsts))
    result = result.astype({"n": "Int64", "failures": "Int64"} | dict.fromkeys(_NUMBERS[:-1], "Float64"))
    result["ratio"] = (result["median"] / _base(result, names, baseline)).astype("Float64")
    return result


def _keys(by: Any) -> list[Any]:
    if isinstance(by, str) or (by is not None and not isinstance(by, Iterable)):
        return [by]
    if by is None or isinstance(by, pd.DataFrame):
        raise ConfigError(f"compare: by={by!r} names no column; name the one that tells the groups apart, such as by='param.x'")
    if not (keys := list(dict.fromkeys(_named(list(by))))):
        raise ConfigError("compare: by is empty; name the column that tells the groups apart")
    return keys


def _named(names: list[Any]) -> list[Any]:
    for name in names:
        if not _is_hashable(name):
            raise ConfigError(f"compare: {name!r} is no column's name")
    return names


def _standing(df: pd.DataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which rows completed, and which are not finished."""
    if "status" not in df:
        return np.ones(len(df), dtype=bool), np.zeros(len(df), dtype=bool)
    texts = [status if isinstance(status, str) else "" for status in df["status"]]
    return np.array([text == "completed" for text in texts], dtype=bool), np.array([text in _LIVE for text in texts], dtype=bool)


def _check_columns(df: Any, keys: list[Any], metric: Any) -> None:
    if not isinstance(df, pd.DataFrame):
        raise ConfigError(f"compare: {type(df).__name__} is no DataFrame; give it one of runs, such as group.df() or runs_df()")
    for name in _named([*keys, metric]):
        _check_column(df, name)
    if "status" in df:
        _check_column(df, "status")
    if not _is_number(df[metric]) and not _is_span(df[metric]):
        raise ConfigError(f"compare: metric {metric!r} is {df[metric].dtype}, not a number; try 'run_s' or 'cost_usd'")
    for key in keys:
        if (odd := next((value for value in df[key] if not _is_hashable(value)), None)) is not None:
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


def _check_options(confidence: Any, resamples: Any) -> None:
    if isinstance(confidence, bool) or not isinstance(confidence, float | int | np.floating) or not 0 < confidence < 1:
        raise ConfigError(f"compare: confidence={confidence!r} must lie between 0 and 1, such as 0.95")
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ConfigError(f"compare: resamples={resamples!r} must be a whole number, 1 or more")


def _generator(seed: Any) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ConfigError(f"compare: seed={seed!r} must be a whole number, zero or more") from None


def _numbers(values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """The metric as floats, NaN where it is not known."""
    plain = values.dt.total_seconds() if _is_span(values) else values
    floats: np.ndarray[Any, Any] = plain.astype("Float64").to_numpy(dtype="float64", na_value=np.nan)
    return floats


def _finite(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = values[np.isfinite(values)]
    return found


def _is_number(values: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_complex_dtype(values.dtype)


def _is_span(values: pd.Series[Any]) -> bool:
    return pd.api.types.is_timedelta64_dtype(values.dtype)


def _groups(df: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[Any, ...], np.ndarray[Any, Any]]]:
    """Each group's values of `keys` and its row numbers; a missing value is a group of its own."""
    numbers = df.groupby(keys, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    groups = []
    for number in dict.fromkeys(numbers.tolist()):
        places = np.flatnonzero(numbers == number)
        groups.append((tuple(df[key].iloc[int(places[0])] for key in keys), places))
    return groups


def _figures(sample: np.ndarray[Any, Any], confidence: float, resamples: int, rng: np.random.Generator) -> dict[str, float | None]:
    if not len(sample):
        return dict.fromkeys(_NUMBERS[:-1])
    with np.errstate(over="ignore", invalid="ignore"):  # the sum of values near the largest float has none
        low, high = _interval(sample, confidence, resamples, rng)
        found = (float(np.median(sample)), float(np.quantile(sample, 0.9)), float(sample.mean()), low, high)
    return {name: value if value is not None and math.isfinite(value) else None for name, value in zip(_NUMBERS[:-1], found, strict=True)}


def _interval(
    sample: np.ndarray[Any, Any], confidence: float, resamples: int, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    if len(sample) < ENOUGH:
        return None, None
    # In portions: a million resampled values at a time cost 16 MB, whatever the sizes asked for.
    portion = max(1, 1_000_000 // len(sample))
    means = [rng.choice(sample, size=(min(portion, resamples - start), len(sample))).mean(axis=1) for start in range(0, resamples, portion)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def _index(df: pd.DataFrame, keys: list[str], firsts: list[int]) -> pd.Index[Any]:
    values = df[keys].iloc[firsts]
    return pd.Index(values[keys[0]], name=keys[0]) if len(keys) == 1 else pd.MultiIndex.from_frame(values)


def _base(result: pd.DataFrame, names: list[tuple[Any, ...]], baseline: Any) -> Any:
    """The baseline group's median; NA when there is none to divide by."""
    if not names:
        return pd.NA
    wanted = names[0] if baseline is None else tuple(baseline) if isinstance(baseline, tuple | list) else (baseline,)
    for place, name in enumerate(names):
        if name is wanted or (len(name) == len(wanted) and all(map(_same, name, wanted))):
            median = result["median"].iloc[place]
            return pd.NA if pd.isna(median) or median == 0 else median
    known = ", ".join(repr(name[0] if len(name) == 1 else name) for name in names[:10])
    raise ConfigError(f"compare: there is no group {baseline!r} to be the baseline; there are: {known}")


def _same(one: Any, other: Any) -> bool:
    """Whether two values of `by` are equal; what is missing equals what is missing."""
    if _missing(one) or _missing(other):
        return _missing(one) and _missing(other)
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # an array, such as no group has
        return False


def _missing(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))
