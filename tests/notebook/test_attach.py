"""Runs that outlive the process that launched them, and getting at runs of other processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentnb as nb
from agentnb.history.owners import OwnerLock
from agentnb.history.reader import read_run
from agentnb.notebook import loop
from agentnb.notebook.sources import RunSource
from tests.notebook.polling import lives, until

#: The function, as notebooks see it: without types.
attach: Any = nb.attach
#: Prints a line, waits for the file `go`, prints another.
WAITS = "echo begin; while [ ! -e go ]; do sleep 0.02; done; echo end"


def supervisors(store: Path) -> list[int]:
    """Pids of all that ever were, and still are, writers of the store and its supervisors."""
    if not (store / "history.db").exists():
        return []
    with closing(sqlite3.connect(store / "history.db")) as db:
        return [pid for (pid,) in db.execute("SELECT pid FROM owners") if lives(pid)]


@pytest.fixture(autouse=True)
def everything_ends(store: Path) -> Iterator[None]:
    """Fail a test that leaves a supervisor: it is nobody's child, so that the general check does not see it."""
    yield
    loop.shutdown()
    try:
        until(lambda: not supervisors(store))
    finally:
        for pid in supervisors(store):
            os.kill(pid, signal.SIGKILL)


def detached_pid(session: nb.Session) -> int:
    """The pid of the session's detached supervisor."""
    assert session._detached is not None
    return int(session._detached.ready.result(10))


#: What scripts print of a run once it is in the history.
SAY = "run.steps\nprint(run.id)\n"


def launched(script) -> str:
    """The id that a script printed."""
    line = script.stdout.readline()
    assert line, script.stderr.read()
    return str(line.strip())


def kill_9(script) -> None:
    """The end of a kernel, as bad as it gets."""
    script.send_signal(signal.SIGKILL)
    script.wait()


def detached(start_script: Callable[[str], object], command: str, options: str = "") -> str:
    """A detached run whose launcher is dead."""
    script = start_script(f"run = session.shell({command!r}, name='long', detach=True, {options})\n{SAY}input()")
    run_id = launched(script)
    attach(run_id)
    kill_9(script)
    return run_id


@pytest.fixture(autouse=True)
def home(store: Path, monkeypatch) -> None:
    """Attach to the runs of this store."""
    monkeypatch.setenv("AGENTNB_HOME", str(store))


def test_a_detached_run_completes_after_kill_9_of_its_kernel_and_its_history_is_complete(start_script, store) -> None:
    script = start_script(
        f"""
        run = session.shell({WAITS!r} + "; echo kept > kept.txt; exit 3", name="long", params={{"n": 1}}, tags={{"t": "x"}}, detach=True,
                            artifacts=["kept.txt"], on_failure="echo handled")
        bound = session.shell("sleep 1000", name="bound")
        bound.steps, run.steps
        print(run.id, bound.id)
        while not (run.status == bound.status == "running"): pass
        print("running")
        input()
        """
    )
    run_id, bound = launched(script).split()
    script.stdout.readline()
    kill_9(script)
    until(lambda: attach(bound).status is nb.RunStatus.INTERRUPTED)
    assert attach(run_id).status is nb.RunStatus.RUNNING
    Path("go").touch()
    until(lambda: not supervisors(store))
    run = attach(run_id)
    assert (run.id, run.name, run.done, run.status, run.params) == (run_id, "long", True, nb.RunStatus.FAILED, {"n": 1})
    assert (run.stdout, run.stderr, run.tail(1)) == ("begin\nend\n", "", "end")
    assert run.error.message == "it exited with code 3"
    result = run.wait()
    assert (result.exit_code, result.stdout, result.attempts, result.reason) == (3, "begin\nend\n", 1, "non_zero_exit")
    assert result.usage.peak_memory_bytes > 0
    assert result.spec["command"].startswith("echo begin")
    with pytest.raises(nb.RunFailed, match="code 3"):
        result.raise_for_status()
    assert [(step.kind, step.status) for step in run.steps] == [("attempt", "failed"), ("handler", "completed")]
    assert [artifact.name for artifact in run.artifacts] == ["kept.txt"]
    assert run.snapshot().status == "failed"
    assert "".join(text for _, text in run.snapshot().tail) == "begin\nend\n"
    assert not list((store / "owners").iterdir())
    with pytest.raises(RuntimeError, match="'long'"):
        run.send("too late")
    run.cancel()
    assert run.status is nb.RunStatus.FAILED


def test_another_process_sees_a_detached_run_live_and_cancels_it(start_script, store) -> None:
    run = attach(detached(start_script, f"sleep 1000 & {WAITS}"))
    assert (run.done, run.result) == (False, None)
    until(lambda: run.status is nb.RunStatus.RUNNING)
    until(lambda: run.stdout == "begin\n")
    assert run.tail() == "begin"
    source = RunSource(run._run)
    source.watch([run.id], True)
    until(lambda: source.output_since(run.id, 0)[1] == [("stdout", "begin\n")])
    assert run.snapshot().elapsed_s > 0
    assert repr(run) == "<RunHandle 'long' running>"
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        run.wait(0.05)
    run.cancel("seen enough")
    assert run.wait(20).error.message == "seen enough"
    assert time.monotonic() - start < 15
    assert run.status is nb.RunStatus.CANCELLED
    until(lambda: not supervisors(store))
    assert attach(run.id).error == run.error


def test_an_attached_run_is_awaited_its_lines_followed_and_its_stdin_written(start_script) -> None:
    run = attach(detached(start_script, "while read line; do echo got $line; done; echo over", "stdin=True"))

    async def talk() -> list[str]:
        seen = []
        await asyncio.to_thread(run.send, "one\n")
        async for line in run.lines():
            seen.append(line)
            if line == "got one":
                await asyncio.to_thread(run.send, "two\n", eof=True)
        assert (await run).ok
        return seen

    assert asyncio.run(talk()) == ["got one", "got two", "over"]


def test_two_processes_follow_one_run_and_both_see_its_end(start_script, session) -> None:
    run = session.shell(WAITS, name="shared", detach=True)
    other = start_script("run = nb.attach('shared')\nprint(run.status)\nprint(run.wait().stdout)")
    assert launched(other) == "running"
    assert run.status is nb.RunStatus.RUNNING
    Path("go").touch()
    assert run.wait(20).stdout == "begin\nend\n"
    assert other.communicate(timeout=20) == ("begin\nend\n\n", "")


def test_a_run_of_a_living_kernel_is_attached_to_and_cancelled_from_another_process(start_script) -> None:
    script = start_script("run = session.shell('echo here; sleep 1000', name='theirs')\n" + SAY + "print(run.wait().error.message)")
    run = attach(launched(script)[:20])
    until(lambda: run.stdout == "here\n")
    run.cancel("from outside")
    assert run.wait(20).status is nb.RunStatus.CANCELLED
    assert script.communicate(timeout=20) == ("from outside\n", "")


def test_an_async_agent_of_a_living_kernel_can_be_cancelled_from_another_process(start_script) -> None:
    script = start_script(
        """
        import asyncio
        async def agent(ctx: nb.RunContext):
            ctx.log("here")
            await asyncio.sleep(1000)
        run = session.python(agent)
        run.steps
        print(run.id)
        print(run.wait().status)
        """
    )
    run = attach(launched(script))
    until(lambda: "here" in run.stdout)
    run.cancel()
    assert run.wait(20).status is nb.RunStatus.CANCELLED
    assert script.communicate(timeout=20) == ("cancelled\n", "")


def test_kill_9_of_the_kernel_ends_an_attached_run_of_it_as_interrupted(start_script) -> None:
    script = start_script("run = session.shell('sleep 1000')\n" + SAY + "input()")
    run = attach(launched(script))
    kill_9(script)
    assert run.wait(20).status is nb.RunStatus.INTERRUPTED
    assert "process ended" in run.error.message


def test_kill_9_of_the_detached_supervisor_leaves_no_process_and_reads_interrupted(session, store) -> None:
    run = session.shell("echo kept; sleep 0.5; touch begun; sleep 1000", detach=True)
    until(lambda: Path("begun").exists())
    pid = detached_pid(session)
    below = psutil.Process(pid).children(recursive=True)
    assert below
    os.kill(pid, signal.SIGKILL)
    assert run.wait(20).status is nb.RunStatus.INTERRUPTED
    until(lambda: not any(lives(process.pid) for process in below))
    again = attach(run.id)
    assert (again.status, again.stdout) == (nb.RunStatus.INTERRUPTED, "kept\n")
    assert again.error.kind == "interrupted"
    assert not list((store / "owners").glob("*.sock"))[1:]  # but for this process's own
    assert session.shell("echo anew", detach=True).wait().stdout == "anew\n"
    assert detached_pid(session) != pid


def test_a_session_ends_without_its_detached_runs_but_can_cancel_them(new_session) -> None:
    with new_session() as session:
        run = session.shell("sleep 1000", detach=True)
        group = session.map(nb.Shell("sleep {{n}}"), nb.grid(n=[1000, 2000]), detach=True)
        assert session.runs == [run, *group]
        start = time.monotonic()
        session.wait()
        asyncio.run(_awaited(session))
    assert session.runs_df().status.isin(["running", "pending"]).all()
    assert time.monotonic() - start < 20
    assert not any(one.done for one in session.runs)
    with pytest.raises(ZeroDivisionError), new_session() as other:  # noqa: PT012 - the block is what raises
        kept = other.shell("sleep 1000", detach=True)
        raise ZeroDivisionError
    assert not kept.done
    kept.cancel()
    session.cancel("all of it")
    assert {one.wait(20).error.message for one in session.runs} == {"all of it"}
    assert kept.wait(20).status is nb.RunStatus.CANCELLED


async def _awaited(session: nb.Session) -> None:
    await session


def test_everything_that_was_launched_before_a_process_ends_well_is_run(run_script, store) -> None:
    out = run_script(
        """
        group = session.map(nb.Shell("echo {{n}}"), nb.grid(n=range(300)), detach=True)
        print(session._detached.ready.result())
        """
    )
    until(lambda: not lives(int(out)), 30)
    runs = nb.runs_df()
    assert len(runs) == 300
    assert set(runs.status) == {"completed"}
    assert nb.sessions_df().status.tolist() == ["ended"]


def test_a_python_function_outlives_its_kernel_and_an_async_one_is_refused(run_script, session, store) -> None:
    out = run_script(
        """
        def agent(ctx: nb.RunContext, n):
            with ctx.step("work"):
                ctx.usage(input_tokens=7)
            return {"n": n}
        print(session.python(agent, 5, detach=True).id)
        """
    )
    run = attach(out.strip())
    assert run.wait(20).output == {"n": 5}
    assert [step.name for step in run.steps] == ["attempt 1", "work"]
    assert attach(run.id).snapshot().input_tokens == 7

    async def agent() -> None: ...

    for launch in (lambda: session.python(agent, detach=True), lambda: session.map(agent, [{}], detach=True)):
        with pytest.raises(nb.ConfigError, match="async def"):
            launch()
    with pytest.raises(nb.ConfigError, match="detach: 'yes' must be True or False"):
        session.shell("true", detach="yes")
    assert session.runs == []


def test_the_history_says_that_a_run_was_detached(session) -> None:
    runs = [session.shell("true", detach=detach) for detach in (True, False)]
    for run in runs:
        run.wait()
    queued = nb.events_df(full=True).query("type == 'run_queued'").set_index("run_id").data
    assert ['"detached":true' in str(queued[run.id]).replace(" ", "").replace("'", '"').replace("True", "true") for run in runs] == [
        True,
        False,
    ]


def test_attaching_to_what_this_process_follows_already_gives_the_same_run(session) -> None:
    for options in ({}, {"detach": True}):
        run = session.shell("read line; echo $line", stdin=True, **options)
        again = attach(run.id)
        assert again._run is run._run
        again.send("hello\n")
        assert run.wait(20).stdout == again.wait(20).stdout == "hello\n"


def test_a_waiting_run_is_attached_to_and_seen_to_start(new_session) -> None:
    session = new_session(max_parallel=1)
    first, second = (session.shell(WAITS, detach=True, grace=3) for _ in range(2))
    loop.shutdown()
    run = attach(second.id)
    assert (run.status, run._run.grace_s) == (nb.RunStatus.PENDING, 3.0)
    Path("go").touch()
    assert run.wait(20).ok
    assert attach(first.id).status is nb.RunStatus.COMPLETED


def test_a_run_is_found_by_the_start_of_its_id_and_by_name_and_others_are_said_to_be_missing(session) -> None:
    run = session.shell("true", name="first-look")
    run.wait()
    assert attach("first-look").id == attach(run.id[:25]).id == run.id
    with pytest.raises(nb.ConfigError, match="did you mean 'first-look'"):
        attach("frist-look")
    for bad in ("", None, 7):
        with pytest.raises(nb.ConfigError, match="no run's id or name"):
            attach(bad)
    with pytest.raises(nb.StoreError, match="no history"):
        attach(run.id, store="elsewhere")


def test_a_store_that_was_copied_has_its_own_end_of_the_story_and_ends_nothing_of_the_other(session, store, tmp_path) -> None:
    run = session.shell(WAITS, detach=True)
    until(lambda: run.status is nb.RunStatus.RUNNING)
    session.runs_df()
    copy = tmp_path / "copy"
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("*.sock"))
    assert attach(run.id, store=copy).status is nb.RunStatus.INTERRUPTED
    assert attach(run.id).status is nb.RunStatus.RUNNING
    Path("go").touch()
    assert run.wait(20).ok


@pytest.mark.parametrize("door", [False, True])
def test_a_run_whose_supervisor_cannot_be_reached_is_a_clear_error(session, store, tmp_path, monkeypatch, door) -> None:
    monkeypatch.setattr("agentnb.notebook.attach._DOUBT_S", 0.2)
    run = session.shell(WAITS, name="far", detach=True)
    until(lambda: run.status is nb.RunStatus.RUNNING)
    session.runs_df()
    copy = tmp_path / "copy"
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("*.sock"))
    owner = str(read_run(copy, run.id)["owner"])
    if door:
        (copy / "owners" / f"{owner}.sock").write_text("no socket")
    lock = OwnerLock.take(copy / "owners", owner)
    assert lock is not None
    with pytest.raises(nb.StoreError, match=r"'far' reads running in .* cannot be reached"):
        attach("far", store=copy)
    lock.close()
    run.cancel()
    run.wait(20)


def test_an_owner_that_is_no_name_reaches_no_file(session, store, monkeypatch) -> None:
    with closing(sqlite3.connect(store / "history.db")) as db:
        run = session.shell("true")
        run.wait()
        session.runs_df()
        db.execute("UPDATE runs SET status = 'running', owner = '../../x'")
        db.commit()
    loop.shutdown()
    monkeypatch.setattr("agentnb.notebook.attach._DOUBT_S", 0.1)
    with pytest.raises(nb.StoreError, match="does not say which"):
        attach(run.id)


def test_a_store_with_a_long_path_is_attached_to_as_well(tmp_path, new_session) -> None:
    deep = tmp_path / ("d" * 150) / ("e" * 150)
    session = new_session(store=deep)
    run = session.shell(WAITS, detach=True)
    until(lambda: run.status is nb.RunStatus.RUNNING)
    loop.shutdown()
    again = attach(run.id, store=deep)
    assert again._run is not run._run
    Path("go").touch()
    assert again.wait(20).stdout == "begin\nend\n"
    loop.shutdown()
    until(lambda: not supervisors(deep))


def test_a_forked_copy_of_the_kernel_keeps_no_detached_supervisor(start_script, store) -> None:
    script = start_script(
        """
        import os, time
        run = session.shell("true", detach=True)
        run.wait()
        child = os.fork()
        if not child:
            time.sleep(1000)
        print(child)
        input()
        """
    )
    child = int(launched(script))
    kill_9(script)
    try:
        until(lambda: not supervisors(store))
    finally:
        os.kill(child, signal.SIGKILL)
