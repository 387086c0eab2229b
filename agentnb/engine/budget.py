"""Budgets: what a run, a group or a session may spend; counted as it is reported, and enforced at once.

Work that is live may use a budget up to its bound; the report that takes it past the bound stops all live work of the scope by the
ladder. Once nothing is left, nothing of the scope starts any more. Runs that report nothing use only time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from agentnb.engine.stop import Stop
from agentnb.events import BudgetCrossed, BudgetSpent, Json, Message, now_us

#: The bounds that there are: dollars, tokens, seconds since the first start.
BOUNDS = ("budget_usd", "budget_tokens", "budget_time")
#: Amounts that differ by less than this are equal: sums of dollars are not exact.
_EXACT = 1e-9
#: A replay spends nothing.
_FREE = "replay"


class Budget:
    """The budget of one scope: `scope` is run, group or session. `bounds`: a value for each of BOUNDS that is bounded."""

    def __init__(self, scope: str, scope_id: str, session_id: str, bounds: Json, spent: Json | None = None) -> None:
        """`spent`: what was spent before this supervisor, as `cost_usd`, `tokens` and `began` (microseconds UTC, or None)."""
        self.scope, self.id, self.session_id, self.bounds = scope, scope_id, session_id, bounds
        before = spent or {}
        self.cost_usd: float = before.get("cost_usd") or 0.0
        self.tokens: int = before.get("tokens") or 0
        self.began: int | None = None
        self._since = 0.0
        if (began := before.get("began")) is not None:
            self.begin(began)
        self.members: dict[str, None] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.crossed = ""

    def begin(self, at: int) -> None:
        """Time runs since then (microseconds UTC)."""
        self.began = at
        self._since = time.monotonic() - max(now_us() - at, 0) / 1e6  # the clock may be set meanwhile

    def spent(self, bound: str) -> float:
        """What was spent of this bound so far."""
        if bound == "budget_usd":
            return self.cost_usd
        if bound == "budget_tokens":
            return self.tokens
        return time.monotonic() - self._since if self.began is not None else 0.0

    def past(self) -> str:
        """The first bound that is crossed, or ""."""
        return self.crossed or next((name for name, most in self.bounds.items() if self.spent(name) - most > _EXACT), "")

    def empty(self) -> str:
        """The first bound of which nothing is left, or ""."""
        return self.crossed or next((name for name, most in self.bounds.items() if most - self.spent(name) <= _EXACT), "")

    def why(self, bound: str, *, waiting: bool) -> Stop:
        """The reason to end a run of the scope, or not to begin it."""
        most, spent = self.bounds[bound], self.spent(bound)
        told = f"the {self.scope}'s {bound}={most:g} is spent: {_amount(bound, spent)}"
        message = f"it was not started: {told}" if waiting else told
        return Stop("failed", "budget_exceeded", message, {"budget": bound, "bound": most, "spent": spent, "scope": self.scope})

    def signal(self) -> BudgetSpent:
        """Where it stands, for the client."""
        return BudgetSpent(self.id, self.cost_usd, self.tokens, self.began, self.crossed)


def _amount(bound: str, spent: float) -> str:
    if bound == "budget_usd":
        return f"${spent:.4f}" if spent < 1 else f"${spent:,.2f}"
    return f"{spent:,.0f} tokens" if bound == "budget_tokens" else f"{spent:.1f} s since the first start"


class Budgets:
    """Every budget of a supervisor, and the live and waiting runs that count for them."""

    def __init__(
        self, emit: Callable[[str, Message], None], tell: Callable[[Message], None], stop: Callable[[str, Stop, bool], None]
    ) -> None:
        """`emit` records an event of a session; `stop` ends a live run (False) or a waiting one (True)."""
        self._emit = emit
        self._tell = tell
        self._stop = stop
        self._scopes: dict[str, Budget] = {}
        self._of_run: dict[str, tuple[Budget, ...]] = {}
        self._reported: dict[str, tuple[int, float]] = {}

    def open(self, session_id: str, asked: Json, recorded: Json) -> None:
        """A session has this budget. `recorded`: what its history says of what is spent, `asked["spent"]` what its client knows."""
        bounds = {name: most for name, most in asked.items() if name in BOUNDS}
        known: Json = asked.get("spent") or {}
        spent = {name: max(recorded.get(name) or 0, known.get(name) or 0) for name in ("cost_usd", "tokens")}
        spent["began"] = recorded.get("began") or known.get("began")
        self._scopes[session_id] = budget = Budget("session", session_id, session_id, bounds, spent)
        if budget.began is not None:
            self._arm(budget)
        self._tell(budget.signal())

    def close(self, session_id: str) -> None:
        """The session is over, and all its budgets with it."""
        for budget in [budget for budget in self._scopes.values() if budget.session_id == session_id]:
            self._disarm(budget)
            del self._scopes[budget.id]

    def concern(self, work: Any) -> bool:
        """Whether a launch has to be looked at: most have no budget, and there is none."""
        return bool(self._scopes) or "budget" in work or "group_budget" in work

    def enter(self, run: Json, work: Any) -> Stop | None:
        """A run was launched: find what it counts for. Returns why it must not start, if so.

        Children count for all that their parent counts for.
        """
        if run["target"]["kind"] == _FREE:
            return None
        found = dict.fromkeys([*self._own(run, work), *self._of_run.get(run.get("parent_run_id") or "", ())])
        if (session := self._scopes.get(run["session_id"])) is not None:
            found[session] = None
        for budget in found:
            if bound := budget.empty():
                return budget.why(bound, waiting=True)
        if found:
            self._of_run[run["id"]] = tuple(found)
            for budget in found:
                budget.members[run["id"]] = None
        return None

    def _own(self, run: Json, work: Any) -> Iterable[Budget]:
        for scope, name, scope_id in (("run", "budget", run["id"]), ("group", "group_budget", work.get("group"))):
            if bounds := work.get(name):
                if scope_id not in self._scopes:
                    self._scopes[scope_id] = Budget(scope, scope_id, run["session_id"], bounds)
                yield self._scopes[scope_id]

    def started(self, run_id: str) -> None:
        """A run left the queue: time runs from the first one on."""
        for budget in self._of_run.get(run_id, ()):
            if budget.began is None:
                budget.begin(now_us())
                self._tell(budget.signal())
            if budget.timer is None:
                self._arm(budget)

    def used(self, run_id: str, tokens: int, cost_usd: float) -> None:
        """A run says what it has used so far, all in all."""
        scopes = self._of_run.get(run_id)
        if scopes is None:
            return
        before = self._reported.get(run_id, (0, 0.0))
        more = max(tokens - before[0], 0), max(cost_usd - before[1], 0.0)
        self._reported[run_id] = before[0] + more[0], before[1] + more[1]
        for budget in scopes:
            budget.tokens += more[0]
            budget.cost_usd += more[1]
        for budget in scopes:
            self._check(budget)

    def remaining_usd(self, run_id: str) -> float | None:
        """The dollars that a run may still spend; None when nothing bounds them."""
        scopes = [budget for budget in self._of_run.get(run_id, ()) if "budget_usd" in budget.bounds]
        return min((max(budget.bounds["budget_usd"] - budget.cost_usd, 0.0) for budget in scopes), default=None)

    def leave(self, run_id: str) -> None:
        """A run is over."""
        self._reported.pop(run_id, None)
        for budget in self._of_run.pop(run_id, ()):
            budget.members.pop(run_id, None)
            if not budget.members and budget.scope != "session":
                self._disarm(budget)
                if budget.scope == "run":
                    self._scopes.pop(budget.id, None)

    def _check(self, budget: Budget) -> None:
        past, empty = budget.past(), budget.empty()
        if past and not budget.crossed:
            budget.crossed = past
            told = budget.bounds[past], budget.spent(past)
            run_id = budget.id if budget.scope == "run" else None
            self._emit(budget.session_id, BudgetCrossed(budget.session_id, budget.scope, budget.id, past, *told, run_id))
        self._tell(budget.signal())
        for run_id in list(budget.members) if empty else ():
            self._stop(run_id, budget.why(empty, waiting=True), True)  # noqa: FBT003 - nothing new starts
        for run_id in list(budget.members) if past else ():
            self._stop(run_id, budget.why(past, waiting=False), False)  # noqa: FBT003

    def _arm(self, budget: Budget) -> None:
        if (most := budget.bounds.get("budget_time")) is not None and not budget.crossed:
            loop = asyncio.get_running_loop()
            budget.timer = loop.call_later(max(most - budget.spent("budget_time"), 0.0), self._time_up, budget)

    def _time_up(self, budget: Budget) -> None:
        budget.timer = None
        if budget.past():
            self._check(budget)
        else:  # the timer is early, by less than the clock can tell
            budget.timer = asyncio.get_running_loop().call_later(0.01, self._time_up, budget)

    def _disarm(self, budget: Budget) -> None:
        if budget.timer is not None:
            budget.timer.cancel()
            budget.timer = None
