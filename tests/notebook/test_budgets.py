"""Budgets of runs, groups and sessions: spent by real agents, enforced by a real supervisor, shown in every view."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.notebook.budget import Budget, bounds_of
from agentnb.notebook.parts import head_state, run_state
from agentnb.notebook.render import to_html, to_text
from agentnb.states import ErrorKind, RunStatus
from tests.notebook.polling import until

Make = Callable[..., Any]


async def spend(ctx: nb.RunContext, tokens: int = 10, usd: float = 0.0, times: int = 1) -> str:
    """Spends at once, and goes on for ever when it is not stopped by that."""
    import asyncio

    for _ in range(times):
        ctx.usage(input_tokens=tokens, cost_usd=usd)
        await asyncio.sleep(0.01)
    return "done"


async def spend_and_stay(ctx: nb.RunContext, tokens: int = 10, usd: float = 0.0) -> None:
    import asyncio

    ctx.usage(input_tokens=tokens, cost_usd=usd)
    await asyncio.sleep(600)


def test_a_session_tells_what_is_spent_and_what_remains(new_session: Make) -> None:
    session = new_session(budget_usd=5, budget_tokens=200_000, budget_time="1h")
    session.launch(nb.Python(spend, tokens=12_000, usd=0.42)).wait()
    budget = session.budget
    assert budget is not None
    assert budget.bounds == {"usd": 5.0, "tokens": 200_000, "time": 3600.0}
    assert (budget.spent["usd"], budget.spent["tokens"]) == (0.42, 12_000)
    assert budget.remaining["tokens"] == 188_000
    assert 0 < budget.spent["time"] < 600
    assert not budget.exhausted
    assert str(budget).startswith("$0.42 of $5 · 12k of 200k tokens · ")


def test_without_a_budget_there_is_none(session) -> None:
    run = session.shell("true")
    group = session.map(nb.Shell("true"), [{}])
    group.wait()
    assert (session.budget, run.budget, group.budget) == (None, None, None)


def test_crossing_a_sessions_budget_ends_its_live_runs_and_those_that_wait_never_start(new_session: Make) -> None:
    session = new_session(max_parallel=2, budget_tokens=100)
    long = session.shell("sleep 600", name="long")
    until(lambda: long.status is RunStatus.RUNNING)
    big = session.launch(nb.Python(spend_and_stay, tokens=101))
    waiting = session.shell("touch never")
    for run in (long, big, waiting):
        run.wait(30)
        assert (run.status, run.error and run.error.kind) == (RunStatus.FAILED, ErrorKind.BUDGET_EXCEEDED)
        with pytest.raises(nb.BudgetExceeded, match="budget_tokens=100 is spent"):
            run.result.raise_for_status()
    assert long.error.details == {"budget": "budget_tokens", "bound": 100, "spent": 101, "scope": "session"}
    assert "it was not started" in waiting.error.message
    assert not Path("never").exists()
    frame = session.runs_df(columns=["name", "status", "error_kind", "attempts", "started_at"])
    assert set(frame["error_kind"]) == {"budget_exceeded"}
    assert frame["started_at"].isna().tolist() == [False, False, True]
    assert session.events_df()["type"].tolist().count("budget_crossed") == 1


def test_a_session_that_has_spent_its_budget_launches_nothing_and_says_what_to_do(new_session: Make) -> None:
    session = new_session("poor", budget_usd=1)
    session.launch(nb.Python(spend, usd=1.0)).wait().raise_for_status()
    for launch in (lambda: session.shell("true"), lambda: session.map(nb.Shell("true"), [{}])):
        with pytest.raises(nb.BudgetExceeded, match=re.escape("session 'poor' has spent its budget ($1.00 of $1); start a new session")):
            launch()
    assert len(session.runs) == 1


def test_a_groups_budget_ends_the_group_and_nothing_else(new_session: Make) -> None:
    session = new_session(max_parallel=3)
    other = session.shell("sleep 600")
    group = session.map(nb.Python(spend_and_stay), [{"usd": 0.4}, {"usd": 0.7}, {"usd": 0.1}], budget_usd=1, max_parallel=2)
    group.wait(30)
    assert [run.error.kind for run in group] == [ErrorKind.BUDGET_EXCEEDED] * 3
    assert group.budget.crossed == "usd"
    assert group.budget.spent["usd"] == pytest.approx(1.1)
    assert group[0].error.details["scope"] == "group"
    assert not other.done
    assert session.budget is None
    other.cancel()
    other.wait()


def test_a_runs_budget_bounds_time_over_all_of_its_attempts(session) -> None:
    retry = nb.Retry(max_attempts=1000, initial_delay=0.05, strategy="constant", on_exit_codes=[1])
    result = session.shell("exit 1", budget_time=0.6, retry=retry).wait(30)
    assert result.error.kind is ErrorKind.BUDGET_EXCEEDED
    assert result.attempts > 1
    slow = session.shell("sleep 600", budget_time="300ms").wait(30)
    assert (slow.error.kind, slow.error.details["budget"]) == (ErrorKind.BUDGET_EXCEEDED, "budget_time")
    assert slow.duration < 30


def test_a_retried_run_pays_for_all_of_its_attempts(new_session: Make) -> None:
    def unlucky(ctx: nb.RunContext) -> str:
        ctx.usage(input_tokens=40, output_tokens=2, cost_usd=0.25)
        if ctx.attempt < 3:
            import sys

            sys.exit(75)
        return "at last"

    session = new_session(budget_tokens=1000)
    retry = nb.Retry(max_attempts=3, initial_delay=0, on_exit_codes=[75])
    run = session.python(unlucky, retry=retry)
    assert run.wait(60).output == "at last"
    row = session.runs_df().iloc[0]
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"], row["attempts"]) == (120, 6, 0.75, 3)
    assert session.budget.spent["tokens"] == 126
    assert session.steps_df()["input_tokens"].tolist() == [40, 40, 40]
    strict = session.python(unlucky, retry=retry, budget_tokens=60).wait(60)
    assert (strict.attempts, strict.error.kind) == (2, ErrorKind.BUDGET_EXCEEDED)


def test_steps_that_cost_count_where_the_agent_says_nothing_of_the_whole(session) -> None:
    def steps_only() -> None:
        import os
        import time

        for number in range(3):
            for report in (
                {"t": "step", "id": str(number), "name": "turn", "kind": "turn", "status": "running"},
                {"t": "step", "id": str(number), "status": "completed", "tokens": {"input": 30, "output": 10}, "cost_usd": 0.5},
            ):
                os.write(3, json.dumps(report).encode() + b"\n")
        time.sleep(600)

    run = session.python(steps_only, budget_tokens=100)
    assert run.wait(60).error.details == {"budget": "budget_tokens", "bound": 100, "spent": 120, "scope": "run"}
    assert session.runs_df()["cost_usd"].tolist() == [1.5]


def test_a_budget_that_is_crossed_by_the_last_report_of_a_run_fails_it_and_keeps_its_output(session) -> None:
    def last_word(ctx: nb.RunContext) -> str:
        ctx.usage(input_tokens=11)
        return "the answer"

    for _ in range(3):
        run = session.python(last_word, budget_tokens=10)
        assert run.wait(60).error.kind is ErrorKind.BUDGET_EXCEEDED
    assert session.python(last_word, budget_tokens=11).wait(60).output == "the answer"


def test_what_was_spent_survives_the_death_of_the_supervisor(new_session: Make) -> None:
    session = new_session(budget_tokens=100, budget_time="1h")
    session.launch(nb.Python(spend, tokens=60)).wait()
    lost = session.launch(nb.Python(spend_and_stay, tokens=30))
    until(lambda: session.budget.spent["tokens"] == 90 and lost.status is RunStatus.RUNNING)
    began = time.time() - session.budget.spent["time"]
    os.kill(session._engine.ready.result(10), signal.SIGKILL)
    lost.wait(30)
    assert lost.status is RunStatus.INTERRUPTED
    assert session.budget.spent["tokens"] == 90
    assert session.launch(nb.Python(spend, tokens=5)).wait(30).status is RunStatus.COMPLETED
    assert session.budget.spent["tokens"] == 95
    assert abs(time.time() - session.budget.spent["time"] - began) < 2
    assert session.launch(nb.Python(spend_and_stay, tokens=6)).wait(30).error.kind is ErrorKind.BUDGET_EXCEEDED
    with pytest.raises(nb.BudgetExceeded):
        session.shell("true")


def test_a_detached_run_is_refused_where_a_sessions_budget_would_not_bound_it(new_session: Make) -> None:
    with pytest.raises(nb.ConfigError, match="detached run outlives the session"):
        new_session(budget_usd=1).shell("true", detach=True)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("budget_usd", "five", "is no amount"),
        ("budget_usd", float("nan"), "is no amount"),
        ("budget_usd", 0, "must be more than zero"),
        ("budget_usd", True, "is no amount"),
        ("budget_tokens", 1.5, "no whole number"),
        ("budget_tokens", -3, "more than zero"),
        ("budget_time", "soon", "is not a duration"),
        ("budget_time", 0, "more than zero"),
    ],
)
def test_a_bad_bound_is_named_before_anything_starts(session, option: str, value: Any, words: str) -> None:
    with pytest.raises(nb.ConfigError, match=f"{option}.*{words}"):
        session.shell("true", **{option: value})
    with pytest.raises(nb.ConfigError, match=f"{option}.*{words}"):
        nb.Session("bad", **{option: value})
    assert session.runs == []


def test_every_view_shows_the_budget_warns_past_80_percent_and_says_when_it_is_spent(new_session: Make) -> None:
    session = new_session(budget_usd=5, budget_tokens=200_000)
    for usd, level, words in ((0.42, "good", "$0.42 of $5 · 12k of 200k tokens"), (4.0, "near", ": 88 %"), (1.0, "spent", ": spent")):
        run = session.launch(nb.Python(spend, tokens=12_000 if level == "good" else 1, usd=usd), budget_usd=100)
        run.wait()
        snapshot = session.snapshot()
        state = head_state(snapshot)["budget"]
        assert state["level"] == level
        assert words in state["text"]
        assert f"budget {state['text']}" in to_text(snapshot)
        assert f"anb-b-{level}" in to_html(snapshot)
        assert f"${usd:.2f} of $100" in to_text(run.snapshot())
        assert run_state(run.snapshot())["budget"]["level"] == "good"
    assert state["share"] == 1.0


def test_the_clock_of_a_budget_stands_still_once_all_is_over(new_session: Make) -> None:
    session = new_session(budget_time=100)
    group = session.map(nb.Shell("true"), [{}, {}], budget_time=50)
    group.wait()
    spent = group.budget.spent["time"]
    session.end()
    ended = session.budget.spent["time"]
    time.sleep(0.05)
    assert (group.budget.spent["time"], session.budget.spent["time"]) == (spent, ended)


def test_a_budget_is_read_by_people_in_words() -> None:
    budget = Budget("run", {"tokens": 1_500_000, "time": 90}, {"usd": 0.0, "tokens": 950, "time": 30.0})
    assert repr(budget) == "<Budget of the run: 950 of 1.5M tokens · 30.0 s of 1 m 30 s>"
    assert budget.share == pytest.approx(1 / 3)
    assert bounds_of({"budget_usd": None, "timeout": 3}) is None
