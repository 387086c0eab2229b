"""Sessions: launching, defaults and their precedence, ending, the engine's death, forks, histories, wrong arguments."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

import agentnb as nb
from agentnb.notebook import loop
from tests.notebook.polling import lives, pid_in, until

# --- launching


def test_every_verb_runs_its_kind_of_target(session) -> None:
    runs = [
        session.shell("echo ${BASH_VERSION:+bash}", shell="bash"),
        session.command(["printf", "%s|", "a b", "$HOME"]),
        session.test("exit 3", expected_exit_code=3),
        session.launch(nb.Shell("echo spec"), name="named"),
        session.python(divmod, 7, 2),
        session.launch(nb.Python(int, "11", base=2)),
    ]
    assert [run.wait().status for run in runs] == ["completed"] * 6
    assert [run.stdout for run in runs[:4]] == ["bash\n", "a b|$HOME|", "", "spec\n"]
    assert [run.output for run in runs[4:]] == [[3, 1], 3]
    frame = session.runs_df()
    assert frame.kind.tolist() == ["shell", "command", "test", "shell", "python", "python"]
    assert frame.name.tolist() == [run.name for run in runs] == [
        "echo ${BASH_VERSION:+bash}", "printf '%s|' 'a b' '$HOME'", "exit 3", "named", "divmod(7, 2)", "int('11', base=2)",
    ]  # fmt: skip


def test_the_long_form_of_the_contract_works(session) -> None:
    run = session.launch(
        nb.Shell("echo OK $CI > made; echo OK"), name="build", timeout="10m", limits=nb.Limits(max_output_bytes="2GiB"),
        env={"CI": "1"}, capture="both", validation=nb.Validation(expected_pattern=r"OK"), on_failure=nb.Shell("touch failed"),
        cleanup=nb.Shell("mv made cleaned"), tags={"topic": "builds"},
    )  # fmt: skip
    assert run.wait().raise_for_status().status == "completed"
    assert Path("cleaned").read_text() == "OK 1\n"
    assert not Path("failed").exists()
    row = session.runs_df().iloc[0]
    assert (row["name"], row["timeout_s"], row["tag.topic"]) == ("build", 600.0, "builds")


def test_a_name_is_made_of_one_short_line(session) -> None:
    run = session.shell("echo a \\\n   b; : " + "x" * 100)
    assert run.wait().stdout == "a b\n"
    assert len(run.name) == 60
    assert run.name.startswith("echo a \\ b; : xxx")
    assert run.name.endswith("…")


def test_parameters_fill_the_template_and_stay_with_the_run(session) -> None:
    run = session.shell("echo {{word}} {{n + 1}}", params={"word": "a; echo b $HOME", "n": 1})
    assert run.wait().stdout == "a; echo b $HOME 2\n"
    assert run.params == {"word": "a; echo b $HOME", "n": 1}
    assert session.shell("echo '{{not a template}}'").wait().stdout == "{{not a template}}\n"


def test_the_environment_and_the_directory_of_the_notebook_at_launch_count(session, monkeypatch, tmp_path) -> None:
    (tmp_path / "sub").mkdir()
    first = session.shell('pwd; echo "$MINE"')
    monkeypatch.setenv("MINE", "1")
    monkeypatch.chdir(tmp_path / "sub")
    second = session.shell('pwd; echo "$MINE"')
    monkeypatch.delenv("MINE")
    third = session.shell('pwd; echo "${MINE-unset}"', working_dir="..")
    assert [run.wait().stdout for run in (first, second, third)] == [f"{tmp_path}\n\n", f"{tmp_path}/sub\n1\n", f"{tmp_path}\nunset\n"]


def test_a_variable_that_is_no_text_reaches_the_child_unharmed(session) -> None:
    os.environb[b"RAW"] = b"\xff\xfe"
    try:
        run = session.command([sys.executable, "-c", "import os; print(os.environb[b'RAW'])"])
    finally:
        del os.environb[b"RAW"]
    assert run.wait().stdout == "b'\\xff\\xfe'\n"


def test_a_deleted_directory_is_said_to_be_so(session, tmp_path, monkeypatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(nb.ConfigError, match="was deleted; os.chdir"):
        session.shell("true")
    assert session.shell("pwd", working_dir=str(tmp_path)).wait().stdout == f"{tmp_path}\n"


# --- defaults


def test_a_session_s_defaults_give_way_to_the_spec_and_both_to_the_launch(new_session, tmp_path) -> None:
    for name in ("of_session", "of_spec", "of_launch"):
        (tmp_path / name).mkdir()
    session = new_session(timeout="1h", working_dir="of_session", env={"A": "session", "B": "session", "C": "session"})
    line = 'basename "$PWD"; echo $A $B $C'
    spec = nb.Shell(line, working_dir="of_spec", env={"B": "spec", "C": "spec"})
    runs = [session.shell(line), session.launch(spec), session.launch(spec, working_dir="of_launch", env={"C": "launch"}, timeout=9)]
    assert [run.wait().stdout.split() for run in runs] == [
        ["of_session", "session", "session", "session"],
        ["of_spec", "session", "spec", "spec"],
        ["of_launch", "session", "spec", "launch"],
    ]
    assert session.runs_df().timeout_s.tolist() == [3600, 3600, 9]


def test_a_session_s_tags_are_laid_under_those_of_its_runs(new_session) -> None:
    session = new_session(tags={"topic": "a", "who": "me"})
    session.shell("true", tags={"topic": "b", "n": 1}).wait()
    row = session.runs_df().iloc[0]
    assert (row["tag.topic"], row["tag.who"], row["tag.n"]) == ("b", "me", "1")


def test_a_session_s_defaults_for_processes_do_not_stop_async_agents(new_session) -> None:
    async def agent() -> str | None:
        return os.environ.get("ONLY_FOR_PROCESSES")

    session = new_session(env={"ONLY_FOR_PROCESSES": "1"}, working_dir="/", capture="stdout", timeout=30)
    assert session.python(agent).wait().status == "completed"
    assert session.shell("echo $ONLY_FOR_PROCESSES").wait().stdout == "1\n"


# --- waiting and ending


def test_a_session_waits_for_all_its_runs_blocking_or_awaited(session) -> None:
    async def main() -> None:
        assert await session is session

    first = session.shell("sleep 0.2")
    assert session.wait() is session
    assert first.done
    second = session.shell("sleep 0.2")
    with pytest.raises(TimeoutError, match="1 of 2 runs"):
        session.wait(timeout=0.01)
    asyncio.run(main())
    assert second.done


def test_cancel_ends_all_runs_and_the_session_goes_on(new_session) -> None:
    session = new_session(max_parallel=1)
    runs = [session.shell("sleep 60") for _ in range(3)]
    session.cancel("enough")
    session.wait()
    assert {run.result.error.message for run in runs} == {"enough"}
    assert session.shell("echo on").wait().stdout == "on\n"


def test_end_waits_for_the_runs_and_refuses_new_ones(session) -> None:
    run = session.shell("sleep 0.2; echo done")
    session.end()
    assert run.result.stdout == "done\n"
    with pytest.raises(nb.ConfigError, match=r"session 'test' has ended; start a new one"):
        session.shell("true")
    with pytest.raises(nb.ConfigError, match="has ended"):
        session.map(nb.Shell("true"), [{}])
    session.end()
    assert nb.sessions_df(store=session.store).status.tolist() == ["ended"]
    assert run.stdout == "done\n"


def test_end_can_cancel_first(session) -> None:
    run = session.shell("sleep 60")
    session.end(cancel=True, reason="closing time")
    assert run.result.error.message == "closing time"
    assert nb.sessions_df(store=session.store).status.tolist() == ["cancelled"]
    with pytest.raises(nb.ConfigError, match="has been cancelled"):
        session.shell("true")


def test_a_block_ends_its_session_and_cancels_when_it_raises(new_session) -> None:
    with new_session("good") as session:
        good = session.shell("sleep 0.1")
    with contextlib.suppress(ZeroDivisionError), new_session("bad") as session:
        bad = session.shell("sleep 60")
        _ = 1 / 0
    assert (good.status, bad.status) == (nb.RunStatus.COMPLETED, nb.RunStatus.CANCELLED)
    assert bad.error.message == "the session's block raised"
    assert nb.sessions_df(store=session.store).status.tolist() == ["ended", "cancelled"]


def test_an_interrupt_during_end_cancels_what_is_left_and_waits_for_it(session) -> None:
    run = session.shell("trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done", grace=0.2)
    pid = pid_in(Path("pid"))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        session.end()
    timer.join()
    assert not lives(pid)
    until(lambda: run.done)
    assert run.status is nb.RunStatus.CANCELLED


# --- stores


def test_two_sessions_in_two_stores_keep_apart_and_one_store_holds_two(new_session, tmp_path) -> None:
    a, b, c = new_session("a"), new_session("b"), new_session("c", store=tmp_path / "other")
    for session in (a, b, c):
        session.shell(f"echo {session.name}").wait()
    assert nb.runs_df(store=a.store).session.tolist() == ["a", "b"]
    assert nb.runs_df(store=c.store).session.tolist() == ["c"]
    assert [len(session.runs_df()) for session in (a, b, c)] == [1, 1, 1]
    assert nb.sessions_df(store=a.store).name.tolist() == ["a", "b"]


def test_the_store_is_found_by_argument_variable_or_directory(new_session, monkeypatch, tmp_path) -> None:
    assert new_session(store=None).store == tmp_path / ".agentnb"
    monkeypatch.setenv("AGENTNB_HOME", str(tmp_path / "home"))
    assert new_session(store=None).store == tmp_path / "home"
    assert new_session(store="given").store == tmp_path / "given"


def test_a_store_that_cannot_be_used_is_an_error_in_the_cell(new_session, tmp_path, store) -> None:
    (tmp_path / "file").write_text("")
    for place in ("/proc/nope", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(nb.StoreError, match="store="):
            new_session(store=place)
    new_session().end()
    loop.shutdown()
    with contextlib.closing(sqlite3.connect(store / "history.db")) as db, db:
        db.execute("PRAGMA user_version = 9999")
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if "migrations" in names:
            columns = [row[1] for row in db.execute("PRAGMA table_info(migrations)")]
            values = ["9999_from_the_future" if column == "name" else 0 for column in columns]
            db.execute(f"INSERT INTO migrations VALUES ({', '.join('?' * len(columns))})", values)
    with pytest.raises(nb.StoreTooNew, match="newer"):
        new_session()


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 3 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk was refused: {mounted.stderr.decode().strip()}")
    yield place
    loop.shutdown()
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_told_and_what_was_kept_back_is_written_when_there_is_room(new_session, tiny_disk) -> None:
    session = new_session(store=tiny_disk / "store", max_parallel=2)
    session.shell("true").wait()
    filler = tiny_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    run = session.shell("echo still here; head -c 300000 /dev/zero | tr '\\0' y", timeout=20)
    until(lambda: session._engine.trouble)
    assert "disk is full" in str(session._engine.trouble)
    filler.unlink()
    assert run.wait(20).status == "completed"
    assert len(run.stdout) == 300011
    until(lambda: session.runs_df().status.tolist() == ["completed", "completed"])
    session.end()


def test_a_session_on_a_full_disk_is_refused(new_session, tiny_disk) -> None:
    with contextlib.suppress(OSError), (tiny_disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)
    with pytest.raises(nb.StoreError, match=r"full|space"):
        new_session(store=tiny_disk / "store")


# --- the engine's death


def test_a_session_goes_on_after_its_supervisor_was_killed_and_the_history_tells(session) -> None:
    good = session.shell("echo good")
    good.wait()
    lost, waiting = session.shell("echo kept; echo $$ > pid; sleep 60"), [session.shell("sleep 60") for _ in range(8)][-1]
    pid = pid_in(Path("pid"))
    until(lambda: lost.stdout == "kept\n")
    supervisor = session._engine.process
    supervisor.kill()
    supervisor.wait()
    result = lost.wait(10)
    assert (result.status, result.stdout) == (nb.RunStatus.INTERRUPTED, "kept\n")
    assert str(supervisor.pid) in result.error.message
    assert waiting.wait(10).status in {nb.RunStatus.INTERRUPTED, nb.RunStatus.CANCELLED}
    until(lambda: not lives(pid))
    before = session.runs_df()
    assert before.status.tolist()[:2] == ["completed", "interrupted"]
    assert set(before.status[1:]) <= {"interrupted", "cancelled"}
    with pytest.raises(nb.RunFailed, match="was interrupted"):
        result.raise_for_status()
    again = session.shell("echo again")
    assert again.wait(10).stdout == "again\n"
    after = session.runs_df()
    assert after.status.tolist() == [*before.status, "completed"]
    assert good.stdout == "good\n"
    assert len(again.steps) == 1


def test_a_wait_and_an_await_end_when_the_supervisor_dies(session) -> None:
    async def main():
        threading.Timer(0.1, session._engine.process.kill).start()
        return await run

    run = session.shell("sleep 60")
    until(lambda: run.status is nb.RunStatus.RUNNING)
    assert asyncio.run(main()).status == "interrupted"


def test_an_async_agent_is_cancelled_when_the_supervisor_dies(session) -> None:
    ended = threading.Event()

    async def agent() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    run = session.python(agent)
    until(lambda: run.status is nb.RunStatus.RUNNING)
    session._engine.process.kill()
    assert run.wait(10).status == "interrupted"
    assert ended.wait(10)


# --- forks


def _in_fork(queue, session, run) -> None:
    found = {"own": session.shell("echo from the child").wait(20).stdout, "id": session.id, "runs": len(session.runs)}
    for name, call in {"wait": run.wait, "cancel": run.cancel}.items():
        try:
            call()
        except RuntimeError as bad:
            found[name] = str(bad)
    queue.put(found)


def test_a_fork_breaks_neither_the_parent_nor_the_child(session) -> None:
    run = session.shell("echo $$ > pid; sleep 60")
    pid = pid_in(Path("pid"))
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_fork, args=(queue, session, run))
    child.start()
    found = queue.get()
    child.join()
    child.close()
    queue.close()
    assert found["own"] == "from the child\n"
    assert found["id"] != session.id
    assert found["runs"] == 1
    assert all("forked from" in found[name] for name in ("wait", "cancel"))
    assert lives(pid)
    assert session.shell("echo on").wait().stdout == "on\n"
    run.cancel()
    assert run.wait().status == "cancelled"
    assert nb.sessions_df(store=session.store).name.tolist() == ["test", "test"]
    assert sorted(nb.runs_df(store=session.store).status) == ["cancelled", "completed", "completed"]


def test_a_fork_that_outlives_the_process_does_not_hold_up_the_end_of_its_runs(start_script, tmp_path) -> None:
    process = start_script(
        f"""
        import os, time
        run = session.shell("echo $$ > {tmp_path}/pid; sleep 60")
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        time.sleep(60)
        """
    )
    child = int(process.stdout.readline())
    pid = pid_in(tmp_path / "pid")
    try:
        process.kill()
        until(lambda: not lives(pid), 2)
        assert lives(child)
    finally:
        os.kill(child, signal.SIGKILL)


# --- histories


def test_all_ways_to_read_the_history_agree_at_once_and_later(session) -> None:
    session.shell("echo a; exit 1", name="bad", artifacts="*").wait()
    Path("file").write_text("kept")
    session.shell("true", name="good", artifacts="file").wait()
    frames = {name: getattr(session, name)() for name in ("runs_df", "steps_df", "artifacts_df", "events_df", "sessions_df")}
    assert frames["runs_df"].status.tolist() == ["failed", "completed"]
    assert len(frames["steps_df"]) == 2
    assert len(frames["artifacts_df"]) >= 1
    for name, frame in frames.items():
        if name != "sessions_df":  # whose total_s counts up
            pd.testing.assert_frame_equal(getattr(nb, name)(store=session.store), frame)
    assert session.runs_df(status="failed", limit=100).name.tolist() == ["bad"]
    session.end()
    loop.shutdown()
    for name in ("runs_df", "steps_df", "artifacts_df"):
        pd.testing.assert_frame_equal(getattr(nb, name)(store=session.store), frames[name])
    assert nb.runs_df(store=session.store, since="7d", session="test").name.tolist() == ["bad", "good"]


def test_compare_and_timeline_come_from_the_session(session) -> None:
    group = session.map(nb.Shell("sleep {{s}}"), nb.grid(s=[0.01, 0.1]), repeats=2)
    group.wait()
    compared = nb.compare(group.df(), by="param.s", metric="run_s")
    assert compared.n.tolist() == [2, 2]
    assert compared.ratio.tolist()[0] == 1
    assert compared.ratio.tolist()[1] > 1.5
    figure = session.timeline()
    assert figure.axes
    from matplotlib import pyplot as plt

    plt.close(figure)


def test_the_history_is_the_same_after_kill_9(start_script, store) -> None:
    process = start_script(
        """
        import time
        done = session.shell("echo done").wait()
        live = session.shell("echo live; sleep 60")
        while live.stdout != "live\\n":
            time.sleep(0.01)
        print(session.runs_df().iloc[0].to_json(), flush=True)
        time.sleep(60)
        """
    )
    seen = process.stdout.readline().strip()
    process.kill()
    process.wait()
    until(lambda: nb.runs_df(store=store).status.tolist() == ["completed", "interrupted"])
    frame = nb.runs_df(store=store, full=True)
    assert frame.stdout.tolist() == ["done\n", "live\n"]
    assert nb.runs_df(store=store).iloc[0].to_json() == seen
    assert nb.sessions_df(store=store).status.tolist() == ["ended"]


def test_a_script_that_ends_without_waiting_leaves_nothing_alive(run_script, store, tmp_path) -> None:
    out = run_script(
        f"""
        import time, pathlib
        run = session.shell("echo $$ > {tmp_path}/pid; sleep 60")
        async def agent():
            await __import__("asyncio").sleep(60)
        session.python(agent)
        while not pathlib.Path("{tmp_path}/pid").exists() or run.status.value != "running":
            time.sleep(0.01)
        print("end")
        """
    )
    assert out == "end\n"
    assert not lives(pid_in(tmp_path / "pid"))
    assert nb.runs_df(store=store).status.tolist() == ["interrupted", "interrupted"]
    assert nb.runs_df(store=store).error.notna().all()


def test_a_supervisor_that_died_with_its_kernel_is_cleaned_up_after_by_whoever_reads(start_script, store) -> None:
    process = start_script(
        """
        import os, signal, time
        run = session.shell("sleep 60")
        while run.status.value != "running":
            time.sleep(0.01)
        os.kill(session._engine.process.pid, signal.SIGSTOP)
        print(session._engine.process.pid, flush=True)
        time.sleep(60)
        """
    )
    supervisor = int(process.stdout.readline())
    process.kill()
    process.wait()
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not lives(supervisor))
    assert nb.runs_df(store=store).status.tolist() == ["interrupted"]


# --- wrong arguments

WRONG = {
    "tmeout": (lambda s: s.shell("ls", tmeout=3), "no option 'tmeout'; did you mean 'timeout'"),
    "shel": (lambda s: s.shell("ls", shel="bash"), "did you mean 'shell'"),
    "repeat": (lambda s: s.map(nb.Shell("ls"), [{}], repeat=2), "did you mean 'repeats'"),
    "runtime": (lambda s: s.shell("ls", runtime="docker"), "'runtime' in this version"),
    "workspace": (lambda s: s.shell("ls", workspace="."), r"'\.' is no workspace; write nb\.Worktree\('\.'\)"),
    "reuse": (lambda s: s.shell("ls", reuse="yes"), "True or False"),
    "detach": (lambda s: s.shell("ls", detach="yes"), "True or False"),
    "cwd": (lambda s: s.shell("ls", cwd="/"), "working_dir"),
    "empty": (lambda s: s.shell("  "), "is empty"),
    "nul": (lambda s: s.shell("echo \0"), "NUL"),
    "no text": (lambda s: s.shell(3), "of type int, not text"),
    "no argv": (lambda s: s.command([]), "is empty"),
    "text argv": (lambda s: s.command("ls -l"), "write a list"),
    "folder": (lambda s: s.shell("ls", working_dir="/nope"), "'/nope' does not exist"),
    "file": (lambda s: s.shell("ls", working_dir="/etc/hostname"), "is no directory"),
    "negative": (lambda s: s.shell("ls", timeout=-1), "timeout"),
    "zero": (lambda s: s.shell("ls", timeout=0), "more than zero"),
    "words": (lambda s: s.shell("ls", timeout="soon"), "soon"),
    "params": (lambda s: s.shell("ls", params={"a": object()}), r"params\['a'\]"),
    "no params": (lambda s: s.shell("ls", params=[1]), "no mapping"),
    "tags": (lambda s: s.shell("ls", tags="x"), "no mapping"),
    "no tag": (lambda s: s.shell("ls", tags={"a": None}), "tags: 'a': None"),
    "long name": (lambda s: s.shell("ls", name="x" * 1001), "1001 characters"),
    "name": (lambda s: s.shell("ls", name=" "), "name"),
    "env": (lambda s: s.shell("ls", env={"A=": "1"}), "variable name"),
    "pattern": (lambda s: s.shell("ls", validation=nb.Validation(expected_pattern="(")), "regular expression"),
    "template": (lambda s: s.map(nb.Shell("echo {{x}}"), [{"x": 1}, {"y": 1}]), "no value 'x'"),
    "second point": (lambda s: s.map(nb.Shell("touch ran"), [{"x": 1}, {"x": object()}]), "item 1"),
    "repeats": (lambda s: s.map(nb.Shell("ls"), [{}], repeats=0), "repeats=0"),
    "parallel": (lambda s: s.map(nb.Shell("ls"), [{}], max_parallel=0), "max_parallel=0"),
    "text": (lambda s: s.launch("ls"), r"write nb.Shell\(...\)"),
    "list": (lambda s: s.launch(["ls"]), "nb.Command"),
    "class": (lambda s: s.launch(nb.Shell), r"write nb.Shell\(...\)"),
    "arguments": (lambda s: s.python(lambda a: a), "missing a required argument: 'a'"),
    "callable": (lambda s: s.python(3), "is not callable"),
    "network": (lambda s: s.shell("ls", limits=nb.Limits(max_network_bytes=1)), "max_network_bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_launch_says_what_is_wrong_and_starts_nothing(session, name) -> None:
    call, says = WRONG[name]
    with pytest.raises(nb.ConfigError, match=says):
        call(session)
    assert session.runs == []
    assert len(session.runs_df()) == 0
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": ""}, "the name '' is empty"),
        ({"name": 3}, "the name 3 is of type int, not text"),
        ({"max_parallel": 0}, "max_parallel=0"),
        ({"max_parallel": True}, "max_parallel=True"),
        ({"tmeout": 1}, "Session: there is no option 'tmeout'; did you mean 'timeout'"),
        ({"budget_usd": "five"}, "'five' is no amount"),
        ({"timeout": "never"}, "never"),
        ({"tags": ["a"]}, "no mapping"),
    ],
)
def test_a_wrong_session_is_refused(new_session, store, arguments, says) -> None:
    with pytest.raises(nb.ConfigError, match=says):
        new_session(**arguments)
    assert not store.exists()


def test_the_coroutine_instead_of_its_function_is_refused(session) -> None:
    async def agent() -> None: ...

    coroutine = agent()
    with pytest.raises(nb.ConfigError, match="pass the function itself"):
        session.launch(coroutine)
    coroutine.close()


# --- IPython


def test_the_same_lines_work_in_ipython_plain_and_awaited(store, tmp_path) -> None:
    lines = (
        "import agentnb as nb\n"
        "session = nb.Session('terminal')\n"
        "print(session.shell('echo plain').wait().stdout, end='')\n"
        "result = await session.shell('echo awaited')\n"
        "print(result.stdout, end='')\n"
        "async def agent(): return (await session.shell('echo hosted')).stdout\n"
        "print((await session.python(agent)).output, end='')\n"
        "print(len(session.runs_df()))\n"
    )
    env = os.environ | {"AGENTNB_HOME": str(store), "IPYTHONDIR": str(tmp_path / "ipython"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "IPython", "--no-banner", "--simple-prompt", "--colors=nocolor", "-c", lines]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["plain", "awaited", "hosted", "4"]


# --- typing


@pytest.mark.slow
def test_type_checkers_accept_what_the_contract_shows(tmp_path) -> None:
    code = (
        "import agentnb as nb\n"
        'session = nb.Session("x", timeout="5m")\n'
        'run = session.launch(nb.Shell("x"), limits=nb.Limits(max_memory_bytes="2GiB", max_cpu_time_s="5m"))\n'
        'nb.ExecutionConfig(timeout="5m", capture="both", artifacts="*.txt", env={"A": nb.Secret("x"), "B": 1})\n'
        'nb.Retry(initial_delay="1s", on_exit_codes=[3])\n'
        'nb.Validation(forbidden_patterns=["a"], streams=["stderr"])\n'
        "async def main() -> str:\n"
        "    group: nb.RunGroup = await session.map(nb.Shell('x'), nb.grid(a=[1]))\n"
        "    first: nb.RunHandle = group[0]\n"
        "    result: nb.CommandResult = await first\n"
        "    return result.stdout + str(result.usage.peak_memory_bytes)\n"
    )
    (tmp_path / "user.py").write_text(code)
    root = Path(nb.__file__).parents[1]  # and with the options of `make check`, so that what mypy found out there is of use here
    command = [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "user.py")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
