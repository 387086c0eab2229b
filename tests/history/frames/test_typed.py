from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.errors import ConfigError
from agentnb.history.frames import arrays, columns, frames
from agentnb.history.frames.columns import Column
from tests.history.frames.complete import complete_store

ALL = {frame.name: getattr(frames, f"{frame.name}_df") for frame in columns.FRAMES}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_store(tmp_path_factory.mktemp("complete") / "store")


def by_csv(df: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(df.to_csv(index=False)), dtype=str, keep_default_na=False)


@pytest.mark.parametrize("name", ALL)
def test_a_frame_comes_back_from_csv_with_its_dtypes(full: Path, name: str) -> None:
    df = ALL[name](full)
    back = nb.typed(by_csv(df))
    pd.testing.assert_frame_equal(back, df)
    assert back.attrs == df.attrs
    empty = nb.typed(by_csv(df.iloc[:0]))
    pd.testing.assert_frame_equal(empty[[c for c in df if "." not in c]], df.iloc[:0][[c for c in df if "." not in c]])


@pytest.mark.parametrize("name", ALL)
def test_a_frame_comes_back_from_parquet_with_its_dtypes(full: Path, name: str, tmp_path: Path) -> None:
    df = ALL[name](full)
    df.to_parquet(tmp_path / "f.parquet")
    back = pd.read_parquet(tmp_path / "f.parquet")
    pd.testing.assert_frame_equal(back, df)
    assert back.attrs == df.attrs
    pd.testing.assert_frame_equal(nb.typed(back), df)
    bare = pd.read_parquet(tmp_path / "f.parquet", dtype_backend="pyarrow").astype(object)
    pd.testing.assert_frame_equal(nb.typed(bare), df)


def test_a_csv_that_pandas_guessed_is_mended_where_nothing_was_lost(full: Path) -> None:
    df = frames.sessions_df(full)
    pd.testing.assert_frame_equal(nb.typed(pd.read_csv(io.StringIO(df.to_csv(index=False)))), df)


def test_columns_of_others_stay_as_they_are_and_few_columns_are_enough(full: Path) -> None:
    df = frames.runs_df(full, columns=["id", "created_at", "param.i"]).assign(mine=[object()] * 11, **{"x.y": 1})
    back = nb.typed(df)
    assert back["mine"].tolist() == df["mine"].tolist()
    pd.testing.assert_frame_equal(back, df)
    assert list(back.attrs["agentnb"]) == ["id", "created_at", "param.i"]


@pytest.mark.parametrize(
    ("df", "frame", "message"),
    [
        (pd.DataFrame({"exit_code": ["x"], "processes": [1]}), None, "'exit_code' of row 0 is 'x', which is no Int64"),
        (pd.DataFrame({"attempts": [1.5]}), None, "'attempts' of row 0 is 1.5, which is no Int64"),
        (pd.DataFrame({"status": ["odd"], "timeout_s": [1]}), None, "'status' of row 0 is 'odd', which is none of pending"),
        (pd.DataFrame({"started_at": ["soon"]}), "runs", "'started_at' of row 0 is 'soon'"),
        (pd.DataFrame({"cpu_s": ["?"]}, index=["r"]), "runs", "'cpu_s' of row 'r' is '\\?', which is no float64"),
        (pd.DataFrame({"status": ["completed"]}), None, "say which: frame="),
        (pd.DataFrame({"zzz": ["completed"]}), None, "say which: frame="),
        (pd.DataFrame({"id": ["completed"]}), "run", "frame='run' is none of runs, steps"),
        (pd.DataFrame([[1, 2]], columns=["id", "id"]), None, "same name"),
        ({"id": []}, None, "dict is no DataFrame"),
    ],
)
def test_what_is_no_frame_of_the_history_is_refused(df: pd.DataFrame, frame: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nb.typed(df, frame)


CELLS = {
    "string": st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1),
    "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "float64": st.none() | st.floats(allow_nan=False),
    "Float64": st.none() | st.floats(allow_nan=False),
    "datetime64[us, UTC]": st.none() | st.integers(-(2**55), 2**55),
    "category": st.none() | st.sampled_from(["completed", "failed"]),
}


@given(st.data())
def test_any_values_come_back_from_csv(data: st.DataObject) -> None:
    chosen = [c for c in columns.RUNS.columns if c.name in {"name", "exit_code", "cpu_s", "cost_usd", "started_at", "status", "timeout_s"}]
    size = data.draw(st.integers(0, 5))
    cells = {c.name: data.draw(st.lists(CELLS[c.dtype], min_size=size, max_size=size)) for c in chosen}
    df = pd.DataFrame({c.name: arrays.array(c, cells[c.name]) for c in chosen})
    pd.testing.assert_frame_equal(nb.typed(by_csv(df)), df, check_exact=True)


@given(
    st.sampled_from(sorted(set(CELLS) | {"object"})),
    st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()),
)
def test_any_values_make_an_array_of_the_dtype(dtype: str, values: list) -> None:
    column = Column("x", "x", dtype, "", categories=("completed", "failed"))
    whole = arrays.array(column, values)
    assert len(whole) == len(values)
    assert str(whole.dtype) == dtype
    half = len(values) // 2
    halves = arrays.finished(column, [arrays.raw(column, values[:half]), arrays.raw(column, values[half:])])
    pd.testing.assert_series_equal(pd.Series(halves), pd.Series(whole))
