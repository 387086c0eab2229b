"""Who runs next: exact bounds, fair turns, no task for a waiting run."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agentnb.engine.scheduler import Queue, Waiting
from tests.engine.driver import Engine, Loop, running

BOUNDS = {"": None, "a": 1, "b": 2, "c": 9}


def item(run_id: str, group: str = "", bound: int | None = None) -> Waiting:
    return Waiting({"id": run_id}, {"group": group, "group_parallel": bound} if group else {})  # type: ignore[typeddict-item]


class Queues(RuleBasedStateMachine):
    """Puts, drops and ends in any order: bounds hold, nothing is lost, nothing waits that could run."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(3, self.start)
        self.groups: dict[str, str] = {}
        self.waiting: list[str] = []
        self.live: list[str] = []
        self.quick = False

    def start(self, waiting: Waiting) -> None:
        run_id = waiting.run["id"]
        self.waiting.remove(run_id)
        self.live.append(run_id)
        if self.quick:  # it is over before `start` returns
            self.end(run_id)

    def end(self, run_id: str) -> None:
        self.live.remove(run_id)
        self.queue.finished(run_id)

    @rule(group=st.sampled_from(sorted(BOUNDS)))
    def put(self, group: str) -> None:
        run_id = f"r{len(self.groups)}"
        self.groups[run_id] = group
        self.waiting.append(run_id)
        self.queue.put(item(run_id, group, BOUNDS[group]))

    @rule(pick=st.integers(0))
    def finish(self, pick: int) -> None:
        if self.live:
            self.end(self.live[pick % len(self.live)])

    @rule(pick=st.integers(0))
    def drop(self, pick: int) -> None:
        if self.waiting:
            run_id = self.waiting.pop(pick % len(self.waiting))
            dropped = self.queue.drop(run_id)
            assert dropped is not None
            assert dropped.run["id"] == run_id
        for run_id in (*self.live, "never"):
            assert self.queue.drop(run_id) is None

    @rule(quick=st.booleans())
    def ends_at_once(self, quick: bool) -> None:
        self.quick = quick

    @rule()
    def an_unknown_run_ends(self) -> None:
        self.queue.finished("never")

    @invariant()
    def bounds_are_exact(self) -> None:
        live = Counter(self.groups[run_id] for run_id in self.live)
        assert len(self.live) <= 3
        assert all(count <= (BOUNDS[group] or 3) for group, count in live.items())
        assert len(self.queue) == len(self.live) + len(self.waiting)
        assert set(self.queue.waiting) == set(self.waiting)
        if len(self.live) < 3:
            assert all(live[self.groups[run_id]] >= (BOUNDS[self.groups[run_id]] or 3) for run_id in self.waiting)


Queues.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueues = Queues.TestCase


def test_groups_take_turns_and_each_is_first_in_first_out() -> None:
    started: list[str] = []
    queue = Queue(1, lambda waiting: started.append(waiting.run["id"]))
    queue.put(item("first"))
    for n in range(3):
        queue.put(item(f"a{n}", "a", 4))
    for n in range(3):
        queue.put(item(f"b{n}", "b", 4))
    for _ in range(6):
        queue.finished(started[-1])
    assert started == ["first", "a0", "b0", "a1", "b1", "a2", "b2"]


def test_10_000_waiting_runs_are_cheap() -> None:
    queue = Queue(1, lambda _: None)
    start = time.process_time()
    for n in range(10_000):
        queue.put(item(f"r{n}", f"g{n % 7}", 2))
    for n in range(1, 10_000):
        queue.drop(f"r{n}")
    queue.finished("r0")
    assert len(queue) == 0
    assert time.process_time() - start < 2


def test_max_parallel_is_exact_with_real_commands(store: Path, loop: Loop) -> None:
    with running(store, loop, max_parallel=3) as engine:
        line = "touch live.$$; ls live.* | wc -l; sleep 0.1; rm live.$$"
        runs = [engine.launch(line) for _ in range(12)]
        counts = [int(run.stdout()) for run in runs]
    assert max(counts) == 3


def test_a_group_is_bounded_while_others_run(engine: Engine) -> None:
    group = [engine.launch("sleep 0.1", group="g", group_parallel=1) for _ in range(4)]
    others = [engine.launch("true") for _ in range(3)]
    assert {run.wait().status for run in group + others} == {"completed"}
    spans = sorted((run.of("run_started")[0].at, run.wait().at) for run in group)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert max(run.wait().at for run in others) < spans[1][0] + 100_000


def test_thousands_wait_without_tasks_and_end_when_they_are_cancelled(engine: Engine) -> None:
    blockers = [engine.launch("sleep 1000").started() for _ in range(4)]
    prepared = [engine.prepare("true") for _ in range(3000)]
    engine.client.send([message for _, message in prepared])
    engine.settle()
    runs = [run for run, _ in prepared]
    for run in runs:
        run.cancel()
    assert {run.wait().status for run in runs} == {"cancelled"}
    assert all(not run.of("run_started") and run.finishes == 1 for run in runs)
    for run in blockers:
        run.cancel()
    assert {run.wait().status for run in blockers} == {"cancelled"}
    assert engine.rows("SELECT status, count(*) FROM runs GROUP BY status") == [("cancelled", 3004)]
