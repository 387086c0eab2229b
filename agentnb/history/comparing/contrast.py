"""One group's values against the baseline's: ratio, difference, effect, each of runs on their own or of pairs of runs (numpy only)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agentnb.history.comparing.resampling import ENOUGH, Array, Bootstrap

#: Samples that are compared are resampled apart from each other: streams of Bootstrap.
_BASE, _OTHER, _RATIOS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Contrast:
    """A group against the baseline; None: not known, or not defined. `pairs`: how many, when the runs are paired."""

    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    diff: float | None = None
    diff_low: float | None = None
    diff_high: float | None = None
    effect: float | None = None
    pairs: int | None = None


Figures = tuple[float | None, float | None, float | None]
_NONE: Figures = (None, None, None)


class Baseline:
    """The group that the others are compared to; its resamples are made once."""

    def __init__(self, values: Array, center: str, bootstrap: Bootstrap) -> None:
        """`values`: the finite ones of the metric; `center`: "median", "mean", or "rate" (the mean of what is 0 or 1)."""
        self.values, self._center, self._bootstrap = values, center, bootstrap
        self._ranked = np.sort(values)
        self._middle = middle(values, center) if len(values) else math.nan
        self._drawn = bootstrap.centers(values, center, _BASE) if len(values) >= ENOUGH else values

    def itself(self) -> Contrast:
        """Its contrast with itself."""
        if not len(self.values):
            return Contrast()
        return Contrast(ratio=1.0 if self._middle > 0 else None, diff=0.0, effect=0.0)

    def against(self, values: Array) -> Contrast:
        """The contrast of another group's values with it, each run on its own."""
        if not (len(values) and len(self.values)):
            return Contrast()
        own, sizes = middle(values, self._center), (len(values), len(self.values))
        drawn = self._bootstrap.centers(values, self._center, _OTHER) if min(sizes) >= ENOUGH else None
        base = None if drawn is None else self._drawn
        divides = min(values.min(), self._ranked[0]) >= 0 and self._middle > 0
        ratio = self._figures(own / self._middle, _ratio(drawn, base), sizes) if divides else _NONE
        diff = self._figures(own - self._middle, _gap(drawn, base), sizes)
        below, above = np.searchsorted(self._ranked, values), np.searchsorted(self._ranked, values, side="right")
        return Contrast(*ratio, *diff, float(np.mean(below - (len(self._ranked) - above)) / len(self._ranked)))

    def paired(self, values: Array, base: Array) -> Contrast:
        """The contrast of a group's values with the baseline's, `base`, of the same pairs."""
        count = len(values)
        if not count:
            return Contrast(pairs=0)
        gaps, least = values - base, base.min()
        if self._center == "median":
            diff = self._of_medians(gaps, _OTHER)
            ratio = self._of_medians(values / base, _RATIOS) if values.min() >= 0 and least > 0 else _NONE
        else:
            drawn, other = self._paired_means(values, base) if count >= ENOUGH else (None, None)
            diff = self._figures(float(gaps.mean()), _gap(drawn, other), (count,))
            divides = values.min() >= 0 and least >= 0 and base.mean() > 0
            ratio = self._figures(float(values.mean() / base.mean()), _ratio(drawn, other), (count,)) if divides else _NONE
        return Contrast(*ratio, *diff, float(np.sign(gaps).mean()), pairs=count)

    def _paired_means(self, values: Array, base: Array) -> tuple[Array, Array]:
        if self._center == "rate":
            return self._bootstrap.paired_rates(values, base, _OTHER)
        drawn = self._bootstrap.means(np.column_stack([values, base]), _OTHER)
        return drawn[:, 0], drawn[:, 1]

    def _of_medians(self, values: Array, stream: int) -> Figures:
        drawn = self._bootstrap.medians(values, stream) if len(values) >= ENOUGH else None
        return self._figures(float(np.median(values)), drawn, (len(values),))

    def _figures(self, value: float, drawn: Array | None, sizes: tuple[int, ...]) -> Figures:
        """A figure and its interval; None for what is not finite."""
        bounds = (None, None) if drawn is None else self._bootstrap.around(value, drawn, self._center, *sizes)
        return (value if math.isfinite(value) else None, *bounds)


def middle(values: Array, center: str) -> float:
    """The center of these values."""
    return float(np.median(values) if center == "median" else values.mean())


def _ratio(drawn: Array | None, base: Array | None) -> Array | None:
    if drawn is None or base is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):  # of a resample whose baseline is zero there is none
        ratios: Array = drawn / base
    return ratios


def _gap(drawn: Array | None, base: Array | None) -> Array | None:
    return None if drawn is None or base is None else drawn - base
