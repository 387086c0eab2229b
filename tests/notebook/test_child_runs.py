"""Child runs: what an agent launches by ``ctx.run``, from a child process and from the notebook's own; none outlives its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentnb as nb
from agentnb.agents.context import RunContext
from agentnb.states import ErrorKind, RunStatus
from tests.notebook.polling import lives, pid_in, until

Make = Callable[..., Any]


def leaf(ctx: nb.RunContext, word: str) -> Any:
    result = ctx.run(nb.Shell("echo {{word}}"), params={"word": word}, name="shell")
    return result.stdout.strip()


def middle(ctx: nb.RunContext, word: str) -> Any:
    return ctx.run(nb.Python(leaf, word + "!"), name="leaf").output


def top(ctx: nb.RunContext) -> list[str]:
    return [ctx.run(nb.Python(middle, word), name="middle").output for word in ("a", "b")]


async def async_top(ctx: nb.RunContext) -> list[str]:
    results = await asyncio.gather(*(_awaited(ctx.run(nb.Python(middle, word), name="middle")) for word in ("a", "b")))
    return [result.output for result in results]


async def _awaited(handle: nb.RunHandle) -> nb.CommandResult:
    return await handle


@pytest.mark.parametrize("agent", [top, async_top])
def test_runs_nest_three_deep_with_one_place_and_each_knows_its_parent(new_session: Make, agent: Callable[..., object]) -> None:
    session = new_session(max_parallel=1, tags={"topic": "nesting"})
    run = session.python(agent, name="top")
    assert run.wait(120).output == ["a!", "b!"], run.error
    frame = session.runs_df().set_index("id")
    names = frame["name"].to_dict()
    parents = {(names[run_id], names.get(parent)) for run_id, parent in frame["parent_run_id"].items()}
    assert parents == {("top", None), ("middle", "top"), ("leaf", "middle"), ("shell", "leaf")}
    assert set(frame["status"]) == {"completed"}
    assert set(frame["tag.topic"]) == {"nesting"}
    assert frame["session_id"].nunique() == 1
    assert len(session.runs) == 7
    assert all(handle.done for handle in session.runs)


def test_a_child_that_fails_raises_nothing_and_tells_all(session) -> None:
    def agent(ctx: nb.RunContext) -> dict[str, object]:
        result = ctx.run(nb.Shell("echo out; echo err >&2; exit 3"))
        return {"status": result.status, "code": result.exit_code, "out": result.stdout, "err": result.stderr, "kind": result.error.kind}

    told = session.python(agent).wait(60).output
    assert told == {"status": "failed", "code": 3, "out": "out\n", "err": "err\n", "kind": "execution_failed"}


def test_a_child_has_the_folder_environment_and_secrets_of_its_parent(session, store: Path) -> None:
    def agent(ctx: nb.RunContext) -> Any:
        import os

        os.makedirs("below", exist_ok=True)
        os.chdir("below")
        os.environ["SET_LATER"] = "later"
        result = ctx.run(nb.Shell("pwd; echo $GIVEN $SET_LATER $OWN $KEY", env={"OWN": "own"}), name=os.environ["KEY"])
        return result.stdout

    run = session.python(agent, env={"GIVEN": "given", "KEY": nb.Secret("open-sesame")})
    assert run.wait(60).output.endswith("/below\ngiven later own ***\n")
    assert b"open-sesame" not in b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())


def test_output_of_any_size_comes_back_and_a_call_that_is_too_large_is_refused(session) -> None:
    def agent(ctx: nb.RunContext) -> list[object]:
        size = len(ctx.run(nb.Shell("head -c 3000000 /dev/zero | tr '\\0' x")).stdout)
        try:
            ctx.run(nb.Python(len, "x" * 9_000_000))
        except ValueError as bad:
            return [size, str(bad)]
        return [size]

    size, said = session.python(agent).wait(60).output
    assert size == 3_000_000
    assert "too large to be sent" in said


def test_several_threads_of_an_agent_may_have_children_at_once(new_session: Make) -> None:
    def agent(ctx: nb.RunContext) -> list[str]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda n: ctx.run(nb.Shell(f"echo {n}")).stdout.strip(), range(12)))

    run = new_session(max_parallel=2).python(agent)
    assert run.wait(60).output == [str(n) for n in range(12)]


def keeper(ctx: nb.RunContext) -> None:
    ctx.run(nb.Shell("echo $$ > pid; sleep 600"), name="kept")


async def async_keeper(ctx: nb.RunContext) -> None:
    await ctx.run(nb.Shell("echo $$ > pid; sleep 600"), name="kept")


@pytest.mark.parametrize("agent", [keeper, async_keeper])
def test_cancelling_a_parent_cancels_its_children(new_session: Make, agent: Callable[..., object]) -> None:
    session = new_session(max_parallel=1)
    run = session.python(agent)
    pid = pid_in(Path("pid"))
    run.cancel("enough")
    assert run.wait(30).status is RunStatus.CANCELLED
    assert not lives(pid)
    child = next(handle for handle in session.runs if handle.name == "kept")
    assert child.status is RunStatus.CANCELLED
    assert child.error.message == "the run that launched it was ended: enough"


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_ending_an_async_agent_ends_all_that_it_launched_in_any_session(new_session: Make, how: str) -> None:
    session, other = new_session(), new_session(max_parallel=1)

    async def launches() -> None:
        runs = [session.shell("echo $$ > pid; sleep 600"), *(other.shell("sleep 600") for _ in range(2))]
        await runs[0]

    run = session.python(launches, timeout=2 if how == "timeout" else None)
    pid = pid_in(Path("pid"))
    if how == "cancel":
        run.cancel("enough")
    assert run.wait(30).status == ("cancelled" if how == "cancel" else "timeout")
    children = [handle for handle in (*session.runs, *other.runs) if handle.id != run.id]
    assert len(children) == 3
    for child in children:
        assert child.wait(30).status is RunStatus.CANCELLED
        assert "the run that launched it was ended" in child.error.message
    assert not lives(pid)


def test_an_agent_that_is_killed_leaves_no_child_behind(session) -> None:
    run = session.python(keeper)
    pid = pid_in(Path("pid"))
    agent = next(p for p in psutil.Process().children(recursive=True) if "child.py" in " ".join(p.cmdline()))
    os.kill(agent.pid, signal.SIGKILL)
    result = run.wait(30)
    assert (result.status, result.signal) == (RunStatus.FAILED, signal.SIGKILL)
    assert not lives(pid)
    assert sorted(session.runs_df()["status"]) == ["cancelled", "failed"]


def test_a_timeout_of_the_parent_ends_its_children_before_it_is_over(session) -> None:
    run = session.python(keeper, timeout=2, grace=1)
    pid = pid_in(Path("pid"))
    assert run.wait(30).status is RunStatus.TIMEOUT
    assert not lives(pid)


def test_children_that_an_async_agent_does_not_wait_for_end_with_it(session) -> None:
    async def hasty(ctx: nb.RunContext) -> Any:
        ctx.run(nb.Shell("sleep 600"), name="forgotten")
        return "done"

    run = session.python(hasty)
    assert run.wait(30).output == "done"
    until(lambda: all(handle.done for handle in session.runs))
    forgotten = next(handle for handle in session.runs if handle.name == "forgotten")
    assert (forgotten.status, forgotten.error.message) == (RunStatus.CANCELLED, "the run that launched it ended first")


def test_a_session_that_waits_for_its_end_lets_its_agents_go_on(new_session: Make) -> None:
    async def slow(ctx: nb.RunContext) -> Any:
        await asyncio.sleep(0.2)
        result = await ctx.run(nb.Shell("echo late"))
        return result.stdout

    def slow_child(ctx: nb.RunContext) -> Any:
        import time

        time.sleep(0.2)
        return ctx.run(nb.Shell("echo late")).stdout

    with new_session() as session:
        runs = [session.python(slow), session.python(slow_child)]
    assert [run.output for run in runs] == ["late\n", "late\n"]
    with pytest.raises(nb.ConfigError, match="has ended"):
        session.shell("true")


def test_what_children_use_counts_for_the_budgets_of_their_parent(new_session: Make) -> None:
    def worker(ctx: nb.RunContext) -> None:
        import time

        ctx.usage(input_tokens=60)
        time.sleep(600)

    def boss(ctx: nb.RunContext) -> None:
        ctx.usage(input_tokens=50)
        ctx.run(nb.Python(worker), name="worker")

    session = new_session()
    group = session.map(boss, [{}], budget_tokens=100)
    group.wait(60)
    assert group[0].error.details == {"budget": "budget_tokens", "bound": 100, "spent": 110, "scope": "group"}
    child = next(handle for handle in session.runs if handle.name == "worker")
    assert child.error.kind in {ErrorKind.BUDGET_EXCEEDED, ErrorKind.CANCELLED}


def test_a_child_may_have_a_budget_of_its_own(session) -> None:
    def worker(ctx: nb.RunContext) -> None:
        ctx.usage(input_tokens=60)

    def boss(ctx: nb.RunContext) -> Any:
        return ctx.run(nb.Python(worker), budget_tokens=50).error.kind

    assert session.python(boss).wait(60).output == "budget_exceeded"


def refused(ctx: nb.RunContext, what: str) -> Any:
    async def coroutine() -> None: ...

    try:
        if what == "detach":
            ctx.run(nb.Shell("true"), detach=True)
        elif what == "async":
            ctx.run(coroutine)
        elif what == "option":
            ctx.run(nb.Shell("true"), timout=3)
        else:
            ctx.run("true")
    except nb.ConfigError as bad:
        return str(bad)
    return "nothing was refused"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("detach", "a child run ends with the run"),
        ("async", "write it as `def`"),
        ("option", "did you mean 'timeout'"),
        ("text", "nb.Shell"),
    ],
)
def test_what_cannot_be_a_child_is_refused_with_advice(session, what: str, words: str) -> None:
    assert words in session.python(refused, what).wait(60).output


@pytest.mark.parametrize(
    "garbage",
    [
        {"t": "launch"},
        {"t": "launch", "run": None, "work": None},
        {"t": "launch", "run": {"id": "../../etc", "name": "x", "target": {"kind": "shell"}}, "work": {}},
        {"t": "launch", "run": {"id": "x", "name": "x", "target": {"kind": "shell"}}, "work": {"kind": "hosted"}},
        {"t": "launch", "run": {"id": 3, "name": [], "target": 7}, "work": {"argv": "rm"}},
    ],
)
def test_garbage_on_the_channel_is_a_warning_and_no_run(session, garbage: dict[str, object]) -> None:
    def agent(line: str) -> str:
        import os

        os.write(3, line.encode() + b"\n")
        return "unharmed"

    result = session.python(agent, json.dumps(garbage)).wait(60)
    assert result.output == "unharmed"
    assert any("malformed launch" in warning for warning in result.warnings)
    assert len(session.runs_df()) == 1
    assert session.shell("true").wait(30).ok


def test_a_launch_with_the_id_of_a_live_run_is_refused(session) -> None:
    def agent() -> str:
        import json
        import os

        work = {
            "kind": "process", "argv": ["true"], "cwd": "/", "env_id": 0, "env": {}, "secrets": [], "stdin": None, "capture": "both",
            "timeout_s": None, "grace_s": 1, "expected_exit_code": 0,
        }  # fmt: skip
        run = {"id": os.environ["AGENTNB_RUN_ID"], "name": "me again", "target": {"kind": "command"}}
        os.write(3, json.dumps({"t": "launch", "run": run, "work": work}).encode() + b"\n")
        return "unharmed"

    result = session.python(agent).wait(60)
    assert result.output == "unharmed"
    assert any("its id is taken" in warning for warning in result.warnings)


def test_an_agent_of_another_kind_cannot_launch_by_its_channel(session) -> None:
    async def agent(ctx: nb.RunContext) -> Any:
        ctx._send({"t": "launch", "run": {}, "work": {}})
        return "unharmed"

    result = session.python(agent).wait(30)
    assert (result.output, len(session.runs_df())) == ("unharmed", 1)


def test_outside_of_a_run_there_is_nothing_to_launch_from() -> None:
    with pytest.raises(RuntimeError, match=r"launch the agent with session\.python"):
        RunContext(print).run(nb.Shell("true"))


def test_a_detached_agent_may_have_children(session) -> None:
    run = session.python(middle, "x", detach=True)
    assert run.wait(60).output == "x!"
    until(lambda: len(session.runs_df()) == 3, 30)


def test_a_retried_parent_ends_the_children_of_each_attempt(session) -> None:
    def flaky(ctx: nb.RunContext) -> Any:
        import os
        import threading
        import time
        from pathlib import Path

        if ctx.attempt == 1:
            threading.Thread(target=lambda: ctx.run(nb.Shell("echo $$ > pid; sleep 600")), daemon=True).start()
            while not Path("pid").exists() or not Path("pid").read_text():
                time.sleep(0.01)
            os._exit(75)
        return "second"

    run = session.python(flaky, retry=nb.Retry(max_attempts=2, initial_delay=0, on_exit_codes=[75]))
    assert run.wait(60).output == "second"
    assert not lives(pid_in(Path("pid")))
    started = time.monotonic()
    session.wait(30)
    assert time.monotonic() - started < 30
