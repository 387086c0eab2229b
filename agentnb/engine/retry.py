"""When a failed attempt is tried again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable

from agentnb.engine.work import RetryPlan
from agentnb.events import Json
from agentnb.states import RETRYABLE, ErrorKind


def delay_s(plan: RetryPlan, attempt: int, rng: Callable[[], float] = random.random) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): the strategy's delay, capped, then jittered."""
    factor = {"constant": 1.0, "linear": float(attempt), "exponential": 2.0 ** min(attempt - 1, 62)}[plan["strategy"]]
    delay = min(plan["initial_delay"] * factor, plan["max_delay"])
    return float(delay * (1 + plan["jitter"] * (2 * rng() - 1)))


def again(plan: RetryPlan | None, attempt: int, error: Json, exit_code: int | None) -> bool:
    """Whether attempt number `attempt`, which failed with `error`, is followed by another one."""
    if plan is None or attempt >= plan["max_attempts"]:
        return False
    return RETRYABLE[ErrorKind(error["kind"])] or (exit_code is not None and exit_code in plan["on_exit_codes"])
