from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.errors import ConfigError
from agentnb.history.comparing.compare import compare, points

COLUMNS = ["n", "failures", "median", "p90", "mean", "mean_low", "mean_high", "ratio", "ratio_low", "ratio_high", "diff", "diff_low"]
COLUMNS += ["diff_high", "effect", "pairs", "sentence"]


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
    assert list(table.columns) == COLUMNS
    assert [str(t) for t in table.dtypes] == ["Int64"] * 2 + ["Float64"] * 12 + ["Int64", "string"]


def test_the_interval_is_the_percentile_bootstrap_of_the_mean() -> None:
    sample = np.random.default_rng(3).normal(10, 2, 400)
    table = compare(pd.DataFrame({"g": "x", "run_s": sample}), "g")
    error = 1.96 * sample.std() / 20
    assert table["mean_low"].iloc[0] == pytest.approx(sample.mean() - error, abs=0.05)
    assert table["mean_high"].iloc[0] == pytest.approx(sample.mean() + error, abs=0.05)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    df = runs(a=np.random.default_rng(3).normal(10, 2, 50).tolist())
    pd.testing.assert_frame_equal(compare(df, "g"), compare(df, "g"))
    assert compare(df, "g")["mean_low"].iloc[0] != compare(df, "g", seed=1)["mean_low"].iloc[0]


def test_less_confidence_gives_a_narrower_interval() -> None:
    df = runs(a=[1.0, 5.0, 2.0, 9.0, 4.0, 7.5])
    wide, narrow = compare(df, "g", confidence=0.99), compare(df, "g", confidence=0.5)
    assert wide["mean_low"].iloc[0] < narrow["mean_low"].iloc[0] < narrow["mean_high"].iloc[0] < wide["mean_high"].iloc[0]


def test_a_group_that_only_failed_keeps_its_row() -> None:
    table = compare(runs(bad=["failed", "cancelled"], good=[2.0]), "g")
    assert [table["n"]["bad"], table["failures"]["bad"]] == [2, 2]
    assert table.loc["bad"].iloc[2:-1].isna().all()
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
    assert table.loc["b"].iloc[2:-1].isna().all()
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


def test_a_bool_metric_is_a_rate_and_so_is_a_score_of_zeros_and_ones() -> None:
    df = pd.DataFrame({"g": ["a"] * 10 + ["b"] * 10, "ok": [True, False] * 5 + [True] * 10})
    for column in (df["ok"], df["ok"].astype("boolean"), df["ok"].astype("Float64")):
        table = compare(df.assign(score=column), "g", "score")
        assert table.attrs["compare"]["center"] == "rate"
        assert table["mean"].tolist() == [0.5, 1.0]
        assert (table.loc["b", "ratio"], table.loc["b", "diff"], table.loc["b", "effect"]) == (2.0, 0.5, 0.5)
        assert table["mean_low"]["b"] < 0.95, "ten of ten are not certain"
        assert table["sentence"]["b"].startswith("score is higher for b than for a by 50 points (")
    counts = compare(df.assign(turns=1), "g", "turns")
    assert counts.attrs["compare"]["center"] == "median", "one turn each is no rate"


def test_what_is_counted_is_more_or_fewer_and_any_other_number_higher_or_lower() -> None:
    df = runs(a=[1.0] * 5, b=[3.0] * 5).assign(turns=lambda d: d["run_s"].astype("Int64"), size=lambda d: d["turns"])
    assert compare(df, "g", "turns")["sentence"]["b"] == "b has 3.0x more turns than a (3.0-3.0), n=5 and 5"
    assert compare(df, "g", "size")["sentence"]["b"] == "size is 3.0x higher for b than for a (3.0-3.0), n=5 and 5"


def test_the_unit_is_that_which_the_frame_declares_and_the_result_declares_its_own() -> None:
    df = runs(a=np.random.default_rng(8).normal(5, 0.1, 8).tolist(), b=np.random.default_rng(8).normal(10, 0.1, 8).tolist()).rename(
        columns={"run_s": "took"}
    )
    df.attrs["agentnb"] = {"took": {"meaning": "ran", "unit": "s"}}
    table = compare(df, "g", "took")
    assert table["sentence"]["b"].startswith("b is 2.0x slower than a (")
    assert set(table.attrs["agentnb"]) == set(COLUMNS)
    assert table.attrs["agentnb"]["mean_low"]["unit"] == "s"
    assert table.attrs["agentnb"]["ratio"] == {"meaning": "how many times the baseline's", "unit": ""}


def test_the_center_may_be_the_mean() -> None:
    df = runs(a=[1.0, 1, 1, 1, 6], b=[2.0, 2, 2, 2, 12])
    table = compare(df, "g", center="mean")
    assert (table.loc["b", "ratio"], table.loc["b", "diff"]) == (2.0, 2.0)
    assert table["sentence"]["a"] == "a is the baseline: mean 2 s, n=5"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("a", "b", "ratio", "said"),
    [
        ([0.0] * 6, [1.0, 2, 3, 4, 5, 6], None, "b is slower than a by 3.5 s (1 to 6 s), n=6 and 6"),
        ([0.0] * 6, [0.0] * 6, None, "b and a: no clear difference (0 to 0 s), n=6 and 6"),
        ([-1.0] * 6, [1.0] * 6, None, "b is slower than a by 2 s (2 to 2 s), n=6 and 6"),
        ([2.0] * 6, [2.0] * 6, 1.0, "b and a: no clear difference (1.00-1.00), n=6 and 6"),
        ([2.0] * 6, [3.0], 1.5, "b and a: too few to tell (n=1)"),
        ([2.0] * 6, ["failed", "failed"], None, "b: nothing to compare, no run has a value of run_s; 2 of 2 failed"),
        ([float("nan")] * 6, [2.0] * 6, None, "b: nothing to compare it with, the baseline a has no value of run_s"),
        ([2.0] * 6, [float("inf"), float("nan"), 4.0], 2.0, "b and a: too few to tell (n=1)"),
    ],
)
def test_values_that_make_no_ratio_are_told_for_what_they_are(a: list, b: list, ratio: float | None, said: str) -> None:
    table = compare(runs(a=a, b=b), "g")
    assert table["sentence"]["b"] == said
    assert (None if pd.isna(table.loc["b", "ratio"]) else table.loc["b", "ratio"]) == ratio


def test_nothing_is_claimed_of_fewer_than_five() -> None:
    for count in range(1, 7):
        table = compare(runs(a=[1.0] * 9, b=[50.0 + n for n in range(count)]), "g")
        assert ("too few to tell" in table["sentence"]["b"]) == (count < 5)
        assert table.loc["b", ["ratio_low", "ratio_high", "diff_low", "diff_high"]].isna().all() == (count < 5)
        assert table["ratio"]["b"] > 49


def test_cliffs_delta_is_the_share_above_less_the_share_below() -> None:
    table = compare(runs(a=[1.0, 2.0, 3.0], b=[2.0, 3.0, 4.0], c=[0.0], d=[2.0]), "g")
    assert table["effect"].tolist() == [0.0, pytest.approx(5 / 9), -1.0, 0.0]


def test_a_thousand_groups_and_a_hundred_thousand_rows_are_compared_at_once() -> None:
    df = pd.DataFrame({"g": np.arange(100_000) % 1000, "run_s": np.random.default_rng(8).lognormal(0, 1, 100_000), "status": "completed"})
    table = compare(df, "g", resamples=200)
    assert len(table) == 1000
    assert table["n"].eq(100).all()
    assert table["ratio_low"].notna().sum() == 999
    few = compare(df.assign(g=df["g"] % 2), "g", resamples=200)
    assert few["sentence"][1].startswith("1 and 0: no clear difference (")


def test_columns_of_several_levels_are_named_by_tuples() -> None:
    df = pd.DataFrame({("a", "x"): ["p", "q"], ("b", ""): [1, 2], ("b", "y"): [1.0, 3.0]})
    assert compare(df, ("a", "x"), ("b", "y"))["ratio"].tolist() == [1.0, 3.0]
    assert compare(df, [("a", "x"), ("b", "")], ("b", "y"))["ratio"].tolist() == [1.0, 3.0]


def test_categories_that_no_run_has_make_no_group_and_odd_names_stay_as_they_are() -> None:
    df = pd.DataFrame({"g": pd.Categorical(["<b>%s\n{}", "b"], categories=["none", "<b>%s\n{}", "b"]), "run_s": [1.0, 2.0]})
    table = compare(df, "g")
    assert table.index.tolist() == ["<b>%s\n{}", "b"]
    assert table["sentence"].iloc[1] == "b and <b>%s {}: too few to tell (n=1)"


def test_rows_in_any_order_give_the_same_figures() -> None:
    df = runs(a=np.random.default_rng(8).lognormal(0, 1, 30).tolist(), b=np.random.default_rng(8).lognormal(1, 1, 20).tolist())
    mixed = df.sample(frac=1, random_state=1).set_axis([7] * len(df))
    pd.testing.assert_frame_equal(compare(mixed, "g", baseline="a").loc[["a", "b"]], compare(df, "g"), check_index_type=False)


def test_other_groups_change_no_figure_of_a_group() -> None:
    many = np.random.default_rng(8).lognormal(0, 1, 999).tolist()
    df = runs(a=many[:30], b=many[30:50], c=many)
    pd.testing.assert_frame_equal(compare(df, "g").loc[["a", "b"]], compare(df[df["g"] != "c"], "g"))


def test_a_measurement_that_was_reused_counts_once_in_each_group() -> None:
    df = pd.DataFrame(
        {"g": list("aaaabb"), "id": list("123456"), "reused_from": [None, "1", "1", "9", "1", "5"], "run_s": [1.0, 1, 1, 3, 1, 1]}
    )
    table = compare(df.astype({"id": "string", "reused_from": "string"}), "g")
    assert table["n"].tolist() == [4, 2]
    assert table["sentence"]["a"] == "a is the baseline: median 2 s, n=2"
    assert len(points(df, "g")) == 4
