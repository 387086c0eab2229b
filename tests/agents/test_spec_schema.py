"""The JSON Schemas for editors: what they take loads, and what loads they take."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentnb.agents.spec import AnyCommand
from agentnb.agents.spec_file import load, load_text, text_data
from agentnb.agents.spec_schema import schema_of
from agentnb.agents.swarm_file import FLOWS, SOURCES
from tests.agents.test_spec_file import AGENTS, CORPUS, HEAD, REVIEWER, SWARM, TRIAGE, refused

SCHEMAS = {kind: Draft202012Validator(schema_of(kind)) for kind in ("agent", "swarm")}


def fits(data: dict[str, Any]) -> bool:
    return bool(SCHEMAS[str(data.get("kind", "agent")).lower()].is_valid(data))


def loads(data: dict[str, Any]) -> bool:
    return refused(load, data) is None


@pytest.mark.parametrize("kind", ["agent", "swarm"])
def test_they_are_json_schemas_that_describe_every_key(kind: str) -> None:
    schema = schema_of(kind)
    Draft202012Validator.check_schema(schema)
    assert list(schema["properties"])[:3] == ["apiVersion", "kind", "id"]
    assert schema["additionalProperties"] is False
    names = {"AgentSpec", "SwarmFile", *(cls.__name__ for cls in get_args(AnyCommand)), *(cls.__name__ for cls in FLOWS if kind == "swarm")}
    for name in names & set(schema["$defs"]):
        assert schema["$defs"][name]["additionalProperties"] is False
    assert {cls.__name__ for cls in get_args(AnyCommand)} <= set(schema["$defs"]) | {"A2A"}


def test_the_examples_fit(tmp_path: Any) -> None:
    assert fits(text_data(REVIEWER, "f"))
    data = text_data(TRIAGE.replace("spec: reviewer.yaml", "command: {type: shell, command: x}"), "f")
    assert fits(data)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(AGENTS)
def test_what_loads_fits(data: dict[str, Any]) -> None:
    assert loads(data)
    assert list(SCHEMAS["agent"].iter_errors(data)) == []


ANY = st.none() | st.booleans() | st.integers(-3, 2**60) | st.floats(-1e15, 1e15) | st.sampled_from(
    ["", "x", "5m", "1:30", "2GiB", "0s", "-3", "1.5 k", "Agent", "w", "\0", " ", "http://a", "a.b:c", "both", "fail_fast", "1h 30m"]
) | st.lists(st.sampled_from(["x", "", 3, None, "w"]), max_size=2) | st.dictionaries(
    st.sampled_from(["type", "kind", "x", "command", "max_attempts", "image", "A"]),
    st.sampled_from(["x", "shell", "local", 1, None, "docker"]), max_size=2
)  # fmt: skip
WHOLE_AGENT: dict[str, Any] = text_data(REVIEWER + """
description: text
tags: {a: b}
capture: both
working_dir: .
stdin: text
workspace: {type: worktree, repo: ., ref: main, cleanup: keep}
validation: {expected_pattern: a, forbidden_patterns: [b], streams: [stdout]}
grace: 1s
artifacts: [a]
inputs: [b]
on_success: x
on_failure: {command: y, condition: exit_code > 2, timeout: 5}
rollback: {type: command, argv: [a, b]}
cleanup: {type: shell, command: z, env: {A: b}}
""", "f")  # fmt: skip
WHOLE_SWARM: dict[str, Any] = text_data(SWARM + """
  - {name: v, a2a: {url: "http://a", message: m, data: {a: 1}, headers: {X: y}}, timeout: 5, retry: {max_attempts: 2},
     env: {A: b}, working_dir: .}
  - {name: u, python: "a.b:c", input: {a: "{{input.x}}"}}
flow:
  type: sequence
  on_failure: ignore
  steps:
    - {type: parallel, branches: [w, v], max_concurrency: 2, on_failure: continue}
    - {type: conditional, condition: "{{input.x}}", then: w, else: u}
    - {type: loop, over: "{{input.l}}", as: it, do: w, max_iterations: 2, on_failure: ignore}
    - {type: loop, while: "{{input.l}}", do: w, max_iterations: 2}
    - {type: delegate, worker: w, to: [v, u]}
    - {type: supervisor, workers: [w], max_restarts: 2, backoff: 1s, strategy: one_for_one}
    - {type: compete, workers: [w, v]}
    - {type: escalation, primary: w, chain: [v]}
    - {type: alongside, main: w, sides: [v], grace: 1}
on_failure: continue
timeout: 1m
input: {type: object}
output: {a: "{{steps.w.output}}"}
description: d
tags: {a: b}
""", "f")  # fmt: skip


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in data, but what is in values that are the user's own."""
    found = [at] if at else []
    if at and at[-1] in {"input", "output", "data", "json_schema"}:
        return found
    for key, item in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        found += places(item, (*at, key))
    return found


def changed(data: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy = deepcopy(data)
    inner: Any = copy
    for part in place[:-1]:
        inner = inner[part]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copy


#: What only the loader can know: whether names are there, whether what is a text in shape is good.
MEANING = ("there is no worker", "already", "is no template", "is not a regular expression", "names no function", "is no address",
           "exactly one of",
           "and 'json_schema'", "is not in another", "has a key", "cannot be", "steps.", "expressed")  # fmt: skip


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_anywhere_fits_if_it_loads_and_loads_if_it_fits(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([WHOLE_AGENT, WHOLE_SWARM]))
    place = data.draw(st.sampled_from(places(whole)))
    value = data.draw(st.just(...) | ANY)
    if place == ("kind",) or (value is None and place[-1] in {"as", "over", "while", *SOURCES}):
        return  # of those an editor shall say that they are empty; the loader takes them for not given
    wrong = changed(whole, place, value)
    good = SCHEMAS["agent" if whole is WHOLE_AGENT else "swarm"].is_valid(wrong)
    faults = refused(load_text, yaml.safe_dump(wrong), "f")
    if faults is None:
        assert good or isinstance(value, bool | str), place  # true is taken for 1, and the text of a number for the number
    else:
        meant = [fault for fault in faults if place[0] not in {"input", "output"} and not any(word in fault.message for word in MEANING)]
        assert not good or not meant, (place, list(map(str, faults)))


@pytest.mark.parametrize("name", ["comand", "on", "x"])
def test_an_unknown_key_fits_nowhere(name: str) -> None:
    for whole in (WHOLE_AGENT, WHOLE_SWARM):
        for place in [(), *places(whole)]:
            inner: Any = whole
            for part in place:
                inner = inner[part]
            if isinstance(inner, dict) and not {"input", "output", "env", "tags", "headers", "data"} & {*place}:
                wrong = changed(whole, (*place, name), 1)
                assert not fits(wrong)
                assert not loads(wrong)


def test_a_broken_file_that_breaks_the_shape_does_not_fit() -> None:
    shape = ("it is missing", "it must be", "there is no type", "there is no kind", "should be")
    for text, expected in CORPUS:
        broken = any(word in line for line in expected for word in shape) and "input: {type: objct" not in text  # said by another schema
        if text.startswith((HEAD, SWARM)) and broken and "{{x}}" not in text:
            assert not fits(yaml.safe_load(text)), text
