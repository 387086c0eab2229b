"""``agentnb validate``, ``schema``, ``inspect`` and ``run``: what they say, and their exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentnb import cli
from agentnb.agents.spec_schema import schema_of
from tests.agents.test_spec_file import REVIEWER, TRIAGE
from tests.notebook.polling import until
from tests.notebook.test_declared_agents import SHELL

Run = Callable[..., tuple[int, str, str]]
BAD = "apiVersion: v1\nkind: Agent\nid: 3\ncommand: {type: shel}\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in {"counter.yaml": SHELL, "reviewer.yaml": REVIEWER, "triage.yaml": TRIAGE, "bad.yaml": BAD}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def agentnb(files: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def go(*args: str) -> tuple[int, str, str]:
        try:
            code = cli.main(list(args))
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        said = capfdbinary.readouterr()
        return code, said.out.decode(), said.err.decode()

    return go


def test_validate_tells_all_faults_of_all_files_and_ends_with_two(agentnb: Run) -> None:
    code, out, err = agentnb("validate", "triage.yaml", "bad.yaml", "nobody.yaml")
    assert (code, err) == (2, "")
    assert out.splitlines() == [
        "triage.yaml: good (Swarm 'triage')",
        "bad.yaml:3:5: id: it must be text, not 3; put it into quotes",
        "bad.yaml:4:17: command.type: there is no type 'shel'; did you mean 'shell'?",
        "nobody.yaml: there is no such file",
    ]
    assert agentnb("validate", "triage.yaml")[0] == 0


def test_validate_tells_programs_the_same_as_json(agentnb: Run) -> None:
    code, out, _ = agentnb("validate", "--format", "json", "bad.yaml", "counter.yaml")
    bad, good = json.loads(out)
    assert (code, good) == (2, {"file": "counter.yaml", "valid": True, "kind": "Agent", "id": "counter", "faults": []})
    assert bad["faults"][0] == {
        "file": "bad.yaml", "line": 3, "column": 5, "path": "id", "message": "it must be text, not 3; put it into quotes",
        "text": "bad.yaml:3:5: id: it must be text, not 3; put it into quotes",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["agent", "swarm"])
def test_schema_writes_the_json_schema(agentnb: Run, kind: str) -> None:
    code, out, err = agentnb("schema", kind)
    assert (code, json.loads(out), err) == (0, schema_of(kind), "")
    assert agentnb("schema", "worker")[0] == 2


def test_inspect_shows_workers_flow_data_and_warnings(agentnb: Run) -> None:
    code, out, err = agentnb("inspect", "triage.yaml")
    assert (code, err) == (0, "")
    assert (
        out
        == """\
Swarm triage  (triage.yaml)

input
  anything

workers
  worker  type    what                    timeout
  cheap   claude  reviewer.yaml           20 s
  strong  a2a     http://127.0.0.1:9000   -
  build   shell   make -C {{input.path}}  -

flow
  escalation
    primary: cheap
    chain: strong
    chain: build
  (on_failure: fail_fast, timeout: 120 s)

data
  input -> cheap, build
  cheap -> output

no warnings
"""
    )
    found = json.loads(agentnb("inspect", "counter.yaml", "--format", "json")[1])
    assert (found["id"], found["type"], found["input"][0]) == ("counter", "shell", {"name": "word", "type": "string", "required": True})
    code, out, err = agentnb("inspect", "bad.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("agentnb: bad.yaml:3:5: id: ")


def test_run_takes_the_input_by_its_schema_and_shows_what_is_printed(agentnb: Run, store: Path) -> None:
    code, out, err = agentnb(
        "run", "counter.yaml", "--input", "word=007", "--input", "times=3", "--store", str(store), "--name", "mine", "--tag", "a=b"
    )
    assert (code, out) == (0, '007 1.10 007 \n{"n": 3}\n')
    assert re.match(r"agentnb: mine completed in [0-9.]+ s \(agentnb show ", err)
    code, out, _ = agentnb("run", "counter.yaml", "--input", '{"word": "x"}', "--format", "json", "--store", str(store))
    found = json.loads(out)
    assert (code, found["status"], found["output"], found["input"]) == (0, "completed", {"n": 2}, {"word": "x", "times": 2})
    shown = agentnb("runs", "--format", "json", "--store", str(store))[1]
    assert [(run["name"], run["kind"], run["session"], run["tag.a"]) for run in json.loads(shown)] == [
        ("mine", "agent", "command line", "b"), ("counter", "agent", "command line", None)
    ]  # fmt: skip


def test_run_takes_an_input_from_a_file_and_reuses_what_is_done(agentnb: Run, files: Path, store: Path) -> None:
    (files / "in.json").write_text('{"word": "x"}', encoding="utf-8")
    given = ("run", "counter.yaml", "--input", "@in.json", "--reuse", "--store", str(store))
    assert agentnb(*given)[0] == 0
    code, out, err = agentnb(*given)
    assert (code, out) == (0, 'x 1.10 x \n{"n": 2}\n')
    assert "it is run " in err


def test_run_of_a_swarm_writes_its_output_to_stdout_and_its_progress_beside_it(agentnb: Run, files: Path, store: Path) -> None:
    text = """\
apiVersion: v1
kind: Swarm
id: pair
workers:
  - {name: count, spec: counter.yaml, input: {word: "{{input.word}}", times: 4}}
  - {name: say, command: {type: shell, command: "echo got {{steps.count.output.n}}"}}
output: {n: "{{steps.count.output.n}}", said: "{{steps.say.output}}"}
"""
    (files / "pair.yaml").write_text(text, encoding="utf-8")
    code, out, err = agentnb("run", "pair.yaml", "--input", "word=x", "--store", str(store))
    assert (code, json.loads(out)) == (0, {"n": 4, "said": "got 4"})
    assert re.search(r"^agentnb: pair completed in [0-9.]+ s ", err, re.MULTILINE)


def test_run_ends_with_one_when_the_run_failed(agentnb: Run, files: Path, store: Path) -> None:
    (files / "fails.yaml").write_text(
        "apiVersion: v1\nkind: Agent\nid: f\ncommand: {type: shell, command: 'echo oh >&2; exit 3'}\n", encoding="utf-8"
    )
    code, out, err = agentnb("run", "fails.yaml", "--store", str(store))
    assert (code, out) == (1, "")
    assert re.match(r"oh\nagentnb: f failed in [0-9.]+ s: ", err)
    assert "it exited with code 3" in err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["bad.yaml"], "bad.yaml:3:5: id: it must be text"),
        (["counter.yaml"], "agent 'counter': input.word: it is missing"),
        (["counter.yaml", "--input", "word"], "--input 'word': write --input NAME=VALUE"),
        (["counter.yaml", "--input", "{x"], "--input '{x': it is no JSON"),
        (["counter.yaml", "--input", "@nobody.json"], "No such file"),
        (["counter.yaml", "--input", "word=a", "--timeout", "soon"], "'soon' is not a duration"),
        (["counter.yaml", "--input", "word=a", "--runtime", "docker"], "--runtime docker: it is not in this version of agentnb"),
        (["nobody.yaml"], "nobody.yaml: there is no such file"),
    ],
)
def test_run_with_bad_input_starts_nothing_and_ends_with_two(agentnb: Run, store: Path, args: list[str], says: str) -> None:
    code, out, err = agentnb("run", *args, "--store", str(store))
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("agentnb: ")


def test_an_interrupt_cancels_the_run(files: Path, store: Path) -> None:
    (files / "slow.yaml").write_text(
        "apiVersion: v1\nkind: Agent\nid: slow\ncommand: {type: shell, command: 'touch began; sleep 600'}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "agentnb.cli", "run", "slow.yaml", "--store", str(store)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    try:
        until((files / "began").exists, 60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert "agentnb: slow (" in err
    assert ") was cancelled" in err
    done: Any = subprocess.run([*command[:3], "runs", "--format", "json", "--store", str(store)], capture_output=True, check=True).stdout
    assert [(run["name"], run["status"]) for run in json.loads(done)] == [("slow", "cancelled")]
