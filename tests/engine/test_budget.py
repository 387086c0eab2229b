"""Budgets: what counts, when it is crossed, and who is stopped."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.engine.budget import Budget, Budgets
from agentnb.engine.stop import Stop
from agentnb.events import BudgetCrossed, BudgetSpent, Message, now_us


class Desk:
    """Budgets whose stops, signals and events are written down."""

    def __init__(self) -> None:
        self.stopped: list[tuple[str, Stop, bool]] = []
        self.told: list[Message] = []
        self.events: list[Message] = []
        self.budgets = Budgets(lambda _, event: self.events.append(event), self.told.append, self._stop)

    def _stop(self, run_id: str, why: Stop, waiting: bool) -> None:
        self.stopped.append((run_id, why, waiting))

    def enter(self, run_id: str, *, kind: str = "python", parent: str | None = None, session: str = "s", **work: Any) -> Stop | None:
        return self.budgets.enter({"id": run_id, "session_id": session, "parent_run_id": parent, "target": {"kind": kind}}, work)

    @property
    def live_stops(self) -> list[str]:
        return [run_id for run_id, _, waiting in self.stopped if not waiting]


def opened(**bounds: float) -> Desk:
    desk = Desk()
    desk.budgets.open("s", bounds, {})
    return desk


def test_totals_of_a_run_are_counted_once_however_often_they_are_told() -> None:
    desk = opened(budget_tokens=100)
    assert desk.enter("a") is None
    for total in (10, 30, 30, 20, 60):
        desk.budgets.used("a", total, 0.0)
    last = desk.told[-1]
    assert isinstance(last, BudgetSpent)
    assert last.tokens == 60
    assert desk.stopped == []


def test_up_to_its_bound_a_budget_may_be_used_but_nothing_new_starts_then() -> None:
    desk = opened(budget_usd=0.3)
    desk.enter("a")
    for total in (0.1, 0.2, 0.30000000000000004):
        desk.budgets.used("a", 0, total)
    assert desk.live_stops == []
    refused = desk.enter("b")
    assert refused is not None
    assert refused.kind == "budget_exceeded"
    assert refused.message.startswith("it was not started")


def test_the_report_that_crosses_stops_every_live_run_of_the_scope_and_is_recorded_once() -> None:
    desk = opened(budget_tokens=100)
    desk.enter("a")
    desk.enter("b")
    desk.budgets.used("a", 101, 0.0)
    desk.budgets.used("b", 5, 0.0)
    assert set(desk.live_stops) == {"a", "b"}
    why = next(why for _, why, waiting in desk.stopped if not waiting)
    assert (why.status, why.details) == ("failed", {"budget": "budget_tokens", "bound": 100, "spent": 101, "scope": "session"})
    crossed = [event for event in desk.events if isinstance(event, BudgetCrossed)]
    assert [(event.scope, event.scope_id, event.spent) for event in crossed] == [("session", "s", 101)]


def test_a_group_and_a_run_have_budgets_of_their_own_and_children_count_for_all_of_their_parents() -> None:
    desk = Desk()
    desk.enter("parent", group="g", group_budget={"budget_tokens": 50})
    desk.enter("other", group="g", group_budget={"budget_tokens": 50})
    desk.enter("child", parent="parent", budget={"budget_tokens": 40})
    desk.enter("stranger")
    desk.budgets.used("child", 30, 0.0)
    desk.budgets.used("stranger", 1000, 0.0)
    assert desk.live_stops == []
    desk.budgets.used("other", 25, 0.0)
    assert set(desk.live_stops) == {"parent", "other", "child"}


def test_the_budget_of_a_run_stops_it_and_its_children_only() -> None:
    desk = opened(budget_tokens=1000)
    desk.enter("a", budget={"budget_tokens": 10})
    desk.enter("kid", parent="a")
    desk.enter("b")
    desk.budgets.used("kid", 11, 0.0)
    assert set(desk.live_stops) == {"a", "kid"}


def test_a_replay_is_free_and_starts_even_when_nothing_is_left() -> None:
    desk = opened(budget_tokens=10)
    desk.enter("a")
    desk.budgets.used("a", 10, 0.0)
    assert desk.enter("played", kind="replay") is None
    desk.budgets.used("played", 1_000_000, 5.0)
    assert desk.live_stops == []


def test_what_was_spent_before_the_supervisor_came_counts() -> None:
    desk = Desk()
    desk.budgets.open("s", {"budget_tokens": 100, "budget_usd": 5}, {"cost_usd": None, "tokens": 99, "began": None})
    assert desk.enter("a") is None
    desk.budgets.used("a", 2, 0.0)
    assert desk.live_stops == ["a"]


def test_of_what_the_history_and_the_client_know_of_a_session_the_more_counts() -> None:
    desk = Desk()
    known = {"cost_usd": 1.0, "tokens": 50, "began": None}
    desk.budgets.open("s", {"budget_tokens": 100, "spent": known}, {"cost_usd": 2.0, "tokens": 40, "began": None})
    told = desk.told[-1]
    assert isinstance(told, BudgetSpent)
    assert (told.cost_usd, told.tokens) == (2.0, 50)


def test_runs_that_are_over_are_not_stopped_and_what_they_used_stays_used() -> None:
    desk = opened(budget_tokens=100)
    desk.enter("a")
    desk.budgets.used("a", 60, 0.0)
    desk.budgets.leave("a")
    desk.enter("b")
    desk.budgets.used("b", 41, 0.0)
    assert desk.live_stops == ["b"]
    desk.budgets.close("s")
    assert not desk.budgets.concern({})


def test_time_runs_from_the_first_start_and_stops_what_is_live_then() -> None:
    async def main() -> None:
        desk = opened(budget_time=0.05)
        desk.enter("a")
        await asyncio.sleep(0.1)
        assert desk.live_stops == []  # it waits in the queue
        desk.budgets.started("a")
        deadline = time.monotonic() + 10
        while not desk.live_stops and time.monotonic() < deadline:  # noqa: ASYNC110 - it is what is tested that stops
            await asyncio.sleep(0.01)
        assert desk.live_stops == ["a"]
        assert desk.enter("late") is not None

    asyncio.run(main())


def test_the_clock_of_a_group_stops_with_its_last_run() -> None:
    async def main() -> None:
        desk = Desk()
        desk.enter("a", group="g", group_budget={"budget_time": 0.05})
        desk.budgets.started("a")
        desk.budgets.leave("a")
        await asyncio.sleep(0.15)
        assert desk.events == []

    asyncio.run(main())


def test_a_session_that_began_long_ago_has_no_time_left() -> None:
    async def main() -> None:
        desk = Desk()
        desk.budgets.open("s", {"budget_time": 60}, {"cost_usd": 0, "tokens": 0, "began": now_us() - 61_000_000})
        assert desk.enter("a") is not None
        desk.budgets.close("s")

    asyncio.run(main())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.floats(0, 2)), max_size=30),
    st.integers(1, 200),
    st.floats(0.01, 20),
)
def test_a_budget_is_crossed_exactly_when_the_sum_of_the_largest_totals_is_more(
    reports: list[tuple[str, int, float]], tokens: int, usd: float
) -> None:
    desk = opened(budget_tokens=tokens, budget_usd=usd)
    for run in "abc":
        desk.enter(run)
    seen: dict[str, tuple[int, float]] = {}
    for run, count, cost in reports:
        desk.budgets.used(run, count, cost)
        before = seen.get(run, (0, 0.0))
        seen[run] = max(before[0], count), max(before[1], cost)
    spent = sum(count for count, _ in seen.values()), sum(cost for _, cost in seen.values())
    if abs(spent[1] - usd) > 1e-6:
        crossed = bool(desk.events)
        assert crossed == (spent[0] > tokens or spent[1] > usd)
        assert bool(desk.live_stops) == crossed


@pytest.mark.parametrize(
    ("bound", "words"), [("budget_usd", "$7.50"), ("budget_tokens", "8 tokens"), ("budget_time", "since the first start")]
)
def test_a_stop_says_what_was_spent(bound: str, words: str) -> None:
    budget = Budget("run", "r", "s", {bound: 1}, {"cost_usd": 7.5, "tokens": 8, "began": now_us() - 9_000_000})
    assert words in budget.why(bound, waiting=False).message
