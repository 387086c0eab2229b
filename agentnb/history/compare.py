"""Groups of runs side by side: counts, medians, means with bootstrap intervals, ratios to a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from agentnb.errors import ConfigError

#: With fewer values than this, an interval from resampling would only pretend to know.
ENOUGH = 5

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
    group; default: the first group. Only completed runs enter the metric, so a group that only failed keeps its row with NA figures.
    A DataFrame without a `status` column has no failures. The index holds the values of `by`.
    Raises ConfigError for a column or a baseline that is not there, a metric that is no number, or a bad option.
    """
    keys = [by] if isinstance(by, str) else list(by)
    _check(df, keys, metric, confidence, resamples)
    values = pd.to_numeric(df[metric].dt.total_seconds() if _is_span(df[metric]) else df[metric]).astype("Float64")
    done, live = _standing(df)
    rng = np.random.default_rng(seed)
    rows, names, firsts = [], [], []
    for name, places in _groups(df, keys):
        good = done[places]
        sample = values.iloc[places][good].dropna().to_numpy(dtype="float64")
        rows.append({"n": len(places), "failures": int((~good & ~live[places]).sum()), **_figures(sample, confidence, resamples, rng)})
        names.append(name)
        firsts.append(int(places[0]))
    result = pd.DataFrame(rows, columns=["n", "failures", *_NUMBERS[:-1]], index=_index(df, keys, firsts))
    result = result.astype({"n": "Int64", "failures": "Int64"} | dict.fromkeys(_NUMBERS[:-1], "Float64"))
    result["ratio"] = (result["median"] / _base(result, names, baseline)).astype("Float64")
    return result


def _standing(df: pd.DataFrame) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which rows completed, and which are not finished."""
    if "status" not in df:
        return np.ones(len(df), dtype=bool), np.zeros(len(df), dtype=bool)
    status = df["status"].astype("object")
    return status.isin(["completed"]).to_numpy(), status.isin(["pending", "running", "cancelling"]).to_numpy()


def _check(df: pd.DataFrame, keys: list[str], metric: str, confidence: float, resamples: int) -> None:
    for name in [*keys, metric]:
        if name not in df.columns:
            near = get_close_matches(str(name), [str(c) for c in df.columns], n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(map(str, df.columns))}"
            raise ConfigError(f"compare: there is no column {name!r}; {hint}")
    if not keys:
        raise ConfigError("compare: by is empty; name the column that tells the groups apart")
    if not pd.api.types.is_numeric_dtype(df[metric]) and not _is_span(df[metric]):
        raise ConfigError(f"compare: metric {metric!r} is {df[metric].dtype}, not a number; try 'run_s' or 'cost_usd'")
    if not 0 < confidence < 1:
        raise ConfigError(f"compare: confidence={confidence!r} must lie between 0 and 1, such as 0.95")
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ConfigError(f"compare: resamples={resamples!r} must be a whole number, 1 or more")


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
    low, high = _interval(sample, confidence, resamples, rng)
    return {
        "median": float(np.median(sample)),
        "p90": float(np.quantile(sample, 0.9)),
        "mean": float(sample.mean()),
        "mean_low": low,
        "mean_high": high,
    }


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
    wanted = names[0] if baseline is None else baseline if isinstance(baseline, tuple) else (baseline,)
    for place, name in enumerate(names):
        if name is wanted or (len(name) == len(wanted) and all(bool(pd.notna(a)) and a == b for a, b in zip(name, wanted, strict=True))):
            median = result["median"].iloc[place]
            return pd.NA if pd.isna(median) or median == 0 else median
    known = ", ".join(repr(name[0] if len(name) == 1 else name) for name in names[:10])
    raise ConfigError(f"compare: there is no group {baseline!r} to be the baseline; there are: {known}")
