"""Groups: maps over grids, iterables and DataFrames, waited for, cancelled, joined back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import agentnb as nb
from agentnb.notebook.group import RunGroup
from tests.notebook.polling import until


def test_a_grid_with_repeats_runs_every_point_and_its_frame_has_them_as_columns(session) -> None:
    spec = nb.Shell("sleep {{seconds}}; echo {{word}}")
    group = session.map(spec, nb.grid(seconds=[0.01, 0.02], word=["a", "b c"]), repeats=3, max_parallel=4)
    assert group.wait() is group
    assert (len(group), group.done, group.counts()) == (12, True, {"completed": 12})
    assert [run.stdout for run in group] == ["a\n"] * 3 + ["b c\n"] * 3 + ["a\n"] * 3 + ["b c\n"] * 3
    assert group[0].name == "sleep {{seconds}}; echo {{word}} [0]"
    assert [run.id for run in group[2:4]] == [group[2].id, group[3].id]
    frame = group.df()
    assert frame["param.seconds"].tolist() == [0.01] * 6 + [0.02] * 6
    assert frame["param.repeat"].tolist() == [0, 1, 2] * 4
    assert frame.id.tolist() == [run.id for run in group]
    assert set(frame.group_id) == {group.id}
    assert group.raise_for_status() is group


def test_any_iterable_of_mappings_and_values_that_a_shell_would_read(session) -> None:
    words = ["a b", "$HOME", "`id`", "'", '"', "a\nb", "; exit 3", "größe", "", "-n"]
    group = session.map(nb.Shell("printf '%s|' {{word}}"), ({"word": word} for word in words))
    assert [run.stdout for run in group.wait()] == [f"{word}|" for word in words]
    assert group.df()["param.word"].tolist() == words


def test_a_group_keeps_to_its_own_bound(new_session) -> None:
    session = new_session(max_parallel=4)
    group = session.map(nb.Shell("sleep 0.15; echo {{n}}"), nb.grid(n=range(4)), max_parallel=2)
    frame = group.wait().df()
    moments = [(at, 1) for at in frame.started_at] + [(at, -1) for at in frame.finished_at]
    live = pd.Series([step for _, step in sorted(moments)]).cumsum()
    assert live.max() == 2


def test_a_group_is_awaited_and_a_cancelled_await_cancels_it(session) -> None:
    async def main() -> None:
        group = session.map(nb.Shell("exit {{n}}"), nb.grid(n=[0, 1]))
        assert await group is group
        assert [result.exit_code for result in group.results] == [0, 1]
        with pytest.raises(nb.RunFailed, match=r"\[1\]"):
            group.raise_for_status()
        slow = session.map(nb.Shell("sleep 60; {{n}}"), nb.grid(n=range(20)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow, 0.2)

        assert slow.counts() == {"cancelled": 20}

    asyncio.run(main())


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [3, 0, 2, 1]])
def test_a_group_is_waited_for_to_its_last_run_in_whatever_order_they_end(session, tmp_path, order: list[int]) -> None:
    group = session.map(nb.Shell(f"until [ -e {tmp_path}/{{{{n}}}} ]; do sleep 0.01; done"), nb.grid(n=range(4)), max_parallel=4)
    for n in order:
        with pytest.raises(TimeoutError):
            group.wait(0.02)
        (tmp_path / str(n)).touch()
        group[n].wait()
    assert group.wait(0).counts() == {"completed": 4}


def test_a_group_is_cancelled_or_waited_for_within_bounds(session) -> None:
    group = session.map(nb.Shell("sleep 60; {{n}}"), nb.grid(n=range(9)))
    with pytest.raises(TimeoutError, match=r"9 of 9 runs had not ended after 0.05 s and go on: sleep 60; \{\{n\}\} \[0\]"):
        group.wait("50ms")
    with pytest.raises(RuntimeError, match="has not ended; wait for the group"):
        group.raise_for_status()
    assert group.results == [None] * 9
    assert set(group.snapshot().counts) == set(group.counts())
    group.cancel("enough")
    group.wait()
    assert {run.result.error.message for run in group} == {"enough"}
    assert repr(group) == "<RunGroup 'sleep 60; {{n}}' of 9: 9 cancelled>"


def test_a_frame_of_a_live_group_has_all_its_rows(new_session) -> None:
    session = new_session(max_parallel=1)
    group = session.map(nb.Shell("{{n}}; while [ ! -e go ]; do sleep 0.02; done"), nb.grid(n=["true"] * 3))
    until(lambda: group[0].status is nb.RunStatus.RUNNING)
    frame = group.df()
    assert frame.status.tolist() == ["running", "pending", "pending"]
    Path("go").touch()
    assert group.wait().df().status.tolist() == ["completed"] * 3


def test_a_dataframe_joins_back_by_position_with_everything_it_held(session) -> None:
    df = pd.DataFrame(
        {
            "i": np.array([1, 2, 3], dtype=np.int32),
            "f": [0.5, np.nan, np.inf],
            "s": ["a b", None, "c"],
            "when": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
            "flag": np.array([True, False, True]),
            "n": pd.array([1, None, 3], dtype="Int64"),
            "cat": pd.Categorical(["x", "y", "x"]),
            3: [7, 8, 9],
            "name": ["of", "the", "user"],
        },
        index=["r1", "r1", "r2"],
    )
    group = session.map(nb.Shell("echo {{i}} {{name}} {{cat}}"), df, repeats=2)
    group.wait().raise_for_status()
    assert [run.stdout for run in group[::2]] == ["1 of x\n", "2 the y\n", "3 user x\n"]
    assert group[2].params == {
        "i": 2, "f": None, "s": None, "when": None, "flag": False, "n": None, "cat": "y", "3": 8, "name": "the", "repeat": 0,
    }  # fmt: skip
    joined = group.df()
    assert joined.index.tolist() == ["r1", "r1", "r1", "r1", "r2", "r2"]
    assert joined["i"].tolist() == [1, 1, 2, 2, 3, 3]
    assert joined["3"].tolist() == [7, 7, 8, 8, 9, 9]
    assert joined["base.name"].tolist() == ["of", "of", "the", "the", "user", "user"]
    assert joined["name"].str.endswith("]").all()
    assert joined["f"].dtype == "float64"
    assert joined["cat"].dtype == "category"
    assert joined["param.repeat"].tolist() == [0, 1] * 3
    assert (joined["status"] == "completed").all()


def test_an_empty_frame_or_list_gives_an_empty_group(session) -> None:
    df = pd.DataFrame({"a": [1], "b": ["x"]})
    group = session.map(nb.Shell("echo {{a}}"), df[df.a > 1])
    assert (len(group.wait()), group.done, group.counts(), group.results) == (0, True, {}, [])
    frame = group.df()
    assert len(frame) == 0
    assert frame.columns[:4].tolist() == ["a", "b", "id", "name"]
    assert len(session.map(nb.Shell("true"), [])) == 0
    assert session.runs == []


def test_a_python_function_and_a_command_are_mapped_too(session) -> None:
    def power(base: int, exponent: int = 2) -> int:
        return int(base**exponent)

    group = session.map(power, [{"base": 2}, {"base": 3, "exponent": 3}])
    assert [run.output for run in group.wait()] == [4, 27]
    group = session.map(nb.Command(["printf", "%s|", "{{word}}", "{{word}}x"]), nb.grid(word=["a b", "$HOME"]))
    assert [run.stdout for run in group.wait()] == ["a b|a bx|", "$HOME|$HOMEx|"]


def test_a_callback_comes_once_when_all_have_ended(session) -> None:
    group, called = session.map(nb.Shell("sleep 0.1; true {{n}}"), nb.grid(n=range(5))), []
    group.when_done(lambda: called.append(group.done))
    group.wait()
    until(lambda: called)
    assert called == [True]
    group.when_done(lambda: called.append(2))
    assert called == [True, 2]


def test_ten_thousand_points_are_launched_within_seconds_and_cancelled(session) -> None:
    start = time.monotonic()
    group: RunGroup = session.map(nb.Command(["sleep", "60", "{{n}}"]), nb.grid(n=range(10_000)))
    assert time.monotonic() - start < 10
    group.cancel()
    assert group.wait(30).counts() == {"cancelled": 10_000}
    assert len(group.df()) == 10_000
