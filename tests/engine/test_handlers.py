"""Handlers: which run after which end, in which order, under which condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Engine

ALL = ("on_success", "on_failure", "rollback", "cleanup")


def handler(when: str, line: str = "", **more: Any) -> dict[str, Any]:
    line = line or f"echo {when} >> log"
    return {"when": when, "argv": ["sh", "-c", line], "display": line, "cwd": str(Path.cwd()), "env": {}} | more


def names(engine: Engine, run_id: str) -> list[tuple[str, str]]:
    return [(name, status) for kind, name, status in engine.steps(run_id) if kind == "handler"]


@pytest.mark.parametrize("how", ["completed", "failed", "timeout", "cancelled"])
def test_rollback_runs_after_on_failure_and_only_when_the_run_did_not_succeed(engine: Engine, how: str) -> None:
    line = {"completed": "true", "failed": "exit 3"}.get(how, "sleep 1000")
    run = engine.launch(line, handlers=[handler(when) for when in ALL], timeout_s=0.3 if how == "timeout" else None)
    if how == "cancelled":
        run.started().cancel()
    assert run.wait(10).status == how
    wanted = ["on_success", "cleanup"] if how == "completed" else ["on_failure", "rollback", "cleanup"]
    assert Path("log").read_text().split() == wanted
    assert names(engine, run.id) == [(when, "completed") for when in wanted]


@pytest.mark.parametrize("how", ["failed", "timeout", "cancelled"])
def test_a_handler_runs_only_when_its_condition_holds_and_is_recorded_as_skipped_otherwise(engine: Engine, how: str) -> None:
    handlers = [
        handler("on_failure", condition="status == 'timeout'"),
        handler("rollback", condition="exit_code == 3 or 'asked to' in error"),
        handler("cleanup", condition="status != 'completed' and attempts == 1"),
    ]
    line = "exit 3" if how == "failed" else "sleep 1000"
    run = engine.launch(line, handlers=handlers, timeout_s=0.3 if how == "timeout" else None)
    if how == "cancelled":
        run.started().cancel()
    end = run.wait(10)
    assert (end.status, end.detail.get("warnings", [])) == (how, [])
    ran = ["on_failure", "cleanup"] if how == "timeout" else ["rollback", "cleanup"]
    assert Path("log").read_text().split() == ran
    assert names(engine, run.id) == [(one["when"], "completed" if one["when"] in ran else "skipped") for one in handlers]


def test_what_was_decided_by_which_condition_is_in_the_history(engine: Engine) -> None:
    run = engine.launch("true", handlers=[handler("cleanup", "echo x", condition="attempts > 1")])
    run.wait()
    rows = engine.rows("SELECT input, output, error FROM steps WHERE run_id = ? AND kind = 'handler'", *[run.id])
    engine.settle()
    rows = engine.rows("SELECT input, output, error FROM steps WHERE run_id = ? AND kind = 'handler'", run.id)
    assert rows == [('{"command":"echo x","condition":"attempts > 1"}', None, None)]


def test_a_condition_that_cannot_be_decided_fails_its_handler_and_nothing_else(engine: Engine) -> None:
    handlers = [handler("on_failure", condition="exit_code in error"), handler("rollback", condition="no ("), handler("cleanup")]
    run = engine.launch("exit 3", handlers=handlers)
    end = run.wait()
    assert end.status == "failed"
    assert [warning.partition(":")[0] for warning in end.detail["warnings"]] == [
        "the on_failure handler failed",
        "the rollback handler failed",
    ]
    assert names(engine, run.id) == [("on_failure", "failed"), ("rollback", "failed"), ("cleanup", "completed")]


def test_a_handler_knows_how_many_attempts_there_were_and_its_trace(engine: Engine) -> None:
    retry = {"max_attempts": 3, "strategy": "constant", "initial_delay": 0.0, "max_delay": 0.0, "jitter": 0.0, "on_exit_codes": [3]}
    parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    line = 'echo "$AGENTNB_ATTEMPTS $AGENTNB_STATUS $AGENTNB_EXIT_CODE $TRACEPARENT" > said'
    run = engine.launch("exit 3", retry=retry, handlers=[handler("rollback", line, condition="attempts == 3")], traceparent=parent)
    assert run.wait().attempts == 3
    assert Path("said").read_text() == f"3 failed 3 {parent}\n"


def test_a_handler_is_ended_after_its_own_time(engine: Engine) -> None:
    handlers = [handler("on_failure", "sleep 1000", timeout_s=0.3), handler("cleanup")]
    run = engine.launch("exit 3", handlers=handlers)
    assert run.wait(10).detail["warnings"] == ["the on_failure handler failed: it was still running after 0.3 s"]
    assert names(engine, run.id) == [("on_failure", "timeout"), ("cleanup", "completed")]


def test_the_secrets_of_a_run_are_masked_in_the_record_of_its_handlers(engine: Engine) -> None:
    run = engine.launch("true", secrets=["hunter2", "comm"], handlers=[handler("cleanup", "echo hunter2", condition="error != 'hunter2'")])
    run.wait()
    engine.settle()
    rows = engine.rows("SELECT input FROM steps WHERE run_id = ? AND kind = 'handler'", run.id)
    assert rows == [('{"command":"echo ***","condition":"error != \'***\'"}',)]
