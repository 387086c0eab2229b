"""Intervals tell the truth as often as they say: checked by simulation, with fixed seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agentnb.history.comparing.resampling import LARGE, Bootstrap, _student

RESAMPLES, DATA_SETS = 400, 500


def covered(draw: Callable[[np.random.Generator], tuple[float | None, float | None]], truth: float) -> float:
    """The share of simulated data sets whose interval holds the truth."""
    rng = np.random.default_rng(20)
    found = [draw(rng) for _ in range(DATA_SETS)]
    return sum(low <= truth <= high for low, high in found if low is not None and high is not None) / DATA_SETS


@pytest.mark.parametrize("count", [5, 12, 40])
def test_the_interval_of_a_mean_covers_it(count: int) -> None:
    def interval(rng: np.random.Generator) -> tuple[float | None, float | None]:
        bootstrap = Bootstrap(0.95, RESAMPLES, int(rng.integers(1_000_000)))
        return bootstrap.interval(bootstrap.means(rng.normal(10, 2, (count, 1)))[:, 0], count)

    assert 0.88 <= covered(interval, 10) <= 0.98, "of five values no resample tells more"


@pytest.mark.parametrize("count", [7, 12, 40])
def test_the_interval_of_a_median_of_skewed_values_covers_it(count: int) -> None:
    def interval(rng: np.random.Generator) -> tuple[float | None, float | None]:
        bootstrap = Bootstrap(0.95, RESAMPLES, int(rng.integers(1_000_000)))
        return bootstrap.interval(bootstrap.medians(rng.lognormal(0, 0.8, count)), count)

    assert 0.90 <= covered(interval, 1) <= 0.985


@pytest.mark.parametrize("sizes", [(12, 12), (30, 10)])
def test_the_interval_of_a_ratio_of_medians_covers_it(sizes: tuple[int, int]) -> None:
    def interval(rng: np.random.Generator) -> tuple[float | None, float | None]:
        bootstrap = Bootstrap(0.95, RESAMPLES, int(rng.integers(1_000_000)))
        mine, base = rng.lognormal(0.6, 0.4, sizes[0]), rng.lognormal(0, 0.4, sizes[1])
        return bootstrap.interval(bootstrap.medians(mine, 1) / bootstrap.medians(base), *sizes)

    assert 0.94 <= covered(interval, float(np.exp(0.6))) <= 0.995


@pytest.mark.parametrize("rate", [0.5, 0.8, 0.95])
def test_the_interval_of_a_rate_covers_it_also_near_the_edge(rate: float) -> None:
    def interval(rng: np.random.Generator) -> tuple[float | None, float | None]:
        bootstrap = Bootstrap(0.95, 5 * RESAMPLES, int(rng.integers(1_000_000)))
        return bootstrap.interval(bootstrap.rates((rng.random(30) < rate).astype(float)))

    assert 0.90 <= covered(interval, rate) <= 0.985


def test_five_successes_of_five_are_not_certain() -> None:
    bootstrap = Bootstrap(0.95, RESAMPLES, 1)
    low, high = bootstrap.around(1.0, bootstrap.rates(np.ones(5)), "rate", 5)
    assert low is not None
    assert 0.5 < low < 0.75
    assert high == 1


@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.1, 0.1, 0.7, 0.1), (0.4, 0.1, 0.1, 0.4)])
def test_the_interval_of_a_difference_of_paired_rates_covers_it(shares: tuple[float, ...]) -> None:
    def interval(rng: np.random.Generator) -> tuple[float | None, float | None]:
        bootstrap, kinds = Bootstrap(0.95, RESAMPLES, int(rng.integers(1_000_000))), rng.choice(4, 20, p=shares)
        values, others = (kinds // 2).astype(float), (kinds % 2).astype(float)
        mine, base = bootstrap.paired_rates(values, others)
        return bootstrap.around(float((values - others).mean()), mine - base, "rate", 20)

    assert 0.90 <= covered(interval, shares[2] - shares[1]) <= 0.99


@pytest.mark.parametrize("count", [5, 8, 51, 300])
def test_medians_are_distributed_as_those_of_real_resamples(count: int) -> None:
    values = np.random.default_rng(2).lognormal(0, 1, count)
    quick = np.quantile(Bootstrap(0.95, 20_000, 1).medians(values), [0.05, 0.25, 0.5, 0.75, 0.95])
    real = np.quantile(np.median(np.random.default_rng(3).choice(values, (20_000, count)), axis=1), [0.05, 0.25, 0.5, 0.75, 0.95])
    assert np.allclose(quick, real, rtol=0.05)


def test_means_of_many_values_are_distributed_as_those_of_real_resamples_pairs_included() -> None:
    rng = np.random.default_rng(4)
    first = rng.lognormal(0, 1, LARGE + 1)
    columns = np.column_stack([first, first * 2 + rng.normal(0, 0.1, LARGE + 1)])
    quick = Bootstrap(0.95, 20_000, 1).means(columns)
    assert np.allclose(quick.std(axis=0), columns.std(axis=0) / np.sqrt(LARGE + 1), rtol=0.05)
    assert (quick[:, 1] / quick[:, 0]).std() < 0.01, "what is drawn together varies together"


def test_resamples_are_the_same_whatever_was_asked_before_and_however_much_is_kept() -> None:
    values = np.random.default_rng(5).normal(size=(900, 1))
    alone = Bootstrap(0.95, 2000, 7).means(values)
    busy = Bootstrap(0.95, 2000, 7)
    for count in (800, 900, 700, 900):
        busy.means(values[:count])
    assert np.array_equal(busy.means(values), alone)
    assert Bootstrap(0.95, 5000, 7).means(values).shape == (5000, 1)
    assert not np.array_equal(Bootstrap(0.95, 2000, 7).means(values, stream=1), alone)


@pytest.mark.parametrize(("freedom", "known"), [(4, 2.7764), (5, 2.5706), (10, 2.2281), (30, 2.0423), (1000, 1.9623)])
def test_students_quantiles_are_those_of_the_tables(freedom: int, known: float) -> None:
    assert _student(0.975, freedom) == pytest.approx(known, rel=1e-3)
