"""Swarms where people meet them: the magic, the views, what is launched again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.events import StepStarted
from agentnb.notebook import figures
from agentnb.notebook.render import to_html, to_text
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot
from agentnb.notebook.steps import StepLog
from tests.notebook.polling import pid_in, until
from tests.notebook.test_magics import Shell, shell

Make = Callable[..., Any]
__all__ = ["shell"]
SPEC = """\
apiVersion: v1
kind: Swarm
id: greet
workers:
  - {name: bad, command: {type: shell, command: "exit 2"}}
  - {name: hello, command: {type: shell, command: "echo hello {{input.who}} {{input.n}}"}}
flow: {type: escalation, primary: bad, chain: [hello]}
"""


def test_the_magic_takes_a_file_or_the_yaml_itself_with_input_by_name_or_as_json(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "greet.yaml"
    path.write_text(SPEC)
    shell.run(f"%%agent swarm --as one --input who=you --input n=3 --name greeting --timeout 1m\n{path}")
    shell.run('%%agent swarm --as two --input \'{"who": "all", "n": null}\'\n' + SPEC.replace(" {{input.n}}", ""))
    assert shell.run("one.wait(60).output, one.name, two.wait(60).output, two.name") == ("hello you 3", "greeting", "hello all", "greet")


def test_the_magic_tells_all_faults_with_the_lines_of_the_cell(shell: Shell) -> None:
    said = shell.refused("%%agent swarm\n" + SPEC.replace("chain: [hello]", "chain: [helo]").replace("id: greet", "idd: greet"))
    assert "cell:8:" in said
    assert "did you mean 'hello'" in said
    assert "cell:4:" in said


def test_the_magic_completes_the_options_of_swarms(shell: Shell) -> None:
    assert {"%%agent swarm", "%%agent swarm --input "} & {*shell.complete("%%agent sw"), *shell.complete("%%agent swarm --inp")}


@pytest.fixture
def done(session) -> Any:
    run = session.swarm({"apiVersion": "v1", "kind": "Swarm", "id": "pair", "workers": [
        {"name": "a", "command": {"type": "shell", "command": "echo '<b>a</b>'"}, "input": {"path": "<i>here</i>"}},
        {"name": "b", "command": {"type": "shell", "command": "exit 4"}},
    ], "on_failure": "continue"})  # fmt: skip
    run.wait(60)
    return run


def test_text_and_html_show_the_tree_and_the_input_without_the_id_of_the_run(done) -> None:
    until(lambda: done._run.detail().steps)
    snapshot = done._run.detail()
    text, html = to_text(snapshot), to_html(snapshot)
    assert "✓  branch  sequence" not in text
    assert "✗ failed  branch  sequence" in text
    assert "    ✓  worker  a  <i>here</i>" in text
    assert "✗ failed  worker  b" in text
    assert "&lt;i&gt;here" in html
    assert "<i>here" not in html
    assert "run_id" not in text + html


def test_a_worker_shows_what_it_was_given_also_when_that_is_cut() -> None:
    log = StepLog()
    log.started(StepStarted("r", "s", "worker", "w", 1, None, {"input": {"path": "x"}, "run_id": "1"}))
    log.started(StepStarted("r", "t", "tool", "w", 1, None, {"input": {"path": "x"}, "run_id": "1"}))
    assert [step.input for step in log.shown()] == ["x", "input=x run_id=1"]


def test_sums_of_a_session_count_workers_once_and_those_of_a_group_count_swarms() -> None:
    runs = [RunSnapshot("s", "s", "swarm", "", "completed", 0.0, cost_usd=3.0, input_tokens=30, cpu_s=1.0)]
    runs += [RunSnapshot(n, n, "claude", "", "completed", 0.0, cost_usd=1.5, input_tokens=15, cpu_s=1.0) for n in "ab"]
    assert dict(figures.totals(GroupSnapshot("x", "x", "session", runs))) == {"CPU": "3.0 s", "tokens": "30", "cost": "$3.00"}
    assert dict(figures.totals(GroupSnapshot("x", "x", "group", runs[:1]))) == {"CPU": "1.0 s", "tokens": "30", "cost": "$3.00"}


def test_a_swarm_that_was_cut_off_is_launched_again_as_a_whole(new_session: Make, tmp_path: Path) -> None:
    session = new_session()
    path = tmp_path / "s.yaml"
    command = "echo $$ > pid; test -e go || sleep 600; echo {{input.word}}"
    spec = {
        "apiVersion": "v1",
        "kind": "Swarm",
        "id": "again",
        "workers": [{"name": "w", "command": {"type": "shell", "command": command}}],
    }
    path.write_text(json.dumps(spec))
    run = session.swarm(path, input={"word": "x y"})
    pid_in(Path("pid"))
    session._engine.process.kill()
    assert run.wait(60).status == "interrupted"
    Path("go").touch()
    group = session.resume()
    group.wait(60)
    assert [(again.output, again.resumed_from) for again in group] == [("x y", run.id)]


def test_a_plan_is_checked_without_being_launched(session) -> None:
    wrong = nb.Swarm(
        {"apiVersion": "v1", "kind": "Swarm", "id": "x", "workers": [{"name": "a", "command": {"type": "shell", "command": "{{"}}]}
    )
    assert [issue.severity for issue in session.validate(wrong)] == ["error"]
    assert session.runs == []
