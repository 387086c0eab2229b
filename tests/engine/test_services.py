"""Services: one process for several runs, which is there when they need it and gone when nobody does."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Engine, lives, wait_until

#: A run's command: who served it.
ASK = "echo $AGENTNB_SERVICE"
READY = """printf '{"t": "ready", "address": {"pid": %d}}\\n' $$ >&3; """
SERVE = "echo $$ >> served; cat <&4 > given; " + READY + "exec sleep 1000"


def service(line: str = SERVE, **more: Any) -> dict[str, Any]:
    """The plan of a service that runs a shell line, in the test's folder."""
    line = f"cd {Path.cwd()}; {line}"
    payload = base64.b64encode(b"what it is given").decode()
    return {"key": line, "name": "server of x", "argv": ["sh", "-c", line], "payload": payload, "keep_s": 30.0} | more


def served() -> list[int]:
    """Pids of the services that were started, in order."""
    return [int(word) for word in Path("served").read_text().split()] if Path("served").exists() else []


def test_runs_share_a_service_that_gets_its_payload(engine: Engine) -> None:
    runs = [engine.launch(ASK, service=service()) for _ in range(5)]
    answers = [json.loads(run.stdout()) for run in runs if run.wait().status == "completed"]
    (pid,) = served()
    assert answers == [{"pid": pid}] * 5
    assert Path("given").read_text() == "what it is given"
    assert lives(pid)


def test_runs_of_another_key_get_another_one_and_runs_without_get_none(engine: Engine) -> None:
    one, other = engine.launch(ASK, service=service()), engine.launch(ASK, service=service(key="other"))
    assert one.wait().status == other.wait().status == "completed"
    assert one.stdout() != other.stdout()
    plain = engine.launch(ASK)
    plain.wait()
    assert plain.stdout() == b"\n"


def test_it_ends_after_its_last_use_and_not_before(engine: Engine) -> None:
    long = engine.launch("cat", service=service(keep_s=0.0), stdin=True).started()
    engine.run(ASK, service=service(keep_s=0.0))
    (pid,) = served()
    assert lives(pid)
    long.cancel()
    long.wait()
    wait_until(lambda: not lives(pid))
    engine.run(ASK, service=service(keep_s=0.0))
    assert len(served()) == 2


def test_a_use_in_time_keeps_it(engine: Engine) -> None:
    engine.run(ASK, service=service(keep_s=0.5))
    for _ in range(4):
        engine.run("sleep 0.2", service=service(keep_s=30.0))
    assert len(served()) == 1


def test_one_that_died_is_replaced_at_once(engine: Engine) -> None:
    for _ in range(10):
        assert engine.run(ASK, service=service()).status == "completed"
        os.kill(served()[-1], signal.SIGKILL)
        wait_until(lambda: not lives(served()[-1]))
    assert len(set(served())) == 10


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("exit 3", "runtime_error", "the server of x ended before it was ready (exit code 3)"),
        (
            'printf \'{"t": "ready"}\\n\' >&3; exec sleep 1000',
            "runtime_error",
            "the server of x did not say where it is found: {'t': 'ready'}",
        ),
        ("kill -9 $$", "runtime_error", "ended before it was ready (signal 9)"),
        ("echo nonsense >&3; exit 0", "runtime_error", "ended before it was ready"),
        ("""echo '{"t": "error", "kind": "startup_failed", "message": "no room"}' >&3; exit 1""", "startup_failed", "no room"),
    ],
)
def test_one_that_cannot_start_fails_its_runs_and_the_next_tries_again(engine: Engine, line: str, kind: str, words: str) -> None:
    for _ in range(2):
        end = engine.launch(ASK, service=service("echo $$ >> served; " + line)).wait()
        assert end.status == "failed"
        assert (end.error or {})["kind"] == kind
        assert words in (end.error or {})["message"]
    assert len(served()) == 2


def test_a_program_that_is_not_there_is_told(engine: Engine) -> None:
    end = engine.launch(ASK, service=service(argv=["/no/such/program"])).wait()
    assert (end.error or {})["kind"] == "startup_failed"
    assert "the server of x could not be started" in (end.error or {})["message"]


def test_cancel_and_timeout_count_while_it_starts(engine: Engine) -> None:
    slow = service("echo $$ >> served; sleep 1000", keep_s=0.0)
    cancelled, late = engine.launch(ASK, service=slow), engine.launch(ASK, service=slow, timeout_s=0.4)
    assert late.wait().status == "timeout"
    assert "the server of x was not ready" in (late.wait().error or {})["message"]
    cancelled.cancel()
    assert cancelled.wait(10).status == "cancelled"
    wait_until(lambda: not any(lives(pid) for pid in served()))


def test_a_retry_gets_another_one(engine: Engine) -> None:
    retry = {"max_attempts": 3, "strategy": "constant", "initial_delay": 0.01, "max_delay": 1.0, "jitter": 0.0, "on_exit_codes": []}
    line = "echo $$ >> served; [ $(wc -l < served) -ge 3 ] || exit 1; " + READY + "exec sleep 1000"
    end = engine.launch(ASK, service=service(line), retry=retry).wait()
    assert (end.status, end.attempts) == ("completed", 3)


def test_its_address_is_kept_nowhere(engine: Engine, store: Path) -> None:
    line = """echo '{"t": "ready", "address": {"key": "k-hidden-88"}}' >&3; exec sleep 1000"""
    assert engine.run("true", service=service(line)).status == "completed"
    engine.settle()
    assert b"k-hidden-88" not in b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())


def test_one_that_said_that_it_cannot_and_stays_is_ended_and_replaced_by_the_next_use(engine: Engine) -> None:
    line = """echo $$ >> served; echo '{"t": "error", "kind": "startup_failed", "message": "no room"}' >&3; exec sleep 1000"""
    for _ in range(3):
        assert (engine.run(ASK, service=service(line)).error or {})["message"] == "no room"
    assert len(set(served())) == 3
    wait_until(lambda: [pid for pid in served()[:2] if lives(pid)] == [])
