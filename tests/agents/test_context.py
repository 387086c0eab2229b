"""What a Python agent says about itself."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from agentnb.agents.channel import Channel
from agentnb.agents.context import MAX_DATA, RunContext, describe
from agentnb.engine.reports import ReportLines
from agentnb.errors import ConfigError


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def ctx(reports: list[dict[str, Any]]) -> RunContext:
    return RunContext(reports.append, run_id="r", params={"x": 1}, attempt=3)


def test_steps_nest_and_carry_input_output_and_usage(ctx: RunContext, reports: list[dict[str, Any]]) -> None:
    with ctx.step("outer", kind="worker", input={"q": 1}) as outer, ctx.step("inner") as inner:
        inner.output = {3, 1}
        inner.usage(input_tokens=5, cost_usd=0.25)
        outer.usage(output_tokens=2)
    assert reports == [
        {"t": "step", "id": "3.1", "name": "outer", "kind": "worker", "status": "running", "input": {"q": 1}, "parent": None},
        {"t": "step", "id": "3.2", "name": "inner", "kind": "tool", "status": "running", "parent": "3.1"},
        {"t": "usage", "input_tokens": 5, "output_tokens": 0, "cost_usd": 0.25},
        {"t": "usage", "input_tokens": 5, "output_tokens": 2, "cost_usd": 0.25},
        {"t": "step", "id": "3.2", "status": "completed", "output": [1, 3], "tokens": {"input": 5, "output": 0}, "cost_usd": 0.25},
        {"t": "step", "id": "3.1", "status": "completed", "tokens": {"input": 0, "output": 2}},
    ]


def test_an_exception_fails_its_steps_and_goes_on(ctx: RunContext, reports: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="no"), ctx.step("outer") as step:  # noqa: PT012 - how the step ends is the point
        step.output = "so far"
        raise ValueError("no")
    assert reports[-1] == {"t": "step", "id": "3.1", "status": "failed", "error": "ValueError: no", "output": "so far"}
    with ctx.step("after"):
        pass
    assert reports[-2]["parent"] is None


def test_an_output_that_json_cannot_hold_fails_the_step(ctx: RunContext, reports: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="the output of step 's'"), ctx.step("s") as step:
        step.output = object()
    assert reports[-1]["status"] == "failed"


def test_concurrent_tasks_keep_their_own_parents(ctx: RunContext, reports: list[dict[str, Any]]) -> None:
    async def branch(name: str) -> None:
        with ctx.step(name):
            await asyncio.sleep(0)
            with ctx.step(name + "-inner"):
                await asyncio.sleep(0)

    async def both() -> None:
        with ctx.step("root"):
            await asyncio.gather(branch("a"), branch("b"))

    asyncio.run(both())
    opened = {r["name"]: r for r in reports if "name" in r}
    assert opened["a"]["parent"] == opened["b"]["parent"] == opened["root"]["id"]
    assert opened["a-inner"]["parent"] == opened["a"]["id"]
    assert opened["b-inner"]["parent"] == opened["b"]["id"]


def test_usage_adds_up_from_any_thread(ctx: RunContext, reports: list[dict[str, Any]]) -> None:
    def spend() -> None:
        for _ in range(100):
            ctx.usage(input_tokens=1, output_tokens=2, cost_usd=0.5)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reports[-1] == {"t": "usage", "input_tokens": 400, "output_tokens": 800, "cost_usd": 200.0}
    assert [r["input_tokens"] for r in reports] == list(range(1, 401))


@pytest.mark.parametrize(
    "bad", [{"input_tokens": -1}, {"output_tokens": 1.5}, {"input_tokens": True}, {"cost_usd": float("nan")}, {"cost_usd": "1"}]
)
def test_usage_refuses_what_is_no_count(ctx: RunContext, reports: list[dict[str, Any]], bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ctx.usage(**bad)
    assert not reports


def test_log_takes_anything_that_is_text(ctx: RunContext, reports: list[dict[str, Any]]) -> None:
    ctx.log("a\udc80")
    ctx.log(1)
    assert [r["text"] for r in reports] == ["a?", "1"]


def test_step_kinds_are_checked(ctx: RunContext) -> None:
    with pytest.raises(ConfigError, match="attempt, worker"):
        ctx.step("x", kind="tol")
    with pytest.raises(ConfigError, match="name"):
        ctx.step("")


def test_artifacts_from_data_and_files(ctx: RunContext, reports: list[dict[str, Any]], tmp_path: Path) -> None:
    small, large = tmp_path / "a.csv", tmp_path / "big.bin"
    small.write_bytes(b"a,b\n")
    large.write_bytes(bytes(2 * 1024 * 1024))
    for name, given in (("t", "text ü"), ("b", b"\0\1"), ("j", {"a": [1]}), ("p.png", b"x"), ("file", small), ("large", Path("big.bin"))):
        ctx.artifact(name, given)
    ctx.artifact("own", "x", content_type="text/x-own")
    small.unlink()
    found = [(r["name"], r["content_type"], base64.b64decode(r["data"]) if "data" in r else r["path"]) for r in reports]
    assert found == [
        ("t", "text/plain", "text ü".encode()),
        ("b", "application/octet-stream", b"\0\1"),
        ("j", "application/json", b'{\n "a": [\n  1\n ]\n}'),
        ("p.png", "image/png", b"x"),
        ("file", "text/csv", b"a,b\n"),
        ("large", "application/octet-stream", str(large)),
        ("own", "text/x-own", b"x"),
    ]


def test_artifacts_that_cannot_be_kept_say_why(ctx: RunContext, reports: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"x")
    for given, part in ((Path("gone"), "no file"), ("plot.png", "pathlib.Path"), (b"x" * (MAX_DATA + 1), "5 MiB"), (3, "int")):
        with pytest.raises(ConfigError, match="artifact 'a'") as caught:
            ctx.artifact("a", given)
        assert part in str(caught.value)
    assert not reports


def test_a_broken_exception_is_described() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "cannot be shown" in describe(BrokenError())
    assert len(describe(ValueError("x" * 10**6))) < 20_000
    assert describe(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_the_channel_writes_lines_survives_a_lost_reader_and_is_silent_in_forks() -> None:
    reading, writing = os.pipe()
    channel = Channel(writing)
    assert not os.get_inheritable(writing)
    channel.send({"t": "log", "text": "a\nb\udc80"})
    channel._pid += 1  # as in a forked copy
    channel.send({"t": "log", "text": "copy"})
    channel._pid -= 1
    assert ReportLines().feed(os.read(reading, 9999)) == [{"t": "log", "text": "a\nb?"}]
    os.close(reading)
    channel.send({"t": "log", "text": "nobody"})
    os.close(writing)
