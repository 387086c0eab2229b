"""Groups of runs side by side: counts, medians, means with intervals, ratios to a baseline, and what that means in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from agentnb.errors import ConfigError
from agentnb.history.comparing.comparand import (
    check_center,
    check_columns,
    check_pairs,
    check_resampling,
    declared_unit,
    is_whole,
    keys_of,
    measured,
    missing,
    numbers,
    place_of,
    standing,
)
from agentnb.history.comparing.contrast import Baseline, Contrast, middle
from agentnb.history.comparing.pairing import Pairing, grid_key, numbered, pairing
from agentnb.history.comparing.resampling import ENOUGH, Array, Bootstrap
from agentnb.history.comparing.wording import Group, Metric, label, quantity, sentence, unit_of

_OWN = ("median", "p90", "mean", "mean_low", "mean_high")
_AGAINST = ("ratio", "ratio_low", "ratio_high", "diff", "diff_low", "diff_high", "effect")
_DTYPES = {"n": "Int64", "failures": "Int64"} | dict.fromkeys((*_OWN, *_AGAINST), "Float64") | {"pairs": "Int64", "sentence": "string"}
_TOLD = "compare"
_MEANINGS = {
    "n": "all runs of the group",
    "failures": "runs that ended, and did not complete",
    "p90": "nine of ten values are below it",
    "mean_low": "the interval of the mean",
    "mean_high": "the interval of the mean",
    "ratio": "how many times the baseline's",
    "diff": "how much above the baseline's",
    "effect": "Cliff's delta: from -1 (always below the baseline) to 1 (always above)",
    "pairs": "pairs of runs that the ratio is of; NA where runs are not paired",
    "sentence": "what this says",
}


def compare(
    df: pd.DataFrame,
    by: Any,
    metric: Any = "run_s",
    *,
    baseline: Any = None,
    pair: Any = None,
    paired: bool | None = None,
    center: str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per group of equal values in the column(s) `by`, in the order in which the groups first come; the index holds the values.

    Only completed runs enter the metric (a number, a bool, or a timedelta, then in seconds), and of these only finite values: a group
    that only failed keeps its row, with NA figures. A DataFrame without a `status` column has no failures. Of runs that reuse one
    another's result (`reused_from`) only one enters in each group, since it was measured once.

    Columns, those of the metric in its own unit: `n` (all runs), `failures` (runs that ended, and did not complete), `median`,
    `p90`, `mean` with its interval `mean_low`, `mean_high`; then, against the baseline: `ratio` and `diff` with theirs (`ratio_low`
    ...), `effect`, `pairs`, and `sentence`, which says it: "B is 1.8x slower than A (1.6-2.1), 12 pairs". Of fewer than 5 values or
    pairs intervals are NA, and the sentence is "too few to tell"; each is at `confidence` on its own, so that among many groups some
    miss by chance.

    `baseline`: the value (for several columns: the tuple of values) of a group; default: the first group. `pair`: the column(s) whose
    equal values make runs of two groups a pair; default: the other ``param.*`` columns, with ``param.repeat``, when df is a grid of
    them (each combination comes in every group). Runs of one key in one group are paired by their order. ``paired=False``: never;
    ``paired=True``: a ConfigError when there is no such key. `center`: what ratio and diff are of, "median" or "mean"; default: the
    mean of a rate (bools, and floats without a unit that are all 0.0 or 1.0, as nb.score makes them), else the median. `resamples`
    and `seed` are the bootstrap's.

    How: *ratio* and *diff* of runs on their own are those of the centers; of pairs, the median of the pairs' ratios and differences
    (what the sign test belongs to: "how many times slower is the same work?"), or, with the mean, the ratio and difference of the
    means over the pairs. There is a ratio only of values that are not negative, to a baseline (with pairs and medians: each of its
    values) above zero. *Intervals* are expanded percentile bootstrap intervals, those of rates by Jeffreys' rule: see
    agentnb.history.comparing.resampling. *effect* is Cliff's delta (Cliff, Dominance statistics, Psychological Bulletin 114, 1993): the
    share of pairs of values in which the group's is larger less the share in which it is smaller; with pairs, within these.

    Raises ConfigError for what is no DataFrame, a column or a baseline that is not there, a column that is there twice, values of `by`
    or `pair` that cannot be told apart (lists, dicts), a metric that is no number, or a bad option.
    """
    keys, partners = _checked(df, by, metric, pair=pair, paired=paired)
    check_resampling(confidence, resamples, seed)
    check_center(center)
    groups = numbered(df, keys)
    table = _Table(df, keys, groups, Bootstrap(confidence, resamples, seed))
    table.read(metric, center)
    return table.made(place_of(table.names, baseline), _pairing(df, keys, groups, partners=partners, paired=paired))


def points(df: pd.DataFrame, by: Any, metric: Any = "run_s", *, pair: Any = None, paired: bool | None = None) -> pd.DataFrame:
    """The values that enter such a comparison, one row each: `group` (its row there), `value`, `pair` (equal for partners; -1: none)."""
    keys, partners = _checked(df, by, metric, pair=pair, paired=paired)
    groups, values = numbered(df, keys), numbers(df[metric])
    found = _pairing(df, keys, groups, partners=partners, paired=paired)
    enters = standing(df)[0] & np.isfinite(values) & measured(df, groups)
    pairs = np.full(len(df), -1) if found is None else found.numbers
    return pd.DataFrame({"group": groups[enters], "value": values[enters], "pair": pairs[enters]})


def _checked(df: pd.DataFrame, by: Any, metric: Any, *, pair: Any, paired: Any) -> tuple[list[Any], list[Any]]:
    """The columns that tell groups, and pairs, apart."""
    keys, partners = keys_of(df, by, "by"), [] if pair is None else keys_of(df, pair, "pair")
    check_columns(df, [*keys, *partners], metric)
    check_pairs(partners, paired)
    return keys, partners


def told_of(table: pd.DataFrame) -> dict[str, Any]:
    """How a comparison was made: by, metric, unit, center ("median", "mean" or "rate"), baseline (its row), paired_by, confidence."""
    told: dict[str, Any] = table.attrs[_TOLD]
    return told


class _Table:
    """The rows of a comparison while they are made."""

    def __init__(self, df: pd.DataFrame, keys: list[Any], groups: Array, bootstrap: Bootstrap) -> None:
        self.df, self.keys, self.groups, self.bootstrap = df, keys, groups, bootstrap
        self.places = _split(groups)
        self.firsts = [int(places[0]) for places in self.places]
        self.names = [tuple(df[key].iloc[first] for key in keys) for first in self.firsts]

    def read(self, metric: Any, center: str | None) -> None:
        """Read the metric, and say what is its center."""
        self.done, self.live = standing(self.df)
        self.values = numbers(self.df[metric])
        enters = self.done & np.isfinite(self.values) & measured(self.df, self.groups)
        self.good = [places[enters[places]] for places in self.places]
        known = self.values[np.concatenate(self.good)] if self.good else self.values
        whole, unit = is_whole(self.df[metric]), unit_of(str(metric), declared_unit(self.df, metric))
        rate = not (whole or unit or center == "median") and len(known) > 0 and bool(np.isin(known, (0.0, 1.0)).all())
        self.center = "rate" if rate else center or "median"
        name = label([metric], [metric])
        self.told = Metric(name, unit, whole and name.endswith("s"), rate)

    def made(self, base_place: int | None, partners: Pairing | None) -> pd.DataFrame:
        """The table, against the group number `base_place`."""
        rows: list[dict[str, Any]] = []
        if base_place is not None:
            base, groups = (
                Baseline(self.values[self.good[base_place]], self.center, self.bootstrap),
                list(map(self._group, range(len(self.good)))),
            )
            own = self._own_figures()
            for place, group in enumerate(groups):
                found = base.itself() if place == base_place else self._contrast(base, place, base_place, partners)
                said = sentence(group, groups[base_place], None if place == base_place else found, self.told)
                against = {name: getattr(found, name) for name in (*_AGAINST, "pairs")}
                rows.append({"n": group.runs, "failures": group.failures, **own[place], **against, "sentence": said})
        made = pd.DataFrame(rows, columns=list(_DTYPES), index=_index(self.df, self.keys, self.firsts)).astype(_DTYPES)
        made.attrs.update(self._attrs(base_place, partners))
        return made

    def _contrast(self, base: Baseline, place: int, base_place: int, partners: Pairing | None) -> Contrast:
        mine = self.good[place]
        if partners is None:
            return base.against(self.values[mine])
        mine, others = partners.match(mine, self.good[base_place])
        return base.paired(self.values[mine], self.values[others])

    def _group(self, place: int) -> Group:
        places, values = self.places[place], self.values[self.good[place]]
        failures = int((~self.done[places] & ~self.live[places]).sum())
        center = f"{self.center} {quantity(middle(values, self.center), self.told)}" if len(values) else ""
        name = label([None if missing(value) else value for value in self.names[place]], self.keys)
        return Group(name, len(places), failures, len(values), center)

    def _own_figures(self) -> dict[int, dict[str, float | None]]:
        """The figures of each group by itself; those of equal sizes one after the other, since they share their resamples."""
        return {place: self._own(self.values[self.good[place]]) for place in sorted(range(len(self.good)), key=lambda p: len(self.good[p]))}

    def _own(self, values: Array) -> dict[str, float | None]:
        if not len(values):
            return dict.fromkeys(_OWN)
        interval: tuple[float | None, float | None] = (None, None)
        with np.errstate(over="ignore", invalid="ignore"):  # the sum of values near the largest float has none
            if len(values) >= ENOUGH:
                kind = "rate" if self.told.rate else "mean"
                interval = self.bootstrap.around(float(values.mean()), self.bootstrap.centers(values, kind), kind, len(values))
            found = (float(np.median(values)), float(np.quantile(values, 0.9)), float(values.mean()), *interval)
        return {name: value if value is not None and math.isfinite(value) else None for name, value in zip(_OWN, found, strict=True)}

    def _attrs(self, base_place: int | None, partners: Pairing | None) -> dict[str, Any]:
        units = dict.fromkeys((*_OWN, "diff", "diff_low", "diff_high"), self.told.unit)
        columns = {name: {"meaning": _MEANINGS.get(name, f"{name} of {self.told.name}"), "unit": units.get(name, "")} for name in _DTYPES}
        told = {
            "by": [str(key) for key in self.keys],
            "metric": self.told.name,
            "unit": self.told.unit,
            "center": self.center,
            "baseline": base_place,
            "paired_by": [str(column) for column in partners.columns] if partners else [],
            "confidence": float(self.bootstrap.confidence),
        }
        return {"agentnb": columns, _TOLD: told}


def _pairing(df: pd.DataFrame, keys: list[Any], groups: Array, *, partners: list[Any], paired: bool | None) -> Pairing | None:
    if both := [column for column in partners if column in keys]:
        raise ConfigError(f"compare: {both[0]!r} tells the groups apart (by=), so it is equal in no pair; leave it out of pair=")
    columns = partners or ([] if paired is False else grid_key(df, keys, groups))
    if not columns and paired:
        raise ConfigError("compare: no other param.* columns make a grid, so nothing tells which runs are pairs; name the columns by pair=")
    return pairing(df, columns, groups) if columns else None


def _split(groups: Array) -> list[Array]:
    """The row numbers of each group."""
    if not len(groups):
        return []
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _index(df: pd.DataFrame, keys: list[Any], firsts: Sequence[int]) -> pd.Index[Any]:
    if len(keys) == 1:
        index: pd.Index[Any] = pd.Index(df[keys[0]].iloc[list(firsts)].array, name=keys[0], tupleize_cols=False)
        return index
    return pd.MultiIndex.from_arrays([df[key].iloc[list(firsts)] for key in keys], names=keys)
