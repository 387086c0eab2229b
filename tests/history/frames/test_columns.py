from __future__ import annotations

from pathlib import Path

import pytest

from agentnb.history.frames import columns, frames
from agentnb.history.store import Store
from tests.history.frames.complete import complete_store

ALL = {frame.name: getattr(frames, f"{frame.name}_df") for frame in columns.FRAMES}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One with a value in every column, one with nothing."""
    empty = tmp_path_factory.mktemp("empty") / "store"
    Store.open(empty).close()
    return complete_store(tmp_path_factory.mktemp("complete") / "store"), empty


def test_the_documentation_of_the_columns_is_that_of_the_declarations() -> None:
    documented = Path(__file__).parents[3] / "agentnb" / "history" / "frames" / "columns.md"
    command = "python -c 'from agentnb.history.frames import columns; print(columns.page(), end=\"\")' > agentnb/history/frames/columns.md"
    assert documented.read_text(encoding="utf-8") == columns.page(), f"write it anew: {command}"


@pytest.mark.parametrize("name", ALL)
def test_every_declared_column_has_values_its_dtype_and_its_meaning(stores: tuple[Path, Path], name: str) -> None:
    declared = next(frame for frame in columns.FRAMES if frame.name == name).columns
    full, empty = (ALL[name](root, full=True) for root in stores)
    for column in declared:
        assert full[column.name].notna().any(), f"no row has {column.name}: add it to tests/history/frames/complete.py"
        assert str(full[column.name].dtype) == str(empty[column.name].dtype) == column.dtype
        assert full.attrs["agentnb"][column.name]["meaning"], column.name
        assert column.unit or not column.name.endswith(("_s", "_bytes", "_usd")), f"{column.name} needs a unit"
    assert list(empty.columns) == [column.name for column in declared]
    assert [c for c in full.columns if c not in empty.columns] == [c for c in full.columns if str(c).startswith(("param.", "tag."))]


def test_a_full_run_reads_as_it_was_recorded(stores: tuple[Path, Path]) -> None:
    run = frames.runs_df(stores[0], run="full", full=True).iloc[0]
    assert run[["status", "error_kind", "exit_code", "signal", "attempts", "reason"]].to_list() == [
        "failed",
        "execution_failed",
        1,
        9,
        2,
        "exit code 1",
    ]
    assert run[["input_tokens", "peak_memory_bytes", "cost_usd", "tokens_per_s"]].to_list() == [2**53 + 1, 2**40, 0.25, 40.0]
    assert run[["queued_s", "run_s", "total_s", "cpu_s", "timeout_s"]].to_list() == [1.0, 2.5, 4.0, 0.5, 60.0]
    assert run[["branch", "workspace", "error"]].to_list() == ["agentnb/x", "/elsewhere/tree", "exit code 1: \u00e9\u4e16\U0001f600"]
    assert run[["param.i", "param.f", "param.s", "param.b", "param.l", "tag.team"]].to_list() == [1.0, 0.5, "x", True, '[1, "\u00e9"]', "a"]
    assert run[["stdout", "stderr"]].to_list() == ["hi\n", "oh \u00e9"]
