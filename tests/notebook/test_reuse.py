"""``reuse=True``: what the history has is returned instead of run again, marked, linked, and at no cost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import agentnb as nb
from agentnb.history.artifacts import Blobs
from agentnb.notebook import figures
from tests.notebook.polling import until
from tests.repositories import git, repository

#: Each run appends a line here: what was really run is counted by what it did.
LEDGER = "ledger.txt"


def ran(folder: Path = Path()) -> list[str]:
    path = folder / LEDGER
    return path.read_text().split() if path.exists() else []


def add(word: str, more: str = "true") -> str:
    return f"echo {word} >> {Path(LEDGER).absolute()}; {more}"


def note(word: str) -> None:
    with Path(LEDGER).open("a") as file:
        file.write(f"{word}\n")


def test_a_cell_that_is_executed_again_costs_nothing(session: nb.Session) -> None:
    def cell(**more: Any) -> nb.RunHandle:
        command = add("x", "echo out; echo err >&2; echo '{\"n\": 1}'; echo kept > kept.txt")
        run = session.shell(command, capture="structured", artifacts="kept.txt", reuse=True, **more)
        run.wait()
        return run

    first, again, third = cell(), cell(name="again", tags={"t": "1"}, timeout=9), cell()
    assert len(ran()) == 1
    assert (first.reused_from, again.reused_from, third.reused_from) == (None, first.id, first.id)  # never of a reused one
    for run in (again, third):
        assert (run.status, run.stdout, run.stderr, run.output) == (first.status, first.stdout, "err\n", {"n": 1})
        result, was = run.wait(), first.wait()
        assert (result.exit_code, result.duration, result.usage, result.metadata.pid) == (0, was.duration, was.usage, was.metadata.pid)
        assert run.tail() == first.tail()
        assert [(step.kind, step.name, step.status) for step in run.steps] == [(step.kind, step.name, step.status) for step in first.steps]
        [kept], [original] = run.artifacts, first.artifacts
        assert (kept.name, kept.checksum, kept.location) == (original.name, original.checksum, original.location)
        assert (kept.id != original.id, kept.source_run) == (True, run.id)
        assert "(reused)" in repr(run)
        assert "(reused)" in repr(nb.attach(run.id, session.store))
        assert figures.title(run.snapshot(), 80).endswith(" (reused)")
        assert ("reused from", first.id) in figures.facts(run.snapshot())
    runs = session.runs_df()
    assert runs["reused_from"].tolist() == [pd.NA, first.id, first.id]
    assert len({*runs["cache_key"]}) == len({*runs["run_s"]}) == 1
    assert (runs["name"][1], runs["tag.t"][1]) == ("again", "1")
    assert session.artifacts_df(full=True)["content"].tolist() == [b"kept\n"] * 3
    assert len({*session.runs_df(full=True)["stdout"]}) == 1
    steps = session.steps_df()
    assert (len({*steps["run_s"].round(3)}), len({*steps["id"]})) == (1, 3)


def test_without_it_everything_runs_and_nothing_is_found_again(session: nb.Session) -> None:
    session.shell(add("x")).wait()
    run = session.shell(add("x"), reuse=True)
    run.wait()
    session.shell(add("x")).wait()
    assert (len(ran()), run.reused_from) == (3, None)
    assert session.runs_df()["cache_key"].notna().tolist() == [False, True, False]


def test_what_did_not_complete_is_run_again(session: nb.Session, tmp_path: Path) -> None:
    for _ in range(2):
        assert session.shell(add("failed", "exit 3"), reuse=True).wait().exit_code == 3
    run = session.shell("sleep 60", reuse=True, name="long")
    run.cancel()
    run.wait()
    again = session.shell("sleep 60", reuse=True)
    assert again.reused_from is None
    again.cancel()
    assert again.wait().status == "cancelled"
    assert len(ran()) == 2


def test_equal_runs_at_the_same_time_both_run(session: nb.Session) -> None:
    group = session.map(nb.Shell(add("x")), [{}, {}], reuse=True).wait()
    assert len(ran()) == 2
    assert [run.reused_from for run in session.map(nb.Shell(add("x")), [{}, {}], reuse=True).wait()] == [group[1].id] * 2


def test_a_grid_goes_on_with_what_is_missing_in_its_order(session: nb.Session) -> None:
    target = nb.Shell(add("{{i}}", "echo {{i}}; test {{i}} != 3 || test -e fixed"))
    first = session.map(target, nb.grid(i=[1, 2, 3]), reuse=True).wait()
    assert first.counts() == {"completed": 2, "failed": 1}
    Path("fixed").touch()
    items = pd.DataFrame({"i": [4, 3, 2, 1]}, index=["d", "c", "b", "a"])
    second = session.map(target, items, reuse=True).wait()
    assert ran() == ["1", "2", "3", "4", "3"] or sorted(ran()) == ["1", "2", "3", "3", "4"]
    assert [run.reused_from for run in second] == [None, None, first[1].id, first[0].id]
    frame = second.df()
    assert frame.index.tolist() == ["d", "c", "b", "a"]
    assert frame["i"].tolist() == [4, 3, 2, 1]
    assert frame["status"].tolist() == ["completed"] * 4
    assert dict(first.df().dtypes) == {name: dtype for name, dtype in frame.dtypes.items() if name != "i"}


def test_repeats_are_samples_and_each_is_found_again(session: nb.Session) -> None:
    for _ in range(2):
        group = session.map(nb.Shell(add("x", "echo $$")), [{}], repeats=3, reuse=True).wait()
    assert len(ran()) == 3
    assert len({run.stdout for run in group}) == 3


def test_input_files_are_looked_at(session: nb.Session) -> None:
    Path("data.csv").write_text("1")

    def cell() -> nb.RunHandle:
        return session.shell(add("x", "cat data.csv"), inputs="*.csv", reuse=True)

    cell().wait()
    assert (cell().wait().stdout, len(ran())) == ("1", 1)
    Path("data.csv").write_text("2")
    assert (cell().wait().stdout, len(ran())) == ("2", 2)
    Path("data.csv").unlink()
    with pytest.raises(nb.ConfigError, match=r"inputs: '\*\.csv' matches no file"):
        cell()
    with pytest.raises(nb.ConfigError, match=r"inputs: 'gone' is not there"):
        session.shell("true", inputs="gone")  # they have to be there without reuse, too
    assert [issue.message[:14] for issue in session.validate(nb.Shell("true"), inputs="gone", reuse=True)] == ["inputs: 'gone'"]


def doubled(n: int) -> dict[str, Any]:
    note("d")
    return {"n": 2 * n, "by": [1.5, None, "x"]}


def test_results_of_python_agents_are_what_they_were(session: nb.Session) -> None:
    async def hosted(ctx: nb.RunContext, n: int) -> list[int]:
        note("h")
        ctx.usage(input_tokens=5, output_tokens=7, cost_usd=0.25)
        ctx.artifact("made", b"bytes")
        with ctx.step("inner"):
            ctx.log("said")
        return [n, factor]

    factor = 3
    for agent in (doubled, hosted):
        first = session.python(agent, 4, reuse=True)
        result = first.wait()
        again = session.python(agent, 4, reuse=True)
        assert (again.wait().output, again.stdout) == (result.output, first.stdout)
        assert (type(again.output), again.reused_from) == (type(first.output), first.id)
    assert [step.name for step in again.steps] == ["attempt 1", "inner"]
    assert [artifact.name for artifact in again.artifacts] == ["made"]
    assert sorted(ran()) == ["d", "h"]
    row = session.runs_df(run=again.id).iloc[0]
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (5, 7, 0.25)
    factor = 4
    assert session.python(hosted, 4, reuse=True).wait().output == [4, 4]
    with pytest.raises(nb.ConfigError, match="reuse: argument 1 is a"), open(os.devnull) as file:
        session.python(doubled, file, reuse=True)
    assert asyncio.run(_awaited(session)) == {"n": 8, "by": [1.5, None, "x"]}


async def _awaited(session: nb.Session) -> Any:
    return (await session.python(doubled, 4, reuse=True)).output


def test_what_is_reused_spends_no_budget_and_needs_none(new_session: Callable[..., nb.Session]) -> None:
    def agent(ctx: nb.RunContext) -> int:
        ctx.usage(cost_usd=1.0, input_tokens=10)
        return 1

    session = new_session("first", budget_usd=1.0)
    session.python(agent, reuse=True).wait()
    assert session.budget is not None
    assert session.budget.exhausted
    again = session.python(agent, reuse=True)
    assert (again.wait().status, again.reused_from is not None) == ("completed", True)
    with pytest.raises(nb.BudgetExceeded):
        session.shell("true", reuse=True)
    with pytest.raises(nb.BudgetExceeded):
        session.map(nb.Shell("true"), [{}, {}], reuse=True)
    other = new_session("second", budget_usd=1.0)
    other.map(agent, [{}], reuse=True).wait()
    assert other.budget is not None
    assert (other.budget.spent["usd"], other.budget.exhausted) == (0.0, False)
    costs = nb.sessions_df(store=session.store).set_index("name")["cost_usd"]
    assert (costs["first"], costs.isna()["second"]) == (1.0, True)


def test_handlers_do_not_run_again_and_nothing_of_a_workspace_is_made(session: nb.Session, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")

    def cell() -> nb.RunHandle:
        run = session.shell("echo new > new.txt; echo three >> old.txt", workspace=nb.Worktree(repo), cleanup=add("cleanup"), reuse=True)
        run.wait()
        return run

    first, again = cell(), cell()
    assert (again.reused_from, ran()) == (first.id, ["cleanup"])
    assert again.diff == first.diff != ""
    assert sorted(again.apply()) == ["new.txt", "old.txt"]
    assert (repo / "new.txt").read_text() == "new\n"
    rows = session.runs_df()[["files_changed", "insertions", "deletions"]]
    assert rows.iloc[0].tolist() == rows.iloc[1].tolist()
    git(repo, "add", "--all")
    git(repo, "commit", "-m", "second")
    assert cell().reused_from is None


def test_a_conversation_with_claude_goes_on_from_a_reused_run(session: nb.Session, fake_claude: Callable[..., None]) -> None:
    first = session.claude("hello", reuse=True)
    first.wait()
    again = session.claude("hello", reuse=True)
    assert again.wait().output == first.output
    assert (again.reused_from, again.agent_session) == (first.id, first.agent_session)
    answer = again.reply("go on", reuse=True)
    assert answer.wait().status == "completed"
    assert again.reply("go on", reuse=True).wait().status == "completed"
    assert session.runs_df()["reused_from"].notna().tolist() == [False, True, False, True]


def test_an_export_of_a_reused_run_is_that_of_the_run_that_ran(session: nb.Session, tmp_path: Path) -> None:
    first = session.shell("echo a; sleep 0.1; echo b", reuse=True)
    first.wait()
    again = session.shell("echo a; sleep 0.1; echo b", reuse=True)
    again.wait()
    assert again.export(tmp_path / "again.jsonl").read_bytes() == first.export(tmp_path / "first.jsonl").read_bytes()
    replay = session.replay(tmp_path / "again.jsonl", speed=None)
    assert replay.wait().stdout == "a\nb\n"
    with pytest.raises(nb.ConfigError, match="reuse: a replay starts nothing"):
        session.replay(tmp_path / "again.jsonl", reuse=True)


def test_large_output_stays_where_it_is(session: nb.Session) -> None:
    for _ in range(2):
        run = session.shell(add("x", "head -c 100000 /dev/zero | tr '\\0' a"), reuse=True)
        assert run.wait().stdout == "a" * 100_000
    assert len(list((session.store / "runs").glob("*/stdout.log"))) == 1
    assert session.runs_df(full=True)["stdout"].str.len().tolist() == [100_000] * 2


@pytest.mark.parametrize("damage", ["log gone", "log cut", "artifact gone", "artifact cut", "artifact changed"])
def test_a_run_whose_files_are_damaged_is_run_again_with_a_note(session: nb.Session, damage: str) -> None:
    def cell() -> nb.RunHandle:
        run = session.shell(add("x", "head -c 100000 /dev/zero; echo kept > kept.txt"), artifacts="kept.txt", reuse=True)
        run.wait()
        return run

    first = cell()
    what, how = damage.split()
    path = session.store / "runs" / first.id / "stdout.log"
    if what == "artifact":
        path = Blobs(session.store / "blobs").locate(first.artifacts[0].checksum)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"k" if how == "cut" else b"KEPT\n")
    again = cell()
    assert (again.reused_from, len(ran())) == (None, 2)
    [note] = again.wait().warnings
    assert note.startswith("it ran again, since a completed run of the same work is damaged: its ")
    assert str(path) in note
    assert cell().reused_from == again.id


def test_children_of_agents_are_reused_whether_the_agent_is_a_process_or_a_coroutine(session: nb.Session) -> None:
    command = add("child", "echo said; head -c 50000 /dev/zero | tr '\\0' a >&2")

    def parent(ctx: nb.RunContext, n: int) -> list[Any]:
        result = ctx.run(nb.Shell(command), reuse=True, params={"p": 1})
        return [result.status, result.stdout, len(result.stderr)]

    async def hosted(ctx: nb.RunContext, n: int) -> list[Any]:
        result = await ctx.run(nb.Shell(command), reuse=True, params={"p": 1})
        return [result.status, result.stdout, len(result.stderr)]

    for agent in (parent, parent, hosted, hosted):
        result = session.python(agent, 1).wait()
        assert result.output == ["completed", "said\n", 50_000], result.error
    runs = session.runs_df()
    children = runs[runs["parent_run_id"].notna()]
    assert children["status"].tolist() == ["completed"] * 4
    assert children["reused_from"].notna().sum() == 4 - len(ran()) >= 2  # an agent's process has an environment of its own


def test_a_detached_run_may_be_reused(session: nb.Session) -> None:
    for _ in range(2):
        run = session.shell(add("x", "echo far"), detach=True, reuse=True)
        assert run.wait().stdout == "far\n"
    assert len(ran()) == 1


def test_a_run_that_is_removed_before_it_is_told_fails_with_advice(session: nb.Session) -> None:
    from agentnb import requests
    from agentnb.engine.work import no_work
    from agentnb.notebook.live import LiveRun

    target = {"kind": "shell", "display": "x", "spec": {}}
    run = {
        "id": "r1",
        "session_id": session.id,
        "name": "n",
        "target": target,
        "reused_from": "gone",
        "created_at": 1,
        "params": {},
        "tags": {},
    }
    client = session._connect()
    live = LiveRun(client, session.store, run, grace_s=0)
    client.listen("r1", live)
    session.shell("true").wait()
    client.send([requests.Launch(run, no_work())])
    until(lambda: live.done, 30)
    assert live.final is not None
    assert (live.status, live.final.error["kind"]) == ("failed", "not_found")  # type: ignore[index]
    assert "launch it again" in live.final.error["message"]  # type: ignore[index]
    session.end()


def test_a_session_ends_after_its_reused_runs_are_recorded(new_session: Callable[..., nb.Session]) -> None:
    new_session().map(nb.Shell("echo {{i}}"), nb.grid(i=list(range(30))), reuse=True).wait()
    with new_session("second") as second:
        group = second.map(nb.Shell("echo {{i}}"), nb.grid(i=list(range(30))), reuse=True)
    assert [run.stdout for run in group] == [f"{i}\n" for i in range(30)]
    assert second.runs_df()["reused_from"].notna().all()


def test_the_options_are_checked(session: nb.Session) -> None:
    with pytest.raises(nb.ConfigError, match="reuse: 1 must be True or False"):
        session.shell("true", reuse=1)
    with pytest.raises(nb.ConfigError, match="it belongs to a launch"):
        nb.Session("s", store=session.store, reuse=True)
    with pytest.raises(nb.ConfigError, match="what will be sent to an open stdin"):
        session.shell("cat", stdin=True, reuse=True)
    assert [issue.message[:6] for issue in session.validate(nb.Shell("cat"), stdin=True, reuse=True)] == ["reuse:"]
    assert session.runs == []


def test_the_key_is_looked_up_by_its_index(session: nb.Session) -> None:
    from agentnb.history.precedents import reuse

    session.shell("true").wait()
    db = sqlite3.connect(session.store / "history.db")
    plan = " ".join(str(row) for row in db.execute(f"EXPLAIN QUERY PLAN {reuse._BY_KEY}", ("[]",)))
    db.close()
    assert "runs_by_cache_key" in plan


GRID = """
    import json, os, sys
    night = nb.Session("night", max_parallel=4)
    target = "test {{i}} -lt 990 || test -e go || sleep 60; echo {{i}} >> ledger.txt; echo out {{i}}"
    group = night.map(nb.Shell(target), nb.grid(i=list(range(1000))), reuse=True)
    group.wait()
    df = group.df()
    print(json.dumps([len(df), df["param.i"].tolist() == list(range(1000)), df["status"].eq("completed").all().item(),
                      df["reused_from"].notna().sum().item(), [run.stdout for run in group] == [f"out {i}\\n" for i in range(1000)],
                      [str(dtype) for dtype in df.dtypes]]))
"""


def _completed(store: Path) -> set[int]:
    db = sqlite3.connect(store / "history.db")
    try:
        rows = db.execute("SELECT params FROM runs WHERE status = 'completed'").fetchall()
        return {json.loads(params)["i"] for (params,) in rows}
    finally:
        db.close()


def _over(store: Path) -> bool:
    """Whether the supervisor of the killed kernel has written its last rows."""
    db = sqlite3.connect(store / "history.db")
    try:
        return not db.execute("SELECT 1 FROM sessions WHERE status = 'active'").fetchall()
    finally:
        db.close()


@pytest.mark.slow
def test_a_grid_of_a_thousand_that_was_killed_half_way_finishes_only_what_is_missing(
    start_script: Callable[[str], subprocess.Popen[str]], store: Path
) -> None:
    kernel = start_script(GRID)
    wanted = random.randint(20, 700)
    until(lambda: len(ran()) >= wanted, 100)
    kernel.kill()
    kernel.communicate()
    until(lambda: _over(store), 60)
    done = _completed(store)
    assert 0 < len(done) <= 990  # the last ones wait, so that the kill comes before the end on any machine
    Path("go").touch()
    told = []
    for _ in range(2):
        again = start_script(GRID)
        out, err = again.communicate(timeout=100)
        assert (again.returncode, err) == (0, "")
        told.append(json.loads(out))
    assert told[0][:5] == [1000, True, True, len(done), True]
    assert told[1][:5] == [1000, True, True, 1000, True]
    assert told[0][5] == told[1][5]
    lines = [int(line) for line in ran()]
    assert set(lines) == set(range(1000))
    assert [i for i in done if lines.count(i) != 1] == []  # a finished run is not run again
    assert [i for i in set(range(1000)) - done if lines.count(i) > 2] == []  # of those that were cut off, some had begun
