from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.history.comparing.contrast import Contrast
from agentnb.history.comparing.wording import Group, Metric, gap, label, plain, quantity, sentence, span, times, unit_of

A, B = Group("A", 12, 0, 12, "median 1 s"), Group("B", 12, 0, 12, "median 2 s")
SLOWER = Contrast(1.84, 1.6, 2.1, 0.8, 0.6, 1.0, 0.9, 12)


@pytest.mark.parametrize(
    ("metric", "more", "less"),
    [
        (Metric("run_s", "s"), "B is 1.8x slower than A (1.6-2.1), 12 pairs", "B is 1.8x faster than A (1.6-2.1), 12 pairs"),
        (Metric("queued_s", "s"), "B is 1.8x longer than A (1.6-2.1), 12 pairs", "B is 1.8x shorter than A (1.6-2.1), 12 pairs"),
        (Metric("cost_usd", "USD"), "B is 1.8x dearer than A (1.6-2.1), 12 pairs", "B is 1.8x cheaper than A (1.6-2.1), 12 pairs"),
        (Metric("tokens_per_s", "1/s"), "B is 1.8x faster than A (1.6-2.1), 12 pairs", "B is 1.8x slower than A (1.6-2.1), 12 pairs"),
        (Metric("x_bytes", "bytes"), "B is 1.8x larger than A (1.6-2.1), 12 pairs", "B is 1.8x smaller than A (1.6-2.1), 12 pairs"),
        (
            Metric("turns", counts=True),
            "B has 1.8x more turns than A (1.6-2.1), 12 pairs",
            "B has 1.8x fewer turns than A (1.6-2.1), 12 pairs",
        ),
        (
            Metric("score"),
            "score is 1.8x higher for B than for A (1.6-2.1), 12 pairs",
            "score is 1.8x lower for B than for A (1.6-2.1), 12 pairs",
        ),
    ],
)
def test_the_word_fits_the_metric_and_the_ratio_is_told_the_way_people_say_it(metric: Metric, more: str, less: str) -> None:
    assert sentence(B, A, SLOWER, metric) == more
    assert sentence(B, A, Contrast(1 / 1.84, 1 / 2.1, 1 / 1.6, -0.8, -1.0, -0.6, -0.9, 12), metric) == less


RUN_S = Metric("run_s", "s")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Contrast(1.04, 0.9, 1.2, 0, -1, 1, 0.1, 12), "B and A: no clear difference (0.90-1.20), 12 pairs"),
        (Contrast(1.0, 1.0, 1.0, 0, 0, 0, 0, 12), "B and A: no clear difference (1.00-1.00), 12 pairs"),
        (Contrast(1.31, 1.004, 1.6, 1, 0.1, 2, 0.5), "B is 1.310x slower than A (1.004-1.600), n=12 and 12"),
        (Contrast(1.84, None, None, 0.8, None, None, 0.9, 4), "B and A: too few to tell (4 pairs)"),
        (Contrast(1.84, None, None, 0.8, None, None, 0.9, 1), "B and A: too few to tell (1 pair)"),
        (Contrast(None, None, None, 2.0, 1.0, 3.0, 1.0), "B is slower than A by 2 s (1 to 3 s), n=12 and 12"),
        (Contrast(None, None, None, -2.0, -3.0, -1.0, 1.0), "B is faster than A by 2 s (1 to 3 s), n=12 and 12"),
        (Contrast(None, None, None, 2.0, -1.0, 3.0, 1.0), "B and A: no clear difference (-1 to 3 s), n=12 and 12"),
        (Contrast(1e9, 1e8, 1e10, 1, 1, 1, 1), "B is 1e+09x slower than A (1e+08-1e+10), n=12 and 12"),
    ],
)
def test_what_is_not_known_is_not_claimed(found: Contrast, said: str) -> None:
    assert sentence(B, A, found, RUN_S) == said


def test_groups_without_values_and_failures_are_told() -> None:
    bad = Group("B", 4, 4, 0, "")
    assert sentence(bad, A, Contrast(), RUN_S) == "B: nothing to compare, no run has a value of run_s; 4 of 4 failed"
    assert sentence(A, bad, Contrast(), RUN_S) == "A: nothing to compare it with, the baseline B has no value of run_s"
    assert sentence(A, A, None, RUN_S) == "A is the baseline: median 1 s, n=12"
    assert sentence(Group("B", 5, 2, 3, ""), A, Contrast(1.0), RUN_S) == "B and A: too few to tell (n=3); 2 of 5 failed"


def test_rates_are_told_in_points() -> None:
    found = Contrast(2.0, 1.5, 3.0, 0.4, 0.1, 0.7, 0.4, 12)
    said = sentence(B, A, found, Metric("score", rate=True))
    assert said == "score is higher for B than for A by 40 points (10 to 70), 12 pairs"


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (None, RUN_S, ""),
        (math.nan, RUN_S, ""),
        (0.0, RUN_S, "0 s"),
        (0.2404, RUN_S, "0.24 s"),
        (-1234.5, RUN_S, "-1\u202f234 s"),
        (0.00421, Metric("c", "USD"), "$0.00421"),
        (-2.5, Metric("c", "USD"), "-$2.50"),
        (1.5 * 1024**2, Metric("b", "bytes"), "1.5 MiB"),
        (12.0, Metric("b", "bytes"), "12 B"),
        (1e300, Metric("x"), "1e+300"),
        (1e-9, Metric("x"), "1e-09"),
        (0.6, Metric("ok", rate=True), "60 %"),
    ],
)
def test_quantities_have_their_unit_and_three_digits_that_tell_something(value: float | None, metric: Metric, text: str) -> None:
    assert quantity(value, metric) == text


def test_both_ends_of_an_interval_are_told_to_the_same_place() -> None:
    assert span(0.75, 7.2612, RUN_S) == "0.75 to 7.26 s"
    assert span(-0.00601, 1.14, Metric("x")) == "-0.01 to 1.14"
    assert span(0.0004, 7.0, RUN_S) == "0.0004 to 7.0000 s"
    assert span(8.0, 32.0, Metric("turns")) == "8 to 32"
    assert span(1024, 2048, Metric("b", "bytes")) == "1 KiB to 2 KiB"
    assert gap(-0.08, 0.4, Metric("ok", rate=True)) == "-8 to 40"


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_can_be_told(one: float, other: float) -> None:
    for unit in ("", "s", "USD", "bytes"):
        assert quantity(one, Metric("x", unit))
        assert len(span(min(one, other), max(one, other), Metric("x", unit))) < 60
    assert len(plain(one)) < 20
    assert times(abs(one) + 1e-300, abs(other) + 1e-300)


def test_names_are_one_line_of_text_and_do_not_turn_the_sentence_around() -> None:
    assert label(["a\nb\x00\x1b[31m\u202e"], ["g"]) == "a b [31m"
    assert label([None, 0.1], ["a", "b"]) == "a=(missing), b=0.1"
    assert label(["\u05e9\u05dc\u05d5\u05dd 1"], ["g"]) == "\u2068\u05e9\u05dc\u05d5\u05dd 1\u2069"
    assert label([""], ["g"]) == "''"
    assert len(label(["x" * 500], ["g"])) == 60

    class Odd:
        def __str__(self) -> str:
            raise ValueError

    assert "test_wording" in label([Odd()], ["g"])


def test_units_are_as_declared_else_by_the_ends_of_names() -> None:
    assert [unit_of(name, "") for name in ("run_s", "cost_usd", "peak_memory_bytes", "tokens_per_s", "score")] == [
        "s",
        "USD",
        "bytes",
        "1/s",
        "",
    ]
    assert unit_of("score", "s") == "s"
