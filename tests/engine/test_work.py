"""The plain data between client and engine holds what the engine reads, and nothing that pydantic would be needed for."""

from __future__ import annotations

import json
from typing import get_type_hints

from agentnb.engine.work import CheckPlan, HandlerPlan, RetryPlan, Work
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
