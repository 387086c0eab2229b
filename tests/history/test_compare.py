from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.errors import ConfigError
from agentnb.history.compare import compare


def runs(**groups: list[float | str]) -> pd.DataFrame:
    """One row per value; a text is a status, with a run_s that must not count."""
    rows = [(g, 1e9, v) if isinstance(v, str) else (g, v, "completed") for g, values in groups.items() for v in values]
    return pd.DataFrame(rows, columns=["g", "run_s", "status"]).astype({"g": "string"})


def test_the_figures_are_those_computed_by_hand() -> None:
    table = compare(runs(a=[1.0, 2.0, 3.0, 4.0, 10.0], b=[4.0, 8.0, "failed", "timeout"]), "g")
    a, b = table.loc["a"], table.loc["b"]
    assert (a["n"], a["failures"], a["median"], a["mean"], a["p90"], a["ratio"]) == (5, 0, 3.0, 4.0, pytest.approx(7.6), 1.0)
    assert (b["n"], b["failures"], b["median"], b["mean"], b["ratio"]) == (4, 2, 6.0, 6.0, 2.0)
    assert a["mean_low"] < 4.0 < a["mean_high"]
    assert pd.isna(b["mean_low"])
    assert list(table.columns) == ["n", "failures", "median", "p90", "mean", "mean_low", "mean_high", "ratio"]
    assert [str(t) for t in table.dtypes] == ["Int64"] * 2 + ["Float64"] * 6


def test_the_interval_is_the_percentile_bootstrap_of_the_mean() -> None:
    sample = np.random.default_rng(3).normal(10, 2, 400)
    table = compare(pd.DataFrame({"g": "x", "run_s": sample}), "g")
    error = 1.96 * sample.std() / 20
    assert table["mean_low"].iloc[0] == pytest.approx(sample.mean() - error, abs=0.05)
    assert table["mean_high"].iloc[0] == pytest.approx(sample.mean() + error, abs=0.05)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    df = runs(a=[1.0, 5.0, 2.0, 9.0, 4.0, 7.5])
    pd.testing.assert_frame_equal(compare(df, "g"), compare(df, "g"))
    assert compare(df, "g")["mean_low"].iloc[0] != compare(df, "g", seed=1)["mean_low"].iloc[0]


def test_less_confidence_gives_a_narrower_interval() -> None:
    df = runs(a=[1.0, 5.0, 2.0, 9.0, 4.0, 7.5])
    wide, narrow = compare(df, "g", confidence=0.99), compare(df, "g", confidence=0.5)
    assert wide["mean_low"].iloc[0] < narrow["mean_low"].iloc[0] < narrow["mean_high"].iloc[0] < wide["mean_high"].iloc[0]


def test_a_group_that_only_failed_keeps_its_row() -> None:
    table = compare(runs(bad=["failed", "cancelled"], good=[2.0]), "g")
    assert [table["n"]["bad"], table["failures"]["bad"]] == [2, 2]
    assert table.loc["bad"].iloc[2:].isna().all()
    assert pd.isna(table.loc["good", "ratio"]), "the baseline has no median to divide by"
    assert compare(runs(bad=["failed"], good=[2.0]), "g", baseline="good").loc["good", "ratio"] == 1.0


def test_live_runs_are_neither_failures_nor_figures() -> None:
    table = compare(runs(a=[1.0, "running", "pending", "failed"]), "g")
    assert [table[name]["a"] for name in ("n", "failures", "mean")] == [4, 1, 1.0]


def test_several_columns_make_groups_and_a_baseline_is_a_tuple() -> None:
    df = pd.DataFrame({"a": [1, 1, 2], "b": ["x", "y", "x"], "cost": [1.0, 2.0, 4.0]})
    table = compare(df, ["a", "b"], "cost", baseline=(1, "y"))
    assert list(table.index) == [(1, "x"), (1, "y"), (2, "x")]
    assert list(table.index.names) == ["a", "b"]
    assert table["ratio"].tolist() == [0.5, 1.0, 2.0]


def test_groups_keep_their_order_and_a_missing_value_is_a_group() -> None:
    df = pd.DataFrame({"g": pd.array([2, None, 1, 2], dtype="Int64"), "run_s": [1.0, 2.0, 3.0, 3.0]})
    table = compare(df, "g")
    assert table["n"].tolist() == [2, 1, 1]
    assert table.index.isna().tolist() == [False, True, False]
    assert str(table.index.dtype) == "Int64"


def test_spans_compare_in_seconds() -> None:
    df = pd.DataFrame({"g": ["a", "a"], "d": pd.to_timedelta([1, 3], unit="s")})
    assert compare(df, "g", "d")["mean"].tolist() == [2.0]


def test_an_empty_frame_gives_an_empty_table_with_the_same_dtypes() -> None:
    some = compare(runs(a=[1.0]), "g")
    for by in ("g", ["g", "status"]):
        none = compare(runs(a=[1.0]).iloc[:0], by)
        assert len(none) == 0
        pd.testing.assert_series_equal(none.dtypes, some.dtypes)


def test_zero_is_no_baseline_to_divide_by() -> None:
    assert compare(runs(a=[0.0], b=[1.0]), "g")["ratio"].isna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "gg"}, "no column 'gg'; did you mean 'g'"),
        ({"by": "g", "metric": "run"}, "no column 'run'; did you mean 'run_s'"),
        ({"by": "zzzz"}, "there are: g, run_s, status"),
        ({"by": []}, "by is empty"),
        ({"by": "g", "metric": "status"}, "not a number"),
        ({"by": "g", "baseline": "c"}, "no group 'c' to be the baseline; there are: 'a', 'b'"),
        ({"by": "g", "confidence": 95}, "between 0 and 1"),
        ({"by": "g", "resamples": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_can(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(runs(a=[1.0], b=[2.0]), **options)


def test_many_values_cost_bounded_memory() -> None:
    df = pd.DataFrame({"g": "x", "run_s": np.arange(300_000.0)})
    table = compare(df, "g", resamples=10)
    assert table["mean_low"].iloc[0] < 149_999.5 < table["mean_high"].iloc[0]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.none() | st.floats(0, 1e6), st.sampled_from(["completed", "failed"])), min_size=1, max_size=25
    )
)
def test_every_row_counts_once_and_no_interval_is_upside_down(rows: list) -> None:
    df = pd.DataFrame(rows, columns=["g", "run_s", "status"]).astype({"run_s": "Float64"})
    table = compare(df, "g", resamples=200)
    assert table["n"].sum() == len(rows)
    assert table["failures"].sum() == sum(row[2] == "failed" for row in rows)
    known = table.dropna(subset=["mean_low"])
    slack = 1e-6 + 1e-9 * known["mean"]
    assert (known["mean_low"] <= known["mean_high"] + slack).all()


ONE = pd.DataFrame({"g": ["a", "a"], "run_s": [1.0, 2.0], "status": ["completed"] * 2})


@pytest.mark.parametrize(
    ("df", "options", "message"),
    [
        (None, {}, "NoneType is no DataFrame"),
        ([{"g": 1}], {}, "list is no DataFrame"),
        (ONE, {"by": None}, "by=None names no column"),
        (ONE, {"by": 5}, "no column 5"),
        (ONE, {"by": [["g"]]}, r"\['g'\] is no column's name"),
        (ONE, {"metric": None}, "no column None"),
        (ONE, {"metric": ["run_s"]}, "is no column's name"),
        (pd.concat([ONE, ONE], axis="columns"), {}, "more than one column 'g'"),
        (pd.concat([ONE, ONE[["run_s"]]], axis="columns"), {}, "more than one column 'run_s'"),
        (pd.concat([ONE, ONE[["status"]]], axis="columns"), {}, "more than one column 'status'"),
        (ONE.assign(g=[[1], [2]]), {}, "by='g' has list values"),
        (ONE.assign(g=[[], []]), {}, "by='g' has list values"),
        (ONE.assign(g=[{"x": 1}, "b"]), {}, "by='g' has dict values"),
        (ONE.assign(g=[(1, []), "b"]), {}, "by='g' has tuple values"),
        (ONE.assign(run_s=[1j, 2j]), {}, "complex128, not a number"),
        (ONE, {"confidence": "0.9"}, "between 0 and 1"),
        (ONE, {"confidence": None}, "between 0 and 1"),
        (ONE, {"confidence": float("nan")}, "between 0 and 1"),
        (ONE, {"resamples": 2.5}, "whole number"),
        (ONE, {"seed": -1}, "seed=-1"),
        (ONE, {"seed": "x"}, "seed='x'"),
        (ONE, {"baseline": np.array(["a", "b"])}, "no group"),
        (ONE, {"baseline": pd.NA}, "no group"),
        (ONE, {"baseline": {}}, "no group"),
    ],
)
def test_odd_input_is_refused_in_words(df, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(df, **({"by": "g"} | options))


@pytest.mark.filterwarnings("error")
def test_infinities_do_not_enter_the_figures() -> None:
    table = compare(runs(a=[1.0, float("inf"), 3.0, float("-inf"), float("nan")], b=[float("inf")]), "g")
    assert (table["n"]["a"], table["median"]["a"], table["mean"]["a"]) == (5, 2.0, 2.0)
    assert table.loc["b"].iloc[2:].isna().all()
    assert table["failures"].to_list() == [0, 0]


@pytest.mark.filterwarnings("error")
def test_figures_beyond_the_largest_float_are_not_known() -> None:
    table = compare(runs(a=[1.5e308] * 7), "g")
    assert table["median"]["a"] == 1.5e308
    assert pd.isna(table["mean"]["a"])


def test_a_missing_value_of_by_can_be_the_baseline_and_several_are_given_as_a_list_too() -> None:
    df = pd.DataFrame({"g": [1.0, None], "h": ["x", "y"], "run_s": [2.0, 4.0]})
    assert compare(df, "g", baseline=pd.NA)["ratio"].to_list() == [0.5, 1.0]
    assert compare(df, ["g", "h"], baseline=[float("nan"), "y"])["ratio"].to_list() == [0.5, 1.0]
    assert compare(df, ["h", "h"], baseline="y")["ratio"].to_list() == [0.5, 1.0]
