"""What a swarm's process reports of its workers: how their steps ended, and the sums of what their runs used."""

from __future__ import annotations

import json

from agentnb.engine.outcome import Outcome
from tests.engine.driver import Engine


def test_a_step_may_say_what_sort_of_error_ended_it_and_with_which_exit_code(engine: Engine) -> None:
    code = """
ends = [
    {'status': 'timeout', 'error': 'slow', 'error_kind': 'worker_timeout'}, {'status': 'failed', 'error': 'x', 'error_kind': 'nonsense'},
    {'status': 'failed', 'error': 'y', 'error_kind': ['z'], 'exit_code': True}, {'status': 'failed', 'exit_code': 7},
    {'status': 'interrupted', 'exit_code': 2 ** 80}, {'status': 'skipped'},
]
for n, end in enumerate(ends):
    say({'t': 'step', 'id': str(n), 'name': str(n), 'kind': 'worker', 'status': 'running'})
    say({'t': 'step', 'id': str(n), **end})
say({'t': 'result', 'output': None})
"""
    assert engine.agent(code).wait().status == "completed"
    engine.settle()
    rows = engine.rows("SELECT status, exit_code, error FROM steps WHERE kind = 'worker' ORDER BY name")
    assert [(status, exit_code, json.loads(error)["kind"] if error else None) for status, exit_code, error in rows] == [
        ("timeout", None, "worker_timeout"),
        ("failed", None, "execution_failed"),
        ("failed", None, "execution_failed"),
        ("failed", 7, None),
        ("interrupted", None, None),
        ("skipped", None, None),
    ]


def test_an_error_may_be_of_any_kind_that_there_is_and_of_no_other(engine: Engine) -> None:
    for given, kind in (("pattern_error", "pattern_error"), ("nonsense", "execution_failed"), ({}, "execution_failed")):
        end = engine.agent(f"say({{'t': 'error', 'kind': {given!r}, 'message': 'no'}})").wait()
        assert end.error is not None
        assert (end.error["kind"], end.error["message"]) == (kind, "no")


def test_an_outcome_that_failed_keeps_its_first_reason() -> None:
    outcome = Outcome.failed("worker_timeout", "slow")
    outcome.fail("runtime_error", "later")
    assert outcome.error == {"kind": "worker_timeout", "message": "slow"}
