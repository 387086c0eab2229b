"""Supervisors that outlive their client, and clients that come in through the door."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentnb import requests, wire
from agentnb.engine.client import Client
from agentnb.engine.door import knock
from agentnb.engine.peers import MAX_PEERS, Peers
from agentnb.events import Message, OutputTail, Ready, RunFinished
from agentnb.history.reader import read_output
from agentnb.history.store import Store
from tests.engine.driver import SOON, Engine, Loop, lives, marked, running, wait_until

#: Prints a line, then one for each line of a file that grows.
WAITS = "echo begin; while [ ! -e go ]; do sleep 0.02; done; echo end"


class Follower:
    """What another client hears of a run."""

    def __init__(self, client: Client, run_id: str) -> None:
        self.client, self.id = client, run_id
        self.events: list[Message] = []
        self.done: Future[RunFinished | str] = Future()
        client.listen(run_id, self)

    def on_event(self, event: Message) -> None:
        self.events.append(event)
        if isinstance(event, RunFinished):
            self.done.set_result(event)

    def on_lost(self, message: str) -> None:
        self.done.set_result(message)

    def end(self) -> RunFinished:
        """Its end; fails when the connection was lost."""
        found = self.done.result(SOON)
        assert isinstance(found, RunFinished), found
        return found

    def seen(self) -> str:
        return "".join(text for event in list(self.events) if isinstance(event, OutputTail) for _, text in event.segments)

    def ask(self, make: Callable[[int], Message]) -> Any:
        return self.client.request(make).result(SOON)


def door(store: Path) -> Path:
    """The one door of the store."""
    found: list[Path] = wait_until(lambda: list((store / "owners").glob("*.sock")), "a door")
    assert len(found) == 1
    return found[0]


@pytest.fixture
def detached(store: Path, loop: Loop) -> Iterator[Engine]:
    """A detached supervisor, which must have ended by itself when the test is over."""
    engine = Engine(store, loop, detached=True)
    try:
        yield engine
        engine.client.close()
        wait_until(lambda: not lives(engine.pid), "the end of the detached supervisor", 10)
        assert not list((store / "owners").iterdir())
    finally:
        if lives(engine.pid):
            os.kill(engine.pid, signal.SIGKILL)
    assert not marked(str(store))


@pytest.fixture
def call(store: Path, loop: Loop) -> Iterator[Callable[[], Client]]:
    """Makes clients that come in through the door."""
    made: list[Client] = []

    def one() -> Client:
        made.append(Client.connect(loop.loop, door(store)))
        made[-1].ready.result(SOON)
        return made[-1]

    yield one
    for client in made:
        client.close()


def test_runs_go_on_without_the_client_and_the_supervisor_ends_with_the_last_one(detached: Engine) -> None:
    first = detached.launch(WAITS)
    queued = [detached.launch(f"echo {n}") for n in range(20)]
    detached.client.close()
    wait_until(lambda: len(detached.rows("SELECT 1 FROM runs WHERE status = 'completed'")) == 20)
    assert lives(detached.pid)
    Path("go").touch()
    wait_until(lambda: not lives(detached.pid), "the end of the supervisor")
    assert detached.rows("SELECT DISTINCT status FROM runs") == [("completed",)]
    assert read_output(detached.store, first.id, "stdout") == b"begin\nend\n"
    assert detached.rows("SELECT count(*) FROM steps WHERE run_id = ? AND status = 'completed'", first.id) == [(1,)]
    assert not any(run.finishes for run in queued if not run.done.done())
    assert detached.rows("SELECT count(*) FROM sessions") == [(0,)]  # the session is the other supervisor's to tell of


DIES = """
import os, sys
import agentnb as nb
session = nb.Session("dies")
session.shell("true").wait()
runs = [session.shell("true", detach=True) for _ in range(10)]
os.kill(os.getpid(), 9)
"""


def test_detached_runs_whose_kernel_is_killed_right_after_the_launch_are_done(store: Path) -> None:
    env = os.environ | {"AGENTNB_HOME": str(store), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", DIES], env=env, check=False, timeout=60)

    def done() -> bool:
        with Store.open(store) as opened:
            opened.recover()
        with closing(sqlite3.connect(store / "history.db")) as db:
            return db.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall() == [("completed", 11)]

    wait_until(done, "the end of the detached runs", 20)
    wait_until(lambda: not list((store / "owners").iterdir()), "the end of the supervisors")


def test_it_is_no_child_and_ends_at_once_when_it_has_nothing_to_do(detached: Engine) -> None:
    stat = Path(f"/proc/{detached.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[1]) != os.getpid()
    assert os.getsid(detached.pid) != os.getsid(0)
    detached.run("true")
    assert lives(detached.pid)


def test_all_clients_hear_of_a_run_and_replies_go_to_who_asked(detached: Engine, call: Callable[[], Client]) -> None:
    run = detached.launch(WAITS, stdin=True).started()
    others = [Follower(call(), run.id) for _ in range(3)]
    for other in others:
        reply = other.ask(lambda number: requests.Attach(number, run.id))
        assert (reply["status"], reply["attempt"], reply["grace_s"]) == ("running", 1, 5.0)
        assert reply["started_at"] == run.of("run_started")[0].at
    for n, other in enumerate(others):
        assert other.ask(partial(requests.Ping, data={"n": n})) == {"n": n}
    assert others[0].ask(lambda number: requests.Flush(number, run.id))["stdout"]["size"] == 6
    assert others[1].ask(lambda number: requests.SendInput(number, run.id, "x", eof=True)) == {}
    Path("go").touch()
    assert {other.end().status for other in others} == {"completed"}
    assert run.wait().status == "completed"


def test_output_goes_to_those_who_watch_and_a_late_one_gets_the_tail(detached: Engine, call: Callable[[], Client]) -> None:
    run = detached.launch(WAITS).started()
    early, late, never = (Follower(call(), run.id) for _ in range(3))
    early.client.send([requests.Watch([run.id])])
    wait_until(lambda: early.seen() == "begin\n")
    late.client.send([requests.Watch([run.id])])
    wait_until(lambda: late.seen() == "begin\n")
    run.watch()
    wait_until(lambda: run.seen() == "begin\n")
    run.watch(on=False)  # one that looks away takes nothing from the others
    early.ask(requests.Ping)
    Path("go").touch()
    for one in (early, late, never):
        one.done.result(SOON)
    assert (early.seen(), late.seen(), never.seen()) == ("begin\nend\n", "begin\nend\n", "")
    assert run.seen() == "begin\n"


def test_a_watcher_that_dies_leaves_the_others_their_output(
    detached: Engine, call: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentnb.engine.client._LAST_PROCESSES_S", 0.2)  # that live on here
    run = detached.launch(WAITS).started()
    stays, goes = Follower(call(), run.id), Follower(call(), run.id)
    for one in (goes, stays):
        one.client.send([requests.Watch([run.id])])
        one.ask(requests.Ping)
    goes.client._sock.shutdown(socket.SHUT_RDWR)
    goes.done.result(SOON)
    Path("go").touch()
    stays.done.result(SOON)
    assert stays.seen() == "begin\nend\n"


def test_another_client_can_cancel_what_runs_and_what_waits(detached: Engine, call: Callable[[], Client]) -> None:
    runs = [detached.launch("sleep 1000") for _ in range(6)]
    runs[0].started()
    other = Follower(call(), runs[5].id)
    assert other.ask(lambda number: requests.Attach(number, runs[5].id))["status"] == "pending"
    other.client.send([requests.Cancel([run.id for run in runs], "enough")])
    ends = [run.wait() for run in runs]
    assert {end.status for end in ends} == {"cancelled"}
    assert {end.error["message"] for end in ends if end.error} == {"enough"}


@pytest.mark.parametrize("gone", ["finished", "unknown"])
def test_what_is_not_live_cannot_be_attached_to(detached: Engine, call: Callable[[], Client], gone: str) -> None:
    run_id = detached.run("true").run_id if gone == "finished" else "no-such-run"
    with pytest.raises(RuntimeError, match="not live here"):
        call().request(lambda number: requests.Attach(number, run_id)).result(SOON)


def test_a_caller_can_neither_launch_nor_end_the_supervisor(loop: Loop, store: Path) -> None:
    with running(store, loop) as engine:
        run, launch = engine.prepare("touch launched")
        bare = knock(door(store))
        with bare:
            hello = requests.Hello(requests.PROTOCOL_VERSION, 1)
            others = [requests.SetEnv(engine.env_id, {}), launch, requests.Shutdown(), hello, requests.Ping(1)]
            bare.sendall(wire.encode([*others, requests.EndSession(2, engine.session)]))
            decoder, found = wire.Decoder(), list[dict[str, Any]]()
            bare.settimeout(SOON)
            while len(found) < 3:
                found += decoder.feed(bare.recv(1 << 16))
        assert [item["type"] for item in found] == ["ready", "reply", "reply"]
        assert "did not start" in found[2]["error"]
        assert engine.run("echo still here").status == "completed"
        assert not run.done.done()
        assert not Path("launched").exists()


@pytest.mark.parametrize("noise", [b"", b"\0\0\0\5hello", b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n"])
def test_noise_at_the_door_disturbs_nobody(engine: Engine, store: Path, noise: bytes) -> None:
    run = engine.launch("sleep 0.2; echo fine")
    for _ in range(20):
        with knock(door(store)) as caller:
            caller.sendall(noise)
    assert run.stdout() == b"fine\n"


def test_a_caller_of_another_version_is_shown_out_alone(engine: Engine, store: Path) -> None:
    with knock(door(store)) as caller:
        caller.sendall(wire.encode([requests.Hello(99, os.getpid()), requests.Ping(1)]))
        found = b""
        while data := caller.recv(1 << 16):
            found += data
    assert engine.run("true").status == "completed"


def test_too_many_callers_are_turned_away_and_come_in_when_others_have_gone(
    engine: Engine, store: Path, call: Callable[[], Client]
) -> None:
    callers = [knock(door(store)) for _ in range(MAX_PEERS + 5)]
    for caller in callers:
        caller.settimeout(SOON)
    answered = [bool(caller.recv(1000)) for caller in callers]
    assert answered == [True] * MAX_PEERS + [False] * 5
    for caller in callers:
        caller.close()
    engine.settle()
    assert call().request(requests.Ping).result(SOON) == {}


def test_an_ordinary_supervisor_ends_with_its_first_client_whoever_else_is_there(
    store: Path, loop: Loop, call: Callable[[], Client]
) -> None:
    with running(store, loop) as engine:
        run = engine.launch("sleep 1000").started()
        other = Follower(call(), run.id)
        other.ask(lambda number: requests.Attach(number, run.id))
    assert other.end().status == "interrupted"
    wait_until(lambda: not other.client.alive)
    assert not list((store / "owners").iterdir())


def test_kill_9_of_a_detached_supervisor_leaves_no_process_and_its_door_goes_with_the_recovery(store: Path, loop: Loop) -> None:
    engine = Engine(store, loop, detached=True)
    run = engine.launch("setsid sleep 1000 & sleep 1000").started()
    path = door(store)
    os.kill(engine.pid, signal.SIGKILL)
    wait_until(lambda: not marked(str(store)), "the end of all processes", 5)
    engine.client.close()
    assert path.exists()
    with pytest.raises(ConnectionRefusedError):
        knock(path)
    with Store.open(store) as again:
        assert again.recover() == [run.id]
    assert not list((store / "owners").iterdir())


def test_a_detached_supervisor_that_is_told_to_end_says_so(store: Path, loop: Loop) -> None:
    engine = Engine(store, loop, detached=True)
    run = engine.launch("sleep 1000").started()
    engine.settle()
    os.kill(engine.pid, signal.SIGTERM)
    end = run.wait()
    assert end.status == "interrupted"
    assert end.error == {"kind": "interrupted", "message": "its supervisor was told to end"}
    engine.client.close()
    wait_until(lambda: not lives(engine.pid))
    assert not list((store / "owners").iterdir())


def test_where_no_socket_can_be_made_that_is_noted_and_no_more(tmp_path: Path, capsys) -> None:
    async def scene() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            peers = Peers(asyncio.get_running_loop(), theirs, Ready(1, 1), lambda _peer, _message: None, lambda _peer: None)
            peers.listen(tmp_path / "no" / "s.sock")
            assert peers.first_is_here
            peers.close()

    asyncio.run(scene())
    assert "other processes cannot attach" in capsys.readouterr().err
