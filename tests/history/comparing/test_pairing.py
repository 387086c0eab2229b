from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from agentnb.errors import ConfigError
from agentnb.history.comparing.compare import compare, points, told_of
from agentnb.history.comparing.pairing import grid_key, numbered


def grid(**values: list) -> pd.DataFrame:
    """All combinations, as param.x columns, with a metric in which the word matters far more than the model."""
    index = pd.MultiIndex.from_product(values.values(), names=[f"param.{name}" for name in values])
    df: pd.DataFrame = index.to_frame(index=False)
    rng = np.random.default_rng(1)
    size: Any = (df["param.word"].astype("category").cat.codes + 2.0) ** 2 if "param.word" in df else 1.0
    factor = df.iloc[:, 0].map({"A": 1.0, "B": 1.5})
    df["run_s"] = size * factor * rng.lognormal(0, 0.05, len(df))
    return df.assign(status="completed")


def key(df: pd.DataFrame, by: str) -> list[object]:
    return grid_key(df, [by], numbered(df, [by]))


def test_the_other_parameters_of_a_grid_are_the_key_and_repeats_belong_to_it() -> None:
    df = grid(model=["A", "B"], word=["x", "y", "z"], repeat=[0, 1])
    assert key(df, "param.model") == ["param.word", "param.repeat"]
    table = compare(df, "param.model")
    assert told_of(table)["paired_by"] == ["param.word", "param.repeat"]
    assert table["pairs"].tolist() == [pd.NA, 6]
    assert table["sentence"]["B"].endswith("6 pairs")


def test_paired_beats_unpaired_where_the_pair_matters_most() -> None:
    df = grid(model=["A", "B"], word=list("abcdefghijkl"))
    paired, alone = compare(df, "param.model"), compare(df, "param.model", paired=False)
    assert paired["sentence"]["B"] == "B is 1.5x slower than A (1.4-1.5), 12 pairs"
    assert "no clear difference" in alone["sentence"]["B"]
    width = [float(t["ratio_high"]["B"] - t["ratio_low"]["B"]) for t in (paired, alone)]
    assert width[0] < width[1] / 5
    assert alone["pairs"].isna().all()
    assert told_of(alone)["paired_by"] == []


def test_rows_in_any_order_make_the_same_pairs() -> None:
    df = grid(model=["A", "B"], word=list("abcdefgh"))
    mixed = df.sample(frac=1, random_state=3).sort_values("param.model", kind="stable")
    pd.testing.assert_frame_equal(compare(mixed, "param.model"), compare(df, "param.model"))


@pytest.mark.parametrize(
    "df",
    [
        grid(model=["A", "B"]),
        grid(model=["A", "B"], word=["x"]),  # one value tells nothing apart
        grid(model=["A", "B"], word=["x", "y", "z"]).iloc[:-1],  # a hole: no grid
        grid(model=["A", "B"], word=["x", "y"]).assign(**{"param.prompt": ["p", "q", "r", "s"]}).drop(columns="param.word"),
        grid(model=["A", "B"], word=["x", "y"]).assign(**{"param.word": [[1], [2], [1], [2]]}),
        grid(model=["A"], word=["x", "y"]),
        grid(model=["A", "B"], word=["x", "y"]).iloc[:0],
    ],
)
def test_what_is_no_grid_is_not_paired(df: pd.DataFrame) -> None:
    assert key(df, "param.model") == []
    assert compare(df, "param.model")["pairs"].isna().all()


def test_a_column_that_goes_along_with_the_groups_is_no_key() -> None:
    df = grid(style=["A", "B"], word=["x", "y"])
    df["style"] = df["param.style"]
    df["param.prompt"] = df["param.style"] + df["param.word"]
    assert key(df, "style") == ["param.word"]


def test_a_missing_value_of_a_parameter_is_a_value() -> None:
    df = grid(model=["A", "B"], word=["x", None])
    assert key(df, "param.model") == ["param.word"]


def test_a_pair_that_lacks_a_value_does_not_count_and_order_makes_pairs_of_equal_keys() -> None:
    df = pd.concat([grid(model=["A", "B"], word=["x", "y", "z"])] * 2, ignore_index=True)
    df.loc[0, "status"] = "failed"
    df.loc[5, "run_s"] = float("nan")
    table = compare(df, "param.model")
    assert table.loc["B", "pairs"] == 4
    found = points(df, "param.model")
    assert len(found) == 10
    assert found.groupby("pair")["group"].nunique().value_counts().to_dict() == {2: 4, 1: 2}


def test_a_named_key_pairs_what_it_can() -> None:
    df = pd.DataFrame({"m": list("aaabbb"), "k": [1, 2, 3, 2, 3, 4], "run_s": [1.0, 2, 3, 4, 6, 9]})
    table = compare(df, "m", pair="k")
    assert table["pairs"].tolist() == [pd.NA, 2]
    assert table["ratio"].tolist() == [1.0, 2.0]
    assert table["diff"].tolist() == [0.0, 2.5]
    assert table["effect"].tolist() == [0.0, 1.0]
    none = compare(df.assign(k=range(6)), "m", pair=["k"])
    assert none["pairs"].tolist() == [pd.NA, 0]
    assert none["sentence"].iloc[1] == "b and a: too few to tell (0 pairs)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair": "nope"}, "no column 'nope'"),
        ({"pair": "m"}, "equal in no pair"),
        ({"pair": []}, "pair is empty"),
        ({"pair": "run_s", "paired": False}, "leave one of them out"),
        ({"paired": True}, "name the columns by pair="),
        ({"paired": "k"}, "by pair="),
        ({"center": "mode"}, "'median' or 'mean'"),
    ],
)
def test_what_makes_no_pairs_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(pd.DataFrame({"m": ["a", "b"], "run_s": [1.0, 2.0]}), "m", **options)
