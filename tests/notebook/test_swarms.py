"""Swarms as real processes: patterns, cancelling, killed workers, floods, garbage; nothing of one is left when it is over."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentnb as nb
from agentnb.states import ErrorKind, RunStatus
from tests.notebook.polling import lives, pid_in, until

Make = Callable[..., Any]
STUBBORN = "trap '' TERM; echo $$ > {0}; while :; do sleep 0.1; done"


def shell(name: str, command: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": {"type": "shell", "command": command}, **more}


def swarm(flow: Any, *workers: dict[str, Any], **more: Any) -> nb.Swarm:
    given = more.pop("input_", {})
    used = [worker for worker in workers if json.dumps(worker["name"]) in json.dumps(flow)]
    return nb.Swarm({"apiVersion": "v1", "kind": "Swarm", "id": "crew", "workers": used, "flow": flow, **more}, input=given)


def steps_of(run: Any) -> dict[str, str]:
    """Status by name, of workers and branches."""
    return {step.name: str(step.status) for step in run.steps if step.kind != "attempt"}


def workers_of(session: Any, run: Any) -> dict[str, Any]:
    return {handle.name: handle for handle in session.runs if handle.id != run.id}


PATTERNS: dict[str, tuple[Any, Any, dict[str, str]]] = {
    "sequence": ({"steps": ["a", "b"]}, "b", {"a": "completed", "b": "completed"}),
    "parallel": ({"branches": ["b", "a"]}, ["b", "a"], {"a": "completed", "b": "completed"}),
    "conditional": ({"condition": "{{ input.yes }}", "then": "a", "else": "b"}, "a", {"a": "completed", "b": "skipped"}),
    "loop": ({"over": [1, 2], "do": "item"}, [1, 2], {"item #1": "completed", "item #2": "completed"}),
    "delegate": ({"worker": "router", "to": ["a", "b"]}, "b", {"router": "completed", "a": "skipped", "b": "completed"}),
    "supervisor": ({"workers": ["slow_once", "a"], "backoff": "10ms"}, ["again", "a"], {"slow_once": "completed", "a": "completed"}),
    "compete": ({"workers": ["sleeps", "a"]}, "a", {"sleeps": "cancelled", "a": "completed"}),
    "escalation": ({"primary": "bad", "chain": ["a", "b"]}, "a", {"bad": "failed", "a": "completed", "b": "skipped"}),
    "alongside": ({"main": "a", "sides": ["sleeps"], "grace": 0}, "a", {"a": "completed", "sleeps": "cancelled"}),
}
CREW = (
    shell("a", "echo a"),
    shell("b", "echo b"),
    shell("item", "echo {{loop.item}}"),
    shell("router", "echo b"),
    shell("bad", "exit 3"),
    shell("sleeps", "sleep 600"),
    shell("slow_once", "if [ -e been ]; then echo again; else touch been; sleep 600; fi", timeout="300ms"),
)


def test_each_of_the_nine_patterns_runs_its_workers_as_runs(session, store: Path) -> None:
    runs = {name: session.launch(swarm({"type": name, **keys}, *CREW, input_={"yes": True})) for name, (keys, *_) in PATTERNS.items()}
    for name, (_, output, steps) in PATTERNS.items():
        result = runs[name].wait(120)
        assert (result.status, result.output) == (RunStatus.COMPLETED, output), (name, result.error)
        assert steps_of(runs[name]) == steps | {name: "completed"}
    assert all(handle.done for handle in session.runs)
    frame = session.runs_df()
    escalation = frame[frame["parent_run_id"] == runs["escalation"].id].set_index("name")
    assert escalation["status"].to_dict() == {"bad": "failed", "a": "completed"}
    assert set(escalation["kind"]) == {"shell"}
    assert set(frame[frame["parent_run_id"].isna()]["kind"]) == {"swarm"}


def test_a_tree_of_steps_leads_to_the_runs_and_has_their_errors(session) -> None:
    flow = {"type": "sequence", "steps": [{"type": "parallel", "branches": ["good", "bad"]}, "last"], "on_failure": "continue"}
    run = session.launch(swarm(flow, shell("good", "echo '{\"n\": [1]}'"), shell("bad", "exit 7"), shell("last", "echo l; exit 1")))
    result = run.wait(60)
    assert result.status is RunStatus.FAILED
    assert result.error.kind is ErrorKind.PATTERN_ERROR
    assert result.error.message == "2 failures: worker 'bad': it exited with code 7; worker 'last': it exited with code 1"
    by_name = {step.name: step for step in run.steps}
    assert by_name["parallel"].parent_id == by_name["sequence"].id
    assert by_name["bad"].parent_id == by_name["parallel"].id
    assert (by_name["bad"].exit_code, by_name["bad"].error.kind) == (7, "execution_failed")
    assert by_name["good"].output == {"n": [1]}
    assert by_name["good"].input["run_id"] == workers_of(session, run)["good"].id
    assert [failure["run_id"] for failure in result.error.details["failures"]] == [workers_of(session, run)[n].id for n in ("bad", "last")]
    assert result.stdout.splitlines()[-1] == "last: failed: it exited with code 1"


def test_values_stay_one_shell_word_and_keep_their_type(session) -> None:
    nasty = "a b'; touch owned; $(touch owned) {{ input.x }}"
    one = {"name": "say", "command": {"type": "shell", "command": "printf '%s' {{input.text}}"}, "input": {"text": "{{ input.text }}"}}
    two = {"name": "again", "command": {"type": "command", "argv": ["printf", "%s", "{{steps.say.output}}"]}}
    run = session.launch(
        swarm({"type": "sequence", "steps": ["say", "again"]}, one, two, input_={"text": nasty}, output={"o": "{{steps.again.output}}"})
    )
    assert run.wait(60).output == {"o": nasty}
    assert not Path("owned").exists()


def test_a_missing_path_in_the_output_is_named(session) -> None:
    result = session.launch(swarm("a", shell("a", "echo 1"), output={"x": "{{ steps.a.output.deep }}"})).wait(60)
    assert result.error.kind is ErrorKind.INVALID_CONFIG
    assert "output.x" in result.error.message
    assert "'deep'" in result.error.message


def test_agents_of_files_swarms_in_swarms_and_functions_are_workers(session, tmp_path: Path) -> None:
    agent = {"apiVersion": "v1", "kind": "Agent", "id": "counter", "input": {"type": "object", "properties": {"path": {"type": "string"}}},
             "command": {"type": "shell", "command": "wc -l < {{input.path}}"}}  # fmt: skip
    inner = {"apiVersion": "v1", "kind": "Swarm", "id": "inner", "workers": [shell("deep", "echo {{input.word}}")], "flow": "deep"}
    (tmp_path / "counter.yaml").write_text(json.dumps(agent))
    (tmp_path / "inner.yaml").write_text(json.dumps(inner))
    (tmp_path / "three").write_text("1\n2\n3\n")
    workers = [
        {"name": "count", "spec": "counter.yaml", "input": {"path": str(tmp_path / "three")}},
        {"name": "nested", "spec": "inner.yaml", "input": {"word": "{{ steps.count.output }}"}},
        {"name": "short", "python": "textwrap:shorten", "input": {"text": "{{steps.nested.output}} hello there", "width": 12}},
    ]
    whole = {
        "apiVersion": "v1",
        "kind": "Swarm",
        "id": "outer",
        "workers": workers,
        "flow": {"type": "sequence", "steps": ["count", "nested", "short"]},
    }
    (tmp_path / "outer.yaml").write_text(json.dumps(whole))
    run = session.swarm(tmp_path / "outer.yaml")
    assert run.wait(60).output == "3 [...]", run.error
    assert {(handle.name, handle.done) for handle in session.runs} == {
        (name, True) for name in ("outer", "count", "nested", "deep", "short")
    }
    wrong = session.swarm(
        whole | {"workers": [workers[0] | {"spec": str(tmp_path / "counter.yaml"), "input": {"path": "{{ 2 + 3 }}"}}], "flow": "count"}
    )
    assert wrong.wait(60).error.message == "worker 'count': agent 'counter': input.path: 5 is not of type 'string'"


def test_cancelling_a_swarm_ends_all_its_workers(session) -> None:
    run = session.launch(
        swarm({"type": "parallel", "branches": ["x", "y"]}, shell("x", STUBBORN.format("x.pid")), shell("y", "sleep 600")), grace=0.3
    )
    pid = pid_in(Path("x.pid"))
    run.cancel("enough")
    assert run.wait(60).status is RunStatus.CANCELLED
    assert not lives(pid)
    assert {handle.status for handle in session.runs} == {RunStatus.CANCELLED}
    assert set(steps_of(run).values()) == {"cancelled"}


def test_a_loser_that_ignores_sigterm_is_gone_when_the_swarm_is_over(session) -> None:
    config = shell("stubborn", STUBBORN.format("s.pid"))
    run = session.launch(
        swarm(
            {"type": "compete", "workers": ["stubborn", "quick"]},
            config,
            shell("quick", "while [ ! -s s.pid ]; do sleep 0.02; done; echo won"),
        ),
        grace=0.3,
    )
    assert run.wait(60).output == "won"
    assert not lives(pid_in(Path("s.pid")))
    assert steps_of(run) == {"compete": "completed", "stubborn": "cancelled", "quick": "completed"}
    assert workers_of(session, run)["stubborn"].error.kind is ErrorKind.CANCELLED


def test_a_worker_that_is_killed_fails_and_its_sibling_is_cancelled(session) -> None:
    run = session.launch(
        swarm(
            {"type": "parallel", "branches": ["victim", "other"]},
            shell("victim", "echo $$ > v.pid; sleep 600"),
            shell("other", "echo $$ > o.pid; sleep 600"),
        )
    )
    victim, other = pid_in(Path("v.pid")), pid_in(Path("o.pid"))
    os.kill(victim, signal.SIGKILL)
    result = run.wait(60)
    assert "worker 'victim': it was ended by signal 9" in result.error.message
    assert steps_of(run) == {"parallel": "failed", "victim": "failed", "other": "cancelled"}
    assert not lives(other)


def test_killing_the_swarms_process_ends_its_workers(session) -> None:
    run = session.launch(swarm("x", shell("x", "echo $$ > x.pid; sleep 600")))
    pid = pid_in(Path("x.pid"))
    process = next(p for p in psutil.Process().children(recursive=True) if "child.py" in " ".join(p.cmdline()))
    os.kill(process.pid, signal.SIGKILL)
    result = run.wait(60)
    assert (result.status, result.signal) == (RunStatus.FAILED, signal.SIGKILL)
    assert not lives(pid)
    assert workers_of(session, run)["x"].status is RunStatus.CANCELLED


def test_when_the_kernel_dies_no_worker_goes_on(start_script: Callable[[str], Any], store: Path) -> None:
    code = """
        workers = [{"name": "w", "command": {"type": "shell", "command": "trap '' TERM; echo $$ > w.pid; sleep 600 & wait; sleep 600"}}]
        session.swarm({"apiVersion": "v1", "kind": "Swarm", "id": "doomed", "workers": workers})
        input()
    """
    kernel = start_script(code)
    pid = pid_in(Path("w.pid"))
    kernel.kill()
    until(lambda: not lives(pid), 30)
    until(lambda: set(nb.runs_df(store=store)["status"]) == {"interrupted"}, 30)


def test_a_large_output_reaches_templates_cut_and_its_run_whole(session) -> None:
    flood = shell("flood", "head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2")
    run = session.launch(swarm("flood", flood, output="{{steps.flood.stdout|length}} {{steps.flood.stderr}}"))
    result = run.wait(60)
    assert result.output == f"{1024 * 1024} end\n"
    assert "printed 3000000 bytes" in result.warnings[0]
    assert len(workers_of(session, run)["flood"].stdout) == 3_000_000


def test_a_slow_worker_and_a_slow_swarm_have_errors_of_their_own(session) -> None:
    worker = session.launch(swarm("x", shell("x", "sleep 600", timeout="200ms")))
    whole = session.launch(swarm("y", shell("y", "sleep 600"), timeout="1s"))
    assert worker.wait(60).error.kind is ErrorKind.WORKER_TIMEOUT
    assert worker.result.retryable
    assert steps_of(worker) == {"x": "timeout"}
    assert whole.wait(60).status is RunStatus.TIMEOUT
    assert all(handle.done for handle in session.runs)


def test_a_hundred_workers_keep_to_their_bound(new_session: Make) -> None:
    session = new_session(max_parallel=16)
    flow = {"type": "parallel", "branches": ["w"] * 100, "max_concurrency": 5}
    command = "mkdir live.$$; ls -d live.* | wc -l; rmdir live.$$"
    result = session.launch(swarm(flow, shell("w", command))).wait(120)
    assert len(result.output) == 100
    assert max(result.output) <= 5


def test_more_workers_than_may_be_under_way_wait_for_their_place(new_session: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    session = new_session(max_parallel=1)
    flow = {"type": "parallel", "branches": [{"type": "parallel", "branches": ["a", "b"]}, "a"]}
    result = session.launch(swarm(flow, *CREW)).wait(60)
    assert result.output == [["a", "b"], "a"]


@pytest.mark.parametrize("garbage", [{"t": "cancel"}, {"t": "cancel", "run_id": 5}, {"t": "cancel", "run_id": "x", "reason": ["y"]}])
def test_a_malformed_cancellation_is_a_warning_and_no_more(session, garbage: dict[str, object]) -> None:
    def agent(line: str) -> str:
        import os

        os.write(3, line.encode() + b"\n")
        return "unharmed"

    result = session.python(agent, json.dumps(garbage)).wait(60)
    assert result.output == "unharmed"
    assert result.warnings == ("a malformed cancellation of a child run was left out",)


def test_an_agent_cannot_cancel_what_is_not_its_child(session) -> None:
    def agent(run_id: str) -> str:
        import json
        import os

        os.write(3, json.dumps({"t": "cancel", "run_id": run_id, "reason": "mine"}).encode() + b"\n")
        return "sent"

    other = session.shell("while [ ! -e stop ]; do sleep 0.02; done")
    assert session.python(agent, other.id).wait(60).output == "sent"
    Path("stop").touch()
    assert other.wait(30).ok


def test_what_workers_cost_is_the_swarms_once_and_counts_once(new_session: Make, fake_claude: Callable[..., None]) -> None:
    fake_claude("text")
    session = new_session(budget_usd=5)
    workers = [{"name": name, "command": {"type": "claude", "command": "hello"}} for name in ("x", "y")]
    run = session.launch(swarm({"type": "parallel", "branches": ["x", "y"]}, *workers))
    assert run.wait(60).ok, run.error
    frame = session.runs_df().set_index("name")
    each = frame.loc["x", "cost_usd"]
    assert each > 0
    assert frame.loc["crew", "cost_usd"] == pytest.approx(2 * each)
    assert frame.loc["crew", "output_tokens"] == 2 * frame.loc["x", "output_tokens"]
    assert session.budget.spent["usd"] == pytest.approx(2 * each)
    assert nb.sessions_df(store=session.store).loc[0, "cost_usd"] == pytest.approx(2 * each)
    by_name = {step.name: step for step in run.steps}
    assert by_name["x"].cost_usd == pytest.approx(each)


def test_a_budget_of_the_session_stops_a_swarm_and_all_its_workers(new_session: Make, fake_claude: Callable[..., None]) -> None:
    fake_claude("text")
    session = new_session(budget_usd=0.0001)
    workers = [{"name": "x", "command": {"type": "claude", "command": "hello"}}, shell("y", "sleep 600")]
    run = session.launch(swarm({"type": "parallel", "branches": ["x", "y"]}, *workers))
    assert run.wait(60).error.kind is ErrorKind.BUDGET_EXCEEDED
    assert all(handle.done for handle in session.runs)
    with pytest.raises(nb.BudgetExceeded):
        session.launch(swarm("y", shell("y", "true")))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limits": nb.Limits(max_processes=5)}, "give them limits in their specs"),
        ({"stdin": "text"}, "give the workers what they need by their input"),
        ({"capture": "stdout"}, "is kept with their runs"),
    ],
)
def test_options_that_belong_to_workers_are_refused(session, options: dict[str, Any], words: str) -> None:
    with pytest.raises(nb.ConfigError, match=words):
        session.launch(swarm("a", *CREW), **options)


def test_what_the_session_says_of_runs_holds_for_workers(new_session: Make) -> None:
    session = new_session(timeout=30, env={"WORD": "said"}, limits=nb.Limits(max_output_bytes=1000))
    run = session.launch(
        swarm({"type": "parallel", "branches": ["env", "flood"], "on_failure": "ignore"}, shell("env", "echo $WORD"), shell("flood", "yes"))
    )
    assert run.wait(60).output == ["said", None]
    assert workers_of(session, run)["flood"].error.kind is ErrorKind.RESOURCE_LIMIT_EXCEEDED


def test_rows_of_a_map_are_the_input_of_swarms(session) -> None:
    spec = nb.Swarm({"apiVersion": "v1", "kind": "Swarm", "id": "crew", "workers": [shell("say", "echo {{input.word}}")], "flow": "say",
                     "input": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}})  # fmt: skip
    group = session.map(spec, nb.grid(word=["x", "y z"]))
    group.wait(60)
    assert [run.output for run in group] == ["x", "y z"]
    assert set(group.df()["param.word"]) == {"x", "y z"}


def test_a_swarm_is_reused_as_a_whole_until_anything_of_it_changes(session, tmp_path: Path) -> None:
    agent = {"apiVersion": "v1", "kind": "Agent", "id": "one", "command": {"type": "shell", "command": "echo 1"}}
    path = tmp_path / "agent.yaml"
    path.write_text(json.dumps(agent))
    spec = swarm("w", {"name": "w", "spec": str(path)})
    first = session.launch(spec, reuse=True)
    assert first.wait(60).output == 1
    second = session.launch(swarm("w", {"name": "w", "spec": str(path)}), reuse=True)
    assert (second.wait(60).output, second.reused_from) == (1, first.id)
    path.write_text(json.dumps(agent | {"command": {"type": "shell", "command": "echo 2"}}))
    third = session.launch(swarm("w", {"name": "w", "spec": str(path)}), reuse=True)
    assert (third.wait(60).output, third.reused_from) == (2, None)


def test_a_detached_swarm_outlives_its_kernel(run_script: Callable[[str], str], new_session: Make) -> None:
    code = """
        flow = {"type": "sequence", "steps": ["a", "b"]}
        workers = [{"name": name, "command": {"type": "shell", "command": "sleep 0.3; echo " + name}} for name in "ab"]
        run = session.swarm({"apiVersion": "v1", "kind": "Swarm", "id": "far", "workers": workers, "flow": flow}, detach=True)
        import os, time
        while run.status != "running":
            time.sleep(0.01)
        print(run.id)
        os._exit(0)
    """
    run_id = run_script(code).strip()
    session = new_session()
    assert nb.attach(run_id, store=session.store).wait(60).output == "b"
    until(lambda: len(session.runs_df(session="script")) == 3 or len(nb.runs_df(store=session.store)) == 3, 30)
