"""Checks of output, and where structured output is found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.engine import checks
from agentnb.engine.work import CheckPlan

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=6
)


@given(JSON)
def test_a_text_that_is_json_is_found_whole(data: object) -> None:
    assert checks.structured(f"\n {json.dumps(data, indent=1)}\n") == (data, "json")


@given(JSON)
def test_json_on_the_last_line_and_in_the_last_fence_is_found(data: object) -> None:
    assert checks.structured(f"working ...\n{json.dumps(data)}\n") == (data, "last_line")
    fenced = f"Here:\n```json\n[0]\n```\nno, here:\n```json\n{json.dumps(data, indent=2)}\n```\nbye"
    assert checks.structured(fenced) == (data, "fenced_block")


@pytest.mark.parametrize(
    "text", ["", "\n", "no json", "{broken", "```json\n{broken\n```", "[" * 100_000, "[" * 500 + "]" * 500, "9" * 5000]
)
def test_what_is_no_json_is_none(text: str) -> None:
    assert checks.structured(text) is None


def test_patterns_are_searched_in_the_named_streams() -> None:
    texts = {"stdout": "all OK\nline two", "stderr": "warning: x"}
    assert checks.patterns({"expected_pattern": "OK$"}, texts) != []
    assert checks.patterns({"expected_pattern": "OK"}, texts) == []
    assert checks.patterns({"expected_pattern": "warning"}, texts) != []
    assert checks.patterns({"expected_pattern": "warning", "streams": ["stdout", "stderr"]}, texts) == []
    (found,) = checks.patterns({"forbidden_patterns": ["two", "absent"]}, texts)
    assert (found["severity"], found["check"]) == ("error", "forbidden_patterns")
    assert "line 2" in found["message"]
    assert checks.patterns({}, texts) == []


@pytest.mark.parametrize("plan", [{"expected_pattern": "x"}, {"forbidden_patterns": ["x"]}])
def test_a_stream_that_was_not_captured_fails(plan: CheckPlan) -> None:
    (found,) = checks.patterns(plan, {"stdout": None, "stderr": "x"})
    assert "was not captured" in found["message"]


def test_output_is_held_against_a_schema() -> None:
    plan: CheckPlan = {"json_schema": {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}}
    assert checks.schema(plan, {"a": 1}, "json") == []
    (found,) = checks.schema(plan, {"a": "x"}, "json")
    assert "$.a" in found["message"]
    assert checks.schema(plan, None, "json") != []
    (found,) = checks.schema(plan, None, None)
    assert "no JSON was found" in found["message"]
    assert len(checks.schema({"json_schema": {"items": {"type": "integer"}}}, ["x"] * 100, "json")) == 20
