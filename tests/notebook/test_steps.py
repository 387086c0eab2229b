"""The steps of a run: from events and from the history, in any order, bounded, as a tree."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.events import StepFinished, StepStarted, StepUsed
from agentnb.history import reader
from agentnb.notebook.handles import live_runs
from agentnb.notebook.snapshot import StepSnapshot
from agentnb.notebook.sources import RunSource, RunsSource
from agentnb.notebook.steps import MAX_STEPS, MAX_TEXT, StepLog, brief, latest, tree
from tests.notebook.polling import until


def started(number: int, **how: Any) -> StepStarted:
    return StepStarted("r", f"s{number}", "tool", "Bash", at=1_000_000 * number, **how)


def finished(number: int, status: str = "completed", **how: Any) -> StepFinished:
    return StepFinished("r", f"s{number}", status, at=1_000_000 * number + 500_000, **how)


def test_a_step_has_its_start_its_end_and_the_first_end_counts() -> None:
    log = StepLog()
    log.started(started(1, input={"command": "ls", "description": "look"}))
    [step] = log.shown()
    assert (step.status, step.started_at, step.input) == ("running", 1.0, "command=ls description=look")
    assert log.shown() is log.shown()
    log.finished(finished(1, "failed", error={"message": "exit code 1"}, tokens={"input": 12, "output": "many"}))
    log.finished(finished(1))
    log.finished(finished(2))
    [step] = log.shown()
    assert (step.status, step.elapsed_s, step.error, step.input_tokens, step.output_tokens) == ("failed", 0.5, "exit code 1", 12, None)


def test_of_many_steps_the_latest_are_kept_with_those_that_they_belong_to() -> None:
    log = StepLog(most=10)
    log.started(StepStarted("r", "a", "attempt", "attempt 1", at=0))
    for turn in range(4):
        log.started(StepStarted("r", f"t{turn}", "turn", f"turn {turn}", parent_id="a", at=turn))
        for i in range(5):
            log.started(started(10 * turn + i, parent_id=f"t{turn}"))
    kept = [step.id for step in log.shown()]
    assert len(kept) <= 10
    assert kept[0] == "a"
    assert kept[-6:] == ["t3", "s30", "s31", "s32", "s33", "s34"]
    assert log.cut == 25 - len(kept)


def row(number: int, status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"s{number}", "parent_id": None, "kind": "tool", "name": "Bash", "status": status, "started_at": 1_000_000 * number,
        "finished_at": None if status == "running" else 1_000_000 * number + 250_000, "run_s": None, "exit_code": 0, "input_tokens": 1,
        "output_tokens": 2, "cost_usd": None, "input": '{"command": "ls', "output": '"text"', "error": None,
    }  # fmt: skip


def test_rows_of_the_history_come_before_what_began_since_and_know_no_less() -> None:
    log = StepLog()
    log.started(started(2))
    log.finished(finished(2, "failed"))
    log.started(started(3))
    log.take([row(1), row(2, "running")], total=9)
    assert [(step.id, step.status) for step in log.shown()] == [("s1", "completed"), ("s2", "failed"), ("s3", "running")]
    assert log.cut == 6
    assert (log.shown()[0].elapsed_s, log.shown()[0].input, log.shown()[0].output) == (0.25, '{"command": "ls', "text")


def test_what_a_step_used_is_shown_once_it_is_known_and_only_of_one_that_has_ended() -> None:
    log = StepLog()
    log.started(started(1))
    log.used(StepUsed("r", "s1", {"input": 9}, 9.0))
    log.finished(finished(1, tokens={"input": 5}))
    before = log.shown()
    log.used(StepUsed("r", "s1", {"output": 7}, 0.5))
    log.used(StepUsed("r", "nobody", None, 0.5))
    assert log.shown() is not before
    (step,) = log.shown()
    assert (step.input_tokens, step.output_tokens, step.cost_usd) == (5, 7, 0.5)


EVENTS = st.lists(
    st.one_of(
        st.builds(lambda n, parent: started(n, parent_id=parent), st.integers(0, 30), st.sampled_from([None, "s0", "s1", "s7", "nobody"])),
        st.builds(finished, st.integers(0, 30), st.sampled_from(["completed", "failed", "skipped"])),
    ),
    max_size=80,
)


@given(EVENTS, st.integers(1, 12))
def test_whatever_comes_the_log_is_bounded_and_the_tree_has_each_step_once(events: list[Any], most: int) -> None:
    log = StepLog(most)
    for event in events:
        (log.started if isinstance(event, StepStarted) else log.finished)(event)
        assert len(log.shown()) <= most
    found = tree(log.shown())
    ids = [step.id for step, *_ in found]
    assert len(ids) == len(set(ids))
    depths = {step.id: depth for step, _, depth in found}
    assert all(depth == 0 if parent is None else depth == depths[parent] + 1 for _, parent, depth in found)
    pairs = itertools.pairwise(depth for *_, depth in found)
    assert all(later <= before + 1 for before, later in pairs)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60, unique_by=lambda pair: pair[0]), st.integers(1, 50))
def test_the_latest_steps_are_in_order_and_not_too_many_even_in_circles(pairs: list[tuple[int, int]], most: int) -> None:
    steps = [StepSnapshot(str(n), "tool", "x", parent_id=str(parent)) for n, parent in pairs]
    kept = latest(steps, most)
    assert len(kept) <= most
    assert [step for step in steps if step in kept] == kept


def test_what_a_step_was_given_is_told_by_its_most_telling_value() -> None:
    assert brief({"command": "ls"}) == "ls"
    assert brief({"b": 1, "file_path": "x.py"}) == "file_path=x.py b=1"
    assert brief(["a", 1]) == '["a", 1]'
    assert brief(None) == brief({}) == ""
    assert len(brief("x" * 10**6)) == MAX_TEXT
    assert len(brief({"content": "x" * 10**6, "path": "y" * 10**5})) <= MAX_TEXT


def test_steps_of_a_live_agent_come_as_they_happen_and_all_are_there_at_the_end(session: nb.Session, tmp_path: Path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"

    def agent(ctx: nb.RunContext) -> None:
        with ctx.step("before the view", kind="turn"):
            early.touch()
        while not late.exists():
            time.sleep(0.02)
        with ctx.step("in the view", kind="turn"), ctx.step("look", kind="tool", input={"query": "x"}):
            pass
        while late.exists():
            time.sleep(0.02)

    handle = session.python(agent)
    (run,) = live_runs([handle])
    until(early.exists)
    source = RunSource(run)
    assert [step.name for step, *_ in tree(source.snapshot().steps)] == []
    source.watch([run.id], True)

    def told() -> list[tuple[str, str, int]]:
        return [(step.name, step.status, depth) for step, _, depth in tree(source.snapshot().steps)]

    until(lambda: told() == [("before the view", "completed", 0)])
    late.touch()
    everything = [("before the view", "completed", 0), ("in the view", "completed", 0), ("look", "completed", 1)]
    until(lambda: told() == everything)
    assert source.snapshot().steps[-1].input == "x"
    source.watch([run.id], False)
    late.unlink()
    handle.wait()
    assert told() == everything
    group = RunsSource(lambda: [run], session.snapshot, lambda reason: None, lambda callback: None, lambda: None)
    found = group.detail(run.id)
    assert found is not None
    assert len(found.steps) == 4
    assert group.detail("nobody") is None


def test_only_the_last_steps_are_read_from_the_history_with_their_ancestors(session: nb.Session) -> None:
    def agent(ctx: nb.RunContext) -> None:
        with ctx.step("all", kind="turn"):
            for n in range(30):
                with ctx.step(f"step {n}", input="i" * 5000):
                    pass

    handle = session.python(agent)
    handle.wait()
    assert len(handle.steps) == 32
    rows, total = reader.read_last_steps(session.store, handle.id, 5)
    assert total == 32
    assert [row["name"] for row in rows] == ["attempt 1", "all", *[f"step {n}" for n in range(25, 30)]]
    assert max(len(row["input"] or "") for row in rows) <= 2000
    log = StepLog()
    log.take(rows, total)
    assert log.cut == 25
    assert replace(log.shown()[-1]).input.startswith("iii")
    assert MAX_STEPS == 500
