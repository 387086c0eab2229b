from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentnb.events import (
    ArtifactSaved,
    Message,
    RunFinished,
    RunRetrying,
    RunStarted,
    SessionEnded,
    StepFinished,
    StepStarted,
    StepUsed,
    UsageReported,
    from_wire,
)
from agentnb.history.fold import stamp
from agentnb.history.frames.frames import events_df, runs_df, steps_df
from agentnb.history.store import Store
from agentnb.states import RunStatus, StepStatus, legal
from tests.history.making import T0, everything, queued, started_session

RUNS = st.sampled_from(["a", "b"])
STEPS = st.sampled_from(["1", "2"])
AT = st.integers(T0, T0 + 10**9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5
)
EVENT = st.one_of(
    st.builds(started_session, st.just("S"), st.text(), at=AT),
    st.builds(SessionEnded, st.just("S"), st.sampled_from(["ended", "cancelled", "odd"]), at=AT),
    st.builds(queued, RUNS, at=AT, params=st.dictionaries(st.text(), JSON, max_size=2), input=JSON, name=st.text()),
    st.builds(RunStarted, RUNS, st.text(), at=AT),
    st.builds(RunRetrying, RUNS, st.integers(2, 5), st.just(0.1), at=AT),
    st.builds(StepStarted, RUNS, STEPS, st.just("attempt"), st.text(), input=JSON, at=AT),
    st.builds(StepFinished, RUNS, STEPS, st.sampled_from([*map(str, StepStatus), "odd"]), output=JSON, at=AT),
    st.builds(StepUsed, RUNS, STEPS, st.none() | st.just({"input": 3}), st.none() | st.floats(0, 9), at=AT),
    st.builds(ArtifactSaved, RUNS, st.fixed_dictionaries({"id": st.sampled_from("xy"), "name": st.text(), "size": st.just(1)}), at=AT),
    st.builds(UsageReported, RUNS, st.none() | st.integers(0, 99), cost_usd=st.none() | st.floats(0, 9), at=AT),
    st.builds(RunFinished, RUNS, st.sampled_from([*map(str, RunStatus), "odd"]), exit_code=st.none() | st.integers(-9, 255), output=JSON,
              stdout=st.none() | st.fixed_dictionaries({"size": st.integers(1, 9), "text": st.text(), "path": st.none()}), at=AT),
)  # fmt: skip


def written(events: list[Message], cuts: list[int]) -> dict[str, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with Store.open(root) as store:
            for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
                store.apply(events[start:end])
        return everything(root)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENT, max_size=14), st.data())
def test_tables_do_not_depend_on_how_events_are_cut_into_batches(events: list[Message], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    assert written(events, cuts) == written(events, [])


STEP_EVENT = st.one_of(
    st.builds(StepStarted, st.just("a"), st.just("1"), st.just("turn"), st.just("t"), at=AT),
    st.builds(StepFinished, st.just("a"), st.just("1"), st.just("completed"), cost_usd=st.none() | st.floats(0, 9), at=AT),
    st.builds(StepUsed, st.just("a"), st.just("1"), st.none() | st.just({"input": 3}), st.none() | st.floats(0, 9), at=AT),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP_EVENT, max_size=6), st.data())
def test_what_a_step_used_is_laid_over_its_end_however_events_are_cut(events: list[Message], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(1, len(events) + 1), max_size=3)))
    assert written([queued("a"), *events], cuts) == written([queued("a"), *events], [])


def test_a_step_that_has_ended_takes_what_it_used_and_one_that_has_not_does_not(store: Path) -> None:
    begun, used = StepStarted("a", "1", "turn", "t", at=T0), StepUsed("a", "1", {"output": 7}, 0.5, at=T0)
    end = StepFinished("a", "1", "completed", tokens={"output": 1}, output="x", at=T0)
    found = [written([queued("a"), *events], [2])["steps"][0] for events in ([begun, end, used], [begun, used, end])]
    assert [(row["tokens"], row["output_tokens"], row["cost_usd"], row["output"]) for row in found] == [
        ('{"output":7}', 7, 0.5, '"x"'),
        ('{"output":1}', 1, None, '"x"'),
    ]


def test_a_session_that_ends_again_in_the_batch_in_which_it_began_again_has_its_last_end() -> None:
    at = T0 + 1
    events = [
        started_session("S", "", at=T0),
        SessionEnded("S", "ended", at=at),
        started_session("S", "", at=T0),
        SessionEnded("S", "ended", at=T0),
    ]
    assert written(events, [1])["sessions"] == written(events, [])["sessions"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENT, max_size=14))
def test_a_run_and_a_step_only_ever_move_as_the_state_model_allows(events: list[Message]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seen: dict[tuple[str, ...], str] = {}
        with Store.open(root) as store:
            for event in events:
                store.apply([event])
                rows = everything(root)
                for run in rows["runs"]:
                    old = RunStatus(seen.get((run["id"],), "pending"))
                    assert run["status"] == old or legal(old, RunStatus(run["status"]))
                    seen[run["id"],] = run["status"]
                for step in rows["steps"]:
                    was = StepStatus(seen.get((step["run_id"], step["id"]), "running"))
                    assert step["status"] == was or legal(was, StepStatus(step["status"]))
                    seen[step["run_id"], step["id"]] = step["status"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENT, max_size=14))
def test_events_come_back_from_the_frames_as_they_went_in(events: list[Message]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with Store.open(root) as store:
            store.apply(events)
        frame = events_df(root, full=True)
        assert list(frame["type"]) == [event.type for event in events]
        assert [int(at.timestamp() * 1e6 + 0.5) for at in frame["at"]] == [event.at for event in events]  # type: ignore[attr-defined]
        for event, data in zip(events, frame["data"], strict=True):
            back = from_wire({"type": event.type, "run_id": "", "step_id": "", "session_id": "", **data})
            assert type(back) is type(event)
        assert len(runs_df(root, full=True)) == len({e.run_id for e in events if e.type == "run_queued"})  # type: ignore[attr-defined]
        steps_df(root)


def test_stamps_are_read_from_numbers_and_from_iso_text() -> None:
    assert stamp(5, 0) == 5
    assert stamp("2026-01-01T00:00:00.000001Z", 0) == T0 + 1
    assert stamp("2026-01-01T01:00:00+01:00", 0) == T0
    assert stamp("2026-01-01", 0) == T0
    assert stamp("nonsense", 7) == stamp(None, 7) == 7
