"""The pipeline of one run: attempts, checks, retries, handlers, artifacts, secrets, and its one end."""

from __future__ import annotations

import base64
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Engine, Loop, marked, running, wait_until

RETRY = {"max_attempts": 3, "strategy": "constant", "initial_delay": 0.05, "max_delay": 1.0, "jitter": 0.0, "on_exit_codes": [75]}
#: Fails with code 75 until it was called so often.
FLAKY = "echo x >> calls; echo attempt $(wc -l < calls); [ $(wc -l < calls) -ge {} ] || exit 75"


def handler(when: str, command: str) -> dict[str, Any]:
    return {"when": when, "argv": ["sh", "-c", command], "display": command, "cwd": str(Path.cwd()), "env": {}}


def error(end: Any) -> dict[str, Any]:
    assert end.error is not None
    return dict(end.error)


def test_a_flaky_command_is_tried_again_and_each_attempt_is_a_step(engine: Engine) -> None:
    run = engine.launch(FLAKY.format(3), retry=RETRY)
    end = run.wait()
    assert (end.status, end.attempts, run.stdout()) == ("completed", 3, b"attempt 3\n")
    assert engine.steps(run.id) == [
        ("attempt", "attempt 1", "failed"),
        ("attempt", "attempt 2", "failed"),
        ("attempt", "attempt 3", "completed"),
    ]
    assert [(event.attempt, event.delay_s) for event in run.of("run_retrying")] == [(2, 0.05), (3, 0.05)]
    assert len(run.of("run_started")) == 1


def test_a_failure_that_is_not_to_be_tried_again_is_not(engine: Engine) -> None:
    run = engine.launch("echo x >> calls; exit 1", retry=RETRY)
    assert (run.wait().status, run.wait().attempts) == ("failed", 1)
    assert Path("calls").read_text() == "x\n"
    run = engine.launch(FLAKY.format(9), retry=RETRY | {"max_attempts": 2})
    assert (run.wait().status, run.wait().attempts, run.wait().exit_code) == ("failed", 2, 75)


def test_a_timeout_is_tried_again(engine: Engine) -> None:
    end = engine.run("echo x >> calls; [ $(wc -l < calls) -ge 2 ] || sleep 100", timeout_s=0.3, grace_s=0.2, retry=RETRY)
    assert (end.status, end.attempts) == ("completed", 2)


def test_cancel_while_it_waits_for_its_next_attempt(engine: Engine) -> None:
    run = engine.launch("exit 75", retry=RETRY | {"initial_delay": 1000.0, "max_delay": 1000.0})
    wait_until(lambda: run.of("run_retrying"))
    run.cancel("enough")
    end = run.wait(3)
    assert (end.status, error(end)["message"], end.attempts) == ("cancelled", "enough", 1)


def test_cancel_before_it_has_a_place_runs_nothing(engine: Engine) -> None:
    blockers = [engine.launch("sleep 1000") for _ in range(4)]
    run = engine.launch("touch ran", cleanup="x")
    run.cancel("not needed")
    end = run.wait(3)
    assert (end.status, error(end)) == ("cancelled", {"kind": "cancelled", "message": "not needed"})
    assert engine.status(run.id) == "cancelled"
    for blocker in blockers:
        blocker.cancel()
        blocker.wait()
    assert not Path("ran").exists()


@pytest.mark.parametrize(("line", "when"), [("true", "on_success"), ("exit 3", "on_failure")])
def test_the_handlers_of_an_outcome_run_as_steps_and_know_it(engine: Engine, line: str, when: str) -> None:
    says = 'echo "$AGENTNB_STATUS $AGENTNB_EXIT_CODE $AGENTNB_ERROR" > '
    run = engine.launch(line, handlers=[handler(name, says + name) for name in ("on_success", "on_failure", "cleanup")])
    end = run.wait()
    wanted = "completed 0 " if when == "on_success" else "failed 3 it exited with code 3"
    assert [Path(name).read_text().strip("\n") for name in (when, "cleanup")] == [wanted, wanted]
    assert not Path("on_failure" if when == "on_success" else "on_success").exists()
    assert [step[:2] for step in engine.steps(run.id)] == [("attempt", "attempt 1"), ("handler", when), ("handler", "cleanup")]
    assert end.detail.get("warnings", []) == []


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_cleanup_and_on_failure_run_after_cancel_and_timeout_too(engine: Engine, how: str) -> None:
    handlers = [handler("on_failure", "echo $AGENTNB_STATUS > failed"), handler("cleanup", "echo $AGENTNB_STATUS > cleaned")]
    run = engine.launch("sleep 1000", handlers=handlers, timeout_s=0.3 if how == "timeout" else None).started()
    if how == "cancel":
        run.cancel()
    status = run.wait(5).status
    assert status == {"cancel": "cancelled", "timeout": "timeout"}[how]
    assert Path("failed").read_text() == Path("cleaned").read_text() == f"{status}\n"


@pytest.mark.parametrize("expected", [0, 7])
def test_a_handler_that_fails_is_a_warning_and_changes_no_status(engine: Engine, expected: int) -> None:
    run = engine.launch(f"exit {expected}", expected_exit_code=expected, handlers=[handler("cleanup", "echo oops; exit 7")])
    end = run.wait()
    assert (end.status, end.exit_code) == ("completed", expected)
    assert end.detail["warnings"] == ["the cleanup handler failed: it exited with code 7"]
    assert engine.steps(run.id)[-1] == ("handler", "cleanup", "failed")
    run = engine.launch("true", handlers=[handler("cleanup", "x") | {"argv": ["no-such-program"]}])
    assert run.wait().status == "completed"
    assert "no-such-program" in run.wait().detail["warnings"][0]


def test_cancel_in_a_handler_ends_the_handler_and_keeps_the_status(engine: Engine) -> None:
    handlers = [handler("on_success", "touch in; sleep 1000"), handler("cleanup", "touch cleaned")]
    run = engine.launch("true", handlers=handlers)
    wait_until(lambda: Path("in").exists())
    run.cancel()
    assert run.wait(5).status == "completed"
    assert Path("cleaned").exists()
    assert not marked(run.id)


def test_patterns_keep_the_exit_code_and_name_what_is_wrong(engine: Engine) -> None:
    check = {"expected_pattern": r"\d+ passed", "forbidden_patterns": ["Traceback"], "streams": ["stdout", "stderr"]}
    assert engine.run("echo 3 passed", check=check).status == "completed"
    run = engine.launch("echo none; echo Traceback >&2", check=check)
    end = run.wait()
    assert (end.status, end.exit_code, error(end)["kind"], end.detail["reason"]) == ("failed", 0, "validation_error", "validation_failed")
    assert [issue["check"] for issue in end.detail["validation"]] == ["expected_pattern", "forbidden_patterns"]
    assert [step[0::2] for step in engine.steps(run.id)] == [("attempt", "failed"), ("check", "failed")]


def test_a_check_script_reads_stdout_and_its_words_are_in_the_error(engine: Engine) -> None:
    check = {"script": ["sh", "-c", "read x; [ $x = good ] || { echo it said $x >&2; exit 1; }"]}
    assert engine.run("echo good", check=check).status == "completed"
    end = engine.run("echo bad", check=check)
    assert end.status == "failed"
    assert "it said bad" in error(end)["message"]


def test_a_check_script_that_a_signal_ended_says_so(engine: Engine) -> None:
    end = engine.run("true", check={"script": ["sh", "-c", "kill -9 $$"]})
    assert error(end)["message"] == "the validation script failed: it was ended by signal 9 (SIGKILL)"


def test_cancel_in_a_check_script_cancels_the_run(engine: Engine) -> None:
    run = engine.launch("true", check={"script": ["sh", "-c", "touch in; sleep 1000"]})
    wait_until(lambda: Path("in").exists())
    run.cancel()
    assert run.wait(5).status == "cancelled"


def test_a_pattern_that_never_ends_does_not_hold_the_engine(engine: Engine) -> None:
    run = engine.launch("echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", check={"expected_pattern": "^(a+)+$"})
    started = time.monotonic()
    assert engine.run("true").status == "completed"
    assert time.monotonic() - started < 3
    run.cancel()
    assert run.wait(5).status == "cancelled"


@pytest.mark.parametrize(
    ("text", "source"),
    [('{"a": [1]}', "json"), ('log\nlog\n{"a": [1]}\n', "last_line"), ('So:\n```json\n{"a":\n [1]}\n```\nbye', "fenced_block")],
)
def test_structured_output_is_found_and_held_against_a_schema(engine: Engine, text: str, source: str) -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"items": {"type": "integer"}}}}
    end = engine.run(["printf", "%s", text], capture="structured", check={"json_schema": schema})
    assert (end.status, end.output, end.detail["output_source"]) == ("completed", {"a": [1]}, source)
    end = engine.run(["printf", "%s", text.replace("1", '"x"')], check={"json_schema": schema})
    assert end.status == "failed"
    assert "$.a[0]" in error(end)["message"]
    assert engine.run("echo none", check={"json_schema": schema}).status == "failed"


def test_files_that_match_are_kept_with_size_and_checksum(engine: Engine) -> None:
    line = "mkdir -p d/e; echo one > d/1.txt; echo two > d/e/2.txt; echo three > 3.bin; mkfifo pipe.txt; mkdir x.txt"
    run = engine.launch(line, artifacts=["**/*.txt", "*.txt", "none*"])
    end = run.wait()
    assert end.status == "completed"
    assert any("none*" in warning for warning in end.detail["warnings"])
    engine.settle()
    found = engine.rows("SELECT name, size, checksum, location FROM artifacts WHERE source_run = ? ORDER BY name", run.id)
    assert [row[:2] for row in found] == [("d/1.txt", 4), ("d/e/2.txt", 4)]
    assert (engine.store / json.loads(found[0][3])["path"]).read_bytes() == b"one\n"


def slow_to_search(folder: Path) -> None:
    """Make a folder that a search for ``**/**/...`` never comes to the end of."""
    deep = folder
    for _ in range(8):
        for name in ("a", "b", "c", "d"):
            (deep / name).mkdir(parents=True)
        deep = deep / "a"


ENDLESS = "/".join(["**"] * 30) + "/none"


def test_a_run_whose_artifacts_are_searched_for_can_be_cancelled(engine: Engine, tmp_path: Path) -> None:
    slow_to_search(tmp_path / "deep")
    run = engine.launch("echo done; touch out", cwd=str(tmp_path / "deep"), artifacts=[ENDLESS])
    wait_until(lambda: (tmp_path / "deep" / "out").exists() and not run.pids())
    assert not run.done.done()
    assert engine.run("true").status == "completed"
    run.cancel("enough")
    end = run.wait(5)
    assert (end.status, end.error, end.exit_code) == ("cancelled", {"kind": "cancelled", "message": "enough"}, 0)
    assert end.detail["warnings"] == ["artifacts: not all were kept, since the run was to end"]


def test_the_supervisor_ends_although_artifacts_are_searched_for(store: Path, loop: Loop, tmp_path: Path) -> None:
    slow_to_search(tmp_path / "deep")
    with running(store, loop) as engine:
        run = engine.launch("touch out", cwd=str(tmp_path / "deep"), artifacts=[ENDLESS])
        wait_until(lambda: (tmp_path / "deep" / "out").exists() and not run.pids())
        start = time.monotonic()
    assert time.monotonic() - start < 5
    assert run.done.done()


def test_artifacts_are_found_in_a_folder_with_an_odd_name(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "[odd] *"
    folder.mkdir()
    run = engine.launch("echo one > a.txt", cwd=str(folder), artifacts=["*.txt"])
    assert run.wait().detail.get("warnings", []) == []
    engine.settle()
    assert engine.rows("SELECT name FROM artifacts WHERE source_run = ?", run.id) == [("a.txt",)]


def test_more_output_than_allowed_ends_the_run_and_says_so(engine: Engine) -> None:
    run = engine.launch("yes", limits={"max_output_bytes": 100_000})
    end = run.wait()
    assert (end.status, error(end)["kind"], end.detail["reason"]) == ("failed", "resource_limit_exceeded", "resource_exhaustion")
    details = error(end)["details"]
    assert (details["limit"], details["bound"]) == ("max_output_bytes", 100_000)
    assert 100_000 < details["reading"] <= len(run.stdout())


def test_secrets_are_masked_and_never_reach_the_store(engine: Engine, tmp_path: Path) -> None:
    secret = 'hunter"2 pass/word+é'
    line = (
        'printf "%s\\n" "$K"; printf "%s" "$K" | base64 -w0; echo; printf "x%s" "$K" | base64 -w0; echo; '
        'for n in 1 2 3 4 5; do printf "%s" "$K" | head -c 6; sleep 0.02; printf "%s" "$K" | tail -c +7; done; '
        'echo "$K" >&2; printf \'%s\' "$K" > name; exit 3'
    )
    handlers = [handler("cleanup", 'echo "$K $AGENTNB_ERROR"; nothing-$K')]
    for one in handlers:
        one["env"] = {"K": secret}
    run = engine.launch(
        line, env={"K": secret}, secrets=[secret, ""], handlers=handlers, check={"script": ["sh", "-c", 'echo "$K" >&2; exit 1']}
    )
    end = run.wait()
    assert run.stdout().count(b"***") == 8
    assert run.stderr() == b"***\n"
    no_program = engine.run([f"/no/{secret}"], secrets=[secret])
    assert "***" in error(no_program)["message"]
    said = engine.agent(
        "import os\nk=os.environ['K']\nsay({'t':'log','text':k})\nsay({'t':'step','id':'1','name':k,'status':'running','input':[k]})\n"
        "say({'t':'step','id':'1','status':'failed','error':k,'output':{k:k}})\nsay({'t':'result','output':{'a':k}})\n"
        "say({'t':'artifact','name':k,'data':''})\nsay({'t':k})\nsay({'t':'error','message':k,'details':{'traceback':k}})",
        env={"K": secret},
        secrets=[secret],
    ).wait()
    assert error(said)["details"] == {"traceback": "***"}
    assert secret not in json.dumps([end.to_wire(), no_program.to_wire(), said.to_wire()], ensure_ascii=False)
    engine.close()
    forms = [secret.encode(), json.dumps(secret)[1:-1].encode(), base64.b64encode(secret.encode())[:-4]]
    for file in [path for path in engine.store.rglob("*") if path.is_file()]:
        data = file.read_bytes()
        assert not any(form in data for form in forms), file


def test_a_short_secret_does_not_spoil_the_record(engine: Engine) -> None:
    end = engine.run("echo a completed task", secrets=["a", "completed", "0"], env={"K": "a"})
    assert end.status == "completed"
    assert end.stdout is not None
    assert end.stdout["text"] == "*** *** t***sk\n"
    assert engine.status(end.run_id) == "completed"


def test_a_hosted_run_is_started_logged_and_ended_by_reports(engine: Engine) -> None:
    from agentnb import requests
    from agentnb.events import HostCancel, Message

    def host(run_id: str, event: Message) -> None:
        def say(data: dict[str, Any]) -> None:
            engine.client.send([requests.Report(run_id, data)])

        if isinstance(event, HostCancel):
            say({"t": "cancelled"})
        elif run_id == quick.id:
            say({"t": "log", "text": "hello"})
            say({"t": "result", "output": 42})
            say({"t": "done"})

    engine.hosted = host
    quick, launch = engine.prepare([], kind="hosted")
    engine.client.send([launch])
    end = quick.wait()
    assert (end.status, end.output, end.detail["output_source"], quick.stdout()) == ("completed", 42, "returned", b"hello\n")
    slow = engine.launch([], kind="hosted", timeout_s=0.2)
    assert slow.wait().status == "timeout"
    stopped = engine.launch([], kind="hosted").started()
    stopped.cancel()
    assert stopped.wait().status == "cancelled"
    engine.hosted = lambda _id, _event: None
    deaf = engine.launch([], kind="hosted", grace_s=0.1).started()
    deaf.cancel()
    assert "may still be running" in deaf.wait().detail["warnings"][0]


def test_work_that_makes_no_sense_fails_its_run_and_frees_its_place(engine: Engine) -> None:
    strange: tuple[dict[str, Any], ...] = (
        {"retry": {}},
        {"handlers": [{}]},
        {"capture": 7},
        {"env": None},
        {"limits": 5},
        {"artifacts": 7},
        {"argv": [1, 2]},
        {"cwd": None},
    )
    for bad in strange:
        end = engine.run("exit 75", **bad)
        assert end.status == "failed", bad
        assert end.error, bad
    run, launch = engine.prepare("true")
    del launch.work["secrets"]
    engine.client.send([launch])
    assert error(run.wait())["kind"] == "invalid_config"
    assert [engine.run("true").status for _ in range(5)] == ["completed"] * 5


def test_events_of_200_runs_with_random_cancels_add_up(engine: Engine) -> None:
    chance = random.Random(7)
    lines = ["true", "exit 3", "echo hi; sleep 0.02", "sleep 1000", "no-such-program", "kill -9 $$"]
    runs = [engine.launch(chance.choice(lines), retry=RETRY if chance.random() < 0.2 else None) for _ in range(200)]
    for run in chance.sample(runs, 80):
        run.cancel()
    open_ = set(runs)
    while open_:
        wait_until(lambda: any(run.done.done() or run.of("run_started") for run in open_))
        for run in list(open_):
            if run.done.done():
                open_.remove(run)
            elif run.of("run_started"):
                run.cancel()
    engine.settle()
    for run in runs:
        kinds = [event.type for event in run.events]
        assert run.finishes == 1
        assert kinds[-1] == "run_finished"
        assert kinds.count("run_started") <= 1
        assert (stamps := [getattr(event, "at", 0) for event in run.events]) == sorted(stamps)
        recorded = [row[0] for row in engine.rows("SELECT type FROM events WHERE run_id = ? ORDER BY seq", run.id)]
        assert (recorded[0], recorded[-1], recorded.count("run_finished")) == ("run_queued", "run_finished", 1)
        assert recorded.count("step_started") == recorded.count("step_finished")
        assert engine.rows("SELECT status FROM runs WHERE id = ?", run.id) == [(run.wait().status,)]
    assert not marked(f"MARK={engine.store}")
