from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentnb import model
from agentnb.errors import IllegalTransition
from agentnb.states import ErrorKind, RunStatus, SessionStatus, StepKind, StepStatus, TargetKind

TARGET = model.RunTarget(kind=TargetKind.SHELL, display="echo hi", spec={"command": "echo hi"})
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def a_run(**fields: Any) -> model.Run:
    known: dict[str, Any] = {"session_id": model.SessionId("s"), "name": "first", "target": TARGET}
    return model.Run(**(known | fields))


def a_step(**fields: Any) -> model.Step:
    return model.Step(**({"run_id": model.RunId("r"), "kind": StepKind.ATTEMPT, "name": "attempt 1"} | fields))


LOCATIONS: list[Any] = [
    model.LocalLocation(path="blobs/ab"),
    model.HttpLocation(url="http://127.0.0.1/x"),
    model.CloudLocation(uri="s3://b/k"),
    model.InlineLocation(data=b"\x00\xff\xfe bytes"),
]
RECORDS: list[model.Record] = [
    model.Session(name="first-look", tags={"topic": "builds"}),
    a_run(params={"seconds": 0.1, "word": "b c"}, timeout_s=60.0, input={"path": "ü"}),
    a_run()
    .moved(RunStatus.RUNNING)
    .moved(RunStatus.FAILED, error=model.RunError(kind=ErrorKind.TIMEOUT, message="too long", details={"bound": 3})),
    a_step(tokens={"input": 3, "output": 4}, cost_usd=0.01, usage={"cpu_time": 0.5}),
    *(model.Artifact(name="a", size=3, location=place, checksum="sha256:00") for place in LOCATIONS),
    model.ExecutionHandle(run_id=model.RunId("r"), runtime_kind="local", runtime_handle="pid:123"),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_record_survives_json_without_loss(record: model.Record) -> None:
    again = type(record).model_validate_json(record.model_dump_json())
    assert again == record
    assert again.schema_version == model.SCHEMA_VERSION


@given(input=DATA, output=DATA, params=st.dictionaries(st.text(max_size=4).filter(str.isidentifier), DATA, max_size=3))
def test_any_json_input_output_and_params_survive(input: Any, output: Any, params: dict) -> None:  # noqa: A002
    run = a_run(input=input, output=output, params=params)
    assert model.Run.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinities_survive_json(value: float) -> None:
    assert model.Run.model_validate_json(a_run(output=[value]).model_dump_json()).output == [value]


def test_records_cannot_be_changed_in_place_and_refuse_unknown_fields() -> None:
    with pytest.raises(ValidationError):
        a_run().status = RunStatus.COMPLETED
    with pytest.raises(ValidationError):
        a_run(colour="red")


def test_stamps_are_aware_utc_and_naive_ones_are_refused() -> None:
    assert a_run().created_at.tzinfo is UTC
    with pytest.raises(ValidationError):
        a_run(created_at=datetime(2026, 1, 1))  # noqa: DTZ001 - this is what must be refused


def test_a_run_moves_along_its_life_and_is_stamped() -> None:
    pending = a_run()
    running = pending.moved(RunStatus.RUNNING)
    done = running.moved(RunStatus.COMPLETED, output={"x": 1})
    assert (pending.status, pending.started_at, pending.finished_at) == (RunStatus.PENDING, None, None)
    assert running.started_at is not None
    assert running.finished_at is None
    assert done.finished_at is not None
    assert pending.created_at <= running.started_at <= done.finished_at
    assert done.output == {"x": 1}


@pytest.mark.parametrize("late", list(RunStatus))
def test_the_first_terminal_status_of_a_run_wins(late: RunStatus) -> None:
    cancelled = a_run().moved(RunStatus.CANCELLED, error=model.RunError(kind=ErrorKind.CANCELLED, message="not needed"))
    with pytest.raises(IllegalTransition, match="run 'first' cannot go from 'cancelled'"):
        cancelled.moved(late)


def test_a_run_cannot_complete_before_it_ran() -> None:
    with pytest.raises(IllegalTransition):
        a_run().moved(RunStatus.COMPLETED)


def test_a_step_can_be_skipped_and_then_stays_skipped() -> None:
    skipped = a_step().moved(StepStatus.SKIPPED)
    with pytest.raises(IllegalTransition):
        skipped.moved(StepStatus.RUNNING)


def test_a_session_ends_once() -> None:
    ended = model.Session(name="s").moved(SessionStatus.ENDED)
    assert ended.ended_at is not None
    with pytest.raises(IllegalTransition):
        ended.moved(SessionStatus.CANCELLED)


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_an_error_knows_whether_trying_again_can_help(kind: ErrorKind) -> None:
    assert isinstance(model.RunError(kind=kind, message="m").retryable, bool)


def test_an_artifact_has_no_negative_size_and_a_step_no_attempt_zero() -> None:
    with pytest.raises(ValidationError):
        model.Artifact(name="a", size=-1, location=LOCATIONS[0], checksum="sha256:00")
    with pytest.raises(ValidationError):
        a_step(attempt=0)


def test_elapsed_counts_from_the_start_of_the_handle() -> None:
    handle = model.ExecutionHandle(
        run_id=model.RunId("r"), runtime_kind="local", created_at=datetime(2020, 1, 1, tzinfo=UTC), runtime_handle="pid:1"
    )
    assert handle.elapsed() > 86_400
