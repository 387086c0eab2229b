"""When a failed attempt is tried again, and after how long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.engine import retry
from agentnb.engine.work import RetryPlan
from agentnb.states import RETRYABLE, ErrorKind

SECONDS = st.floats(0, 1e6)


def plan(**changes: object) -> RetryPlan:
    plain = {"max_attempts": 3, "strategy": "constant", "initial_delay": 1.0, "max_delay": 60.0, "jitter": 0.0, "on_exit_codes": []}
    return plain | changes  # type: ignore[return-value]


@pytest.mark.parametrize(("strategy", "delays"), [("constant", [1, 1, 1, 1]), ("linear", [1, 2, 3, 4]), ("exponential", [1, 2, 4, 5])])
def test_each_strategy_grows_in_its_way_up_to_the_cap(strategy: str, delays: list[float]) -> None:
    assert [retry.delay_s(plan(strategy=strategy, max_delay=5.0), n) for n in (1, 2, 3, 4)] == delays


@given(st.sampled_from(["constant", "linear", "exponential"]), SECONDS, SECONDS, st.floats(0, 1), st.integers(1, 10_000), st.floats(0, 1))
def test_jitter_stays_within_its_bounds(strategy: str, initial: float, cap: float, jitter: float, attempt: int, chance: float) -> None:
    wanted = plan(strategy=strategy, initial_delay=initial, max_delay=cap, jitter=jitter)
    middle = retry.delay_s(wanted | {"jitter": 0.0}, attempt)
    found = retry.delay_s(wanted, attempt, lambda: chance)
    assert 0 <= middle <= cap
    assert middle * (1 - jitter) - 1e-6 <= found <= middle * (1 + jitter) + 1e-6


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_only_kinds_that_another_attempt_can_help_are_tried_again(kind: ErrorKind) -> None:
    assert retry.again(plan(), 1, {"kind": kind.value}, None) is RETRYABLE[kind]
    assert retry.again(plan(), 3, {"kind": kind.value}, None) is False
    assert retry.again(None, 1, {"kind": kind.value}, None) is False


def test_chosen_exit_codes_are_tried_again() -> None:
    error = {"kind": "execution_failed"}
    assert retry.again(plan(on_exit_codes=[75]), 1, error, 75)
    assert not retry.again(plan(on_exit_codes=[75]), 1, error, 1)
    assert not retry.again(plan(on_exit_codes=[0]), 1, error, None)


def limited(at: object) -> dict[str, object]:
    return {"kind": "rate_limited", "message": "", "details": {"resets_at": at}}


def test_a_rate_limit_is_waited_for_until_its_reset_whatever_the_strategy_says() -> None:
    wait = retry.wait_s(plan(max_delay=0.01, initial_delay=0.01), 1, limited(time.time() + 100))
    assert 99 < wait < 102
    assert retry.wait_s(plan(max_delay=0.01, initial_delay=0.01), 1, limited(time.time() - 100)) < 2


@pytest.mark.parametrize("at", [None, "soon", True, float("inf"), float("nan"), 1e30, [1]])
def test_a_reset_that_cannot_be_believed_leaves_it_to_the_strategy(at: object) -> None:
    assert retry.wait_s(plan(jitter=0.0, initial_delay=0.5), 1, limited(at)) == 0.5
    assert retry.again(plan(), 1, limited(at), None, 1.0)


def test_resets_of_other_errors_mean_nothing() -> None:
    assert retry.until_reset_s(limited(time.time() + 5) | {"kind": "runtime_error"}) is None


def test_a_reset_that_is_later_than_the_timeout_is_not_waited_for() -> None:
    error = limited(time.time() + 100)
    assert not retry.again(plan(), 1, error, None, 50.0)
    assert "later than the timeout of 50 s" in str(retry.too_late(plan(), error, 50.0))
    assert retry.again(plan(), 1, error, None, 200.0)
    assert retry.again(plan(), 1, error, None, None)
    assert retry.too_late(None, error, 50.0) is None
