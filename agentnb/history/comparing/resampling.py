"""The bootstrap: what an estimate would have been, had other samples of the same kind been drawn (numpy only; seeded, bounded).

Intervals are *expanded percentile* intervals: percentiles of the resampled estimates (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13), a little further out than the confidence says, by as much as Student's t is wider than the normal
distribution, since the plain ones are too narrow for few values (Hesterberg, What Teachers Should Know About the Bootstrap, The
American Statistician 69, 2015).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: With fewer values than this, an interval from resampling would only pretend to know.
ENOUGH = 5
#: A mean of more values than this is drawn from the limit of its distribution, the normal one: no resample tells more.
LARGE = 1000
#: So many numbers of a table of resamples are kept: 16 MB.
_KEPT = 2_000_000
_PORTION = 1_000_000


class Bootstrap:
    """Resampled estimates and their intervals. The same values give the same ones, whatever else was asked before.

    `stream` keeps samples apart that must be resampled independently of each other.
    """

    def __init__(self, confidence: float, resamples: int, seed: int) -> None:
        """`confidence`: of the intervals, between 0 and 1; `resamples`: how many; `seed`: zero or more."""
        self.confidence, self.resamples, self.seed = confidence, resamples, seed
        self._shares: dict[tuple[int, int], Array] = {}

    def centers(self, values: Array, center: str, stream: int = 0) -> Array:
        """As many resampled centers of `values` ("median", "mean", or "rate": the mean of what is 0 or 1) as there are resamples."""
        if center == "median":
            return self.medians(values, stream)
        return self.rates(values, stream) if center == "rate" else self.means(values[:, np.newaxis], stream)[:, 0]

    def medians(self, values: Array, stream: int = 0) -> Array:
        """Resampled medians of `values`, exactly distributed, without resampling.

        The k-th smallest of n draws from n values is value number ⌊nU⌋, where U is the k-th smallest of n uniform numbers: a beta variable.
        """
        count, rng, ranked = len(values), self._generator(len(values), stream), np.sort(values)
        rank = (count + 1) // 2
        place = rng.beta(rank, count - rank + 1, size=self.resamples)
        lower = ranked[_index(place, count)]
        if count % 2:
            return lower
        # Of the uniform numbers above it, count - rank are left; the smallest of them is the upper of the two in the middle.
        above = place + (1 - place) * (1 - rng.random(self.resamples) ** (1 / (count - rank)))
        upper = ranked[_index(above, count)]
        middle: Array = lower + (upper - lower) / 2
        return middle

    def rates(self, values: Array, stream: int = 0) -> Array:
        """Rates that `values`, all 0 or 1, may come from: draws by Jeffreys' rule.

        No resample of five successes knows a failure, so that its interval would have no width; this one is known for its coverage
        (Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion, Statistical Science 16, 2001).
        """
        good = values.sum()
        drawn: Array = self._generator(len(values), stream).beta(good + 0.5, len(values) - good + 0.5, size=self.resamples)
        return drawn

    def paired_rates(self, values: Array, others: Array, stream: int = 0) -> tuple[Array, Array]:
        """The same for pairs: rates of either side, by the same rule for the four kinds of pairs."""
        kinds = np.bincount((2 * values + others).astype(np.int64), minlength=4)
        shares = self._generator(len(values), stream).dirichlet(kinds + 0.5, size=self.resamples)
        return shares[:, 2] + shares[:, 3], shares[:, 1] + shares[:, 3]

    def means(self, columns: Array, stream: int = 0) -> Array:
        """Resampled means of each column; one row per resample. Rows of `columns` are drawn whole, so that pairs stay together."""
        count, columns = len(columns), columns[np.lexsort(columns.T)]  # their order is to make no difference
        if count > LARGE:
            return self._limit(columns, stream)
        if count * self.resamples > _KEPT:
            return np.concatenate([shares @ columns for shares in self._portions(count, stream)])
        if (count, stream) not in self._shares:
            if sum(map(np.size, self._shares.values())) + count * self.resamples > _KEPT:
                self._shares.clear()
            self._shares[count, stream] = np.concatenate(list(self._portions(count, stream)))
        means: Array = self._shares[count, stream] @ columns
        return means

    def _limit(self, columns: Array, stream: int) -> Array:
        rng, count = self._generator(len(columns), stream), len(columns)
        spread = np.atleast_2d(np.cov(columns, rowvar=False, bias=True)) / count
        drawn: Array = columns.mean(axis=0) + rng.standard_normal((self.resamples, columns.shape[1])) @ _root(spread)
        return drawn

    def _portions(self, count: int, stream: int) -> Iterator[Array]:
        """How often each of `count` values is drawn, as a share of the draws: rows are resamples."""
        rng, portion = self._generator(count, stream), max(1, _PORTION // count)
        for start in range(0, self.resamples, portion):
            rows = min(portion, self.resamples - start)
            drawn = rng.integers(0, count, size=(rows, count)) + np.arange(rows)[:, np.newaxis] * count
            yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count) / count

    def _generator(self, count: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, count, stream])

    def around(self, value: float, drawn: Array, center: str, *sizes: int) -> tuple[float | None, float | None]:
        """The interval of an estimate with this `center`. That of rates has it in, also at the edge, where all succeed, or none."""
        if center != "rate":
            return self.interval(drawn, *sizes)
        low, high = self.interval(drawn)
        return (None, None) if low is None or high is None else (min(low, value), max(high, value))

    def interval(self, drawn: Array, *sizes: int) -> tuple[float | None, float | None]:
        """The interval of these resampled estimates, from samples of these `sizes`, of 5 or more; without sizes: their percentiles."""
        tail = (1 - self.confidence) / 2
        if sizes:
            tail = NormalDist().cdf(-_widening(sizes) * _student(1 - tail, _freedom(sizes)))
        low, high = (float(bound) for bound in np.quantile(drawn, [tail, 1 - tail]))
        return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)


def _index(place: Array, count: int) -> Array:
    index: Array = np.minimum((place * count).astype(np.int64), count - 1)
    return index


def _root(spread: Array) -> Array:
    """A matrix whose square is `spread`, also when that is singular."""
    values, vectors = np.linalg.eigh(spread)
    root: Array = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _widening(sizes: tuple[int, ...]) -> float:
    """By how much the standard error of resamples is too small: they divide by n where n - 1 would be right."""
    return math.sqrt(sum(1 / n for n in sizes) / sum((n - 1) / n**2 for n in sizes))


def _freedom(sizes: tuple[int, ...]) -> float:
    """Degrees of freedom, by Welch and Satterthwaite for equal variances; n - 1 of one sample."""
    return sum(1 / n for n in sizes) ** 2 / sum(1 / (n**2 * (n - 1)) for n in sizes)


def _student(p: float, freedom: float) -> float:
    """Student's t quantile by the expansion of Cornish and Fisher (Abramowitz and Stegun 26.7.5), to 0.1 % at 95 %, from 4 degrees on."""
    z = NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
