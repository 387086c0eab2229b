"""Reading spec files: everything that is wrong, with its place; what the models hold; and that nothing but SpecError comes of garbage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents.spec import AgentSpec
from agentnb.agents.spec_file import load, load_agent, load_swarm, load_text, text_data
from agentnb.agents.swarm_file import SwarmFile
from agentnb.errors import SpecFault

REVIEWER = """\
apiVersion: v1
kind: Agent
id: reviewer
input: {type: object, required: [path], properties: {path: {type: string}}}
output: {type: object, required: [issues]}
command: {type: claude, command: "Review {{input.path}}", model: sonnet, tools: [Read, Grep]}
runtime: {kind: local}
timeout: 5m
retry: {max_attempts: 3}
limits: {max_memory_bytes: 2GiB}
env: {PY: 3.10, DEBUG: on, DAY: 2026-01-31, YES: yes}
"""
TRIAGE = """\
apiVersion: v1
kind: Swarm
id: triage
workers:
  - {name: cheap, spec: reviewer.yaml, input: {path: "{{input.path}}"}, timeout: 20s}
  - {name: strong, a2a: {url: "http://127.0.0.1:9000"}}
  - {name: build, command: {type: shell, command: "make -C {{input.path}}"}}
flow: {type: escalation, primary: cheap, chain: [strong, build]}
on_failure: fail_fast
timeout: 2m
output: "{{steps.cheap.output}}"
"""
HEAD = "apiVersion: v1\nkind: Agent\nid: a\n"
SWARM = "apiVersion: v1\nkind: Swarm\nid: s\nworkers:\n  - {name: w, command: {type: shell, command: x}}\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "reviewer.yaml").write_text(REVIEWER, encoding="utf-8")
    (tmp_path / "triage.yaml").write_text(TRIAGE, encoding="utf-8")
    return tmp_path


def faults(text: str) -> list[str]:
    """All that is wrong, as ``line:column: path: message``."""
    with pytest.raises(nb.SpecError) as caught:
        load_text(text, "f")
    assert str(caught.value).splitlines() == [str(fault) for fault in caught.value.faults]
    assert (caught.value.file, caught.value.line, caught.value.column) == caught.value.faults[0][:3]
    return [str(fault).removeprefix("f:") for fault in caught.value.faults]


def refused(reader: Callable[..., Any], *args: Any) -> tuple[SpecFault, ...] | None:
    """The faults that a reader tells; None when it tells none."""
    try:
        reader(*args)
    except nb.SpecError as bad:
        return bad.faults
    return None


# --- what is right


def test_an_agent_is_read_with_its_options_as_data(files: Path) -> None:
    spec = load_agent(files / "reviewer.yaml")
    assert (spec.id, spec.timeout, spec.runtime.kind, spec.file) == ("reviewer", 300.0, "local", files / "reviewer.yaml")
    assert spec.command == nb.Claude("Review {{input.path}}", model="sonnet", tools=["Read", "Grep"])
    assert spec.env == {"PY": "3.10", "DEBUG": "on", "DAY": "2026-01-31", "YES": "yes"}  # as they are written
    assert spec.config() == nb.ExecutionConfig(
        timeout=300, retry=nb.Retry(max_attempts=3), limits=nb.Limits(max_memory_bytes="2GiB"), env=spec.env
    )


def test_a_swarm_is_read_with_what_its_workers_are(files: Path) -> None:
    swarm = load_swarm(str(files / "triage.yaml"))
    assert swarm.flow_data() == {"type": "escalation", "primary": "cheap", "chain": ["strong", "build"]}
    assert swarm.agents["cheap"].id == "reviewer"
    assert isinstance(strong := swarm.agents["strong"], AgentSpec)
    assert strong.command == nb.A2A("http://127.0.0.1:9000")
    assert [worker.source for worker in swarm.workers] == ["spec", "a2a", "command"]
    assert swarm.worker("cheap").config() == nb.ExecutionConfig(timeout=20)
    with pytest.raises(nb.ConfigError, match="has no worker 'nobody'"):
        swarm.worker("nobody")


def test_kind_decides_and_not_the_name_of_the_file(files: Path) -> None:
    (files / "reviewer.yaml").rename(files / "a.swarm.txt")
    assert isinstance(load(files / "a.swarm.txt"), AgentSpec)
    with pytest.raises(nb.SpecError, match=r"a\.swarm\.txt:2:7: kind: it is of kind Agent, not Swarm; session\.agent\(\.\.\.\) runs it"):
        load_swarm(files / "a.swarm.txt")


def test_all_nine_flows_nest() -> None:
    flow = """
flow:
  type: sequence
  on_failure: continue
  steps:
    - w
    - {type: parallel, branches: [w, w], max_concurrency: 2}
    - {type: conditional, condition: "{{steps.w.output.ok}}", then: w, else: {type: loop, over: "{{input.items}}", as: it, do: w}}
    - {type: loop, while: "{{loop.index < 3}}", do: {type: delegate, worker: w, to: [w]}, max_iterations: 5}
    - {type: supervisor, workers: [w], max_restarts: 0, backoff: 250ms, strategy: one_for_all}
    - {type: compete, workers: [w, {type: escalation, primary: w, chain: [w]}]}
    - {type: alongside, main: w, sides: [w], grace: 1s}
"""
    swarm = load_text(SWARM + flow)
    assert isinstance(swarm, SwarmFile)
    flow_data = swarm.flow_data()
    assert isinstance(flow_data, dict)
    assert flow_data["steps"][2]["else"] == {"type": "loop", "over": "{{input.items}}", "as": "it", "do": "w"}
    assert flow_data["steps"][4]["backoff"] == 0.25
    assert load_text(SWARM).flow_data() == {"type": "sequence", "steps": ["w"]}  # type: ignore[union-attr]


def test_a_loop_gives_its_names_to_what_it_does_and_to_nobody_else() -> None:
    workers = "  - {name: l, command: {type: shell, command: 'echo {{loop.index}} {{it.name}}'}}\n"
    load_text(SWARM + workers + "flow: {type: loop, over: [1], as: it, do: l}\n")
    assert faults(SWARM + workers + "flow: {type: sequence, steps: [l]}\n") == [
        "6:47: workers[1].command.command: there is no value 'it'; there is input, params, steps",
        "6:47: workers[1].command.command: there is no value 'loop' here; it is there in what a loop does",
    ]


def test_a_spec_may_be_written_in_the_swarm_and_a_swarm_may_be_a_worker(files: Path) -> None:
    text = SWARM + (
        "  - name: inner\n    spec:\n      apiVersion: v1\n      kind: Agent\n      id: i\n      env: {V: 1.10}\n"
        "      command: {type: shell, command: 'echo {{input.x}}'}\n  - {name: deep, spec: triage.yaml}\n"
    )
    (files / "outer.yaml").write_text(text, encoding="utf-8")
    swarm = load_swarm(files / "outer.yaml")
    assert isinstance(inner := swarm.agents["inner"], AgentSpec)
    assert (inner.id, inner.env) == ("i", {"V": "1.10"})
    assert isinstance(deep := swarm.agents["deep"], SwarmFile)
    assert deep.agents["cheap"].id == "reviewer"


def test_the_digest_is_of_the_content_with_all_that_it_names_and_of_no_comment(files: Path) -> None:
    first = load(files / "triage.yaml").digest
    (files / "triage.yaml").write_text("# a comment\n" + TRIAGE, encoding="utf-8")
    assert load(files / "triage.yaml").digest == first
    (files / "reviewer.yaml").write_text(REVIEWER.replace("sonnet", "opus"), encoding="utf-8")
    assert load(files / "triage.yaml").digest != first


def test_data_and_text_are_read_like_files() -> None:
    data = text_data(REVIEWER, "cell")
    assert load_agent(data).command == load_text(REVIEWER).command  # type: ignore[union-attr]
    assert load_agent(data).env["PY"] == "3.10"
    with pytest.raises(nb.SpecError, match=r"^command\.type|^command: there is no type 'x'"):
        load(data | {"command": {"type": "x"}})
    with pytest.raises(nb.SpecError, match="the key 1 is no text"):
        load(data | {"input": {1: 2}})


# --- what is wrong


BRACES = "for braces that belong to the text itself write {% raw %}{{ ... }}{% endraw %}"
RELATIVE = "give the path of a spec file, relative to this one"
CORPUS: list[tuple[str, list[str]]] = [
    ("", ["1:1: it is empty; a spec begins with 'apiVersion: v1' and 'kind: Agent' or 'kind: Swarm'"]),
    ("- a\n", ["1:1: it is no mapping; a spec begins with 'apiVersion: v1' and 'kind: Agent' or 'kind: Swarm'"]),
    ("id: a\n", ["1:1: kind: it is missing; write 'kind: Agent' or 'kind: Swarm'"]),
    ("kind: agent\n", ["1:7: kind: there is no kind 'agent'; it is 'Agent' or 'Swarm'; did you mean 'Agent'?"]),
    ("kind: Agent\napiVersion: v2\n", [
        "1:1: id: it is missing",
        "1:1: command: it is missing",
        "2:13: apiVersion: should be 'v1', not 'v2'",
    ]),
    (HEAD + "command: {type: shell, comand: x}\ntime_out: 5\n", [
        "4:1: command.command: it is missing",
        "4:24: command.comand: there is no 'comand' here; did you mean 'command'?",
        "5:1: time_out: there is no 'time_out' here; did you mean 'timeout'?",
    ]),
    (HEAD + "command: {type: shel, command: x}\n", ["4:17: command.type: there is no type 'shel'; did you mean 'shell'?"]),
    (HEAD + "command: ls\n", ["4:10: command: it must be a mapping, not 'ls'"]),
    (HEAD + "command: {type: shell, command: x}\ntimeout: 1:30\nretry: {max_attempts: 0, jitter: x}\nlimits: {max_memory_bytes: lots}\n", [
        "5:10: timeout: '1:30' is not a duration; write seconds (90) or text ('1h30m', '250ms'; units ms s m h d w)",
        "6:23: retry.max_attempts: should be greater than or equal to 1, not 0",
        "6:34: retry.jitter: it must be a number, not 'x'",
        "7:28: limits.max_memory_bytes: 'lots' is not a size; write whole bytes (1048576) or text ('2GiB', '5MB')",
    ]),
    (HEAD + "command: {type: claude, command: 5, tools: Read}\n", [
        "4:34: command.command: prompt: 5 is of type int, not text; write the question as text, such as 'Name three colours.'",
        "4:44: command.tools: 'Read' is no list; write tools=['Read', 'Bash(git log:*)']; [] for none at all",
    ]),
    (HEAD + "input: {type: objct, required: x}\noutput: {properties: {a: {pattern: '('}}}\ncommand: {type: shell, command: x}\n", [
        "4:15: input.type: there is no type 'objct'; did you mean 'object'?",
        "4:32: input.required: 'x' is not of type 'array'",
        "5:36: output.properties.a.pattern: '(' is not a regular expression",
    ]),
    (HEAD + "input: {$ref: '#/$defs/x', $defs: {}}\ncommand: {type: shell, command: x}\n", [
        "4:15: input.$ref: '#/$defs/x' leads nowhere: there is no 'x'",
    ]),
    (HEAD + "command: {type: shell, command: 'echo {{path}} {{input.x'}\n", [
        f"4:33: command.command: line 1: unexpected end of template, expected 'end of print statement'.; {BRACES}",
    ]),
    (HEAD + "command: {type: shell, command: 'echo {{path}} {{steps.a.output}}'}\nenv: {A: '{{input.a | nofilter}}'}\n", [
        "4:33: command.command: there is no value 'path'; an agent knows its input only: {{input.path}}",
        "4:33: command.command: there is no value 'steps'; an agent knows its input only: {{input.steps}}",
        "5:10: env.A: line 1: No filter named 'nofilter'.; " + BRACES,
    ]),
    (HEAD + "input: {additionalProperties: false, properties: {path: {}}}\ncommand: {type: command, argv: [ls, '{{input.pth}}']}\n", [
        "5:37: command.argv[1]: the input has no 'pth'; did you mean 'path'?",
    ]),
    (HEAD + "command: {type: shell, command: 'echo {{input.x}}', shell: fish}\non_failure: {command: 'echo {{y}}'}\n", [
        "4:60: command.shell: values cannot be quoted safely for the shell 'fish'; use sh or bash, or pass them in env",
        "5:23: on_failure.command: there is no value 'y'; an agent knows its input only: {{input.y}}",
    ]),
    (HEAD + "command: {type: python, function: no_module}\nruntime: {kind: dokker}\ntags: {a: [1]}\n", [
        "4:35: command.function: 'no_module' names no function; write 'package.module:function'",
        "5:17: runtime.kind: there is no kind 'dokker'; did you mean 'docker'?",
        "6:7: tags: {'a': ['1']} is no mapping of texts; write tags: {topic: builds}",
    ]),
    (HEAD + "command: {type: shell, command: x}\nvalidation: {json_schema: {}}\noutput: {}\nworkspace: {type: tree}\n", [
        "6:9: output: output and validation.json_schema are both given; they check the same, so give one of them",
        "7:12: workspace: {'type': 'tree'} is no workspace; write nb.Worktree('.'), nb.TempCopy('.') or nb.Shared('.')",
    ]),
    (SWARM + "  - {name: w, spec: nobody.yaml}\n  - {name: 3, timeout: 0, a2a: {url: x}, command: {type: shell, command: y}}\n"
     "flow: {type: sequnce}\n", [
        "6:12: workers[1].name: there is a worker 'w' already: workers[0]",
        "7:12: workers[2].name: it must be text, not 3; put it into quotes",
        "7:24: workers[2].timeout: should be greater than 0, not 0",
        "7:38: workers[2].a2a.url: 'x' is no address of a server; write the agent's address as 'http://127.0.0.1:9000'",
        "8:14: flow.type: there is no type 'sequnce'; did you mean 'sequence'?",
    ]),
    (SWARM + "  - {name: x}\n  - {name: y, python: 'a:b', command: {type: shell, command: z}}\n", [
        "6:5: workers[1]: a worker has exactly one of spec, a2a, command, python; it has none",
        "7:5: workers[2]: a worker has exactly one of spec, a2a, command, python; it has command and python",
    ]),
    (SWARM + "flow:\n  type: parallel\n  branches: [w, v, 3, {type: sequence, steps: []}]\n  max: 3\noutput: '{{steps.x.output}}'\n", [
        "8:17: flow.branches[1]: there is no worker 'v'; there is w",
        "8:20: flow.branches[2]: it must be a worker's name or a flow, which is a mapping with a type, not 3",
        "8:47: flow.branches[3].steps: it is empty; give at least one",
        "9:3: flow.max: there is no 'max' here; known: type, branches, max_concurrency, on_failure",
        "10:9: output: steps.x: there is no worker 'x'; there is w",
    ]),
    (SWARM + "flow: {type: loop, do: w}\n", ["6:7: flow: a loop has exactly one of 'over' and 'while'; it has none"]),
    (SWARM + "flow: {type: loop, while: yes, as: loop, do: w}\n", [
        "6:27: flow.while: 'yes' is no template, so it is never true or false; write {{ ... }}, such as {{input.x > 3}}",
        "6:7: flow: 'as' names the items of 'over'; a loop with 'while' has none",
    ]),
    (SWARM + "flow: {type: conditional, condition: maybe, else: w}\n", [
        "6:1: flow.then: it is missing",
        "6:38: flow.condition: 'maybe' is no template, so it is never true or false; write {{ ... }}, such as {{input.x > 3}}",
    ]),
    (SWARM + "  - {name: a-b, command: {type: shell, command: 'echo {{steps.a-b.output}}'}}\n", [
        "6:49: workers[1].command.command: there is no value 'b'; a name with '-' is written in brackets: steps['a-b']",
        "6:49: workers[1].command.command: steps.a: there is no worker 'a'; there is a-b, w",
    ]),
    (SWARM + "  - {name: i, spec: {apiVersion: v1, kind: Agent, id: i, command: {type: shell, command: '{{x}}'}}}\n", [
        "6:90: workers[1].spec.command.command: there is no value 'x'; an agent knows its input only: {{input.x}}",
    ]),
    (SWARM + "  - {name: i, input: {b: 1}, spec: {apiVersion: v1, kind: Agent, id: i, command: {type: shell, command: a}, input: "
             "{required: [a], properties: {a: {}}, additionalProperties: false}}}\n", [
        "6:22: workers[1].input: it has no 'a', which the input of its spec requires",
        "6:26: workers[1].input.b: the input of its spec has no 'b'; there is a",
    ]),
    (SWARM + "  - {name: t, spec: '{{input.file}}'}\n", [
        f"6:21: workers[1].spec: it cannot be a template, since it is read before anything runs; {RELATIVE}",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CORPUS, ids=[str(number) for number in range(len(CORPUS))])
def test_all_that_is_wrong_is_told_at_once_with_its_place(text: str, expected: list[str]) -> None:
    told = [line for line in faults(text) if "nobody.yaml" not in line]
    assert sorted(told) == sorted(expected)


def test_faults_are_told_in_the_order_of_the_file_and_those_of_other_files_with_theirs(files: Path) -> None:
    (files / "bad.yaml").write_text("apiVersion: v1\nkind: Agent\nid: 'a b'\ncommand: {type: shell}\n", encoding="utf-8")
    (files / "s.yaml").write_text(SWARM + "  - {name: x, spec: bad.yaml}\n  - {name: y, spec: reviewr.yaml}\nflow: z\n", encoding="utf-8")
    os.chdir(files)
    with pytest.raises(nb.SpecError) as caught:
        load("s.yaml")
    assert [fault.place for fault in caught.value.faults] == ["s.yaml:7:21", "s.yaml:8:7", "bad.yaml:3:5", "bad.yaml:4:1"]
    missing = caught.value.faults[0].message
    assert missing.startswith("there is no file ")
    assert missing.endswith("; did you mean 'reviewer.yaml'?; paths are relative to the file that names them")


def test_a_file_that_comes_back_to_itself_is_refused_however_it_is_named(files: Path) -> None:
    (files / "sub").mkdir()
    (files / "a.yaml").write_text(SWARM + "  - {name: x, spec: sub/b.yaml}\n", encoding="utf-8")
    (files / "sub" / "b.yaml").write_text(SWARM + "  - {name: x, spec: link.yaml}\n", encoding="utf-8")
    (files / "sub" / "link.yaml").symlink_to(files / "a.yaml")
    os.chdir(files)
    with pytest.raises(
        nb.SpecError, match=r"^sub/b\.yaml:6:21: workers\[1\]\.spec: it refers to itself: a\.yaml -> sub/b\.yaml -> link\.yaml;"
    ):
        load("a.yaml")


def test_the_same_file_twice_is_no_cycle(files: Path) -> None:
    (files / "s.yaml").write_text(SWARM + "  - {name: x, spec: triage.yaml}\n  - {name: y, spec: reviewer.yaml}\n", encoding="utf-8")
    assert len(load_swarm(files / "s.yaml").agents) == 3


@pytest.mark.parametrize("name", ["", " ", "a\0b", 5, None])
def test_what_is_no_path_is_refused(name: Any) -> None:
    with pytest.raises(nb.ConfigError, match="is no path of a spec file"):
        load(name)


def test_what_is_no_file_is_refused_without_waiting_for_it(files: Path) -> None:
    os.mkfifo(files / "fifo.yaml")
    with pytest.raises(nb.SpecError, match=r"fifo\.yaml: it is no file; give the path of a YAML file"):
        load(files / "fifo.yaml")
    with pytest.raises(nb.SpecError, match="it is a folder; give the path of a YAML file"):
        load(files)
    with pytest.raises(nb.SpecError, match=r"reviewr\.yaml: there is no such file; did you mean 'reviewer\.yaml'\?"):
        load(files / "reviewr.yaml")


# --- anything else


PIECES = st.sampled_from(
    ["apiVersion: v1", "kind: Agent", "kind: Swarm", "id: a", "command: {type: shell, command: '{{input.x}}'}", "workers:", "  - name: a",
     "    spec: a.yaml", "    command: {type: [1]}", "flow: a", "flow: {type: {a: 1}}", "flow: [a]", "flow:", "  type: loop", "  do:",
     "input: 5",
     "input: {properties: [a], required: {a: 1}}", "input: {$schema: 5}", "output: {{a}}", "env: [1]", "tags: 5", "retry: x",
     "workers: {a: b}",
     "workers: [a, 3, [b], {name: [c], spec: 5, input: 7, a2a: 3}]", "runtime: local", "on_failure: [1]", "inputs: {a: b}", "stdin: 5",
     "command: {type: python, kwargs: 3}", "command: {type: a2a, data: [1]}", "limits: {max_memory_bytes: -1}", "workspace: 5",
     "artifacts: 5"],
)  # fmt: skip


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES | st.text(max_size=20), max_size=12).map("\n".join) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
def test_garbage_raises_nothing_but_spec_errors(text: str) -> None:
    assert all(fault.message for fault in refused(load_text, text, "f") or ())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["x", "{{x}}", "{{", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "command", "name", "a"]), inner, max_size=2),
    max_leaves=4,
)
KEYS = sorted({*AgentSpec.model_fields, *SwarmFile.model_fields})


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([REVIEWER, TRIAGE]), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_any_value_anywhere_raises_nothing_but_spec_errors(text: str, changes: dict[str, Any]) -> None:
    assert refused(load, yaml.safe_load(text) | changes) != ()


SCHEMAS = st.sampled_from([None, {"type": "object"}, {"properties": {"x": {"type": "string", "default": "a"}}}])
COMMANDS = st.sampled_from([
    {"type": "shell", "command": "echo {{input.x}}"}, {"type": "command", "argv": ["a", "b"]}, {"type": "python", "function": "a.b:c"},
    {"type": "test", "command": "t", "expected_exit_code": 3}, {"type": "claude", "command": "p", "tools": ["Read"]},
    {"type": "local_model", "prompt": "p", "seed": 1}, {"type": "a2a", "url": "http://a", "data": {"a": "{{input.x}}"}},
    {"type": "json_lines", "argv": ["a"]}, {"type": "openai_compatible", "url": "http://a/v1", "model": "m", "prompt": "p"},
])  # fmt: skip
AGENTS = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.just("Agent"), "id": st.from_regex(r"[a-z][a-z0-9.-]{0,9}", fullmatch=True),
     "command": COMMANDS},
    optional={
        "input": SCHEMAS, "output": SCHEMAS, "timeout": st.sampled_from([5, 1.5, "90s", "1h30m"]), "env": st.just({"A": "1"}),
        "retry": st.just({"max_attempts": 2, "initial_delay": "250ms"}), "tags": st.just({"a": "b"}), "description": st.text(max_size=9),
        "limits": st.just({"max_memory_bytes": "1.5GiB"}),
        "on_failure": st.sampled_from(["x", {"command": "y", "condition": "exit_code > 2"}]),
        "workspace": st.just({"type": "temp_copy", "folder": "."}), "capture": st.sampled_from(["both", "structured"]),
    },
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(AGENTS)
def test_an_agent_survives_being_written_and_read_again(data: dict[str, Any]) -> None:
    spec = load_agent(data)
    written = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True, exclude_unset=True))
    again = load_text(written)
    assert again == spec
    assert again.digest == spec.digest
