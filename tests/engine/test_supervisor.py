"""The supervisor: what happens when it, its spawner or its client is killed, and when it is asked for nonsense."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from agentnb import requests, wire
from agentnb.events import Json, now_us
from agentnb.history.store import Store
from agentnb.ids import new_id
from tests.engine.driver import SOON, Engine, Loop, Lost, children, lives, marked, pids, running, wait_until

#: Ignores SIGTERM, writes its pid.
STUBBORN = "trap '' TERM; echo $$ >> pids; while :; do sleep 1000; done"
#: Everything must be gone this long after a kill, in seconds.
GONE_S = 2.0


def all_gone(numbers: list[int]) -> None:
    """Fail unless these are gone in time."""
    wait_until(lambda: all(not lives(pid) for pid in numbers), "the end of all processes", GONE_S)


def test_kill_9_of_the_supervisor_leaves_no_process_and_a_run_that_reads_interrupted(engine: Engine, store: Path, loop: Loop) -> None:
    run = engine.launch(f'echo before; setsid sh -c "{STUBBORN}" & {STUBBORN}').started()
    waiting = [engine.launch("sleep 1000") for _ in range(5)]
    spawner = engine.spawner
    known = [spawner, *pids(2)]
    wait_until((store / "runs" / run.id / "stdout.log").exists)
    engine.settle()
    os.kill(engine.pid, signal.SIGKILL)
    all_gone(known)
    for one in (run, *waiting):
        with pytest.raises(Lost, match=f"supervisor process {engine.pid} ended"):
            one.wait(SOON)
    with pytest.raises(RuntimeError):
        engine.ask(requests.Ping)
    assert not marked(str(store))
    engine.client.close()
    with running(store, loop) as anew:
        assert anew.run("echo again").status == "completed"
        assert anew.status(run.id) == "interrupted"
        assert {anew.status(one.id) for one in waiting} == {"interrupted", "cancelled"}
        assert anew.rows("SELECT count(*) FROM steps WHERE status = 'running'") == [(0,)]


def test_kill_9_of_the_spawner_fails_its_runs_and_the_next_launch_works(engine: Engine) -> None:
    runs = [engine.launch(STUBBORN, stdin=True).started() for _ in range(3)]
    known = pids(3)
    old = engine.spawner
    os.kill(old, signal.SIGKILL)
    for run in runs:
        end = run.wait(5)
        assert (end.status, end.error and end.error["kind"], end.detail["reason"]) == ("failed", "runtime_error", "internal_error")
    all_gone([old, *known])
    again = engine.launch("echo again; echo $MARK")
    assert again.stdout().decode() == f"again\n{engine.store}\n"
    assert engine.spawner != old


def test_a_run_whose_spawner_was_killed_is_tried_again(engine: Engine) -> None:
    retry = {"max_attempts": 2, "strategy": "constant", "initial_delay": 0.01, "max_delay": 1.0, "jitter": 0.0, "on_exit_codes": []}
    run = engine.launch("[ $AGENTNB_ATTEMPT = 2 ] || sleep 1000", retry=retry).started()
    os.kill(engine.spawner, signal.SIGKILL)
    assert (run.wait(5).status, run.wait().attempts) == ("completed", 2)


def test_a_cancelled_run_whose_spawner_is_killed_meanwhile_stays_cancelled(engine: Engine) -> None:
    run = engine.launch(STUBBORN).started()
    known = pids(1)
    run.cancel()
    engine.settle()
    os.kill(engine.spawner, signal.SIGKILL)
    assert run.wait(5).status == "cancelled"
    all_gone(known)


def test_a_spawner_that_is_killed_again_and_again_is_replaced(engine: Engine) -> None:
    for _ in range(4):
        os.kill(engine.spawner, signal.SIGKILL)
        wait_until(lambda: engine.run("true").status == "completed")


#: Hosts a client as a notebook does; forks a child that keeps the socket open; then waits to be killed.
HOST = """
import os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.engine.driver import Engine, Loop
engine = Engine(Path({store!r}), Loop())
for command in {commands!r}:
    engine.launch(command, handlers={handlers!r}).started()
if {fork!r} and os.fork() == 0:
    time.sleep(1000)
print(engine.pid, engine.spawner, flush=True)
time.sleep(1000)
"""


def host(
    store: Path, commands: list[str], *, fork: bool = False, handlers: tuple[Json, ...] = ()
) -> tuple[subprocess.Popen[str], int, int]:
    root = str(Path(__file__).parent.parent.parent)
    code = HOST.format(root=root, store=str(store), commands=commands, fork=fork, handlers=list(handlers))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    supervisor, spawner = process.stdout.readline().split()
    return process, int(supervisor), int(spawner)


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_the_client_ends_everything_and_is_recorded(store: Path, fork: bool, how: signal.Signals) -> None:
    process, supervisor, spawner = host(store, [STUBBORN, "setsid sleep 1000 & wait", "echo said; sleep 1000"], fork=fork)
    try:
        known = [supervisor, spawner, *pids(1), *marked(f"MARK={store}")]
        os.kill(process.pid, how)
        all_gone(known)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    with Store.open(store), closing(sqlite3.connect(store / "history.db")) as db:
        assert db.execute("SELECT DISTINCT status FROM runs").fetchall() == [("interrupted",)]
        assert db.execute("SELECT status FROM sessions").fetchall() == [("ended",)]
        kinds = [
            json.loads(row[0])["kind"] if row[0].startswith("{") else row[0] for row in db.execute("SELECT DISTINCT error_kind FROM runs")
        ]
        assert kinds == ["interrupted"]


def test_the_end_of_the_client_also_ends_handlers_and_starts_no_more(store: Path) -> None:
    handlers: tuple[Json, ...] = tuple(
        {"when": when, "argv": ["sh", "-c", f"touch {when}; {STUBBORN}"], "display": "x", "cwd": str(Path.cwd()), "env": {}}
        for when in ("on_success", "cleanup")
    )
    process, supervisor, spawner = host(store, ["true"], handlers=handlers)
    known = [supervisor, spawner, *pids(1)]
    process.kill()
    process.communicate()
    all_gone(known)
    assert not Path("cleanup").exists()


def test_sigterm_to_the_supervisor_ends_its_runs_in_order(engine: Engine) -> None:
    run = engine.launch("sleep 1000").started()
    os.kill(engine.pid, signal.SIGTERM)
    assert run.wait(5).status == "interrupted"
    assert engine.client.process is not None
    assert engine.client.process.wait(5) == 0
    assert engine.rows("SELECT status FROM runs") == [("interrupted",)]


def test_an_interrupt_of_the_terminal_does_not_reach_the_supervisor(engine: Engine) -> None:
    os.kill(engine.pid, signal.SIGINT)
    os.kill(engine.pid, signal.SIGHUP)
    os.kill(engine.spawner, signal.SIGTERM)
    assert engine.run("true").status == "completed"
    assert os.getpgid(engine.pid) != os.getpgid(0)


def test_another_protocol_version_is_refused_with_advice(engine: Engine) -> None:
    engine.client.send([requests.Hello(requests.PROTOCOL_VERSION + 1, os.getpid())])
    assert "restart the kernel" in engine.client.gone.result(SOON)


def test_requests_that_make_no_sense_are_refused_and_the_rest_goes_on(engine: Engine) -> None:
    strange: list[Json] = [
        {"type": "launch"},
        {"type": "launch", "run": {}, "work": {}},
        {"type": "launch", "run": {"id": "../../x", "session_id": engine.session}, "work": {}},
        {"type": "cancel", "run_ids": 7, "reason": None},
        {"type": "watch", "run_ids": ["no such run"]},
        {"type": "set_env", "env_id": "x", "env": None},
        {"type": "open_session", "session": {}, "store": 5, "max_parallel": "x"},
        {"type": "report", "run_id": "none", "data": {}},
        {"type": "from the future"},
        {"type": "ready", "version": 1, "pid": 1},
    ]
    body = json.dumps(strange).encode()
    with engine.client._lock:
        engine.client._sock.sendall(len(body).to_bytes(4, "big") + body)
    with pytest.raises(RuntimeError, match="not running"):
        engine.ask(lambda n: requests.SendInput(n, "no such run", "x"))
    with pytest.raises(RuntimeError, match="makes no sense"):
        engine.ask(lambda n: requests.SendInput(n, ["x"], "x"))
    assert engine.ask(lambda n: requests.EndSession(n, "no such session")) == {}
    assert engine.run("true").status == "completed"


def test_a_session_that_has_ended_takes_no_runs(engine: Engine) -> None:
    run = engine.launch("sleep 0.2")
    assert engine.ask(lambda n: requests.EndSession(n, engine.session)) == {"trouble": None}
    assert run.done.done()
    end = engine.run("true")
    assert end.error is not None
    assert "has ended" in end.error["message"]
    other = engine.open()
    slow = engine.launch("sleep 1000", session=other)
    engine.ask(lambda n: requests.EndSession(n, other, cancel=True, reason="done with it"))
    assert slow.wait().status == "cancelled"
    assert sorted(engine.rows("SELECT status FROM sessions")) == [("cancelled",), ("ended",)]


def test_a_store_that_cannot_be_opened_says_so_for_each_run(engine: Engine) -> None:
    Path("file").write_text("")
    bad = engine.open(store=Path("file").absolute() / "store")
    end = engine.run("true", session=bad)
    assert end.error is not None
    assert "a file is where a folder should be" in end.error["message"]


def test_environments_that_nobody_needs_any_more_are_forgotten(engine: Engine) -> None:
    number = engine.client.environment({"PATH": os.environ["PATH"], "N": "first"})
    keeper = engine.launch("read x; env", env_id=number, stdin=True).started()
    waiting = [engine.launch("sleep 1000", env_id=number) for _ in range(4)]
    last = engine.launch("env", env_id=number)
    big = "x" * 100_000
    spawner = engine.spawner
    for n in range(300):
        engine.client.environment({"PATH": os.environ["PATH"], "N": str(n), "BIG": big})
    engine.settle()
    status = Path(f"/proc/{spawner}/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss < 30_000  # kB; 300 of them would be 30 MB more
    for run in waiting:
        run.cancel()
    assert b"N=first" in last.stdout()
    keeper.send("\n")
    assert b"N=first" in keeper.stdout()


def test_a_client_that_does_not_read_costs_bounded_memory_and_misses_no_end(engine: Engine) -> None:
    import threading

    go_on = threading.Event()
    runs = [engine.prepare("yes | head -c 20000000") for _ in range(6)]
    engine.client._loop.call_soon_threadsafe(go_on.wait, SOON)  # its loop stands still
    engine.client.send([message for _, message in runs] + [requests.Watch([run.id for run, _ in runs])])
    from tests.engine.driver import peak_memory

    wait_until(lambda: engine.rows("SELECT count(*) FROM runs WHERE status = 'completed'") == [(6,)])
    memory = peak_memory(engine.pid)
    go_on.set()
    assert {run.wait().status for run, _ in runs} == {"completed"}
    assert memory < 100 << 20


def test_two_sessions_in_two_stores_are_kept_apart(engine: Engine, tmp_path: Path) -> None:
    other = engine.open(store=tmp_path / "other")
    assert engine.run("true", session=other).status == "completed"
    engine.settle()
    assert engine.rows("SELECT count(*) FROM runs") == [(0,)]
    with closing(sqlite3.connect(tmp_path / "other" / "history.db")) as db:
        assert db.execute("SELECT status FROM runs").fetchall() == [("completed",)]


def test_garbage_instead_of_frames_ends_the_supervisor_cleanly(engine: Engine) -> None:
    run = engine.launch("sleep 1000").started()
    with engine.client._lock:
        engine.client._sock.sendall(b"\xff" * 64)
    engine.client.gone.result(5)
    wait_until(lambda: not lives(engine.pid), "its end", 5)
    assert not run.pids()
    assert engine.rows("SELECT status FROM runs") == [("interrupted",)]


def test_the_supervisor_stays_light(engine: Engine) -> None:
    assert engine.run("true").status == "completed"
    status = Path(f"/proc/{engine.pid}/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss < 45_000
    maps = Path(f"/proc/{engine.pid}/maps").read_text()
    assert not any(name in maps for name in ("pydantic", "pandas", "numpy"))
    assert children(engine.spawner) == []


def test_a_frame_of_a_whole_grid_is_taken_at_once(engine: Engine) -> None:
    prepared = [engine.prepare(["true"]) for _ in range(300)]
    start = time.monotonic()
    engine.client.send([message for _, message in prepared])
    assert {run.wait().status for run, _ in prepared} == {"completed"}
    assert time.monotonic() - start < 15
    assert len(wire.encode([message for _, message in prepared])) > 100_000
    assert now_us() > 0
    assert new_id()


_IGNORING = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
import agentnb as nb
with nb.Session("ignores", store=sys.argv[1]) as session:
    print(session.shell("echo said").wait().stdout, end="")
"""


def test_a_notebook_that_was_started_with_sigchld_ignored_has_an_engine_that_ends_well(tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = subprocess.run([sys.executable, "-c", _IGNORING, str(store)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "said\n"
    with closing(sqlite3.connect(store / "history.db")) as db:
        assert db.execute("SELECT status FROM sessions").fetchall() == [("ended",)]
        assert db.execute("SELECT count(*) FROM owners").fetchone() == (0,)
