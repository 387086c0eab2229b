"""The plain data between client and engine holds what the engine reads, and nothing that pydantic would be needed for."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest

from agentnb.engine.work import CheckPlan, HandlerPlan, RetryPlan, Work, check_work
from tests.engine.driver import Engine


def test_a_work_is_plain_json(engine: Engine) -> None:
    run, launch = engine.prepare("true")
    assert json.loads(json.dumps(launch.to_wire())) == launch.to_wire()
    assert set(launch.work) < set(get_type_hints(Work))
    engine.client.ignore(run.id)


def test_the_plans_name_their_fields() -> None:
    assert set(get_type_hints(RetryPlan)) == {"max_attempts", "strategy", "initial_delay", "max_delay", "jitter", "on_exit_codes"}
    assert set(get_type_hints(CheckPlan)) == {"expected_pattern", "forbidden_patterns", "json_schema", "script", "streams"}
    assert {"when", "argv", "display", "cwd", "env"} <= set(get_type_hints(HandlerPlan))


@pytest.mark.parametrize("name", ["timeout_s", "grace_s"])
@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), -1, "1"])
def test_times_that_no_timer_can_have_are_refused(name: str, value: Any) -> None:
    work = {
        "kind": "process", "argv": ["true"], "cwd": "/", "env_id": 0, "env": {}, "secrets": [], "capture": "both", "grace_s": 1,
        "expected_exit_code": 0,
    }  # fmt: skip
    check_work(work | {"timeout_s": None})
    check_work(work | {"timeout_s": 1.5})
    with pytest.raises((TypeError, ValueError), match=f"{name}="):
        check_work(work | {name: value})
