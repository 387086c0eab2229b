"""When a failed attempt is tried again, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from agentnb.engine.work import RetryPlan
from agentnb.events import Json
from agentnb.states import worth_retrying

#: A reset that is farther away than this is not believed.
MAX_RESET_S = 8 * 24 * 3600.0
#: Resets are told in whole seconds: this much later nobody is too early.
RESET_S = 0.5


def delay_s(plan: RetryPlan, attempt: int, rng: Callable[[], float] = random.random) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): the strategy's delay, capped, then jittered."""
    factor = {"constant": 1.0, "linear": float(attempt), "exponential": 2.0 ** min(attempt - 1, 62)}[plan["strategy"]]
    delay = min(plan["initial_delay"] * factor, plan["max_delay"])
    return float(delay * (1 + plan["jitter"] * (2 * rng() - 1)))


def until_reset_s(error: Json, now: float | None = None) -> float | None:
    """Seconds until the rate limit that `error` tells of is over; None when it says nothing of that, or nothing to be believed."""
    at = (error.get("details") or {}).get("resets_at") if error["kind"] == "rate_limited" else None
    if isinstance(at, bool) or not isinstance(at, int | float):
        return None
    left = at - (time.time() if now is None else now)
    return max(left, 0.0) if left <= MAX_RESET_S else None


def wait_s(plan: RetryPlan, attempt: int, error: Json, rng: Callable[[], float] = random.random) -> float:
    """Seconds to wait after attempt number `attempt`, which failed with `error`: until a rate limit's reset, else the strategy's delay."""
    if (left := until_reset_s(error)) is None:
        return delay_s(plan, attempt, rng)
    return left + RESET_S + plan["jitter"] * rng()


def too_late(plan: RetryPlan | None, error: Json, timeout_s: float | None) -> str | None:
    """Why a rate limit is not waited for: its reset is later than the run's timeout; None when it is waited for, or there is none."""
    left = until_reset_s(error)
    if plan is None or left is None or timeout_s is None or left <= timeout_s:
        return None
    return f"the rate limit resets in {left:.0f} s, later than the timeout of {timeout_s:g} s: it was not waited for"


def again(plan: RetryPlan | None, attempt: int, error: Json, exit_code: int | None, timeout_s: float | None = None) -> bool:
    """Whether attempt number `attempt`, which failed with `error`, is followed by another one."""
    if plan is None or attempt >= plan["max_attempts"] or too_late(plan, error, timeout_s):
        return False
    return worth_retrying(error) or (exit_code is not None and exit_code in plan["on_exit_codes"])
