"""What a spec file comes to: whose output goes where, and what looks like a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentnb.agents.spec_file import open_spec
from agentnb.agents.spec_inspection import inspection
from agentnb.spec_text import text_of
from tests.agents.test_spec_file import REVIEWER, TRIAGE

WORKERS = """\
apiVersion: v1
kind: Swarm
id: s
workers:
  - {name: a, command: {type: shell, command: "echo {{input.x}}"}}
  - {name: b, command: {type: shell, command: "echo {{steps.a.output}}"}}
  - {name: c, input: {x: "{{steps.b.output}}", y: "{{params.n}}"}, command: {type: shell, command: "echo {{input.x}}"}}
"""


@pytest.fixture
def look(tmp_path: Path) -> Any:
    def inspect(text: str) -> dict[str, Any]:
        path = tmp_path / "f.yaml"
        path.write_text(text, encoding="utf-8")
        return inspection(open_spec(path))

    return inspect


def warnings(found: dict[str, Any]) -> list[str]:
    return [f"{one['line']}:{one['column']}: {one['path']}: {one['message']}" for one in found["warnings"]]


def test_a_good_file_has_no_warnings(look: Any, tmp_path: Path) -> None:
    (tmp_path / "reviewer.yaml").write_text(REVIEWER, encoding="utf-8")
    assert warnings(look(REVIEWER)) == []
    assert warnings(look(TRIAGE)) == []
    assert warnings(look(WORKERS)) == []


def test_data_flow_is_who_reads_what(look: Any) -> None:
    found = look(
        f'{WORKERS}flow: {{type: conditional, condition: "{{{{steps.a.output}}}}", then: b, else: c}}\noutput: "{{{{steps.c.output}}}}"\n'
    )
    assert [(link["source"], link["to"]) for link in found["data"]] == [
        ("input", "a"), ("a", "b"), ("b", "c"), ("params", "c"), ("a", "flow.condition"), ("c", "output")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ("flow: {type: sequence, steps: [a, b]}", ["7:5: workers[2]: the flow does not use the worker 'c'"]),
        ("flow: {type: sequence, steps: [b, a, c]}", ["8:32: flow.steps[0]: 'b' reads steps.a, which has not run by then"]),
        ("flow: {type: parallel, branches: [a, b, c]}", [
            "8:38: flow.branches[1]: 'b' reads steps.a, which has not run by then",
            "8:41: flow.branches[2]: 'c' reads steps.b, which has not run by then",
        ]),
        ("flow: {type: loop, while: '{{steps.a.ok}}', do: {type: sequence, steps: [c, b, a]}}", [
            "8:7: flow: a loop with 'while' and without 'max_iterations' fails after 1000 times; say how often at most",
        ]),
        ("flow: {type: sequence, steps: [a, {type: conditional, condition: true, then: b, else: c}]}", [
            "8:66: flow.steps[1].condition: it is always true, so the other branch is never reached",
            "8:87: flow.steps[1].else: 'c' reads steps.b, which has not run by then",
        ]),
        ("flow: {type: sequence, steps: [a, {type: conditional, condition: '{{ 1 > 2 }}', then: b}, c]}", [
            "8:66: flow.steps[1].condition: it reads nothing, so it is always the same and one branch is never reached",
        ]),
        ("flow: {type: escalation, primary: {type: sequence, steps: [a, b], on_failure: ignore}, chain: [c]}", [
            "8:35: flow.primary: what comes after it is never reached: it ignores failures (flow.primary.on_failure)",
        ]),
        ("flow: {type: sequence, steps: [a, b, {type: loop, over: [], do: c}]}", [
            "8:57: flow.steps[2].over: the list is empty, so nothing is done",
        ]),
        ("flow: {type: sequence, steps: [a, b, {type: parallel, branches: [c, c]}]}", [
            "8:69: flow.steps[2].branches[1]: the worker 'c' is in two branches at once; steps.c is what ends last",
        ]),
        ("flow: a\noutput: '{{steps.b.output}}'", [
            "6:5: workers[1]: the flow does not use the worker 'b'",
            "7:5: workers[2]: the flow does not use the worker 'c'",
            "9:9: output: it reads steps.b, which never runs",
        ]),
    ],
)  # fmt: skip
def test_what_looks_like_a_mistake_is_told_with_its_place(look: Any, flow: str, expected: list[str]) -> None:
    assert sorted(warnings(look(f"{WORKERS}{flow}\n"))) == sorted(expected)


def test_an_agent_that_reads_what_its_schema_does_not_know_is_warned_of(look: Any) -> None:
    text = REVIEWER.replace("Review {{input.path}}", "Review {{input.pth}}").replace("{kind: local}", "{kind: docker, image: x}")
    assert warnings(look(text)) == [
        "7:10: runtime: the runtime 'docker' is not in this version of agentnb; it cannot be run",
        "6:34: command.command: the input's schema says nothing of 'pth'",
        "4:60: input.properties.path: nothing reads 'path'",
    ]


def test_the_flow_is_a_tree_and_nothing_in_the_file_can_steer_a_terminal(look: Any) -> None:
    flow = (
        "flow: {type: sequence, steps: [a, {type: loop, over: '{{input.l}}', as: it, do: b}, {type: escalation, primary: c, chain: [a]}]}"
    )
    text = text_of(look(f'{WORKERS}{flow}\ndescription: "\\e[2Jevil\\r\\n"\n'))
    assert "\x1b" not in text
    assert "\n".join(text.splitlines()[text.splitlines().index("flow") :][:8]) == (
        "flow\n  sequence\n    a\n    loop (over: {{input.l}}, as: it)\n      do: b\n    escalation\n      primary: c\n      chain: a"
    )
