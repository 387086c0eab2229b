"""The kernel's end: sends at once from any thread, hands events on, says why the supervisor is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentnb import requests
from agentnb.engine.client import Client
from agentnb.errors import RuntimeUnavailable
from agentnb.events import Message
from tests.engine.driver import SOON, Engine, Loop, children, lives, wait_until


def test_a_launch_reaches_the_supervisor_while_the_loop_is_busy(engine: Engine) -> None:
    go_on = threading.Event()
    engine.client._loop.call_soon_threadsafe(go_on.wait, SOON)
    run = engine.launch("touch ran")
    wait_until(lambda: Path("ran").exists())
    assert not run.events
    go_on.set()
    assert run.wait().status == "completed"


def test_many_threads_may_launch_at_once(engine: Engine) -> None:
    found = []

    def some() -> None:
        found.extend([engine.launch("true") for _ in range(25)])

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.wait().status for run in found] == ["completed"] * 100


def test_more_than_the_socket_takes_is_sent_in_the_end(engine: Engine) -> None:
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        runs = [engine.launch("wc -c", stdin="x" * 1_000_000) for _ in range(8)]
        waiting = engine.client.request(requests.Ping)
        assert time.monotonic() - start < 2
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    assert {run.stdout().strip() for run in runs} == {b"1000000"}
    assert waiting.result(SOON) == {}


def test_a_listener_that_fails_takes_no_events_from_others(engine: Engine, loop: Loop) -> None:
    bad, launch = engine.prepare("true")

    def fail(_: Message) -> None:
        raise ValueError("my fault")

    bad.on_event = fail  # type: ignore[method-assign,assignment]
    good = engine.prepare("true")
    engine.client.send([launch, good[1]])
    assert good[0].wait().status == "completed"
    engine.settle()
    assert all(isinstance(fault["exception"], ValueError) for fault in loop.faults)
    assert loop.faults
    loop.faults.clear()


def test_the_last_words_of_the_supervisor_are_told(engine: Engine) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    assert "killed?" in engine.client.gone.result(SOON)
    with pytest.raises(RuntimeError, match="gone|ended"):
        engine.ask(requests.Ping)
    engine.client.send([requests.Cancel([], "")])  # harmless


def test_an_environment_is_sent_once_while_it_does_not_change(engine: Engine) -> None:
    one = engine.client.environment({"A": "1"})
    assert engine.client.environment({"A": "1"}) == one
    assert engine.client.environment({"A": "2"}) == one + 1


def test_what_is_no_json_is_refused_and_nothing_is_sent(engine: Engine) -> None:
    run, launch = engine.prepare("true")
    with pytest.raises(TypeError):
        engine.client.send([launch, requests.Ping(1, {"x": object()})])
    engine.client.ignore(run.id)
    engine.settle()
    assert engine.rows("SELECT count(*) FROM runs") == [(0,)]


def test_an_interpreter_that_cannot_be_started_is_a_clear_error(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/python")
    with pytest.raises(RuntimeUnavailable, match="/nothing/python"):
        Client(loop.loop)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(RuntimeUnavailable, match="Linux only"):
        Client(loop.loop)


def test_closing_ends_the_supervisor_and_its_runs_are_told(engine: Engine) -> None:
    run = engine.launch("trap '' TERM; sleep 1000; sleep 1000").started()
    known = [engine.pid, *children(engine.pid), *run.pids()]
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start < 4
    assert run.wait(1).status == "interrupted"
    wait_until(lambda: not any(lives(pid) for pid in known))
    engine.close()


def test_a_forked_child_does_not_end_the_supervisor(engine: Engine) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            engine.client.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert engine.run("true").status == "completed"


def test_a_thread_does_not_name_an_environment_that_another_one_has_not_sent_yet(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    client, env = engine.client, {"PATH": os.environ["PATH"], "NEW": "1"}
    named: list[int] = []
    other = threading.Thread(target=lambda: named.append(client.environment(env)))
    early: list[list[int]] = []
    send = client.send

    def slow(messages: Sequence[Message]) -> None:
        if isinstance(messages[0], requests.SetEnv):
            other.start()
            other.join(0.1)  # it would be through by then, if it did not wait
            early.append(list(named))
        send(messages)

    monkeypatch.setattr(client, "send", slow)
    number = client.environment(env)
    other.join()
    assert (early, named) == ([[]], [number])
    assert engine.run('test "$NEW"', env_id=number).status == "completed"


def test_an_environment_that_changes_while_it_is_sent_is_known_as_it_was_sent(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    send = engine.client.send

    def change(messages: Sequence[Message]) -> None:
        os.environ["NEW"] = "later"
        send(messages)

    monkeypatch.setenv("NEW", "\udcff \u00e9")
    with monkeypatch.context() as changing:
        changing.setattr(engine.client, "send", change)
        first = engine.client.environment(os.environ)
    assert engine.client.environment(os.environ) == first + 1
    assert engine.run('test "$NEW" = "$(printf \'\\377 \\303\\251\')"', env_id=first).status == "completed"
