from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import agentnb
from agentnb import cli, events
from agentnb.history.store import Store
from agentnb.ids import new_id

ROOT = Path(agentnb.__file__).resolve().parents[1]
ENV = dict(os.environ, PYTHONPATH=str(ROOT))
EVIL = "\x1b[2J\x1b]0;owned\x07evil\r\nname <b>"


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "agentnb.cli", *map(str, args)]


def queued(name: str, session_id: str, **more: Any) -> events.RunQueued:
    target = {"kind": "shell", "display": f"echo {name}", "spec": {"type": "shell", "command": f"echo {name}"}}
    run = {"id": new_id(), "session_id": session_id, "name": name, "status": "pending", "target": target, "runtime_kind": "local"}
    return events.RunQueued(run | {"params": {}, "tags": {}, "created_at": events.now_us()} | more)


def started(session_id: str, name: str) -> events.SessionStarted:
    return events.SessionStarted({"id": session_id, "name": name, "status": "active", "created_at": events.now_us(), "tags": {}})


@pytest.fixture
def history(store: Path) -> dict[str, str]:
    """A store with a completed, a failed and an evil run. Returns their ids by name, and the session's."""
    session_id = new_id()
    good, bad, evil = queued("good", session_id, params={"n": 3}), queued("bad", session_id), queued(EVIL, session_id)
    texts = {"stdout": output("hällo\n"), "stderr": output("oh\n")}
    exited, went_wrong = ({"kind": "execution_failed", "message": text} for text in ("it exited with 3", EVIL))
    with Store.open(store) as history:
        history.apply([
            started(session_id, "first-look"),
            good, bad, evil,
            events.RunStarted(good.run_id), events.StepStarted(good.run_id, "s1", "attempt", "attempt 1"),
            events.StepFinished(good.run_id, "s1", "completed", exit_code=0),
            events.RunFinished(good.run_id, "completed", exit_code=0, output={"x": [1, None]}, run_s=0.5, **texts),
            events.RunStarted(bad.run_id),
            events.RunFinished(bad.run_id, "failed", exit_code=3, error=exited),
            events.RunStarted(evil.run_id),
            events.RunFinished(evil.run_id, "failed", exit_code=1, error=went_wrong, stdout=output(EVIL)),
        ])  # fmt: skip
    return {"session": session_id, "good": good.run_id, "bad": bad.run_id, "evil": evil.run_id}


def output(text: str) -> dict[str, Any]:
    return {"size": len(text.encode()), "text": text, "path": None}


@pytest.fixture
def run(store: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line against the store, in this process: (exit code, stdout, stderr)."""

    def go(*args: str) -> tuple[int, str, str]:
        try:
            code = cli.main([*args, "--store", str(store)])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return go


def test_json_is_records_with_iso_stamps_and_null_for_what_is_not_known(run, history) -> None:
    code, out, _ = run("runs", "--format", "json")
    good, bad, _ = json.loads(out)
    assert code == 0
    assert (good["name"], good["status"], good["run_s"], good["param.n"], good["exit_code"]) == ("good", "completed", 0.5, 3, 0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", good["created_at"])
    assert datetime.fromisoformat(good["created_at"]).tzinfo is not None
    assert (good["timeout_s"], good["signal"], good["error"], bad["param.n"]) == (None, None, None, None)


@pytest.mark.parametrize("name", ["runs", "steps", "artifacts", "events", "sessions"])
@pytest.mark.parametrize("how", ["table", "json", "csv", "parquet"])
def test_every_table_comes_in_every_format_also_when_it_is_empty(name, how, run, history, tmp_path) -> None:
    for filters in ([], ["--since", "2100-01-01"]):
        file = tmp_path / f"out.{len(filters)}"
        code, out, err = run(name, "--format", how, "-o", str(file), *filters)
        assert (code, out, err) == (0, "", "")
        if how == "json":
            assert isinstance(json.loads(file.read_text()), list)
            assert not filters or file.read_text() == "[]\n"
        elif how == "csv":
            rows = list(csv.reader(io.StringIO(file.read_text())))
            assert len({len(row) for row in rows}) == 1
        elif how == "parquet":
            import pandas as pd

            assert len(pd.read_parquet(file)) == 0 or not filters


def test_a_table_says_how_many_rows_it_has_and_keeps_each_on_a_line(run, history) -> None:
    code, out, _ = run("runs")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:3] == ["id", "name", "status"]
    assert lines[-1] == "3 rows"
    assert len(lines) == 5


def test_a_terminal_without_utf_8_gets_question_marks_and_no_traceback(history, store) -> None:
    env = ENV | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command("runs", "--store", store), capture_output=True, text=True, env=env, check=True)
    assert "evil?name" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    "args",
    [
        ["runs"],
        ["runs", "--format", "json"],
        ["show", "evil", "--format", "json"],
        ["show", "evil"],
        ["runs", "--columns", "name,error"],
        ["events"],
    ],
)
def test_text_of_a_run_cannot_steer_the_terminal(args, run, history) -> None:
    code, out, err = run(*(history.get(word, word) for word in args))
    assert code == 0
    assert not set(out + err) & {"\x1b", "\x07", "\r", "\x9b"}


def test_filters_choose(run, history) -> None:
    def ids(*filters: str) -> list[str]:
        return [row["id"] for row in json.loads(run("runs", "--format", "json", *filters)[1])]

    assert ids("--status", "completed") == [history["good"]]
    assert ids("--status", "completed", "--status", "failed") == [history["good"], history["bad"], history["evil"]]
    assert ids("--limit", "1") == [history["evil"]]
    assert ids("--limit", "0") == []
    assert ids("--session", "first-look", "--since", "1h") == ids("--session", history["session"]) == ids()
    assert ids("--until", "2000-01-01") == []
    assert ids("--group", "none") == []
    steps = json.loads(run("steps", "--format", "json", "--run", "good")[1])
    assert [step["run_id"] for step in steps] == [history["good"]]


def test_columns_are_chosen_in_their_order(run, history) -> None:
    assert run("runs", "--columns", "exit_code, name", "--format", "csv", "--limit", "2")[1].splitlines()[:2] == ["exit_code,name", "3,bad"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["runs", "--columns", "exitcode"], "exit_code"),
        (["runs", "--status", "finished"], "finished"),
        (["runs", "--since", "yesterday-ish"], "yesterday-ish"),
        (["runs", "--limit", "-1"], "--limit -1"),
        (["runs", "--limit", "many"], "--limit"),
        (["runs", "--format", "xml"], "xml"),
        (["runs", "--format", "parquet"], "-o FILE"),
        (["runs", "-o", "/nowhere/x.csv", "--format", "csv"], "/nowhere"),
        (["show", "goood"], "good"),
        (["show", "nothing-like-it"], "nothing-like-it"),
        (["logs", "nothing-like-it"], "nothing-like-it"),
        (["frobnicate"], "frobnicate"),
        (["runs", "--frob"], "--frob"),
    ],
)
def test_bad_usage_is_one_line_on_stderr_and_exit_code_2(args, says, run, history) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert err.startswith("agentnb: ")
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("args", [["runs"], ["show", "x"], ["logs", "x"]])
def test_a_store_that_is_not_there_is_said_and_not_made(args, run, store) -> None:
    code, _, err = run(*args)
    assert code == 2
    assert str(store) in err
    assert not store.exists()


def test_a_store_that_is_garbage_is_said_and_left_alone(run, store) -> None:
    store.mkdir()
    (store / "history.db").write_bytes(b"not a database at all" * 100)
    code, _, err = run("runs")
    assert code == 2
    assert "history.db" in err
    assert (store / "history.db").read_bytes() == b"not a database at all" * 100


def test_show_is_text_for_people_and_json_for_programs(run, history) -> None:
    code, out, _ = run("show", "good")
    assert code == 0
    assert "first" not in out.splitlines()[0]
    assert all(word in out for word in (history["good"], "completed", "param.n", "attempt 1", '"x"'))
    shown = json.loads(run("show", history["good"][:-1], "--format", "json")[1])
    assert (shown["id"], shown["output"], shown["params"]) == (history["good"], {"x": [1, None]}, {"n": 3})
    assert [step["status"] for step in shown["steps"]] == ["completed"]
    assert shown["created_at"].endswith("Z")


def test_show_of_a_failed_run_is_good_and_says_why(run, history) -> None:
    code, out, _ = run("show", "bad")
    assert code == 0
    assert "execution_failed" in out
    assert "it exited with 3" in out


@pytest.mark.parametrize(("stream", "out", "err"), [("both", "hällo\n", "oh\n"), ("stdout", "hällo\n", ""), ("stderr", "oh\n", "")])
def test_logs_are_the_bytes_that_the_run_printed(stream, out, err, history, store, capfd) -> None:
    assert cli.main(["logs", "good", "--stream", stream, "--store", str(store)]) == 0
    assert tuple(capfd.readouterr()) == (out, err)


@pytest.mark.parametrize(
    ("options", "shown"), [([], b"\x1b[31mred\x1b[0m\r\n\x1b[0m"), (["--raw"], b"\x1b]0;pwn\x07\x1b[31mred\x1b[0m\r\n")]
)
def test_logs_on_a_terminal_cannot_steer_it_unless_they_are_asked_for_raw(options, shown, store) -> None:
    printed = {"size": 1, "text": "\x1b]0;pwn\x07\x1b[31mred\x1b[0m\n", "path": None}
    with Store.open(store) as opened:
        run = queued("steering", "S")
        opened.apply([started("S", "s"), run, events.RunStarted(run.run_id), events.RunFinished(run.run_id, "completed", stdout=printed)])
    main, terminal = pty.openpty()
    try:
        subprocess.run(command("logs", "steering", *options, "--stream", "stdout", "--store", store), stdout=terminal, env=ENV, check=True)
        assert os.read(main, 1000) == shown
    finally:
        os.close(main)
        os.close(terminal)
    piped = subprocess.run(command("logs", "steering", "--store", store), capture_output=True, env=ENV, check=True)
    assert piped.stdout == str(printed["text"]).encode()


def test_logs_follow_a_live_run_until_it_ends(store) -> None:
    session_id = new_id()
    live = queued("live", session_id)
    with Store.open(store, owner="tester") as history:
        history.apply([
            started(session_id, "s"),
            live, events.RunStarted(live.run_id),
        ])  # fmt: skip
        folder = history.run_dir(live.run_id)
        folder.mkdir(parents=True)
        with (folder / "stdout.log").open("wb", buffering=0) as log:
            log.write(b"one\n")
            with subprocess.Popen(command("logs", "-f", "live", "--store", store), stdout=subprocess.PIPE, env=ENV) as follower:
                assert follower.stdout
                assert follower.stdout.readline() == b"one\n"
                log.write(b"two \xff\xfe\n")
                assert follower.stdout.readline() == b"two \xff\xfe\n"
                assert follower.poll() is None
                log.write(b"three")
                where = {"size": 16, "text": None, "path": f"runs/{live.run_id}/stdout.log"}
                history.apply([events.RunFinished(live.run_id, "completed", exit_code=0, stdout=where)])
                assert follower.stdout.read() == b"three"
                assert follower.wait(10) == 0


@pytest.mark.slow
def test_logs_of_a_run_whose_supervisor_died_come_to_an_end(store) -> None:
    script = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from agentnb import events
from agentnb.history.store import Store
history = Store.open(Path({str(store)!r}), owner="tester")
history.apply([events.SessionStarted({{"id": "s", "name": "s", "status": "active", "created_at": 1, "tags": {{}}}}),
    events.RunQueued({{"id": "r-live", "session_id": "s", "name": "live", "status": "pending",
    "target": {{"kind": "shell", "display": "x", "spec": {{}}}}, "runtime_kind": "local", "params": {{}}, "tags": {{}}, "created_at": 1}}),
    events.RunStarted("r-live")])
print("ready", flush=True)
sys.stdin.read()
os._exit(9)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdin
        assert owner.stdout
        assert owner.stdout.readline() == b"ready\n"
        with subprocess.Popen(command("logs", "-f", "live", "--store", store), stdout=subprocess.PIPE, env=ENV) as follower:
            with pytest.raises(subprocess.TimeoutExpired):
                follower.wait(1)
            owner.kill()
            owner.wait()
            assert follower.wait(20) == 0
    done = subprocess.run(command("show", "live", "--format", "json", "--store", store), capture_output=True, env=ENV, check=True)
    assert json.loads(done.stdout)["status"] == "interrupted"


def test_a_closed_pipe_ends_the_command_quietly(store) -> None:
    session_id = new_id()
    with Store.open(store) as history:
        history.apply([queued(f"run {i}", session_id) for i in range(3000)])
    with subprocess.Popen(command("runs", "--store", store), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV) as lister:
        assert lister.stdout
        assert lister.stderr
        assert lister.stdout.readline().startswith(b"id ")
        lister.stdout.close()
        assert lister.stderr.read() == b""
        assert lister.wait(30) == 0


def test_help_and_version_start_without_anything_heavy() -> None:
    for flag in ("--help", "--version"):
        code = f"import sys\nfrom agentnb.cli import main\ntry: main(['{flag}'])\nexcept SystemExit: print(sorted(sys.modules))"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENV, check=True).stdout
        assert not re.search(r"'(pandas|pydantic|numpy|psutil|sqlite3|asyncio|json)'", loaded)


def test_version_is_the_packages(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"agentnb {agentnb.__version__}\n"


def test_doctor_reports_each_thing_once_and_exits_good(run, history) -> None:
    code, out, _ = run("doctor", "--format", "json")
    found = {finding["name"]: finding for finding in json.loads(out)}
    assert code == 0, out
    assert len(found) == len(json.loads(out))
    assert {"python", "agentnb", "store", "supervisor", "process control", "cgroup", "local model", "claude", "docker", "chromium"} <= set(
        found
    )
    assert {finding["state"] for finding in found.values()} <= {"ok", "missing"}
    assert "sound" in found["store"]["text"]
    assert " ms" in found["supervisor"]["text"]


def test_doctor_says_when_the_store_is_broken(run, store) -> None:
    store.mkdir()
    (store / "history.db").write_bytes(b"garbage" * 1000)
    code, out, _ = run("doctor")
    assert code == 1
    line = next(line for line in out.splitlines() if " store " in line)
    assert line.startswith("✗ broken")


def test_doctor_names_what_is_wrong_with_the_history_a_line_each(run, history, store) -> None:
    (store / "runs" / history["good"]).mkdir()
    with closing(sqlite3.connect(store / "history.db")) as db, db:
        db.execute(
            "UPDATE logs SET path = 'runs/gone/stdout.log', inline = NULL WHERE run_id = ? AND stream = 'stdout'", (history["good"],)
        )
        db.execute("DELETE FROM runs WHERE id = ?", (history["bad"],))
    code, out, _ = run("doctor", "--deep", "--format", "json")
    found = [finding for finding in json.loads(out) if finding["name"].startswith("store")]
    assert code == 1
    assert [finding["state"] for finding in found] == ["broken", "broken", "ok"]
    assert found[0]["text"].startswith(f"runs have events, but no row of their own (1): run {history['bad']}; `agentnb gc` removes")
    assert found[1]["text"].startswith(f"logs are missing (1): run {history['good']}, {store / 'runs/gone/stdout.log'}; copy them back")
    assert run("gc")[0] == 0
    assert "row of their own" not in run("doctor")[1]
    assert found[2]["text"].startswith("integrity_check of ")


def test_interrupting_the_follower_is_quiet(store, history) -> None:
    session_id = new_id()
    live = queued("live", session_id)
    with Store.open(store, owner="tester") as opened:
        opened.apply([live, events.RunStarted(live.run_id)])
        opened.run_dir(live.run_id).mkdir(parents=True)
        (opened.run_dir(live.run_id) / "stdout.log").write_bytes(b"here\n")
        with subprocess.Popen(
            command("logs", "-f", "live", "--store", store), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENV
        ) as follower:
            assert follower.stdout
            assert follower.stderr
            assert follower.stdout.readline() == b"here\n"
            follower.send_signal(2)
            assert follower.stderr.read() == b""
            assert follower.wait(10) == 130


CANCELLED = """
import agentnb as nb
with nb.Session(store={store!r}) as session:
    run = session.shell("echo here; sleep 1000", name="long", {options})
    run.steps
    print(run.id, flush=True)
    print(run.wait().error.message)
"""


@pytest.mark.parametrize("options", ["", "detach=True"])
def test_a_live_run_of_another_process_is_cancelled_and_its_end_waited_for(store, options) -> None:
    script = CANCELLED.format(store=str(store), options=options)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=ENV) as kernel:
        assert kernel.stdout
        run_id = kernel.stdout.readline().strip()
        words = command("cancel", "long", "--store", store, "--reason", "that is enough")
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=ENV, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{run_id}  long  cancelled\n", "")
        assert kernel.stdout.read() == "that is enough\n"
    again = subprocess.run(words, check=False, capture_output=True, text=True, env=ENV, timeout=60)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"agentnb: run 'long' ({run_id}) has ended already: cancelled\n"
    deadline = time.monotonic() + 10
    while list((store / "owners").iterdir()):
        assert time.monotonic() < deadline, "a supervisor is left"


def test_cancelling_what_has_ended_or_never_was_is_bad_input(run, history) -> None:
    assert run("cancel", "good")[0::2] == (2, f"agentnb: run 'good' ({history['good']}) has ended already: completed\n")
    code, out, err = run("cancel", "goood")
    assert (code, out) == (2, "")
    assert "did you mean 'good'?" in err


def test_a_run_that_nobody_looks_after_cannot_be_cancelled_and_that_is_said(run, store, monkeypatch) -> None:
    monkeypatch.setattr("agentnb.notebook.attach._DOUBT_S", 0.1)
    live = queued("live", new_id())
    with Store.open(store, owner="tester") as opened:
        opened.apply([live, events.RunStarted(live.run_id)])
        code, out, err = run("cancel", "live")
    assert (code, out) == (2, "")
    assert "'live' reads running" in err
    assert "cannot be reached" in err
