"""``session.resume()``: what a killed kernel or supervisor left behind is launched again, once, as it was."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.history.precedents.interrupted import cut_off
from tests.notebook.polling import until

Start = Callable[[str], subprocess.Popen[str]]
New = Callable[..., nb.Session]


def kill_supervisor(session: nb.Session) -> None:
    """What runs is cut off, what waits never starts; the kernel lives."""
    assert session._engine is not None
    assert session._engine.process is not None
    session._engine.process.kill()
    session.wait()


def killed(start_script: Start, code: str, store: Path) -> None:
    """Run a script until it prints a line, and kill it: its supervisor ends what it ran, and writes its last rows."""
    kernel = start_script(code)
    assert kernel.stdout is not None
    assert kernel.stdout.readline() == "now\n"
    kernel.kill()
    kernel.communicate()
    until(lambda: not _query(store, "SELECT 1 FROM sessions WHERE status = 'active'"), 60)


def _query(store: Path, query: str) -> list[Any]:
    db = sqlite3.connect(store / "history.db")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def test_runs_that_a_dead_supervisor_left_are_launched_again_as_they_were(new_session: Callable[..., nb.Session], tmp_path: Path) -> None:
    session = new_session(max_parallel=1, timeout=50, env={"D": "default", "T": nb.Secret("hunter2")}, tags={"of": "session"})
    code = "test -e go || sleep 60; echo $A $B $D ${#T} $PWD {{word}}"
    (tmp_path / "there").mkdir()
    run = session.launch(
        nb.Shell(code, env={"B": "spec"}), params={"word": "a b"}, env={"A": "given"}, working_dir="there", name="first", tags={"t": "1"},
        retry=nb.Retry(max_attempts=2, initial_delay=0), validation=nb.Validation(expected_pattern="given"), cleanup="touch cleaned",
    )  # fmt: skip
    waiting = session.map(nb.Shell("echo {{i}}"), nb.grid(i=[1, 2, 3]), name="grid")
    done = new_session("other").shell("echo done")
    done.wait()
    until(lambda: run.status == "running", 60)
    kill_supervisor(session)
    assert [one.status for one in (run, *waiting, done)] == ["interrupted", "cancelled", "cancelled", "cancelled", "completed"]
    (tmp_path / "there" / "go").touch()
    with pytest.raises(nb.ConfigError, match=r"nothing was launched.*\n1 of the runs, such as 'first' .*resume\(env=\{'A': \.\.\.\}\)"):
        session.resume()  # that of the session is known
    os.chdir(tmp_path / "there")  # where the notebook is now makes no difference
    group = session.resume(env={"A": "given"}).wait()
    assert group.counts() == {"completed": 4}
    assert group[0].stdout == f"given spec default 7 {tmp_path}/there a b\n"
    assert [one.resumed_from for one in group] == [run.id, *(one.id for one in waiting)]
    assert [one.name for one in group] == ["first", "grid [0]", "grid [1]", "grid [2]"]
    assert [one.params for one in group] == [{"word": "a b"}, {"i": 1}, {"i": 2}, {"i": 3}]
    assert (tmp_path / "there" / "cleaned").exists()
    frame = group.df()
    assert (frame["tag.t"].tolist()[0], frame["tag.of"].tolist(), frame["timeout_s"].tolist()) == ("1", ["session"] * 4, [50.0] * 4)
    assert frame["resumed_from"].tolist() == [one.resumed_from for one in group]
    assert len(session.resume()) == 0  # once
    assert "hunter2" not in str(_query(session.store, "SELECT data FROM events"))


def test_python_functions_are_found_again_where_they_were(session: nb.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [session.launch(nb.Python(slow, 2, by=3)), session.python(slow_too, 4), session.python(lambda: slow(1), name="nameless")]
    until(lambda: all(run.status == "running" for run in runs), 60)
    kill_supervisor(session)
    Path("go").touch()
    with pytest.raises(nb.ConfigError, match=r"skip=True leaves it out\):\nrun 'nameless' .*<lambda> is not there"):
        session.resume()
    with pytest.warns(UserWarning, match="resume: left out:\nrun 'nameless'"):
        group = session.resume(skip=True).wait()
    assert [run.output for run in group] == [6, [4]]
    assert len(cut_off(session.store, [session.id])) == 1


def slow(n: int, by: int = 1) -> int:
    while not Path("go").exists():
        time.sleep(0.01)
    return n * by


async def slow_too(ctx: nb.RunContext, n: int) -> list[int]:
    while not os.path.exists("go"):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.01)
    return [n]


def test_what_an_agent_launched_is_left_to_the_agent(session: nb.Session) -> None:
    async def agent(ctx: nb.RunContext) -> None:
        await ctx.run(nb.Shell("test -e go || sleep 60; echo child"))

    session.python(agent, name="agent")
    until(lambda: len(session.runs_df(status="running")) == 2, 60)
    kill_supervisor(session)
    assert [row["name"] for row in cut_off(session.store, [session.id])] == ["agent"]


def test_a_run_that_was_ended_on_purpose_or_failed_is_not_resumed(session: nb.Session) -> None:
    run = session.shell("sleep 60")
    session.shell("exit 3").wait()
    session.shell("sleep 60", timeout=0.1).wait()
    run.cancel()
    run.wait()
    assert len(session.resume()) == 0


NIGHT = """
    import time
    night = nb.Session("night", max_parallel=2)
    {code}
    while not any(run.status == "running" for run in night.runs):
        time.sleep(0.01)
    print("now", flush=True)
    night.wait()
"""


def test_a_new_kernel_resumes_the_latest_session_of_that_name(start_script: Start, new_session: New, store: Path) -> None:
    for word in ("old", "new"):
        killed(start_script, NIGHT.format(code=f'night.map(nb.Shell("test -e go || sleep 60; echo {word}"), [{{}}, {{}}, {{}}])'), store)
    new_session("night").end()  # one without runs is passed over
    Path("go").touch()
    session = new_session("night")
    group = session.resume().wait()
    assert [run.stdout for run in group] == ["new\n"] * 3
    assert len(session.resume()) == 0
    first = nb.sessions_df(store=store).query("name == 'night'")["id"].tolist()[0]
    assert [run.stdout for run in session.resume(first).wait()] == ["old\n"] * 3
    assert [len(new_session("another").resume("night")), len(new_session("another").resume())] == [0, 0]
    with pytest.raises(nb.ConfigError, match="no session of .* is called 'nightly'"):
        session.resume("nightly")


def test_a_session_that_is_live_in_another_process_is_not_touched(
    start_script: Start, new_session: Callable[..., nb.Session], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentnb.notebook.resuming._ENDING_S", 0.2)
    kernel = start_script(NIGHT.format(code="night.shell('sleep 60')"))
    assert kernel.stdout is not None
    assert kernel.stdout.readline() == "now\n"
    session = new_session("night")
    assert len(session.resume()) == 0
    with pytest.raises(nb.ConfigError, match="session 'night' is live in another process"):
        session.resume("night")
    [(live,)] = _query(store, "SELECT id FROM sessions WHERE name = 'night' AND id IN (SELECT session_id FROM runs)")
    with pytest.raises(nb.ConfigError, match="is live in another process"):
        session.resume(live)
    kernel.kill()
    kernel.communicate()


def test_a_detached_run_and_one_with_a_budget_are_so_again(session: nb.Session) -> None:
    detached = session.shell("test -e go || sleep 60; echo far", detach=True)
    bounded = session.shell("test -e go || sleep 60", budget_usd=2)
    until(lambda: detached.status == bounded.status == "running", 60)
    assert session._detached is not None
    os.kill(session._detached.ready.result(30), signal.SIGKILL)
    until(lambda: detached.done, 60)
    kill_supervisor(session)
    Path("go").touch()
    group = session.resume().wait()
    assert [run.status for run in group] == ["completed"] * 2
    assert (group[0]._run.detached, group[1].budget is not None) == (True, True)


def test_a_worktree_starts_from_the_commit_that_it_started_from(session: nb.Session, tmp_path: Path) -> None:
    from tests.repositories import git, repository

    repo = repository(tmp_path / "repo")
    run = session.shell(f"test -e {tmp_path}/go || sleep 60; cat old.txt", workspace=nb.Worktree(repo))
    until(lambda: run.status == "running", 60)
    kill_supervisor(session)
    (repo / "old.txt").write_text("changed\n")
    git(repo, "commit", "--all", "-m", "second")
    (tmp_path / "go").touch()
    [again] = session.resume().wait()
    assert again.stdout == "one\ntwo\n"


def test_a_resumed_run_may_be_cut_off_and_resumed_again(session: nb.Session) -> None:
    run = session.shell("test -e go || sleep 60; echo at last", reuse=True)
    until(lambda: run.status == "running", 60)
    kill_supervisor(session)
    [second] = session.resume()
    until(lambda: second.status == "running", 60)
    kill_supervisor(session)
    Path("go").touch()
    [third] = session.resume().wait()
    assert (third.stdout, third.resumed_from, second.resumed_from) == ("at last\n", second.id, run.id)


def test_what_was_done_meanwhile_with_reuse_is_not_run_again(session: nb.Session) -> None:
    command = "test -e go || sleep 60; echo x >> ledger.txt"
    run = session.shell(command, reuse=True)
    until(lambda: run.status == "running", 60)
    kill_supervisor(session)
    Path("go").touch()
    done = session.shell(command, reuse=True)
    done.wait()
    [again] = session.resume().wait()
    assert (again.resumed_from, again.reused_from) == (run.id, done.id)
    assert Path("ledger.txt").read_text() == "x\n"


def test_a_folder_that_is_gone_is_told_of_before_anything_starts(session: nb.Session, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    session.shell("sleep 60", working_dir="there", name="lost")
    session.shell("sleep 60", name="fine")
    until(lambda: all(run.status == "running" for run in session.runs), 60)
    kill_supervisor(session)
    (tmp_path / "there").rmdir()
    with pytest.raises(nb.ConfigError, match=r"run 'lost' .*: working_dir: .* does not exist"):
        session.resume()
    assert len(session.runs) == 2
    with pytest.raises(nb.ConfigError, match="env: 3 is not a mapping"):
        session.resume(env=3)
    with pytest.raises(nb.ConfigError, match="max_parallel=0"):
        session.resume(max_parallel=0)
    session.end()
    with pytest.raises(nb.ConfigError, match="has ended"):
        session.resume()


def test_a_run_of_an_older_agentnb_that_kept_too_little_is_refused(session: nb.Session) -> None:
    run = session.shell("sleep 60", name="old")
    until(lambda: run.status == "running", 60)
    kill_supervisor(session)
    db = sqlite3.connect(session.store / "history.db")
    db.execute("UPDATE events SET data = json_remove(data, '$.run.again') WHERE type = 'run_queued'")
    db.commit()
    db.close()
    with pytest.raises(nb.ConfigError, match=r"run 'old' .* by an agentnb that kept too little of it"):
        session.resume()


@pytest.mark.slow
def test_resume_finishes_what_is_left_of_a_grid_of_a_thousand(start_script: Start, new_session: New, store: Path) -> None:
    wanted = random.randint(20, 600)
    code = f"""
    import time
    night = nb.Session("night", max_parallel=4)
    target = "test {{{{i}}}} -lt 990 || test -e go || sleep 60; echo {{{{i}}}} >> ledger.txt"
    group = night.map(nb.Shell(target), nb.grid(i=list(range(1000))))
    while sum(run.done for run in group) < {wanted}:
        time.sleep(0.01)
    print("now", flush=True)
    group.wait()
"""
    killed(start_script, code, store)
    done = {json.loads(params)["i"] for (params,) in _query(store, "SELECT params FROM runs WHERE status = 'completed'")}
    assert wanted <= len(done) <= 990  # the last ones wait, so that the kill comes before the end on any machine
    Path("go").touch()
    group = new_session("night", max_parallel=4).resume().wait()
    assert [run.params["i"] for run in group] == [i for i in range(1000) if i not in done]
    assert group.counts() == {"completed": 1000 - len(done)}
    lines = [int(line) for line in Path("ledger.txt").read_text().split()]
    assert set(lines) == set(range(1000))
    assert [i for i in done if lines.count(i) != 1] == []
