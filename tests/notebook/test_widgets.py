"""The live view's kernel side: what goes to the front end is right, bounded, and enough to start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from agentnb.notebook import picture, widgets
from agentnb.notebook.snapshot import StepSnapshot
from tests.notebook.fake_source import FakeSource, a_group, a_run


class Wire:
    """A front end that does what view.js does with messages: it keeps the picture from state, tail and deltas."""

    def __init__(self, view: widgets.LiveView) -> None:
        self.messages: list[dict[str, Any]] = []
        self.clicks: list[dict[str, Any]] = []
        view.widget.comm.send = lambda data=None, **_: self.messages.append(json.loads(json.dumps(data)))
        self.take(view.widget.get_state(["state", "tail"]))

    def take(self, traits: dict[str, Any]) -> None:
        self.state = dict(traits["state"])
        self.rows = {row[0]: row for row in self.state.pop("rows", [])}
        self.first, self.lines = traits["tail"].get("first", 0), list(traits["tail"].get("lines", []))

    def replay(self) -> list[dict[str, Any]]:
        """Apply the deltas that came; all messages."""
        seen, self.messages = self.messages, []
        for message in seen:
            if message["method"] != "custom":
                continue
            delta = message["content"]
            assert delta["n"] == self.state["n"] + 1
            out = delta.pop("out", None)
            self.rows.update((row[0], row) for row in delta.pop("rows", []))
            for run_id in delta.pop("gone", []):
                del self.rows[run_id]
            self.state.update(delta)
            if out:
                if out["base"] > self.first + len(self.lines):
                    self.first, self.lines = out["base"], []
                self.lines[max(0, out["base"] - self.first) :] = out["lines"]
        return seen

    @property
    def size(self) -> int:
        return len(json.dumps(self.messages))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time that views see; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("agentnb.notebook.widgets.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def views() -> Iterator[list[widgets.LiveView]]:
    made: list[widgets.LiveView] = []
    yield made
    for view in made:
        view.close()


def live(source: FakeSource, views: list[widgets.LiveView]) -> tuple[widgets.LiveView, Wire]:
    view = widgets.LiveView(source, "", lambda _content: None)
    views.append(view)
    return view, Wire(view)


def test_the_deltas_put_together_are_what_the_traits_say(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = FakeSource(a_run())
    source.emit("run-0", "before\n")
    view, wire = live(source, views)
    assert wire.lines == ["before"]
    for i in range(300):
        clock[0] += 0.25
        source.emit("run-0", f"line {i}\n\x1b[31mpart", "stderr" if i % 7 == 0 else "stdout")
        if i == 100:
            source.update("run-0", status="cancelling", cpu_s=1.5)
        view.flush()
    wire.replay()
    traits = view.widget.get_state(["state", "tail"])
    tail, state = json.loads(json.dumps(traits["tail"])), traits["state"]
    assert wire.lines[-len(tail["lines"]) :] == tail["lines"]
    assert len(tail["lines"]) <= 200
    assert (wire.state["run"]["status"], wire.state["n"]) == ("cancelling", state["n"])
    assert ["CPU", "1.5 s"] in wire.state["run"]["facts"]


def test_nothing_is_sent_while_nothing_happens(clock: list[float], views: list[widgets.LiveView]) -> None:
    view, wire = live(FakeSource(a_run()), views)
    for _ in range(100):
        clock[0] += 0.25
        view.flush()
    assert wire.messages == []


def test_a_flood_costs_bounded_messages_and_bytes(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = FakeSource(a_run())
    view, wire = live(source, views)
    for _ in range(40):  # 10 s of 4 MB/s
        clock[0] += 0.25
        for _ in range(100):
            source.emit("run-0", "x" * 99 + "\n" + "y" * 9_900)
        view.flush()
    assert len(wire.messages) <= 60
    assert wire.size < 10 * (widgets.OUTPUT_BYTES_PER_S + widgets.SYNC_BYTES_PER_S)


def test_a_progress_bar_costs_its_line_only(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = FakeSource(a_run())
    for i in range(50):
        source.emit("run-0", f"line {i}\n")
    view, wire = live(source, views)
    clock[0] += 1
    for i in range(1000):
        source.emit("run-0", f"\r{i / 10:.1f}%")
    view.flush()
    assert wire.replay()[0]["content"]["n"] == 1
    assert wire.lines[-1] == "99.9%"
    assert len(wire.lines) == 51


def test_of_a_group_only_changed_rows_are_sent_and_the_tail_of_the_opened_run(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = a_group(*[a_run(i) for i in range(200)])
    view, wire = live(source, views)
    assert len(wire.rows) == 200
    assert source.watched == set()
    source.update("run-5", status="failed", error="exit code 2")
    source.emit("run-6", "six\n")
    clock[0] += 0.25
    view.flush()
    [message] = wire.messages
    assert [row[0] for row in message["content"]["rows"]] == ["run-5", "run-6"]
    assert "out" not in message["content"]
    view.act({"type": "open", "run": "run-6"})
    wire.replay()
    assert (wire.state["run"]["id"], wire.lines) == ("run-6", ["six"])
    assert source.watched == {"run-6"}
    view.act({"type": "open", "run": None})
    assert source.watched == set()


def test_a_small_group_is_watched_whole_until_its_runs_end(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = a_group(a_run(1), a_run(2), kind="session", status="active")
    view, _ = live(source, views)
    source.update("run-1", status="completed")
    view.flush()
    assert source.watched == {"run-2"}
    source.add(a_run(3))
    view.flush()
    assert source.watched == {"run-2", "run-3"}
    view.finish("<p>over</p>")
    assert source.watched == set()


def test_of_two_thousand_runs_each_has_a_row_and_those_in_sight_are_watched(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = a_group(*[a_run(i, name=f"grid [{i}]", params={"seed": i}) for i in range(2000)])
    view, wire = live(source, views)
    assert len(wire.rows) == 2000
    assert len(json.dumps(view.widget.get_state(["state"]))) < 2000 * 120
    view.flush()
    assert source.watched == set()
    view.act({"type": "see", "runs": ["run-3", "run-4", 7, "nobody"]})
    assert source.watched == {"run-3", "run-4"}
    source.update("run-3", status="completed", elapsed_s=1.0)
    source.emit("run-4", "four\n")
    clock[0] += 0.25
    view.flush()
    wire.replay()
    assert (wire.rows["run-3"][4:7], wire.rows["run-4"][9]) == (["completed", None, "1.0 s"], "four")
    assert wire.size < 2000
    assert source.watched == {"run-4"}
    view.act({"type": "see", "runs": [f"run-{i}" for i in range(2000)]})
    assert len(source.watched) == picture.WATCHED_ROWS


def a_step(number: int, **changes: Any) -> StepSnapshot:
    return replace(StepSnapshot(f"s{number}", "tool", "Bash", "completed", "turn", float(number), 0.5, f"ls {number}"), **changes)


def test_of_the_steps_of_a_run_only_changed_ones_are_sent(clock: list[float], views: list[widgets.LiveView]) -> None:
    steps = [StepSnapshot("attempt", "attempt", "attempt 1", started_at=1.0), StepSnapshot("turn", "turn", "turn 1", parent_id="attempt")]
    source = FakeSource(a_run(steps=steps))
    view, wire = live(source, views)
    assert wire.state["steps"]["told"] == "1 step"
    assert "parent" not in wire.state["steps"]["set"][0]
    steps += [a_step(i) for i in range(400)]
    source.update("run-0", steps=steps)
    view.flush()
    [message] = wire.replay()
    assert len(message["content"]["steps"]["set"]) == 400
    source.update("run-0", steps=[*steps[:-1], a_step(399, status="failed", error="no")])
    clock[0] += 0.25
    view.flush()
    [told] = [m["content"]["steps"] for m in wire.replay() if m["method"] == "custom"]
    assert [(step["id"], step["status"], step["error"]) for step in told["set"]] == [("s399", "failed", "no")]
    assert told["told"] == "401 steps, 1 failed"
    assert len(view.widget.get_state(["state"])["state"]["steps"]["set"]) == 401


def test_a_second_attempt_brings_the_first_one_into_the_tree(clock: list[float], views: list[widgets.LiveView]) -> None:
    first = [StepSnapshot("a1", "attempt", "attempt 1", "failed"), a_step(1, parent_id="a1")]
    source = FakeSource(a_run(steps=first))
    view, wire = live(source, views)
    assert [step["id"] for step in wire.state["steps"]["set"]] == ["s1"]
    source.update("run-0", steps=[*first, StepSnapshot("a2", "attempt", "attempt 2")])
    view.flush()
    wire.replay()
    assert {step["id"]: step.get("parent") for step in wire.state["steps"]["set"]} == {"a1": None, "s1": "a1", "a2": None}


def test_more_runs_than_a_table_takes_show_what_failed_and_what_goes_on(
    clock: list[float], views: list[widgets.LiveView], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "MAX_ROWS", 500)
    source = a_group(*[a_run(i, status="completed", elapsed_s=1.0) for i in range(2000)], a_run(2000), a_run(2001, status="failed"))
    _, wire = live(source, views)
    assert len(wire.rows) == picture.MAX_ROWS
    assert {"run-2000", "run-2001"} <= wire.rows.keys()
    assert wire.state["head"]["total"] == 2002


def test_who_lost_messages_gets_the_whole_picture(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = FakeSource(a_run())
    view, wire = live(source, views)
    source.emit("run-0", "lost\n")
    view.flush()
    wire.messages.clear()
    view.act({"type": "sync"})
    view.flush()
    [message] = wire.messages
    assert message["method"] == "update"
    wire.take(message["state"])
    assert (wire.lines, wire.state["n"]) == (["lost"], 1)


@pytest.mark.parametrize(
    "content",
    [{"type": "open", "run": 7}, {"type": "open", "run": "nobody"}, {"type": "open"}, {"type": []}, {"type": "see", "runs": 3}, {}],
)
def test_nonsense_from_the_front_end_does_no_harm(content: dict[str, Any], clock: list[float], views: list[widgets.LiveView]) -> None:
    view, wire = live(a_group(a_run(1)), views)
    view.act(content)
    view.flush()
    wire.replay()
    assert set(wire.rows) == {"run-1"}


def test_lone_surrogates_and_numbers_that_json_lacks_reach_the_front_end(clock: list[float], views: list[widgets.LiveView]) -> None:
    source = FakeSource(a_run(name="\ud800", params={"\udc80": float("nan")}, cpu_s=float("inf"), cost_usd=float("nan")))
    source.emit("run-0", "a\udcffb")
    view, _ = live(source, views)
    json.dumps(view.widget.get_state(["state", "tail"]), allow_nan=False, ensure_ascii=False).encode()
