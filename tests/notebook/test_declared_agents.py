"""Agents of spec files, launched: real commands, the stand-in of claude, inputs and outputs that are checked, reuse, resume, replies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.agents.fill import fill
from tests.notebook.polling import until

SHELL = """\
apiVersion: v1
kind: Agent
id: counter
tags: {topic: counting}
input:
  type: object
  required: [word]
  additionalProperties: false
  properties:
    word: {type: string}
    times: {type: integer, default: 2}
output: {type: object, required: [n], properties: {n: {type: integer}}}
command:
  type: shell
  command: 'printf "%s " {{input.word}} "$V" "$W"; echo; echo "{\\"n\\": {{input.times}}}"'
env: {V: 1.10, W: "{{input.word}}"}
timeout: 1m
"""
CLAUDE = """\
apiVersion: v1
kind: Agent
id: reviewer
input: {type: object, required: [path], properties: {path: {type: string}}}
command: {type: claude, command: "Review {{input.path}}", model: sonnet}
limits: {max_output_bytes: 1MB}
timeout: 90s
"""


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    path = tmp_path / "counter.yaml"
    path.write_text(SHELL, encoding="utf-8")
    return path


def agent(command: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Agent", "id": "a", "command": command} | more


def test_an_agent_runs_with_its_input_filled_in_and_is_recorded_as_what_it_is(session: nb.Session, counter: Path) -> None:
    run = session.agent("counter.yaml", input={"word": "it's {{x}} $HOME"})
    assert (run.name, run.wait().status, run.output) == ("counter", "completed", {"n": 2})
    assert run.stdout.splitlines()[0] == "it's {{x}} $HOME 1.10 it's {{x}} $HOME "
    assert run.spec["path"] == str(counter)
    row = session.runs_df(full=True).iloc[0]
    assert (row["kind"], row["name"], row["command"], row["timeout_s"], row["tag.topic"]) == ("agent", "counter", "counter", 60, "counting")
    assert json.loads(row["input"]) == {"word": "it's {{x}} $HOME", "times": 2}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "agent 'counter': input.word: it is missing"),
        ({"word": 5}, "agent 'counter': input.word: 5 is not of type 'string'"),
        ({"word": "a", "tims": 3}, "agent 'counter': input.tims: there is no such value; did you mean 'times'?"),
        ({"word": "a", "times": "3"}, "agent 'counter': input.times: '3' is not of type 'integer'"),
    ],
)
def test_an_input_that_does_not_fit_starts_nothing(session: nb.Session, counter: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(nb.ConfigError) as caught:
        session.agent(counter, input=given)
    assert str(caught.value) == says
    assert session.runs == []
    assert [issue.message for issue in session.validate(nb.Agent(counter, input=given))] == [says]


def test_a_bad_file_starts_nothing_and_all_that_is_wrong_is_told(session: nb.Session, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(SHELL.replace("id: counter", "idd: counter").replace("type: shell", "type: shel"), encoding="utf-8")
    with pytest.raises(nb.SpecError) as caught:
        session.agent("bad.yaml")
    assert [(fault.line, fault.path) for fault in caught.value.faults] == [(1, "id"), (3, "idd"), (14, "command.type")]
    assert session.runs == []


def test_an_output_that_does_not_fit_fails_the_run(session: nb.Session) -> None:
    spec = agent({"type": "shell", "command": "echo '{\"n\": {{input.n}}}'"}, output={"properties": {"n": {"maximum": 3}}})
    good, bad = session.agent(spec, input={"n": 3}), session.agent(spec, input={"n": 4})
    none = session.agent(agent({"type": "shell", "command": "echo hi"}, output={"type": "object"}))
    assert good.wait().status == "completed"
    assert (bad.wait().status, bad.error and bad.error.kind) == ("failed", "validation_error")
    assert bad.error is not None
    assert bad.error.message == "$.n: 4 is greater than the maximum of 3"
    assert none.wait().error is not None
    assert none.error is not None
    assert none.error.message.startswith("no JSON was found in stdout")


def test_launch_wins_over_spec_and_spec_over_session(new_session: Callable[..., nb.Session]) -> None:
    session = new_session(timeout=10, env={"A": "session", "B": "session", "C": "session", "D": "session"})
    command = {"type": "shell", "command": "echo $A $B $C $D", "env": {"C": "command", "D": "command"}}
    spec = agent(command, timeout="20s", env={"B": "spec", "C": "spec"})
    run, other = session.agent(spec, env={"D": "launch"}), session.agent(spec, timeout=30, name="named", tags={"a": "b"})
    run.wait()
    other.wait()
    assert run.stdout == "session spec command launch\n"
    frame = session.runs_df()
    assert list(frame["timeout_s"]) == [20, 30]
    assert list(frame["name"]) == ["a", "named"]


def test_folders_in_a_file_are_relative_to_it_and_without_one_it_works_where_the_notebook_does(session: nb.Session, tmp_path: Path) -> None:
    for folder in ("agents/data", "sub"):
        (tmp_path / folder).mkdir(parents=True)
    path, plain = tmp_path / "agents" / "a.yaml", tmp_path / "agents" / "b.yaml"
    text = "apiVersion: v1\nkind: Agent\nid: a\ncommand: {type: command, argv: [pwd]}\n"
    path.write_text(f"{text}working_dir: '{{{{input.folder}}}}'\n", encoding="utf-8")
    plain.write_text(text, encoding="utf-8")
    inner = session.agent(path, input={"folder": "data"})
    os.chdir(tmp_path / "sub")
    here = session.agent(plain)
    inner.wait()
    here.wait()
    assert (inner.stdout.strip(), here.stdout.strip()) == (str(tmp_path / "agents" / "data"), str(tmp_path / "sub"))


def test_handlers_and_stdin_are_filled_too_and_their_values_are_quoted(session: nb.Session, tmp_path: Path) -> None:
    spec = agent({"type": "shell", "command": "cat"}, stdin="given {{input.x}}", on_success="echo {{input.x}} > done")
    run = session.agent(spec, input={"x": "a; touch evil"})
    assert run.wait().status == "completed"
    assert run.stdout == "given a; touch evil"
    assert (tmp_path / "done").read_text() == "a; touch evil\n"
    assert not (tmp_path / "evil").exists()


def test_a_map_fills_templates_of_the_input_and_takes_over_what_the_schema_names(session: nb.Session, counter: Path) -> None:
    rows = [{"word": "a", "n": 1, "more": "x"}, {"word": "{{n}}", "n": 5, "more": "y"}]
    group = session.map(nb.Agent(counter, input={"times": "{{n}}"}), rows)
    group.wait()
    assert [run.output for run in group] == [{"n": 1}, {"n": 5}]  # a template alone keeps its type
    assert [run.stdout.split()[0] for run in group] == ["a", "{{n}}"]  # what it gives is no template any more
    assert [run.name for run in group] == ["counter [0]", "counter [1]"]
    assert list(group.df()["param.more"]) == ["x", "y"]
    with pytest.raises(nb.TemplateError, match=r"input\.times: there is no value 'm'; the parameters are word"):
        session.map(nb.Agent(counter, input={"times": "{{m}}"}), [{"word": "a"}])
    with pytest.raises(nb.ConfigError, match=r"input\.times: 'x' is not of type 'integer'"):  # of the second; nothing starts
        session.map(nb.Agent(counter, input={"times": "{{n}}"}), [{"word": "a", "n": 1}, {"word": "a", "n": "x"}])
    assert len(session.runs) == 2


def test_a_missing_value_is_named_before_anything_starts(session: nb.Session) -> None:
    with pytest.raises(nb.TemplateError, match=r"there is no 'b' in a"):
        session.agent(agent({"type": "shell", "command": "echo {{input.x.b}}"}), input={"x": {"a": 1}})
    with pytest.raises(nb.ConfigError, match="its command says no prompt, and the input has no text 'prompt'"):
        session.agent(agent({"type": "claude"}), input={"x": 1})


@pytest.mark.parametrize("runtime", [{"kind": "docker", "image": "x"}, {"kind": "http", "url": "http://a"}, {"kind": "cloud"}])
def test_a_runtime_that_is_not_there_is_refused_before_anything_starts(session: nb.Session, runtime: dict[str, Any]) -> None:
    with pytest.raises(
        nb.RuntimeUnavailable, match=rf"agent 'a': the runtime '{runtime['kind']}' is not in this version of agentnb; 'local' is"
    ):
        session.agent(agent({"type": "shell", "command": "true"}, runtime=runtime))
    assert session.agent(agent({"type": "shell", "command": "true"}, runtime={"kind": "local"})).wait().status == "completed"


def test_the_schema_of_the_output_and_one_of_the_launch_are_not_both_possible(session: nb.Session) -> None:
    spec = agent({"type": "shell", "command": "true"}, output={"type": "object"})
    with pytest.raises(nb.ConfigError, match=r"the spec's output and validation\.json_schema are both given"):
        session.agent(spec, validation=nb.Validation(json_schema={}))


def test_secrets_of_the_launch_reach_the_command_and_nothing_else(session: nb.Session) -> None:
    run = session.agent(agent({"type": "shell", "command": "echo $TOKEN; test ${#TOKEN} = 7"}), env={"TOKEN": nb.Secret("hunter2")})
    assert (run.wait().status, run.stdout) == ("completed", "***\n")
    with pytest.raises(nb.ConfigError, match="a secret in it would be stored"):
        nb.Agent("a.yaml", input={"token": nb.Secret("hunter2")})


def test_a_function_is_named_and_called_with_the_input(session: nb.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_agents.py").write_text("def add(a, b=1):\n    return a + b\nasync def slow():\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = session.agent(agent({"type": "python", "function": "my_agents:add", "kwargs": {"b": "{{input.a}}"}}), input={"a": 2})
    assert (run.wait().status, run.output) == ("completed", 4)
    for name, given, says in [
        ("my_agents:nobody", {}, "there is no function 'nobody' in the module 'my_agents'"),
        ("no_such_module:f", {}, "the module 'no_such_module' cannot be imported"),
        ("my_agents:add", {"c": 1}, "add"),
        ("my_agents:slow", {}, "is an `async def`"),
    ]:
        with pytest.raises(nb.ConfigError, match=says):
            session.agent(agent({"type": "python", "function": name}), input=given)


# --- the same again


def test_reuse_goes_by_content_and_not_by_the_name_of_the_file(session: nb.Session, counter: Path, tmp_path: Path) -> None:
    first = session.agent(counter, input={"word": "a"}, reuse=True)
    first.wait()
    (tmp_path / "other.yaml").write_text(f"# moved\n{SHELL}", encoding="utf-8")
    same = session.agent("other.yaml", input={"word": "a", "times": 2}, reuse=True)
    assert (same.wait().status, same.reused_from, same.output) == ("completed", first.id, {"n": 2})
    assert session.agent(counter, input={"word": "b"}, reuse=True).reused_from is None
    for old, new in (("V: 1.10", "V: 1.20"), ("%s ", "%s  "), ("id: counter", "id: other"), ("required: [n]", "required: []")):
        (tmp_path / "other.yaml").write_text(SHELL.replace(old, new), encoding="utf-8")
        changed = session.agent("other.yaml", input={"word": "a"}, reuse=True)
        assert changed.reused_from is None, old
        changed.wait()


def test_a_digest_pins_the_content(session: nb.Session, counter: Path) -> None:
    digest = session.agent(counter, input={"word": "a"}).spec["sha256"]
    assert session.agent(counter, input={"word": "a"}, sha256=digest).wait().status == "completed"
    counter.write_text(SHELL.replace("1m", "2m"), encoding="utf-8")
    with pytest.raises(nb.ConfigError, match="is not the one that was meant: its content has changed"):
        session.agent(counter, input={"word": "a"}, sha256=digest)


def test_what_was_cut_off_is_launched_again_and_only_by_the_same_spec(session: nb.Session, tmp_path: Path) -> None:
    path = tmp_path / "slow.yaml"
    text = "apiVersion: v1\nkind: Agent\nid: slow\ncommand: {type: shell, command: 'test -e go || sleep 60; echo {{input.x}}'}\n"
    path.write_text(text, encoding="utf-8")
    run = session.agent(path, input={"x": "{{raw}}"}, params={})
    until(lambda: run.status == "running", 60)
    assert session._engine is not None
    assert session._engine.process is not None
    session._engine.process.kill()
    session.wait()
    assert run.status == "interrupted"
    path.write_text(text.replace("echo", "echo no"), encoding="utf-8")
    with pytest.raises(nb.ConfigError, match="its content has changed"):
        session.resume()
    path.write_text(text, encoding="utf-8")
    (tmp_path / "go").touch()
    (again,) = session.resume()
    assert (again.wait().status, again.stdout, again.resumed_from, again.name) == ("completed", "{{raw}}\n", run.id, "slow")


# --- claude


def test_claude_gets_its_prompt_and_options_from_the_file(session: nb.Session, fake_claude: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "reviewer.yaml").write_text(CLAUDE, encoding="utf-8")
    run = session.agent("reviewer.yaml", input={"path": "src"})
    assert (run.wait().status, run.output) == ("completed", "You said: Review src")
    row = session.runs_df().iloc[0]
    assert (row["kind"], row["model"], row["turns"], row["input_tokens"]) == ("agent", "sonnet", 1, 100)


def test_a_reply_goes_on_under_the_spec_and_can_be_resumed(session: nb.Session, fake_claude: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "reviewer.yaml").write_text(CLAUDE, encoding="utf-8")
    first = session.agent("reviewer.yaml", input={"path": "src"})
    first.wait()
    reply = first.reply("Shorter {{x}}.")
    assert (reply.wait().status, reply.output, reply.name) == ("completed", "You said: Shorter {{x}}.", "reviewer")
    assert reply.spec["goes_on"]["resume"] == first.agent_session
    assert list(session.runs_df()["timeout_s"]) == [90, 90]
    again = fill(nb.Agent(**{name: value for name, value in reply.spec.items() if name != "type"}), {})
    assert again.bound.command == nb.Claude("Shorter {{x}}.", model="sonnet", resume=first.agent_session)
    run = session.agent(agent({"type": "shell", "command": "true"}))
    run.wait()
    with pytest.raises(nb.ConfigError, match="has no conversation that could go on"):
        run.reply("more")


def test_an_output_that_is_data_is_asked_for_as_data(session: nb.Session, fake_claude: Callable[..., None]) -> None:
    fake_claude(text='Here it is:\n```json\n{"issues": 3}\n```')
    spec = agent({"type": "claude", "command": "Review"}, output={"type": "object", "required": ["issues"]})
    run = session.agent(spec)
    assert (run.wait().status, run.output) == ("completed", {"issues": 3})
    local = fill(nb.Agent(agent({"type": "local_model", "prompt": "Hi"}, output={"type": "object"})), {})
    text = fill(nb.Agent(agent({"type": "local_model"}, output={"type": "string"}), input={"prompt": "Hi {{x}}"}), {})
    assert local.bound.command == nb.LocalModel("Hi", json_schema={"type": "object"})
    assert text.bound.command == nb.LocalModel("Hi {{x}}")
    remote = fill(nb.Agent(agent({"type": "a2a", "url": "http://127.0.0.1:1"}), input={"x": "{{y}}"}), {})
    assert remote.bound.command == nb.A2A("http://127.0.0.1:1", data={"x": "{{y}}"})


# --- in a cell


def test_a_cell_holds_a_path_or_the_spec_itself(session: nb.Session, counter: Path) -> None:
    from agentnb.notebook.kinds import kind_of

    kind = kind_of("agent")
    run = session.launch(kind.target("counter.yaml\n", [], {"input": {"word": "a"}}, {}))
    inline = session.launch(kind.target(SHELL, [], {"input": {"word": "b"}}, {}))
    assert (run.wait().output, inline.wait().output, inline.name) == ({"n": 2}, {"n": 2}, "counter")
    assert inline.stdout.split() == ["b", "1.10", "b", '{"n":', "2}"]
    with pytest.raises(nb.SpecError, match=r"^cell:15:9: command\.type: there is no type 'shel'"):  # line 1 is that of the magic
        kind.target(SHELL.replace("type: shell", "type: shel"), [], {}, {})
    assert {"input", "sha256", "timeout", "name"} <= set(kind.options)


def test_launching_plain_commands_reads_no_yaml() -> None:
    code = (
        "import sys, agentnb as nb, agentnb.notebook.session, agentnb.agents.compile\n"
        "print([name for name in ('yaml', 'agentnb.agents.spec', 'agentnb.agents.spec_file') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
