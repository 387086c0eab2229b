from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb import events, requests

MESSAGES = sorted(events._registry.values(), key=lambda cls: cls.type)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(max_size=20),
    "int": st.integers(-(2**53), 2**53),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "Any": JSON,
    "Json": st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    "dict[str, Any]": st.dictionaries(st.text(max_size=5), JSON, max_size=3),
    "dict[str, str]": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    "list[int]": st.lists(st.integers(0, 2**22), max_size=3),
    "list[str]": st.lists(st.text(max_size=8), max_size=3),
    "list[list[str]]": st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=20)).map(list), max_size=3),
}


def of_type(text: str) -> st.SearchStrategy[Any]:
    parts = [part.strip() for part in text.split(" | ")]
    return st.one_of([st.none() if part == "None" else BY_TYPE[part] for part in parts])


def any_message(cls: type[events.Message]) -> st.SearchStrategy[events.Message]:
    return st.builds(cls, **{field.name: of_type(str(field.type)) for field in dataclasses.fields(cls)})


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.type)
@given(data=st.data())
def test_every_message_survives_the_wire(cls: type[events.Message], data: st.DataObject) -> None:
    sent = data.draw(any_message(cls))
    wire = json.loads(json.dumps(sent.to_wire()))
    assert wire["type"] == cls.type
    assert events.from_wire(wire) == sent


def test_every_message_has_a_name_of_its_own_and_a_docstring() -> None:
    classes = [
        cls for module in (events, requests) for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, events.Message)
    ]
    classes = [cls for cls in dict.fromkeys(classes) if cls is not events.Message]
    assert {cls.type for cls in classes} == set(events._registry)
    assert len(classes) == len(events._registry)
    assert all(cls.__doc__ for cls in classes)


@pytest.mark.parametrize("data", [{}, {"type": "from_the_future", "x": 1}, {"type": ""}])
def test_a_message_of_an_unknown_type_is_none(data: dict) -> None:
    assert events.from_wire(data) is None


def test_fields_that_a_newer_peer_adds_are_dropped() -> None:
    assert events.from_wire({"type": "run_started", "run_id": "r", "handle": "pid:1", "at": 5, "colour": "red"}) == events.RunStarted(
        "r", "pid:1", 5
    )


def test_fields_with_defaults_may_be_left_out() -> None:
    finished = events.from_wire({"type": "run_finished", "run_id": "r", "status": "completed"})
    assert isinstance(finished, events.RunFinished)
    assert (finished.detail, finished.attempts, finished.exit_code) == ({}, 0, None)


def test_recorded_events_are_stamped_with_whole_microseconds_of_now() -> None:
    for cls in events.RECORDED:
        assert "at" in {field.name for field in dataclasses.fields(cls)}
    before = time.time() * 1e6
    at = events.RunStarted("r").at
    assert isinstance(at, int)
    assert before - 2 <= at <= time.time() * 1e6 + 2


def test_two_messages_do_not_share_their_default_dict() -> None:
    first, second = events.RunFinished("a", "failed"), events.RunFinished("b", "failed")
    first.detail["x"] = 1
    assert second.detail == {}


def test_a_queued_run_knows_its_id() -> None:
    assert events.RunQueued({"id": "r1"}).run_id == "r1"
