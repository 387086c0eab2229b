"""One process from spawn to the end of its whole tree."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentnb import requests
from tests.engine.driver import SOON, Engine, lives, marked, pids, state_of, wait_until

#: A grace that a test would notice if it were waited for.
LONG = 20.0

#: Writes its own pid and waits.
SLEEPER = "echo $$ >> pids; exec sleep 1000"
#: Ignores SIGTERM.
STUBBORN = "trap '' TERM; echo $$ >> pids; while :; do sleep 1000; done"
#: Leaves a process in a session of its own, twice forked, its output thrown away.
DAEMON = (
    f"{sys.executable} -I -S -c 'import os,sys,time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    'print(os.getpid(), file=open("pids", "a"))\ntime.sleep(1000)\' >/dev/null 2>&1'
)


def test_output_and_exit_code_of_a_plain_command(engine: Engine) -> None:
    run = engine.launch("echo out; echo err >&2; exit 3")
    end = run.wait()
    assert (end.status, end.exit_code, end.signal, end.error and end.error["kind"]) == ("failed", 3, None, "execution_failed")
    assert end.detail["reason"] == "non_zero_exit"
    assert (run.stdout(), run.stderr()) == (b"out\n", b"err\n")


def test_a_command_that_is_expected_to_fail_and_does_has_completed(engine: Engine) -> None:
    assert engine.run("exit 1", expected_exit_code=1).status == "completed"
    end = engine.run("exit 0", expected_exit_code=1)
    assert end.status == "failed"
    assert "not 1 as expected" in end.error["message"]  # type: ignore[index]


def test_the_end_by_a_signal_is_told_from_an_exit_code(engine: Engine) -> None:
    end = engine.run("kill -SEGV $$")
    assert (end.status, end.exit_code, end.signal, end.detail["reason"]) == ("failed", None, signal.SIGSEGV, "signalled")
    assert "SIGSEGV" in end.error["message"]  # type: ignore[index]


def test_a_timeout_keeps_the_output_so_far(engine: Engine) -> None:
    run = engine.launch("echo partial; sleep 1000", timeout_s=0.4, grace_s=LONG)
    end = run.wait(5)
    assert (end.status, end.error and end.error["kind"]) == ("timeout", "timeout")
    assert run.stdout() == b"partial\n"
    assert 0.4 <= (end.run_s or 0) < 3


def test_a_timeout_covers_a_background_child_that_holds_stdout(engine: Engine) -> None:
    started = time.monotonic()
    run = engine.launch("(echo bg; exec sleep 1000) & wait", timeout_s=0.3, grace_s=1)
    assert run.wait(5).status == "timeout"
    assert time.monotonic() - started < 4
    assert run.stdout() == b"bg\n"


def test_a_background_child_that_holds_stdout_does_not_outlive_its_command(engine: Engine) -> None:
    run = engine.launch(f"({SLEEPER}) & while [ ! -s pids ]; do sleep 0.01; done; echo done")
    end = run.wait(5)
    assert (end.status, end.exit_code) == ("completed", 0)
    assert run.stdout() == b"done\n"
    assert not lives(pids(1)[0])
    assert any("outlived" in warning for warning in end.detail["warnings"])


@pytest.mark.parametrize("how", ["cancel", "timeout", "exit"])
@pytest.mark.parametrize("kind", ["stubborn", "setsid", "daemon", "bare daemon"])
def test_no_descendant_survives(engine: Engine, how: str, kind: str) -> None:
    line = {
        "stubborn": f'sh -c "{STUBBORN}" &',
        "setsid": f"setsid sh -c '{SLEEPER}' &",
        "daemon": DAEMON,
        "bare daemon": f"env -i {DAEMON}",
    }[kind]
    other = engine.launch("sleep 1000")  # the engine must not take the only run there is for the guilty one
    line += "\nwhile [ ! -s pids ]; do sleep 0.01; done; echo up"
    run = engine.launch(line if how == "exit" else f"{line}; sleep 1000", grace_s=0.3, timeout_s=2 if how == "timeout" else None)
    child = pids(1)[0]
    if how == "cancel":
        run.cancel()
    end = run.wait(8)
    assert end.status == {"cancel": "cancelled", "timeout": "timeout", "exit": "completed"}[how]
    assert not lives(child)
    assert not run.pids()
    assert lives(int(other.started().of("run_started")[0].handle.partition(":")[2]))
    other.cancel()
    other.wait(5)


def test_a_stopped_child_ends(engine: Engine) -> None:
    run = engine.launch(SLEEPER, grace_s=LONG)
    child = pids(1)[0]
    os.kill(child, signal.SIGSTOP)
    wait_until(lambda: state_of(child) == "T")
    run.cancel()
    assert run.wait(5).status == "cancelled"
    assert not lives(child)


def test_a_loop_of_short_processes_ends_without_the_grace(engine: Engine) -> None:
    runs = [engine.launch("while :; do sleep 0.003; done", grace_s=LONG).started() for _ in range(4)]
    for run in runs:
        run.cancel()
    assert [run.wait(5).status for run in runs] == ["cancelled"] * 4


def test_what_a_parent_starts_while_it_is_told_to_end_and_leaves_alone_is_told_as_well(engine: Engine) -> None:
    code = (  # no shell: a signal is lost in one that has forked and not yet reset its traps
        "import os, signal\n"
        "def end(*_):\n os.posix_spawn('/bin/sleep', ['sleep', '1000'], os.environ)\n os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "with open('pids', 'a') as file: print(os.getpid(), file=file)\n"
        "signal.pause()"
    )
    run = engine.launch([sys.executable, "-I", "-S", "-c", code], grace_s=600.0).started()
    [pid] = pids(1)
    run.cancel()
    assert run.wait().status == "cancelled"
    assert not lives(pid)
    assert run.pids() == []


def test_what_a_parent_starts_to_clean_up_has_its_time(engine: Engine) -> None:
    line = "trap 'sleep 0.3; echo clean; exit' TERM; echo $$ >> pids; while :; do sleep 0.02; done"
    run = engine.launch(line, grace_s=600.0).started()
    pids(1)
    run.cancel()
    assert (run.wait().status, run.stdout()) == ("cancelled", b"clean\n")


def test_a_fork_storm_ends(engine: Engine) -> None:
    run = engine.launch("trap '' TERM; f() { while :; do sleep 0.05 & sleep 0.02; done; }; f & f & f & wait", grace_s=0.2).started()
    run.cancel()
    assert run.wait(8).status == "cancelled"
    assert not run.pids()


def test_cancel_at_once_after_launch_leaves_nothing(engine: Engine) -> None:
    runs = []
    for _ in range(30):
        run = engine.launch("sleep 1000", grace_s=LONG)
        run.cancel()
        runs.append(run)
    assert {run.wait(10).status for run in runs} == {"cancelled"}
    assert not marked(f"MARK={engine.store}")


def test_cancel_at_every_moment_of_a_short_run_leaves_one_end_and_nothing_else(engine: Engine) -> None:
    ends = []
    for n in range(40):
        run = engine.launch("echo a; sleep 0.01; echo b")
        time.sleep(n * 0.0007)  # a different moment each time; nothing depends on which
        run.cancel()
        ends.append(run)
    assert {run.wait(10).status for run in ends} <= {"cancelled", "completed"}
    engine.settle()
    assert {run.finishes for run in ends} == {1}
    assert not marked(f"MARK={engine.store}")


def test_a_missing_program_a_missing_folder_and_a_file_that_is_no_program_are_told_apart(engine: Engine, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("echo hello from text\n")
    for work, says in (
        ({"command": ["no-such-program-here"]}, ["program 'no-such-program-here'", "No such file"]),
        ({"command": ["./nothing"]}, ["nothing", "No such file"]),
        ({"command": ["true"], "cwd": "/no/such/folder"}, ["working directory '/no/such/folder'", "No such file"]),
        ({"command": ["true"], "cwd": str(plain)}, ["working directory", "Not a directory"]),
        ({"command": [str(plain)]}, ["plain", "Permission denied", "chmod"]),
        ({"command": [str(tmp_path)]}, [str(tmp_path), "Permission denied"]),
        ({"command": ["true", "x" * 200_000]}, ["too long"]),
        ({"command": ["true", *["y" * 100_000] * 40]}, ["too long"]),
        ({"command": ["true", "a\0b"]}, ["null"]),
        ({"command": []}, ["cannot be started"]),
        ({"command": ["true"], "env_id": 99}, ["cannot be started"]),
    ):
        end = engine.run(**work)
        assert (end.status, end.error and end.error["kind"], end.detail["reason"]) == ("failed", "startup_failed", "startup"), work
        for part in says:
            assert part in end.error["message"], (part, end.error["message"])  # type: ignore[index]
    assert engine.run("true").status == "completed"


def test_a_text_file_without_an_interpreter_line_is_run_by_sh(engine: Engine, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo hello $1\n")
    script.chmod(0o755)
    run = engine.launch([str(script), "you"])
    assert run.stdout() == b"hello you\n"


def test_cwd_and_environment_are_those_of_the_launch(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "ä b").mkdir()
    run = engine.launch('pwd; echo "$A $B $AGENTNB_ATTEMPT ${HOME-none}"', cwd=str(tmp_path / "ä b"), env={"A": "1 ü", "B": "x\ny"})
    assert run.stdout().decode() == f"{tmp_path}/ä b\n1 ü x\ny 1 none\n"
    other = engine.client.environment({"PATH": os.environ["PATH"], "ONLY": "this"})
    assert b"ONLY=this" in engine.launch("env", env_id=other).stdout()
    assert b"ONLY" not in engine.launch("env").stdout()


def test_a_command_is_a_session_leader_with_default_signals_and_no_stray_descriptors(engine: Engine) -> None:
    code = (
        "import os,signal\nprint(os.getsid(0) == os.getpid(), sorted(int(f) for f in os.listdir('/proc/self/fd')))\n"
        "print([s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD) if signal.getsignal(s) is signal.SIG_IGN],"
        " signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE) == LIMIT)"
    )
    code = code.replace("== LIMIT", f"== {resource.getrlimit(resource.RLIMIT_NOFILE)}")
    run = engine.launch([sys.executable, "-I", "-S", "-c", code])
    assert run.stdout().decode().splitlines() == ["True [0, 1, 2, 3]", "[] set()", "True"], run.stderr()


def test_stdin_is_empty_unless_text_is_given(engine: Engine) -> None:
    assert engine.launch("cat; echo end").stdout() == b"end\n"
    assert engine.launch("cat; echo end", stdin="zwölf\n").stdout().decode() == "zwölf\nend\n"


def test_10_mb_of_stdin_arrive_and_may_be_left_unread(engine: Engine) -> None:
    text = "x" * 10_000_000
    assert engine.launch("wc -c", stdin=text).stdout().strip() == b"10000000"
    started = time.monotonic()
    end = engine.run("exec sleep 0.1", stdin=text)
    assert (end.status, end.detail.get("warnings", [])) == ("completed", [])
    assert engine.run("exec <&-; sleep 0.1; exit 0", stdin=text).status == "completed"
    assert time.monotonic() - started < 10


def test_an_open_stdin_takes_what_is_sent_until_its_end(engine: Engine) -> None:
    run = engine.launch("while read line; do echo got $line; done; echo end", stdin=True).started()
    run.send("one\n")
    run.send("two\nthree\n", eof=True)
    assert run.stdout() == b"got one\ngot two\ngot three\nend\n"
    with pytest.raises(RuntimeError, match="it has ended"):
        run.send("late")


def test_sending_to_a_stdin_that_was_closed_says_so(engine: Engine) -> None:
    run = engine.launch("exec <&-; touch closed; sleep 1000", stdin=True).started()
    wait_until(lambda: Path("closed").exists())
    with pytest.raises(RuntimeError, match="does not read its stdin"):
        run.send("hello\n")
    with pytest.raises(RuntimeError, match="closed"):
        run.send("again\n")
    none = engine.launch("sleep 1000").started()
    with pytest.raises(RuntimeError, match="stdin=True"):
        none.send("hello\n")
    run.cancel()
    none.cancel()


def test_a_big_text_is_sent_without_blocking_the_engine(engine: Engine) -> None:
    run = engine.launch("sleep 1000", stdin=True).started()
    waiting = engine.client.request(lambda number: requests.SendInput(number, run.id, "y" * 3_000_000))
    assert engine.run("true").status == "completed"
    run.cancel()
    assert run.wait(5).status == "cancelled"
    with pytest.raises(RuntimeError, match="closed|read"):
        waiting.result(5)


@pytest.mark.parametrize(
    ("capture", "out", "err"), [("none", b"", b""), ("stdout", b"out\n", b""), ("stderr", b"", b"err\n"), ("both", b"out\n", b"err\n")]
)
def test_only_what_is_to_be_captured_is(engine: Engine, capture: str, out: bytes, err: bytes) -> None:
    run = engine.launch("echo out; echo err >&2", capture=capture)
    assert run.wait().status == "completed"
    assert (run.stdout(), run.stderr()) == (out, err)


def test_usage_counts_the_children_that_were_waited_for(engine: Engine) -> None:
    busy = f"{sys.executable} -I -S -c 'import time\nd = bytearray(60_000_000)\nwhile time.process_time() < 0.2: pass'"
    end = engine.run(f"{busy}; true")
    usage = end.usage
    assert usage is not None
    assert usage["cpu_time"] >= 0.2
    assert 60_000_000 <= usage["peak_memory_bytes"] < 400_000_000
    assert usage["wall_time"] == end.run_s
    assert usage["peak_memory_is_bound"] is False


def test_usage_counts_a_child_that_daemonised(engine: Engine) -> None:
    busy = "import os,time\nr, w = os.pipe()\nif os.fork():\n    os.close(w)\n    os.read(r, 1)\n    os._exit(0)\n"
    busy += "os.setsid()\nif os.fork(): os._exit(0)\n"
    busy += "t=time.process_time()\nwhile time.process_time()-t < 0.2: pass"
    end = engine.run([sys.executable, "-I", "-S", "-c", busy])
    assert end.usage is not None
    assert end.usage["cpu_time"] >= 0.2


def test_a_small_command_is_not_charged_with_the_memory_of_who_starts_it(engine: Engine) -> None:
    end = engine.run(["true"])
    assert end.usage is not None
    assert end.usage["peak_memory_bytes"] < 30_000_000


def test_times_of_an_attempt_are_true(engine: Engine) -> None:
    end = engine.run("sleep 0.3")
    assert 0.3 <= (end.run_s or 0) < 1
    meta = end.detail["metadata"]
    assert meta["started_at"] + 300_000 <= meta["completed_at"]


def test_an_argument_that_is_no_ascii_arrives_whatever_the_locale(engine: Engine) -> None:
    run = engine.launch(["printf", "%s", "grüße 🎈 \udcff"], env={"LC_ALL": "C"})
    record = run.wait().stdout
    assert record is not None
    assert record["text"] == "grüße 🎈 \ufffd"


def test_the_system_is_asked_for_too_many_files_and_runs_fail_but_the_engine_goes_on(engine: Engine) -> None:
    used = len(os.listdir(f"/proc/{engine.pid}/fd"))
    subprocess.run(["prlimit", f"--pid={engine.pid}", f"--nofile={used + 3}:4096"], check=True)
    ends = [engine.launch("echo hello; sleep 0.2") for _ in range(4)]
    kinds = {run.wait(SOON).status for run in ends}
    subprocess.run(["prlimit", f"--pid={engine.pid}", "--nofile=4096:4096"], check=True)
    assert "failed" in kinds
    end = engine.run("true")
    assert end.status == "completed", (end.error, [run.wait().error for run in ends])
    wait_until(lambda: len(os.listdir(f"/proc/{engine.pid}/fd")) == used, "the return of all descriptors")


def test_a_cancelled_line_does_not_go_on_with_its_next_command(engine: Engine) -> None:
    for _ in range(15):
        runs = [engine.launch("sleep 1000; touch went-on").started() for _ in range(4)]
        for run in runs:
            run.cancel()
        assert {run.wait(5).status for run in runs} == {"cancelled"}
    assert not Path("went-on").exists()


def test_a_run_that_cannot_be_seen_to_fails_alone(engine: Engine) -> None:
    wrong = {"timeout_s": "x"}
    prepared = [engine.prepare("sleep 0.2; echo said", **(wrong if n % 4 == 1 else {})) for n in range(8)]
    engine.client.send([launch for _, launch in prepared])
    ends = [run.wait() for run, _ in prepared]
    assert [end.status for end in ends] == ["completed", "failed", "completed", "completed"] * 2
    assert {end.error["kind"] for end in ends if end.error} == {"runtime_error"}
    assert [engine.content(end.stdout) for end in ends if end.status == "completed"] == [b"said\n"] * 6
    history = engine.rows("SELECT status, count(*) FROM runs GROUP BY status ORDER BY status")
    assert [tuple(row) for row in history] == [("completed", 6), ("failed", 2)]
    wait_until(lambda: not any(run.pids() for run, _ in prepared), "the end of their processes")


@pytest.mark.parametrize("bound", [1, 4096, 2**63, 2**64, 10**400])
def test_a_bound_that_makes_no_sense_is_the_trouble_of_its_run_alone(engine: Engine, bound: int) -> None:
    spawner = engine.spawner
    others = [engine.launch("sleep 0.1; echo said") for _ in range(3)]
    engine.launch("true", limits={"max_memory_bytes": bound}).wait()
    assert [run.stdout() for run in others] == [b"said\n"] * 3
    assert engine.spawner == spawner
