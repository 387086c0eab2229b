"""Python agents launched from a session: in a child process and on the agents' loop, their reports, ends and runs of their own."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.notebook.hosting import current_run
from tests.notebook.polling import lives, until


def plain(ctx: nb.RunContext, x: int) -> dict[str, int]:
    ctx.log(f"got {x}")
    with ctx.step("think", kind="turn", input=x) as step:
        step.output = x * 2
    ctx.usage(input_tokens=3, output_tokens=4, cost_usd=0.5)
    ctx.artifact("note.txt", "kept")
    return {"twice": x * 2, "params": ctx.params, "same_process": os.getpid() == ctx.params["pid"]}


async def hosted(ctx: nb.RunContext, x: int) -> dict[str, int]:
    await asyncio.sleep(0)
    return plain(ctx, x)


@pytest.mark.parametrize("function", [plain, hosted])
def test_an_agent_of_either_kind_returns_logs_steps_counts_and_keeps(session, function) -> None:
    run = session.python(function, 21, params={"pid": os.getpid()}, timeout=60)
    result = run.wait()
    result.raise_for_status()
    assert run.output == {"twice": 42, "params": {"pid": os.getpid()}, "same_process": function is hosted} == result.output
    assert run.stdout == "got 21\n"
    attempt, think = run.steps
    assert (think.name, think.kind, think.status, think.input, think.output, think.parent_id) == (
        "think",
        "turn",
        "completed",
        21,
        42,
        attempt.id,
    )
    assert [(kept.name, kept.size) for kept in run.artifacts] == [("note.txt", 4)]
    row = session.runs_df().iloc[0]
    assert (row.input_tokens, row.output_tokens, row.cost_usd) == (3, 4, 0.5)
    assert result.usage.wall_time > 0
    snapshot = run.snapshot()
    assert (snapshot.input_tokens, snapshot.cost_usd) == (3, 0.5)


def plain_failure() -> None:
    raise ValueError("no such luck")


async def hosted_failure() -> None:
    plain_failure()


@pytest.mark.parametrize("function", [plain_failure, hosted_failure])
def test_an_exception_becomes_data_with_its_traceback(session, function) -> None:
    run = session.python(function)
    result = run.wait()
    assert (result.status, result.error.message) == (nb.RunStatus.FAILED, "ValueError: no such luck")
    assert 'raise ValueError("no such luck")' in result.error.details["traceback"]
    with pytest.raises(nb.RunFailed, match="no such luck"):
        result.raise_for_status()
    assert session.runs_df().error_kind.tolist() == ["execution_failed"]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_result_that_json_cannot_hold_fails_the_run_and_says_what_to_return(session, kind) -> None:
    async def hosted_object() -> object:
        return object()

    run = session.python(hosted_object if kind == "async def" else object)
    assert run.wait().status == "failed"
    assert "JSON cannot hold" in run.error.message


def test_an_argument_that_cannot_be_sent_is_refused_before_anything_starts(session) -> None:
    with pytest.raises(nb.ConfigError, match="argument 'x'.*lock"):
        session.python(plain, threading.Lock())
    assert session.runs == []


def test_closures_lambdas_and_functions_of_main_reach_the_child(session, run_script) -> None:
    factor = 3
    assert session.python(lambda x: x * factor, 4).wait().output == 12
    out = run_script(
        """
        from dataclasses import dataclass
        base = 10
        @dataclass
        class Point:
            x: int
        def inner(p):
            return p.x + base
        def agent(p, k=1):
            return [inner(p) * k, Point(7)]
        async def hosted(p):
            return inner(p)
        runs = [session.launch(nb.Python(agent, Point(1), k=2)), session.python(hosted, Point(2)), session.python(lambda: base)]
        print([run.wait().output for run in runs])
        """
    )
    assert out == "[[22, {'x': 7}], 12, 10]\n"


def endless(path: str) -> None:
    Path(path).write_text(f"{os.getpid()}\n")
    while True:
        pass


def in_c(path: str) -> None:
    Path(path).write_text(f"{os.getpid()}\n")
    re.match(r"(a+)+$", "a" * 60 + "b")


@pytest.mark.parametrize("function", [endless, in_c])
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_plain_agent_is_ended_in_a_loop_and_in_c(session, function, how) -> None:
    run = session.python(function, "pid", grace=0.2, **({"timeout": 1} if how == "timeout" else {}))
    until(lambda: Path("pid").exists() and Path("pid").read_text().endswith("\n"))
    if how == "cancel":
        run.cancel()
    assert run.wait(20).status == ("cancelled" if how == "cancel" else "timeout")
    assert not lives(int(Path("pid").read_text()))


@pytest.mark.parametrize("timeout", [None, 2])
def test_a_thread_that_an_agent_leaves_behind_does_not_hold_its_result_back(session, monkeypatch: pytest.MonkeyPatch, timeout) -> None:
    def agent() -> str:
        threading.Thread(target=time.sleep, args=(600,)).start()
        return "done"

    monkeypatch.setattr("agentnb.agents.python.LINGER_S", 0.3 if timeout is None else 60.0)
    result = session.python(agent, timeout=timeout).wait(60)
    assert (result.status, result.output, result.warnings) == ("completed", "done", ("it did not exit after its result; it was ended",))


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_an_async_agent_is_cancelled_and_may_clean_up(session, how) -> None:
    seen = []

    async def agent(ctx: nb.RunContext) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
            seen.append(ctx.run_id)
            ctx.log("cleaned up")
            raise

    run = session.python(agent, **({"timeout": 0.3} if how == "timeout" else {}))
    until(lambda: run.status is nb.RunStatus.RUNNING)
    if how == "cancel":
        run.cancel("stop it")
    result = run.wait(20)
    assert result.status == ("cancelled" if how == "cancel" else "timeout")
    assert (seen, run.stdout, result.warnings) == ([run.id], "cleaned up\n", ())


def test_an_async_agent_that_ignores_its_cancellation_is_reported_not_suffered(session) -> None:
    release = threading.Event()

    async def agent(ctx: nb.RunContext) -> str:
        while not release.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                ctx.log("not me")
        ctx.log("too late")
        return "too late"

    run = session.python(agent, timeout=0.2, grace=0.2)
    start = time.monotonic()
    result = run.wait(20)
    assert time.monotonic() - start < 5
    assert result.status == "timeout"
    assert "did not end within 0.2 s of its cancellation" in result.warnings[0]
    release.set()
    assert session.python(hosted, 1, params={"pid": 0}).wait().status == "completed"
    assert (run.output, run.stdout) == (None, "not me\n")


def test_an_attempt_that_ignores_its_cancellation_has_no_say_in_the_next(session) -> None:
    release = threading.Event()

    async def agent(ctx: nb.RunContext) -> str:
        if ctx.attempt == 1:
            while not release.is_set():
                try:
                    await asyncio.sleep(0.02)
                except asyncio.CancelledError:
                    continue
            return "first"
        release.set()
        await asyncio.sleep(0.3)
        return "second"

    run = session.python(agent, timeout=1, grace=0.1, retry=nb.Retry(max_attempts=2, initial_delay=0.05))
    assert run.wait(20).output == "second"
    assert run.result.attempts == 2


def test_an_agent_that_blocks_its_loop_stops_its_like_but_no_process_and_no_view(session) -> None:
    release = threading.Event()

    async def blocking() -> None:
        release.wait(30)  # what must not be done

    blocked = session.python(blocking)
    until(lambda: blocked.status is nb.RunStatus.RUNNING)
    assert session.shell("echo on").wait(10).stdout == "on\n"
    assert session.runs_df().status.tolist() == ["running", "completed"]
    release.set()
    assert blocked.wait(10).status == "completed"


def test_an_agent_launches_runs_and_awaits_them_even_when_it_holds_the_only_place(new_session) -> None:
    session = new_session(max_parallel=1)

    async def child(n: int) -> int:
        return int((await session.shell(f"echo {n}")).stdout)

    async def parent(ctx: nb.RunContext) -> list[int]:
        runs = [session.python(child, n) for n in range(3)]
        group = await session.map(nb.Shell("echo {{n}}"), nb.grid(n=[7, 8]), max_parallel=1)
        return [(await run).output for run in runs] + [int(run.stdout) for run in group]

    runs = [session.python(parent, name=f"parent {n}") for n in range(2)]
    assert [run.wait(30).output for run in runs] == [[0, 1, 2, 7, 8]] * 2
    frame = session.runs_df().set_index("id")
    for run in runs:
        mine = frame[frame.parent_run_id == run.id]
        assert len(mine) == 5
        assert (frame.parent_run_id.isin(mine.index)).sum() == 3
    assert current_run() is None


def test_blocking_calls_inside_an_async_agent_are_refused_not_deadlocked(session) -> None:
    async def agent() -> list[str]:
        run, said = session.shell("echo hi; sleep 0.1", stdin=True), []
        calls = (run.wait, session.wait, session.end, lambda: run.send("x"), lambda: run.stdout, session.map(nb.Shell("true"), [{}]).wait)
        for call in calls:
            try:
                call()
            except RuntimeError as bad:
                said.append(str(bad))
        await run
        assert (run.stdout, await run.lines().__anext__()) == ("hi\n", "hi")
        return said

    run = session.python(agent)
    assert run.wait(20).status == "completed", run.error
    assert len(run.output) == 6
    assert all("would block the loop thread" in text and "await" in text for text in run.output)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stdin": "x"}, "has no stdin"),
        ({"env": {"A": "1"}}, "sees its environment"),
        ({"working_dir": "/"}, "current directory"),
        ({"capture": "none"}, "always kept"),
        ({"limits": nb.Limits(max_memory_bytes="1GiB")}, "max_memory_bytes cannot bound an `async def` agent"),
    ],
)
def test_what_an_async_agent_cannot_have_is_refused(session, options, says) -> None:
    async def agent() -> None: ...

    with pytest.raises(nb.ConfigError, match=says):
        session.python(agent, **options)
    assert session.runs == []


def test_an_async_agent_s_output_is_bounded_when_asked(session) -> None:
    async def agent(ctx: nb.RunContext) -> None:
        while True:
            ctx.log("x" * 1000)
            await asyncio.sleep(0.001)

    run = session.python(agent, limits=nb.Limits(max_output_bytes="100kB"))
    with pytest.raises(nb.LimitExceeded, match="max_output_bytes=100000"):
        run.wait(20).raise_for_status()
