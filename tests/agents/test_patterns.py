"""The nine patterns, over workers that do what the test says: statuses of all, order, awaited cancellations, every failure named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentnb.agents.failures import FlowFailed
from agentnb.agents.flow import Flow, Place, Result
from agentnb.agents.scope import Scope
from agentnb.states import RETRYABLE, ErrorKind

#: A script: what the worker does, call by call; the last word is for all later calls. ``fail``, ``timeout`` (may be tried again), ``hang``,
#: and anything else is its output.
Script = dict[str, list[Any]]


class Hired:
    """Work of a scripted worker. It ends some turns of the loop after it was cancelled, as a process does."""

    def __init__(self, crew: Actors, worker: str, act: Any) -> None:
        self.run_id, self.told = f"run-{len(crew.started)}", None
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._crew, self._worker = crew, worker
        turns, act = act if isinstance(act, tuple) else (1, act)
        if act != "hang":
            self._later(turns, lambda: self._settle(_result(act, self.run_id)))

    def _later(self, turns: int, then: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: self._later(turns - 1, then)) if turns else loop.call_soon(then)

    def _settle(self, result: Result) -> None:
        if not self.done.done():
            self._crew.live.discard(self.run_id)
            self.done.set_result(result)

    def cancel(self, reason: str) -> None:
        assert reason
        self._later(5, lambda: self._settle(Result("cancelled", error={"kind": "cancelled", "message": reason}, run_id=self.run_id)))


def _result(act: Any, run_id: str) -> Result:
    if act == "fail":
        return Result("failed", error={"kind": "execution_failed", "message": "exit 1"}, run_id=run_id)
    if act == "timeout":
        kind = ErrorKind.WORKER_TIMEOUT
        return Result("timeout", error={"kind": kind.value, "message": "too slow"}, retryable=RETRYABLE[kind], run_id=run_id)
    return Result("completed", act, run_id=run_id, seen={"exit_code": 0})


class Actors:
    """A crew that plays a script, and keeps what happened."""

    def __init__(self, script: Script, inputs: dict[str, Any] | None = None) -> None:
        self.script, self.inputs = script, inputs or {}
        self.started: list[str] = []
        self.gave: list[tuple[str, Any]] = []
        self.live: set[str] = set()
        self.most = 0

    def given(self, worker: str, scope: Scope) -> Any:
        asked = self.inputs.get(worker)
        return scope.input if asked is None else scope.fill(asked, f"worker {worker!r}: input")

    def start(self, worker: str, title: str, given: Any, scope: Scope) -> Hired:
        acts = self.script.get(worker, [worker])
        act = acts[min(self.started.count(worker), len(acts) - 1)]
        self.started.append(worker)
        self.gave.append((title, given))
        work = Hired(self, worker, act)
        self.live.add(work.run_id)
        self.most = max(self.most, len(self.live))
        return work


class Told:
    """A story that keeps the tree of steps."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def begin(self, kind: str, name: str, parent: str | None, given: Any = None, run_id: str = "") -> str:
        if parent is not None:
            assert self.steps[int(parent)]["status"] == "running", "a step begins below one that is over"
        self.steps.append({"kind": kind, "name": name, "parent": parent, "status": "running", "error": None})
        return str(len(self.steps) - 1)

    def end(self, step: str, status: str, *, error: Any = None, result: Any = None) -> None:
        found = self.steps[int(step)]
        assert found["status"] == "running", "a step ends twice"
        below = [one for one in self.steps if one["parent"] == step and one["status"] == "running"]
        assert not below, "a branch ends before what is in it"
        found |= {"status": status, "error": error}

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def workers(self) -> dict[str, str]:
        """Status by title."""
        return {step["name"]: step["status"] for step in self.steps if step["kind"] == "worker"}


class Played:
    """One flow, played to its end."""

    def __init__(
        self, flow: Any, script: Script | None = None, *, policy: str = "fail_fast", inputs: Any = None, given: Any = None
    ) -> None:
        self.crew, self.story, self.slept = Actors(script or {}, inputs), Told(), list[float]()
        self.scope = Scope({} if given is None else given)
        self.output: Any = None
        self.failed: FlowFailed | None = None
        asyncio.run(self._play(flow, policy))
        assert not self.crew.live, "work goes on when the flow is over"
        assert all(step["status"] != "running" for step in self.story.steps)

    async def _play(self, flow: Any, policy: str) -> None:
        try:
            self.output = await Flow(self.crew, self.story, sleep=self._sleep).run(flow, Place(self.scope, policy))
        except FlowFailed as bad:
            self.failed = bad
        assert len(asyncio.all_tasks()) == 1, "a task is left behind"

    async def _sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        await asyncio.sleep(0)

    @property
    def workers(self) -> dict[str, str]:
        return self.story.workers

    @property
    def error(self) -> Any:
        return None if self.failed is None else self.failed.error()


def seq(*steps: Any, **more: Any) -> Any:
    return {"type": "sequence", "steps": list(steps), **more}


def par(*branches: Any, **more: Any) -> Any:
    return {"type": "parallel", "branches": list(branches), **more}


def compete(*workers: Any) -> Any:
    return {"type": "compete", "workers": list(workers)}


# --- sequence and parallel: pattern x on_failure x where it fails


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("policy", ["fail_fast", "continue", "ignore"])
def test_a_sequence_goes_on_after_a_failure_as_on_failure_says(policy: str, place: int) -> None:
    names = ["a", "b", "c"]
    played = Played(seq(*names), {names[place]: ["fail"]}, policy=policy)
    rest = "skipped" if policy == "fail_fast" else "completed"
    expected = {name: "completed" if n < place else "failed" if n == place else rest for n, name in enumerate(names)}
    assert played.workers == expected
    assert played.crew.started == (names[: place + 1] if policy == "fail_fast" else names)
    if policy == "ignore":
        assert played.output == (None if place == 2 else "c")
        assert played.story.notes == [f"ignored: worker {names[place]!r}: exit 1"]
    else:
        assert played.error["kind"] == "execution_failed"
        assert played.error["message"] == f"worker {names[place]!r}: exit 1"


def test_a_sequence_that_continues_names_every_failure_in_one() -> None:
    played = Played(seq("a", "b", "c"), {"a": ["fail"], "c": ["timeout"]}, policy="continue")
    assert played.error["kind"] == "pattern_error"
    assert played.error["message"] == "2 failures: worker 'a': exit 1; worker 'c': too slow"
    assert [told["kind"] for told in played.error["details"]["failures"]] == ["execution_failed", "worker_timeout"]
    assert played.error["details"]["retryable"] is False


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("policy", ["fail_fast", "continue", "ignore"])
def test_a_parallel_cancels_and_awaits_its_siblings_only_when_it_fails_fast(policy: str, place: int) -> None:
    names = ["a", "b", "c"]
    script: Script = {name: ["hang" if policy == "fail_fast" else (4, name)] for name in names} | {names[place]: ["fail"]}
    played = Played(par(*names), script, policy=policy)
    others = "cancelled" if policy == "fail_fast" else "completed"
    assert played.workers == {name: "failed" if n == place else others for n, name in enumerate(names)}
    if policy == "ignore":
        assert played.output == [None if n == place else name for n, name in enumerate(names)]
    else:
        assert played.error["message"] == f"worker {names[place]!r}: exit 1"


def test_a_parallel_gives_its_results_in_declared_order_and_keeps_its_bound() -> None:
    script: Script = {"a": [(9, 1)], "b": [(1, 2)], "c": [(5, 3)], "d": [(1, 4)]}
    assert Played(par("a", "b", "c", "d"), script).output == [1, 2, 3, 4]
    bounded = Played(par("a", "b", "c", "d", max_concurrency=2), script)
    assert bounded.output == [1, 2, 3, 4]
    assert bounded.crew.most == 2


def test_a_bounded_parallel_that_fails_fast_skips_what_has_not_begun() -> None:
    played = Played(par("a", "b", "c", "d", max_concurrency=2), {"a": ["fail"], "b": ["hang"]})
    assert played.workers == {"a": "failed", "b": "cancelled", "c": "skipped", "d": "skipped"}


def test_failures_of_siblings_at_the_same_moment_are_all_named_in_order() -> None:
    played = Played(par("a", "b", "c"), {name: ["fail"] for name in "abc"}, policy="continue")
    assert played.error["message"] == "3 failures: worker 'a': exit 1; worker 'b': exit 1; worker 'c': exit 1"
    assert str(Played(compete("a", "b"), {name: ["fail"] for name in "ab"}).failed) == "worker 'a': exit 1; worker 'b': exit 1"


def test_a_flow_says_on_failure_for_itself_and_what_is_in_it() -> None:
    inner = seq("a", "b", on_failure="ignore")
    played = Played(seq(inner, "c"), {"a": ["fail"], "c": ["fail"]})
    assert played.workers == {"a": "failed", "b": "completed", "c": "failed"}
    assert played.error["message"] == "worker 'c': exit 1"


# --- conditional


@pytest.mark.parametrize(("value", "runs", "skips"), [(True, "a", "b"), (False, "b", "a")])
def test_a_conditional_runs_one_branch_and_skips_the_other(value: bool, runs: str, skips: str) -> None:
    flow = {"type": "conditional", "condition": "{{ input.deep }}", "then": "a", "else": "b"}
    played = Played(flow, given={"deep": value})
    assert played.workers == {runs: "completed", skips: "skipped"}
    assert played.output == runs


def test_a_conditional_without_a_branch_for_that_gives_nothing() -> None:
    assert Played({"type": "conditional", "condition": False, "then": "a"}).output is None


@pytest.mark.parametrize("value", ["yes", 1, None, [], {}, "true"])
def test_a_condition_that_is_no_boolean_fails_and_runs_nothing(value: Any) -> None:
    played = Played({"type": "conditional", "condition": "{{ input.x }}", "then": "a", "else": "b"}, given={"x": value})
    assert played.error["kind"] == "pattern_error"
    assert "no boolean" in played.error["message"]
    assert not played.crew.started


@pytest.mark.parametrize("policy", ["fail_fast", "continue", "ignore"])
def test_a_failing_branch_fails_a_conditional(policy: str) -> None:
    played = Played({"type": "conditional", "condition": True, "then": "a"}, {"a": ["fail"]}, policy=policy)
    assert played.error["message"] == "worker 'a': exit 1"


# --- loop


def test_a_loop_gives_index_and_item_also_by_its_own_name() -> None:
    flow = {"type": "loop", "over": "{{ input.files }}", "as": "file", "do": "a"}
    inputs = {"a": {"n": "{{ loop.index }}", "item": "{{ loop.item }}", "file": "{{ file }}", "text": "{{loop.index}}: {{file.name}}"}}
    files = [{"name": "x"}, {"name": "y"}]
    played = Played(flow, {"a": ["one", "two"]}, inputs=inputs, given={"files": files})
    assert played.output == ["one", "two"]
    assert played.crew.gave == [
        (f"a #{n + 1}", {"n": n, "item": item, "file": item, "text": f"{n}: {item['name']}"}) for n, item in enumerate(files)
    ]
    assert played.workers == {"a #1": "completed", "a #2": "completed"}


def test_a_while_loop_sees_what_its_body_gave() -> None:
    condition = "{{ loop.index == 0 or steps.a.output < 3 }}"
    played = Played({"type": "loop", "while": condition, "do": "a", "max_iterations": 5}, {"a": [1, 2, 3, 4]})
    assert played.output == [1, 2, 3]


def test_loops_in_loops_keep_their_own_items() -> None:
    inner = {"type": "loop", "over": "{{ row }}", "as": "cell", "do": "a"}
    flow = {"type": "loop", "over": [[1, 2], [3]], "as": "row", "do": inner}
    played = Played(flow, {"a": ["-"]}, inputs={"a": {"all": "{{ row }}", "one": "{{ cell }}"}})
    assert [given for _, given in played.crew.gave] == [{"all": [1, 2], "one": 1}, {"all": [1, 2], "one": 2}, {"all": [3], "one": 3}]


@pytest.mark.parametrize("policy", ["fail_fast", "continue", "ignore"])
def test_a_failing_body_ends_a_loop_or_not_as_on_failure_says(policy: str) -> None:
    played = Played({"type": "loop", "over": [1, 2, 3], "do": "a"}, {"a": ["x", "fail", "y"]}, policy=policy)
    assert len(played.crew.started) == (2 if policy == "fail_fast" else 3)
    if policy == "ignore":
        assert played.output == ["x", None, "y"]
    else:
        assert played.error["message"] == "worker 'a #2': exit 1"


@pytest.mark.parametrize("policy", ["fail_fast", "continue", "ignore"])
def test_a_while_loop_fails_at_its_cap(policy: str) -> None:
    played = Played({"type": "loop", "while": True, "do": "a", "max_iterations": 3}, policy=policy)
    assert len(played.crew.started) == 3
    assert played.error["kind"] == "pattern_error"
    assert "still holds after 3 iterations" in played.error["message"]


def test_a_loop_over_more_than_its_cap_fails_before_anything_runs() -> None:
    played = Played({"type": "loop", "over": [1, 2, 3], "do": "a", "max_iterations": 2})
    assert "3 items, more than max_iterations=2" in played.error["message"]
    assert not played.crew.started


@pytest.mark.parametrize("value", ["text", 7, {"a": 1}, None])
def test_a_loop_over_what_is_no_list_fails(value: Any) -> None:
    assert "is no list" in Played({"type": "loop", "over": "{{ input.x }}", "do": "a"}, given={"x": value}).error["message"]


# --- delegate


def test_a_delegate_runs_the_worker_that_the_router_names() -> None:
    played = Played({"type": "delegate", "worker": "router", "to": ["a", "b", "c"]}, {"router": [" b\n"]})
    assert played.output == "b"
    assert played.workers == {"router": "completed", "a": "skipped", "b": "completed", "c": "skipped"}


@pytest.mark.parametrize("said", ["d", "", None, 5, {"worker": "a"}, ["a"]])
def test_a_router_that_names_nobody_fails_and_says_who_there_is(said: Any) -> None:
    played = Played({"type": "delegate", "worker": "router", "to": ["a", "b"]}, {"router": [said]})
    assert played.error["kind"] == "pattern_error"
    assert played.error["message"].endswith("names none of the workers that it may: a, b")
    assert played.crew.started == ["router"]


@pytest.mark.parametrize("who", ["router", "a"])
def test_a_delegate_fails_with_its_router_or_its_chosen_worker(who: str) -> None:
    played = Played({"type": "delegate", "worker": "router", "to": ["a", "b"]}, {"router": ["a"]} | {who: ["fail"]})
    assert played.error["message"] == f"worker {who!r}: exit 1"
    assert played.workers["b"] == "skipped"


# --- supervisor


def test_one_for_one_restarts_only_what_failed_with_a_delay_that_doubles() -> None:
    flow = {"type": "supervisor", "workers": ["a", "b"], "max_restarts": 3, "backoff": 2.0}
    played = Played(flow, {"a": ["timeout", "timeout", "fine"], "b": [(9, "b")]})
    assert played.output == ["fine", "b"]
    assert played.crew.started == ["a", "b", "a", "a"]
    assert played.slept == [2.0, 4.0]
    assert [step["status"] for step in played.story.steps if step["name"] == "a"] == ["timeout", "timeout", "completed"]


def test_one_for_all_cancels_the_others_and_starts_all_again() -> None:
    flow = {"type": "supervisor", "workers": ["a", "b", "c"], "strategy": "one_for_all", "backoff": 1.0}
    played = Played(flow, {"a": [(3, "timeout"), "fine"], "b": ["hang", "b"], "c": ["early", "late"]})
    assert played.output == ["fine", "b", "late"]
    assert played.crew.started == ["a", "b", "c", "a", "b", "c"]
    assert [step["status"] for step in played.story.steps if step["name"] == "b"] == ["cancelled", "completed"]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
def test_a_supervisor_whose_restarts_are_used_up_fails_and_ends_the_others(strategy: str) -> None:
    flow = {"type": "supervisor", "workers": ["a", "b"], "max_restarts": 2, "strategy": strategy}
    played = Played(flow, {"a": ["timeout"], "b": ["hang"]})
    assert played.crew.started.count("a") == 3
    assert played.error["message"] == "worker 'a': too slow (after 2 restarts)"
    assert played.error["kind"] == "worker_timeout"
    assert played.workers["b"] == "cancelled"


def test_a_failure_that_must_not_be_tried_again_fails_a_supervisor_at_once() -> None:
    played = Played({"type": "supervisor", "workers": ["a", "b"]}, {"a": ["fail"], "b": ["hang"]})
    assert played.crew.started == ["a", "b"]
    assert played.slept == []
    assert played.workers == {"a": "failed", "b": "cancelled"}


def test_a_backoff_never_grows_beyond_a_minute() -> None:
    flow = {"type": "supervisor", "workers": ["a"], "max_restarts": 9, "backoff": 10}
    assert Played(flow, {"a": ["timeout"]}).slept == [10.0, 20.0, 40.0, *[60.0] * 6]


# --- compete, escalation, alongside


def test_the_first_success_wins_and_the_rest_is_cancelled_and_awaited() -> None:
    played = Played(compete("a", "b", "c"), {"a": ["hang"], "b": [(6, "won")], "c": ["fail"]})
    assert played.output == "won"
    assert played.workers == {"a": "cancelled", "b": "completed", "c": "failed"}


def test_nobody_wins_only_when_all_fail() -> None:
    played = Played(compete("a", "b"), {"a": ["fail"], "b": [(4, "timeout")]})
    assert played.error["kind"] == "pattern_error"
    assert played.error["message"] == "2 failures: worker 'a': exit 1; worker 'b': too slow"


@pytest.mark.parametrize("wins", [0, 1, 2, 3])
def test_escalation_goes_on_only_after_failure(wins: int) -> None:
    names = ["a", "b", "c"]
    played = Played({"type": "escalation", "primary": "a", "chain": ["b", "c"]}, {name: ["fail"] for name in names[:wins]})
    assert played.workers == {name: "failed" if n < wins else "completed" if n == wins else "skipped" for n, name in enumerate(names)}
    if wins < 3:
        assert played.output == names[wins]
    else:
        assert played.error["message"] == "3 failures: " + "; ".join(f"worker {name!r}: exit 1" for name in names)


def test_sides_have_the_grace_when_the_main_work_succeeds() -> None:
    flow = {"type": "alongside", "main": "m", "sides": ["quick", "slow"], "grace": 0.05}
    played = Played(flow, {"m": ["done"], "quick": [(20, "q")], "slow": ["hang"]})
    assert played.output == "done"
    assert played.workers == {"m": "completed", "quick": "completed", "slow": "cancelled"}


def test_nobody_waits_for_the_grace_when_all_sides_have_ended() -> None:
    flow = {"type": "alongside", "main": "m", "sides": ["a"], "grace": 600.0}
    assert Played(flow, {"m": ["done"], "a": [(9, "x")]}).workers == {"m": "completed", "a": "completed"}


def test_a_failing_main_cancels_its_sides_and_a_failing_side_is_only_told() -> None:
    flow = {"type": "alongside", "main": "m", "sides": ["a", "b"], "grace": 600.0}
    failing = Played(flow, {"m": [(9, "fail")], "a": ["hang"], "b": ["fail"]})
    assert failing.error["message"] == "worker 'm': exit 1"
    assert failing.workers == {"m": "failed", "a": "cancelled", "b": "failed"}
    good = Played(flow, {"m": ["x"], "a": ["fail"], "b": ["b"]})
    assert good.output == "x"
    assert good.story.notes == ["beside the main work: worker 'a': exit 1"]


# --- templates


def test_outputs_join_the_scope_and_one_template_keeps_its_type() -> None:
    inputs = {"b": {"all": "{{ steps.a.output }}", "part": "{{ steps.a.output.items[1] }}", "text": "n={{ steps.a.output.n }}"}}
    output = {"items": [1, {"x": None}], "n": 2.5}
    played = Played(seq("a", "b"), {"a": [output]}, inputs=inputs)
    assert played.crew.gave[1][1] == {"all": output, "part": {"x": None}, "text": "n=2.5"}


def test_results_are_never_read_as_templates() -> None:
    text = "{{ input.secret }} {% raw %} ${x} {{"
    played = Played(
        seq("a", "b", "c"), {"a": [text], "b": [text]}, inputs={"b": {"x": "{{ steps.a.output }}"}, "c": {"x": "<{{ steps.a.output }}>"}}
    )
    assert [given for _, given in played.crew.gave][1:] == [{"x": text}, {"x": f"<{text}>"}]


@pytest.mark.parametrize("path", ["steps.a.output.nope", "steps.b.output", "input.nope", "steps.nope.output.x", "nope"])
def test_a_missing_path_fails_its_worker_and_is_named(path: str) -> None:
    played = Played(seq("a", "b"), {"a": [{"x": 1}]}, inputs={"b": {"q": f"{{{{ {path} }}}}"}})
    assert played.error["kind"] == "invalid_config"
    assert path.rpartition(".")[2].removesuffix("output") in played.error["message"] or "'b'" in played.error["message"]
    assert played.workers == {"a": "completed", "b": "failed"}
    assert played.crew.started == ["a"]


def test_a_method_is_no_value() -> None:
    played = Played(seq("a", "b"), {"a": [{"x": 1}]}, inputs={"b": {"q": "{{ steps.a.output.items }}"}})
    assert played.error["kind"] == "invalid_config"


def test_a_worker_that_failed_has_a_status_and_no_output() -> None:
    flow = seq("a", {"type": "conditional", "condition": "{{ steps.a.status == 'failed' and steps.a.output is not defined }}", "then": "b"})
    assert Played(flow, {"a": ["fail"]}, policy="ignore").output == "b"


def test_a_worker_that_was_skipped_says_so_and_one_that_worked_before_keeps_what_it_gave() -> None:
    inner = {"type": "loop", "over": [1], "do": {"type": "compete", "workers": ["a", "d"]}}
    skips = {"type": "conditional", "condition": False, "then": {"type": "sequence", "steps": ["b", inner]}}
    inputs = {"c": {"b": "{{ steps.b.status }}", "d": "{{ steps.d.status }}", "a": "{{ steps.a.output }}"}}
    assert Played(seq("a", skips, "c"), inputs=inputs).crew.gave[1] == ("c", {"b": "skipped", "d": "skipped", "a": "a"})


# --- cancelling from outside, at any moment


async def _cancel_after(flow: Any, script: Script, turns: int, again: int) -> tuple[Actors, Told, bool]:
    crew, story = Actors(script), Told()
    task = asyncio.ensure_future(Flow(crew, story, sleep=lambda _: asyncio.sleep(0)).run(flow, Place(Scope({}), "continue")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    for _ in range(again):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError, FlowFailed):
        await task
    assert len(asyncio.all_tasks()) == 1
    return crew, story, task.cancelled()


names = st.sampled_from(["a", "b", "c", "d"])


def _flows(items: Any) -> Any:
    few = st.lists(items, min_size=1, max_size=3)
    policy = st.sampled_from([{}, {"on_failure": "fail_fast"}, {"on_failure": "continue"}, {"on_failure": "ignore"}])
    return st.one_of(
        st.builds(lambda steps, more: {"type": "sequence", "steps": steps} | more, few, policy),
        st.builds(
            lambda steps, n, more: {"type": "parallel", "branches": steps, "max_concurrency": n} | more,
            few, st.sampled_from([None, 1, 2]), policy,
        ),
        st.builds(lambda c, a, b: {"type": "conditional", "condition": c, "then": a, "else": b}, st.booleans(), items, st.none() | items),
        st.builds(lambda n, do, more: {"type": "loop", "over": list(range(n)), "do": do} | more, st.integers(0, 2), items, policy),
        st.builds(lambda worker, to: {"type": "delegate", "worker": worker, "to": to}, names, st.lists(names, min_size=1, max_size=3)),
        st.builds(
            lambda w, s: {"type": "supervisor", "workers": w, "max_restarts": 1, "strategy": s},
            few, st.sampled_from(["one_for_one", "one_for_all"]),
        ),
        st.builds(lambda workers: {"type": "compete", "workers": workers}, few),
        st.builds(lambda primary, chain: {"type": "escalation", "primary": primary, "chain": chain}, items, few),
        st.builds(lambda main, sides: {"type": "alongside", "main": main, "sides": sides, "grace": 0.0}, items, few),
    )  # fmt: skip


acts = st.tuples(st.integers(1, 6), st.sampled_from(["fail", "timeout", "a", "b", 7]))
scripts = st.fixed_dictionaries({name: st.lists(acts, min_size=1, max_size=2) for name in "abcd"})
flows = st.recursive(names, _flows, max_leaves=6)
quick = settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(flows, scripts, st.sampled_from(["fail_fast", "continue", "ignore"]))
def test_any_flow_ends_with_all_its_work_over_and_every_cause_is_of_a_worker_that_failed(flow: Any, script: Script, policy: str) -> None:
    played = Played(flow, script, policy=policy)
    if played.failed is None:
        return
    failed = {f"worker {title!r}" for title, status in _ends(played.story) if status in {"failed", "timeout"}}
    for failure in played.failed.failures:
        assert failure.where in failed or failure.kind == "pattern_error"
    if policy != "ignore" and not isinstance(flow, str) and flow["type"] in {"sequence", "parallel"}:
        assert played.failed.failures


@quick
@given(flows, scripts, st.integers(0, 30), st.integers(0, 4))
def test_a_flow_that_is_cancelled_at_any_moment_awaits_all_its_work(flow: Any, script: Script, turns: int, again: int) -> None:
    crew, story, _ = asyncio.run(_cancel_after(flow, script, turns, again))
    assert not crew.live
    assert all(step["status"] != "running" for step in story.steps)


def _ends(story: Told) -> list[tuple[str, str]]:
    return [(step["name"], step["status"]) for step in story.steps if step["kind"] == "worker"]
