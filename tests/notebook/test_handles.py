"""RunHandle: waiting, awaiting, cancelling, results, output and input, steps and artifacts."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

import agentnb as nb
from tests.notebook.polling import lives, pid_in, until

STUBBORN = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"


def in_main_thread(function: str) -> bool:
    """Whether the main thread is inside of a function of that name."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return any(place.name == function for place in traceback.extract_stack(frame))


def interrupt_when(condition) -> threading.Thread:
    """Sends this process SIGINT, as the stop button does, once `condition` holds."""

    def work() -> None:
        until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_launch_returns_at_once_even_when_the_supervisor_does_nothing(session) -> None:
    session.shell("true").wait()
    supervisor = session._engine.process.pid
    os.kill(supervisor, signal.SIGSTOP)
    try:
        start = time.monotonic()
        runs = [session.shell("echo hello") for _ in range(50)]
        group = session.map(nb.Command(["echo", "{{n}}"]), nb.grid(n=range(500)))
        assert time.monotonic() - start < 2
        assert all(run.status is nb.RunStatus.PENDING and run.result is None and not run.done for run in [*runs, *group])
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert {run.wait().stdout for run in runs} == {"hello\n"}
    assert [result.stdout for result in group.wait().results] == [f"{n}\n" for n in range(500)]


def test_the_result_tells_how_it_went(session) -> None:
    run = session.shell("echo out; echo err >&2; exit 3", name="job")
    result = run.wait()
    assert result is run.result
    assert (result.status, result.exit_code, result.signal, result.attempts) == (nb.RunStatus.FAILED, 3, None, 1)
    assert (result.stdout, result.stderr, result.stdout_bytes, result.stderr_bytes) == ("out\n", "err\n", 4, 4)
    assert 0 < result.duration < 5
    assert result.usage.peak_memory_bytes > 0
    assert result.usage.cpu_time >= 0
    assert result.usage.wall_time == pytest.approx(result.duration)
    assert result.command_id == run.id
    assert result.name == "job"
    assert result.spec["command"].startswith("echo out")
    assert (result.command_status, result.reason, result.retryable, result.ok) == ("failed", "non_zero_exit", False, False)
    assert result.error.kind is nb.ErrorKind.EXECUTION_FAILED
    assert "3" in result.error.message
    assert run.error.kind is nb.ErrorKind.EXECUTION_FAILED
    assert run.error == run.result.error
    assert run.done
    assert run.status is nb.RunStatus.FAILED
    metadata = result.metadata
    assert metadata.started_at.utcoffset().total_seconds() == 0
    assert metadata.completed_at >= metadata.started_at
    assert metadata.working_directory == str(Path.cwd())
    assert metadata.agentnb_version == nb.__version__


@pytest.mark.parametrize(
    ("command", "options", "raised", "says"),
    [
        ("echo lost >&2; exit 7", {}, nb.RunFailed, "exited with code 7"),
        ("echo lost >&2; sleep 60", {"timeout": 0.2}, nb.RunTimedOut, "0.2 s"),
        ("echo lost >&2; yes", {"limits": nb.Limits(max_output_bytes="1MB")}, nb.LimitExceeded, "max_output_bytes=1000000"),
        ("echo lost >&2; kill -9 $$", {}, nb.RunFailed, "SIGKILL"),
    ],
)
def test_raise_for_status_raises_the_kind_that_fits_with_the_end_of_stderr(session, command, options, raised, says) -> None:
    result = session.shell(command, name="job", **options).wait()
    with pytest.raises(nb.RunFailed) as caught:
        result.raise_for_status()
    assert type(caught.value) is raised
    assert caught.value.result is result
    text = str(caught.value)
    assert "'job'" in text
    assert says in text
    assert text.splitlines()[2] == "lost"


def test_raise_for_status_returns_a_good_result_and_tells_of_a_cancelled_one(session) -> None:
    good = session.shell("true").wait()
    assert good.raise_for_status() is good
    run = session.shell("sleep 60")
    run.cancel("enough of it")
    with pytest.raises(nb.RunCancelled, match="was cancelled: enough of it"):
        run.wait().raise_for_status()


def test_a_result_can_be_pickled_and_still_reads_its_output(session) -> None:
    result = session.shell("echo kept").wait()
    assert pickle.loads(pickle.dumps(result)).stdout == "kept\n"


def test_a_wait_that_times_out_says_so_and_the_run_goes_on(session) -> None:
    run = session.shell("sleep 0.5; echo done", name="slow")
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="1 of 1 runs had not ended after 0.1 s and go on: slow"):
        run.wait(0.1)
    with pytest.raises(TimeoutError):
        run.wait("50ms")
    with pytest.raises(TimeoutError):
        run.wait(0)
    assert time.monotonic() - start < 0.45
    assert run.wait(10).stdout == "done\n"
    assert run.wait(0) is run.result


@pytest.mark.parametrize(("timeout", "says"), [(-1, "timeout"), ("soon", "timeout"), (float("nan"), "timeout")])
def test_a_wait_with_a_senseless_timeout_is_refused(session, timeout, says) -> None:
    with pytest.raises(nb.ConfigError, match=says):
        session.shell("true").wait(timeout)


def test_a_wait_with_an_unknown_on_interrupt_is_refused(session) -> None:
    with pytest.raises(nb.ConfigError, match="neither 'cancel' nor 'detach'"):
        session.shell("true").wait(on_interrupt="ignore")


def test_an_interrupt_during_wait_cancels_waits_for_the_ladder_and_is_raised_again(session) -> None:
    run = session.shell(STUBBORN, grace=0.3)
    pid = pid_in(Path("pid"))
    thread = interrupt_when(lambda: in_main_thread("_all_ended"))
    with pytest.raises(KeyboardInterrupt):
        run.wait()
    assert run.done
    assert run.status is nb.RunStatus.CANCELLED
    assert run.error.message == "interrupted by the user"
    assert not lives(pid)
    thread.join()


def test_an_interrupt_during_wait_can_leave_the_run_alone(session) -> None:
    run = session.shell("echo started; while [ ! -e go ]; do sleep 0.02; done; echo done")
    thread = interrupt_when(lambda: in_main_thread("_all_ended"))
    with pytest.raises(KeyboardInterrupt):
        run.wait(on_interrupt="detach")
    thread.join()
    assert not run.done
    Path("go").touch()
    assert run.wait().stdout == "started\ndone\n"


def test_cancel_ends_the_whole_tree_and_once_is_as_good_as_twice(session) -> None:
    run = session.shell("sh -c 'echo $$ > pid; exec setsid sleep 60' & wait")
    pid = pid_in(Path("pid"))
    run.cancel("first")
    run.cancel("second")
    assert run.snapshot().status in {"cancelling", "cancelled"}
    assert run.wait().error.message == "first"
    assert run.status is nb.RunStatus.CANCELLED
    assert not lives(pid)
    run.cancel("too late")
    assert run.result.error.message == "first"
    assert "cancelled: first" in repr(run)


def test_cancel_of_a_finished_run_changes_nothing(session) -> None:
    run = session.shell("true")
    run.wait()
    run.cancel()
    assert run.status is nb.RunStatus.COMPLETED
    assert session.runs_df().status.tolist() == ["completed"]


def test_cancel_of_a_waiting_run_never_starts_it(new_session) -> None:
    session = new_session(max_parallel=1)
    first, second = session.shell("sleep 60"), session.shell("touch ran")
    second.cancel()
    result = second.wait()
    assert (result.status, result.exit_code, result.duration, result.stdout) == (nb.RunStatus.CANCELLED, None, None, "")
    first.cancel()
    first.wait()
    assert not Path("ran").exists()


def test_a_run_is_awaited_and_so_are_several(session) -> None:
    async def main() -> None:
        result = await session.shell("echo one")
        assert result.stdout == "one\n"
        runs = [session.shell(f"echo {n}; exit {n}") for n in range(5)]
        results = await asyncio.gather(*runs)
        assert [result.exit_code for result in results] == list(range(5))
        assert await runs[0] is results[0]
        done, pending = await asyncio.wait({asyncio.ensure_future(run) for run in runs})
        assert len(done) == 5
        assert not pending

    asyncio.run(main())


def test_wait_for_cancels_the_run_that_takes_too_long(session) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.3)

    run = session.shell(STUBBORN, grace=0.2)
    pid = pid_in(Path("pid"))
    asyncio.run(main())
    assert run.status is nb.RunStatus.CANCELLED
    assert not lives(pid)
    assert "interrupted or cancelled" in run.error.message


def test_a_task_group_that_fails_cancels_the_runs_it_awaits(session) -> None:
    async def awaiting() -> None:
        await run

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(awaiting())
            await asyncio.sleep(0.1)
            raise ValueError("no more")

    run = session.shell("sleep 60")
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        asyncio.run(main())
    assert run.status is nb.RunStatus.CANCELLED


def test_an_interrupted_asyncio_run_cancels_what_it_awaits(session) -> None:
    async def main() -> None:
        awaiting.set()
        await run

    run, awaiting = session.shell("sleep 60"), threading.Event()
    thread = interrupt_when(lambda: awaiting.is_set() and in_main_thread("select"))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    thread.join()
    assert run.status is nb.RunStatus.CANCELLED


def test_output_is_there_while_it_runs_and_afterwards(session) -> None:
    run = session.shell("echo one; echo bad >&2; while [ ! -e go ]; do sleep 0.02; done; printf 'two\n'; sleep 0.05; printf three >&2")
    until(lambda: run.stdout == "one\n" and run.stderr == "bad\n")
    assert sorted(run.tail().split("\n")) == ["bad", "one"]
    assert run.result is None
    Path("go").touch()
    run.wait()
    assert run.stdout == "one\ntwo\n"
    assert run.stderr == "bad\nthree"
    assert run.tail(1) == "three"
    assert run.tail(2) == "two\nthree"
    assert run.tail(0) == ""


def test_text_is_written_to_stdin_as_it_goes(session) -> None:
    run = session.shell("read a; echo got $a; cat", stdin=True)
    until(lambda: run.status is nb.RunStatus.RUNNING)
    run.send("one\n")
    until(lambda: "got one" in run.stdout)
    run.send("größe €\n", eof=True)
    assert run.wait().stdout == "got one\ngröße €\n"
    with pytest.raises(RuntimeError, match="it has ended"):
        run.send("late")


def test_sending_to_a_run_without_stdin_or_what_is_no_text_is_refused(session) -> None:
    run = session.shell("cat; echo end; sleep 1000", name="deaf", grace=0)
    until(lambda: run.stdout == "end\n")
    with pytest.raises(RuntimeError, match="'deaf'.*stdin=True"):
        run.send("x")
    with pytest.raises(nb.ConfigError, match="bytes is no text"):
        run.send(b"x")
    run.cancel()
    run.wait()


def test_steps_and_artifacts_are_records(session) -> None:
    run = session.shell("echo 1 > a.csv; exit 4", artifacts="*.csv", retry=nb.Retry(max_attempts=2, initial_delay=0, on_exit_codes=[4]))
    result = run.wait()
    assert result.attempts == 2
    assert [(step.kind, step.status, step.attempt, step.exit_code) for step in run.steps] == [("attempt", "failed", n, 4) for n in (1, 2)]
    (artifact,) = run.artifacts
    assert isinstance(artifact, nb.Artifact)
    assert (artifact.name, artifact.size, artifact.source_run) == ("a.csv", 2, run.id)


def test_structured_output_is_found(session) -> None:
    run = session.shell("""echo noise; echo '{"a": [1, 2]}'""", capture="structured")
    assert run.wait().output == {"a": [1, 2]} == run.output
    assert run.result.output_source == "last_line"


def test_a_callback_is_called_once_at_the_end_or_at_once(session) -> None:
    run, called = session.shell("true"), []
    run.when_done(lambda: called.append(1))
    run.wait()
    until(lambda: called)
    run.when_done(lambda: called.append(2))
    assert called == [1, 2]


def test_a_snapshot_follows_the_run(session) -> None:
    run = session.shell("echo hi; while [ ! -e go ]; do sleep 0.02; done", name="job", params={"a": 1})
    until(lambda: run.status is nb.RunStatus.RUNNING)
    live = run.snapshot()
    assert (live.name, live.kind, live.status, live.params, live.exit_code) == ("job", "shell", "running", {"a": 1}, None)
    assert live.elapsed_s >= 0
    assert not live.done
    Path("go").touch()
    run.wait()
    final = run.snapshot()
    assert (final.status, final.exit_code, final.tail, final.stdout_bytes) == ("completed", 0, (("stdout", "hi\n"),), 3)
    assert final.done


def test_reading_a_store_that_was_removed_says_so(session, store) -> None:
    run = session.shell("head -c 100000 /dev/zero | tr '\\0' x")
    run.wait()
    (store / "runs").rename(store / "gone")
    with pytest.raises(nb.StoreError, match="cannot be read"):
        _ = run.stdout
    assert run.snapshot().status == "completed"


def test_a_long_name_is_kept_and_shown_short(session) -> None:
    run = session.shell("true", name="x" * 1000)
    run.wait()
    assert len(repr(run)) < 140
    assert run.name == "x" * 1000
    assert run.error is None
