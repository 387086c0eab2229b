"""Python functions in child processes, and coroutines in this one."""

from __future__ import annotations

import asyncio
import functools
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any, Optional

import pytest

from agentnb.agents import context as nb
from agentnb.agents.context import RunContext, takes_context
from agentnb.agents.python import host, is_async, python_work
from agentnb.commands import Python
from agentnb.data import Secret
from agentnb.errors import ConfigError
from tests.agents.children import Child, run

ROOT = pathlib.Path(__file__).parents[2]


def work(function: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return python_work(Python(function, *args, **kwargs), run_id="r1", params={"x": 1})


def test_the_result_is_reported_and_prints_go_to_the_streams(tmp_path: pathlib.Path) -> None:
    def agent(a: int, *, b: str) -> dict[str, object]:
        print("out ü \udc80")  # noqa: T201
        print("err", file=sys.stderr)  # noqa: T201
        return {"a": a, "b": b, "cwd": os.getcwd()}

    child = run(work(agent, 1, b="x"), cwd=tmp_path)
    assert (child.code, child.stdout, child.stderr) == (0, "out ü \\udc80\n".encode(), b"err\n")
    assert child.reports == [{"t": "result", "output": {"a": 1, "b": "x", "cwd": str(tmp_path)}}]


def test_closures_and_classes_of_main_travel(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import json, sys
        from agentnb.agents.python import python_work
        from agentnb.commands import Python
        import neighbour
        class Base:
            def hello(self): return "base"
        class Child(Base):
            def hello(self): return super().hello() + FACTOR * "!"
        FACTOR = 2
        def make(n):
            def agent(ctx: "nb.RunContext", obj):
                return [n, obj.hello(), neighbour.VALUE, ctx.run_id, __name__]
            return agent
        if __name__ == "__main__":
            print(json.dumps(python_work(Python(make(5), Child()), run_id="r9")))
        """),
    )
    (tmp_path / "neighbour.py").write_text("VALUE = 'next door'")
    (tmp_path / "template.py").write_text("raise SystemExit('hidden by the folder of child.py?')")
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    import json

    child = run(json.loads(made.stdout), cwd="/", env={})
    assert child.all("result") == [{"t": "result", "output": [5, "base!!", "next door", "r9", "__main__"]}], child.stderr


def test_a_context_reports_from_the_child() -> None:
    def agent(ctx: RunContext, word: str) -> str:
        with ctx.step("outer", input=word) as step:
            step.output = {"n": 1}
        ctx.usage(input_tokens=3)
        return f"{ctx.run_id} {ctx.params} {ctx.attempt} {ctx.cancelled}"

    child = run(work(agent, "w"), env=os.environ | {"AGENTNB_ATTEMPT": "2"})
    assert [report["t"] for report in child.reports] == ["step", "step", "usage", "result"]
    assert child.reports[-1]["output"] == "r1 {'x': 1} 2 False"
    assert child.reports[0]["id"] == "2.1"


def test_an_exception_is_reported_with_the_frames_of_the_agent_only() -> None:
    def inner() -> None:
        raise ValueError("no good")

    def agent() -> None:
        inner()

    child = run(work(agent))
    (report,) = child.reports
    assert (child.code, report["kind"], report["message"]) == (1, "execution_failed", "ValueError: no good")
    trace = report["details"]["traceback"]
    assert report["details"]["type"] == "ValueError"
    assert "in agent" in trace
    assert "in inner" in trace
    assert "agentnb/agents" not in trace
    assert child.stderr.decode() == trace


def test_tracebacks_show_lines_of_cells_that_are_in_no_file() -> None:
    import linecache

    source = "def agent():\n    raise KeyError('in the cell')\n"
    linecache.cache["/tmp/ipykernel_1/1.py"] = (len(source), None, source.splitlines(keepends=True), "/tmp/ipykernel_1/1.py")
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "/tmp/ipykernel_1/1.py", "exec"), space)
    child = run(work(space["agent"]))
    del linecache.cache["/tmp/ipykernel_1/1.py"]
    assert "raise KeyError('in the cell')" in child.reports[0]["details"]["traceback"]


@pytest.mark.parametrize(
    ("body", "code", "stderr"),
    [
        ("sys.exit(3)", 3, ""),
        ("os._exit(0)", 0, ""),
        ("sys.exit('why')", 1, "why\n"),
        ("os._exit(9)", 9, ""),
        ("os.kill(os.getpid(), 11)", -11, ""),
    ],
)
def test_every_way_out_shows_in_the_exit_code(body: str, code: int, stderr: str) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def agent():\n    import os, sys\n    {body}\n", space)
    child = run(work(space["agent"]))
    assert (child.code, child.reports, child.stderr.decode()) == (code, [], stderr)


@pytest.mark.parametrize("body", ["sys.exit()", "sys.exit(0)", "sys.exit(False)", "pass"])
def test_to_exit_well_is_to_return_none(body: str) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(f"import sys\ndef agent(): {body}\nasync def hosted_agent(): {body}\n", space)
    child = run(work(space["agent"]))
    assert (child.code, child.reports) == (0, [{"t": "result", "output": None}])
    assert asyncio.run(hosted(space["hosted_agent"])) == [{"t": "result", "output": None}, {"t": "done"}]


def test_sigterm_sets_cancelled_and_lets_finally_run() -> None:
    def agent(ctx: RunContext) -> None:
        with ctx.step("wait"):
            try:
                ctx.log("ready")
                time.sleep(60)
            finally:
                time.sleep(0.2)
                ctx.log(f"cleaned {ctx.cancelled}")

    child = Child.start(work(agent))
    child.until("log")
    os.kill(child.process.pid, signal.SIGTERM)
    os.kill(child.process.pid, signal.SIGTERM)  # a second one does not cut the clean-up
    assert child.wait() == 143
    assert child.all("log")[-1]["text"] == "cleaned True"
    assert child.all("step")[-1]["status"] == "cancelled"
    assert not child.all("error")


def test_sigterm_in_a_flood_of_reports_breaks_no_line() -> None:
    def agent(ctx: RunContext) -> None:
        while True:
            ctx.log("x" * 50_000)

    child = Child.start(work(agent))
    child.until("log")
    os.kill(child.process.pid, signal.SIGTERM)
    assert child.wait() == 143  # the reader asserts that every line was whole


def test_threads_report_whole_lines() -> None:
    def agent(ctx: RunContext) -> str:
        def talk(number: int) -> None:
            for _ in range(50):
                ctx.log(f"{number}" * 9000)

        threads = [threading.Thread(target=talk, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return "done"

    child = run(work(agent))
    assert len(child.all("log")) == 200
    assert {len(set(report["text"])) for report in child.all("log")} == {1}


def test_programs_that_the_agent_starts_get_neither_channel_nor_payload() -> None:
    def agent() -> list[str]:
        found = subprocess.run(
            ["sh", "-c", "ls /proc/self/fd; env"], capture_output=True, text=True, check=True, close_fds=False
        ).stdout.split()
        return [word for word in found if (word.isdigit() and int(word) > 3) or word.startswith(("AGENTNB_CHANNEL", "AGENTNB_PAYLOAD"))]

    assert run(work(agent)).reports == [{"t": "result", "output": []}]


def test_a_plain_function_may_give_a_coroutine() -> None:
    async def inner() -> int:
        await asyncio.sleep(0)
        return 4

    plain = lambda: inner()  # noqa: E731, PLW0108 - not a coroutine function itself
    assert run(work(plain)).reports == [{"t": "result", "output": 4}]


def test_a_result_that_json_cannot_hold_fails_the_run_and_says_what_to_return() -> None:
    child = run(work(object))
    assert child.code == 1
    assert "ctx.artifact" in child.reports[0]["message"]


def test_a_module_that_the_child_cannot_find_is_explained(tmp_path: pathlib.Path) -> None:
    (tmp_path / "gone_soon.py").write_text("def agent(): pass")
    sys.path.insert(0, str(tmp_path))
    try:
        import gone_soon  # type: ignore[import-not-found]

        sys.path.remove(str(tmp_path))
        child = run(work(gone_soon.agent))
    finally:
        sys.modules.pop("gone_soon", None)
    assert child.reports[0]["kind"] == "startup_failed"
    assert "sys.path" in child.reports[0]["message"]


def test_arguments_that_cannot_travel_are_named() -> None:
    def agent(path: str, conn: object, *rest: object, **more: object) -> None: ...

    lock = threading.Lock()
    for spec, name in (
        (Python(agent, "a", lock), "argument 'conn' (_thread.lock)"),
        (Python(agent, "a", 1, extra=lock), "argument 'extra'"),
        (Python(agent, "a", Secret("s")), "argument 'conn' (agentnb.data.Secret)"),
        (Python(lambda: lock), "variable 'lock' of the function"),
    ):
        with pytest.raises(ConfigError, match="async def") as caught:
            python_work(spec)
        assert name in str(caught.value)


def test_calls_that_do_not_fit_the_signature_are_refused_before_launch() -> None:
    def agent(ctx: RunContext, prompt: str) -> None: ...

    with pytest.raises(ConfigError, match="missing a required argument: 'prompt'"):
        python_work(Python(agent))
    with pytest.raises(ConfigError, match="cannot be called"):
        python_work(Python(agent, "a", "b"))


def test_too_large_calls_are_refused() -> None:
    with pytest.raises(ConfigError, match="write the data to a file"):
        python_work(Python(len, b"x" * (65 * 2**20)))


def test_is_async_sees_through_wrappers_and_refuses_generators() -> None:
    async def coroutine(x: int) -> None: ...
    async def stream() -> Any:
        yield 1

    class Agent:
        async def __call__(self) -> None: ...

    class Plain:
        def __call__(self) -> None: ...

    assert is_async(coroutine)
    assert is_async(functools.partial(functools.partial(coroutine), 1))
    assert is_async(Agent())
    assert is_async(Agent().__call__)
    assert not any(map(is_async, (print, len, Plain(), Plain, lambda: 1, int, functools.partial(print))))
    for function in (stream, lambda: (yield)):
        with pytest.raises(ConfigError, match="return a list"):
            is_async(function)


def test_takes_context_understands_every_way_to_write_it() -> None:
    def plain(ctx: RunContext) -> None: ...
    def dotted(ctx: nb.RunContext, x: int) -> None: ...
    def optional(ctx: "RunContext | None" = None) -> None: ...  # noqa: UP037 - text on purpose
    def older(ctx: Optional[RunContext] = None) -> None: ...  # noqa: UP045 - older code has it
    def second(x: int, ctx: RunContext) -> None: ...
    def other(ctx: MyRunContext) -> None: ...  # type: ignore[name-defined]  # noqa: F821
    def named(*, ctx: RunContext) -> None: ...

    class Agent:
        def run(self, ctx: RunContext) -> None: ...

    real = eval("lambda: None")
    real.__annotations__ = {}
    objects = functools.partial(plain)
    assert all(map(takes_context, (plain, dotted, optional, older, Agent().run, objects)))
    assert not any(map(takes_context, (second, other, named, print, lambda ctx: ctx, real, max)))


async def hosted(function: Any, *args: Any, cancel: bool = False) -> list[dict[str, Any]]:
    reports: list[dict[str, Any]] = []
    task = asyncio.ensure_future(host(Python(function, *args), {"x": 1}, reports.append, "r1", 2))
    if cancel:
        await asyncio.wait([task], timeout=0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        await task
    return reports


def test_a_hosted_coroutine_reports_its_result_then_done() -> None:
    async def agent(ctx: RunContext, word: str) -> list[object]:
        await asyncio.sleep(0)
        return [word, ctx.run_id, ctx.params, ctx.attempt]

    assert asyncio.run(hosted(agent, "w")) == [{"t": "result", "output": ["w", "r1", {"x": 1}, 2]}, {"t": "done"}]


@pytest.mark.parametrize(
    ("raised", "message"),
    [(ValueError("no"), "ValueError: no"), (SystemExit(3), "SystemExit: 3"), (KeyboardInterrupt(), "KeyboardInterrupt")],
)
def test_a_hosted_coroutine_that_fails_reports_it_and_raises_nothing(raised: BaseException, message: str) -> None:
    async def agent() -> None:
        raise raised

    error, done = asyncio.run(hosted(agent))
    assert (error["t"], error["message"], done) == ("error", message, {"t": "done"})
    assert "agentnb/agents" not in error["details"]["traceback"]


def test_a_hosted_coroutine_with_bad_arguments_or_results_fails_without_raising() -> None:
    async def agent(word: str) -> object:
        return object()

    assert "missing a required argument" in asyncio.run(hosted(agent))[0]["message"]
    assert "ctx.artifact" in asyncio.run(hosted(agent, "w"))[0]["message"]


def test_a_cancelled_coroutine_reports_cancelled_then_done() -> None:
    seen: list[bool] = []

    async def agent(ctx: RunContext) -> None:
        with ctx.step("wait"):
            try:
                await asyncio.sleep(60)
            finally:
                seen.append(ctx.cancelled)

    reports = asyncio.run(hosted(agent, cancel=True))
    assert [report.get("status", report["t"]) for report in reports] == ["running", "cancelled", "cancelled", "done"]
