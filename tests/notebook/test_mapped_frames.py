"""Runs mapped over a DataFrame, joined back to it: any index, any column names, any types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import agentnb as nb


def answer(ctx: nb.RunContext) -> int:
    """An agent that takes what it is given as it is."""
    ctx.usage(input_tokens=1)
    return len(ctx.params)


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a b": ["x", "y", None],
            "a.b": [1.5, np.nan, 2.0],
            "when": pd.to_datetime(["2020-01-01", None, "2021-06-01"]).tz_localize("UTC"),
            "sort": pd.Categorical(["u", "v", "u"]),
            "flag": [True, False, True],
            "n": pd.array([1, None, 3], dtype="Int64"),
            "mixed": [1, "two", [3]],
            "status": ["s"] * 3,
            "base.status": ["b"] * 3,
            3: [7, 8, 9],
        },
        index=["twice", "twice", "once"],
    )


def test_the_columns_and_the_index_of_the_frame_stay_as_they_are(session: nb.Session, frame: pd.DataFrame) -> None:
    df = session.map(answer, frame).wait().df()
    assert df.index.tolist() == ["twice", "twice", "once"]
    assert df["output"].tolist() == ["10"] * 3
    same = ["a b", "a.b", "when", "sort", "flag", "n", "mixed"]
    pd.testing.assert_frame_equal(df[same], frame[same], check_column_type=False)
    assert df["3"].tolist() == [7, 8, 9]
    assert set(df["status"]) == {"completed"}


def test_every_column_has_a_name_of_its_own(session: nb.Session, frame: pd.DataFrame) -> None:
    df = session.map(answer, frame).wait().df()
    assert df.columns.is_unique
    assert df["base.base.status"].tolist() == ["s"] * 3
    assert df["base.status"].tolist() == ["b"] * 3


def test_parameters_tell_what_each_row_held(session: nb.Session, frame: pd.DataFrame) -> None:
    df = session.map(answer, frame).wait().df()
    assert df["param.a b"].tolist()[:2] == ["x", "y"]
    assert df["param.n"].isna().tolist() == [False, True, False]
    assert df["param.a.b"].isna().tolist() == [False, True, False]


def test_repeats_keep_rows_apart(session: nb.Session, frame: pd.DataFrame) -> None:
    df = session.map(answer, frame, repeats=2).wait().df()
    assert df["3"].tolist() == [7, 7, 8, 8, 9, 9]
    assert df["param.repeat"].tolist() == [0, 1] * 3


def test_no_rows_give_no_runs_and_all_the_columns(session: nb.Session, frame: pd.DataFrame) -> None:
    group = session.map(answer, frame.iloc[:0])
    assert len(group.wait()) == 0
    df = group.df()
    assert len(df) == 0
    assert {"a b", "a.b", "status", "cost_usd"} <= set(df.columns)
    assert df["when"].dtype == frame["when"].dtype
