"""Every record and spec goes to JSON and back without loss, whatever is in it; records also through the store."""

from __future__ import annotations

import json
import string
import types
import typing
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo  # noqa: TC002

import agentnb as nb
from agentnb import model, results
from agentnb.events import ArtifactSaved, RunFinished, RunQueued, RunStarted, SessionEnded, SessionStarted, StepFinished, StepStarted
from agentnb.execution import CommandRequest, ExecutionConfig
from agentnb.history import reader
from agentnb.history.store import Store
from agentnb.ids import new_id
from agentnb.notebook.records import artifact_record, step_record
from agentnb.states import RunStatus, RuntimeKind, StepKind, StepStatus, TargetKind
from tests.history.making import table

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORD = st.text(string.ascii_letters + "äß☃-_ ./'\"\\{}$", min_size=1, max_size=12).filter(str.strip)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
STAMP = st.integers(1, 7_000_000_000_000_000).map(lambda stamp: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=stamp))
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {str: TEXT, int: st.integers(-(2**53), 2**53), float: NUMBER, bool: st.booleans(), Any: JSON}
SIMPLE |= {type(None): st.none(), bytes: st.binary(max_size=20), datetime: STAMP, AwareDatetime: STAMP}
#: Fewer examples, always the same: there are many kinds, each with many fields.
few = settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def any_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a declared type."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, typing.NewType):
        return any_of(annotation.__supertype__)
    if annotation in SIMPLE:
        return SIMPLE[annotation]
    if origin is typing.Annotated:
        return any_of(parts[0])
    if origin in {typing.Union, types.UnionType}:
        return st.one_of([any_of(part) for part in parts])
    if origin is typing.Literal:
        return st.sampled_from(parts)
    if origin is dict:
        return st.dictionaries(any_of(parts[0]), any_of(parts[1]), max_size=3)
    if origin is tuple:
        return st.lists(any_of(parts[0]), max_size=3).map(tuple)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    return any_record(annotation)


def any_field(field: FieldInfo) -> st.SearchStrategy[Any]:
    bound = next((part.ge for part in field.metadata if isinstance(part, Ge)), None)
    return st.integers(int(typing.cast("int", bound)), 2**53) if bound is not None else any_of(field.annotation)


def any_record(cls: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Records of a class with something in every field, so that a field which comes later is tried as well."""
    return st.builds(cls, **{name: any_field(field) for name, field in cls.model_fields.items()})


RECORDS = [model.Session, model.RunTarget, model.RunError, model.Run, model.Step, model.Artifact, model.ExecutionHandle]
RECORDS += [results.ResourceUsage, results.ExecutionMetadata, results.Issue, results.Estimate, results.CommandError, results.CommandResult]


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@few
@given(data=st.data())
def test_a_record_survives_json_whatever_is_in_it(cls: type[BaseModel], data: st.DataObject) -> None:
    record = data.draw(any_record(cls))
    assert cls.model_validate_json(record.model_dump_json()) == record
    assert cls.model_validate(record.model_dump(mode="json")) == record


# --- what is launched, and how

ENV = st.dictionaries(st.text(string.ascii_uppercase, min_size=1, max_size=5), WORD, max_size=2)
SECONDS = st.floats(0.001, 1e6)
CHAT = {"system": st.none() | WORD, "seed": st.none() | st.integers(0, 2**32 - 1)}
PLACE = {"working_dir": st.none() | WORD, "env": ENV}
ARGV = st.lists(WORD, min_size=1, max_size=3)
LINES = st.builds(nb.Shell, WORD, shell=st.sampled_from(["sh", "bash"]), **PLACE)
VECTORS = st.builds(nb.Command, ARGV, **PLACE)
SPECS: dict[type[Any], st.SearchStrategy[Any]] = {
    nb.Shell: LINES,
    nb.Command: VECTORS,
    nb.Test: st.builds(nb.Test, WORD, expected_exit_code=st.integers(0, 255), validation_script=st.none() | WORD, **PLACE),
    nb.LocalModel: st.builds(
        nb.LocalModel, WORD, temperature=st.floats(0, 2), max_tokens=st.integers(1, 8192), shared=st.booleans(), **CHAT
    ),
    nb.OpenAICompatible: st.builds(
        nb.OpenAICompatible, st.just("http://127.0.0.1:8080/v1"), WORD, WORD, temperature=st.none() | st.floats(0, 2), **CHAT
    ),
    nb.A2A: st.builds(
        nb.A2A,
        st.just("http://127.0.0.1:9000"),
        WORD,
        data=st.none() | st.dictionaries(TEXT, TEXT, min_size=1, max_size=2),
        refers_to=st.lists(WORD, max_size=2),
    ),
    nb.Replay: st.builds(nb.Replay, WORD, speed=st.none() | st.floats(0.1, 100)),
    nb.Claude: st.builds(
        nb.Claude,
        WORD,
        tools=st.none() | st.just(("Read",)),
        max_turns=st.none() | st.integers(1, 99),
        system_prompt=st.none() | WORD,
        **PLACE,
    ),
    nb.JsonLines: st.builds(nb.JsonLines, ARGV, text=st.none() | WORD, output=st.none() | WORD, **PLACE),
    nb.Agent: st.builds(nb.Agent, WORD | st.dictionaries(TEXT, JSON, max_size=2), input=st.dictionaries(TEXT, JSON, max_size=2)),
    nb.Swarm: st.builds(nb.Swarm, WORD | st.dictionaries(TEXT, JSON, max_size=2), input=st.dictionaries(TEXT, JSON, max_size=2)),
}
HANDLER = st.none() | LINES | VECTORS | st.builds(nb.Handler, LINES, condition=st.sampled_from([None, "exit_code > 2"]), timeout=SECONDS)
WORKSPACE = st.one_of(
    st.none(),
    st.builds(nb.Worktree, WORD, WORD, cleanup=st.sampled_from(["on_success", "keep", "always"])),
    st.builds(nb.TempCopy, WORD),
    st.builds(nb.Shared, WORD),
)
CONFIGS = st.builds(
    ExecutionConfig,
    timeout=st.none() | SECONDS,
    capture=st.none() | st.sampled_from(nb.Capture),
    stdin=st.none() | st.just(True) | TEXT,
    workspace=WORKSPACE,
    retry=st.none()
    | st.builds(nb.Retry, max_attempts=st.integers(1, 1000), initial_delay=SECONDS, on_exit_codes=st.lists(st.integers(0, 255))),
    limits=st.none() | st.builds(nb.Limits, max_memory_bytes=st.none() | st.integers(1, 2**50), max_cpu_time_s=st.none() | SECONDS),
    validation=st.none() | st.builds(nb.Validation, expected_pattern=st.sampled_from([None, "a+", r"\d"]), script=st.none() | WORD),
    grace=st.none() | SECONDS,
    artifacts=st.lists(WORD, max_size=2),
    on_success=HANDLER,
    on_failure=HANDLER,
    rollback=HANDLER,
    cleanup=HANDLER,
    **PLACE,
)


def test_every_spec_but_a_function_is_tried_here() -> None:
    assert set(SPECS) | {nb.Python} == set(typing.get_args(CommandRequest.model_fields["spec"].annotation))


@pytest.mark.parametrize("cls", SPECS, ids=lambda cls: cls.__name__)
@few
@given(data=st.data())
def test_a_spec_survives_json_whatever_is_in_it(cls: type[BaseModel], data: st.DataObject) -> None:
    spec = data.draw(SPECS[cls])
    assert cls.model_validate_json(spec.model_dump_json()) == spec


@few
@given(st.one_of(list(SPECS.values())), CONFIGS)
def test_a_request_survives_json_with_its_spec_and_its_config(spec: Any, config: ExecutionConfig) -> None:
    request = CommandRequest(command_id=new_id(), spec=spec, config=config)
    assert CommandRequest.model_validate_json(request.model_dump_json()) == request


# --- through the store

IDS = st.builds(new_id)
TOKENS = st.none() | st.dictionaries(st.sampled_from(["input", "output"]), st.integers(0, 2**40), min_size=1)


def micros(stamp: datetime) -> int:
    return (stamp - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def stamps_of(row: dict[str, Any], *names: str) -> dict[str, datetime]:
    return {name: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=row[name]) for name in names}


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all examples: their ids are their own."""
    return tmp_path_factory.mktemp("round") / "store"


def kept(store: Path, *events: Any) -> None:
    with Store.open(store) as opened:
        for event in events:
            opened.apply([event])


@few
@given(data=st.data())
def test_a_session_comes_back_from_the_store_as_it_was(shared_store: Path, data: st.DataObject) -> None:
    session = data.draw(st.builds(model.Session, id=IDS, name=TEXT, created_at=STAMP, tags=st.dictionaries(TEXT, TEXT, max_size=2)))
    ended = session.model_copy(update={"status": "ended", "ended_at": data.draw(STAMP)})
    kept(shared_store, SessionStarted(session.model_dump(mode="json")), SessionEnded(session.id, "ended", at=micros(ended.ended_at)))
    (row,) = [row for row in table(shared_store, "sessions") if row["id"] == session.id]
    found = {name: row[name] for name in model.Session.model_fields} | {"tags": json.loads(row["tags"])}
    assert model.Session.model_validate(found | stamps_of(row, "created_at", "ended_at")) == ended


@few
@given(data=st.data())
def test_a_run_comes_back_from_the_store_as_it_was(shared_store: Path, data: st.DataObject) -> None:
    run = data.draw(
        st.builds(
            model.Run,
            id=IDS,
            session_id=IDS,
            group_id=st.none() | IDS,
            name=TEXT,
            created_at=STAMP,
            timeout_s=st.none() | SECONDS,
            target=st.builds(model.RunTarget, kind=st.sampled_from(TargetKind), display=TEXT, spec=st.dictionaries(TEXT, JSON, max_size=2)),
            runtime_kind=st.sampled_from(RuntimeKind),
            input=JSON,
            params=st.dictionaries(TEXT, JSON, max_size=3),
            tags=st.dictionaries(TEXT, TEXT, max_size=2),
            parent_run_id=st.none() | IDS,
            cache_key=st.none() | TEXT,
            trace_id=st.none() | TEXT,
        )
    )
    begun, done = data.draw(STAMP), data.draw(STAMP)
    end = data.draw(st.sampled_from([RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.TIMEOUT]))
    error = None if end is RunStatus.COMPLETED else data.draw(any_record(model.RunError))
    output = data.draw(JSON)
    ended = run.model_copy(update={"status": end, "started_at": begun, "finished_at": done, "error": error, "output": output})
    told = RunFinished(run.id, end.value, error=error and error.model_dump(mode="json"), output=output, at=micros(done))
    kept(shared_store, RunQueued(run.model_dump(mode="json")), RunStarted(run.id, "pid:1", at=micros(begun)), told)
    row = reader.read_run(shared_store, run.id)
    found = {name: row[name] for name in model.Run.model_fields if name in row}
    assert model.Run.model_validate(found | stamps_of(row, "created_at", "started_at", "finished_at")) == ended


@few
@given(data=st.data())
def test_a_step_comes_back_from_the_store_as_it_was(shared_store: Path, data: st.DataObject) -> None:
    begun, done = data.draw(STAMP), data.draw(STAMP)
    step = data.draw(
        st.builds(
            model.Step,
            id=IDS,
            run_id=IDS,
            parent_id=st.none() | IDS,
            kind=st.sampled_from(StepKind),
            name=TEXT,
            attempt=st.integers(1, 99),
            status=st.sampled_from([StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED]),
            created_at=st.just(begun),
            started_at=st.just(begun),
            finished_at=st.just(done),
            exit_code=st.none() | st.integers(0, 255),
            error=st.none() | any_record(model.RunError),
            usage=st.none() | st.dictionaries(TEXT, NUMBER, min_size=1, max_size=2),
            tokens=TOKENS,
            cost_usd=st.none() | st.floats(0, 100),
            input=JSON,
            output=JSON,
        )
    )
    error = step.error and step.error.model_dump(mode="json")
    kept(
        shared_store,
        RunQueued({"id": step.run_id, "session_id": "S", "name": "r", "target": {}, "created_at": 1}),
        StepStarted(step.run_id, step.id, step.kind.value, step.name, step.attempt, step.parent_id, input=step.input, at=micros(begun)),
        StepFinished(
            step.run_id,
            step.id,
            step.status.value,
            error=error,
            exit_code=step.exit_code,
            usage=step.usage,
            tokens=step.tokens,
            cost_usd=step.cost_usd,
            output=step.output,
            at=micros(done),
        ),
    )
    assert [step_record(row) for row in reader.read_steps(shared_store, step.run_id)] == [step]


@few
@given(data=st.data())
def test_an_artifact_comes_back_from_the_store_as_it_was(shared_store: Path, data: st.DataObject) -> None:
    fields = {name: any_field(field) for name, field in model.Artifact.model_fields.items()}
    fields |= {"id": IDS, "source_run": IDS, "created_at": STAMP, "schema_version": st.just(model.SCHEMA_VERSION)}
    artifact = data.draw(st.builds(model.Artifact, **fields))
    kept(shared_store, ArtifactSaved(str(artifact.source_run), artifact.model_dump(mode="json")))
    assert [artifact_record(row) for row in reader.read_artifacts(shared_store, str(artifact.source_run))] == [artifact]
