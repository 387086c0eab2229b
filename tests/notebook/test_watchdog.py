"""Async agents that block the thread they share: found out, named, and no harm to the ones that come after them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import agentnb as nb
from agentnb.notebook import loop as loops
from agentnb.states import RunStatus
from tests.notebook.polling import until

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Find it out sooner than people want to hear of it."""
    before = nb.options.blocked_after
    nb.options.blocked_after = "500ms"
    yield
    nb.options.blocked_after = before


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the test's end at the latest, so that nothing blocks for ever."""
    opened = threading.Event()
    yield opened
    opened.set()


async def polite() -> str:
    await asyncio.sleep(0.05)
    return "ok"


def test_an_agent_that_blocks_is_named_with_the_line_while_it_blocks(session: nb.Session, gate: threading.Event) -> None:
    async def blocker() -> str:
        gate.wait(60)  # the culprit
        return "late"

    run = session.python(blocker)
    until(lambda: run.snapshot().warnings, 30)
    (warning,) = run.snapshot().warnings
    assert "blocker() at " in warning
    assert "test_watchdog.py:" in warning
    assert "`gate.wait(60)  # the culprit`" in warning
    assert "(there in Condition.wait())" in warning
    assert "asyncio.to_thread" in warning
    gate.set()
    result = run.wait(30)
    assert (result.output, list(result.warnings)) == ("late", [warning])


def test_agents_that_come_after_it_do_not_wait_for_it(session: nb.Session, gate: threading.Event) -> None:
    async def blocker() -> None:
        gate.wait(60)

    async def neighbour() -> str:
        await asyncio.sleep(0.01)
        return "had to wait"

    beside = session.python(neighbour)
    run = session.python(blocker)
    until(lambda: run.status is RunStatus.RUNNING)
    at_once = session.python(polite)  # launched before anybody knows
    assert at_once.wait(30).output == "ok"
    assert session.python(polite).wait(30).output == "ok"
    assert not run.done
    gate.set()
    assert run.wait(30).ok
    assert beside.wait(30).output == "had to wait"
    until(lambda: sum(t.name == "agentnb-agents" for t in threading.enumerate()) == 1)


def test_a_task_that_the_agent_made_is_known_to_be_its_own(session: nb.Session, gate: threading.Event) -> None:
    async def innocent() -> str:
        while not gate.is_set():  # noqa: ASYNC110 - the gate is another thread's
            await asyncio.sleep(0.01)
        return "fine"

    async def guilty() -> None:
        async def part() -> None:
            time.sleep(1.0)  # noqa: ASYNC251 - the fault that is looked for

        await asyncio.create_task(part())

    other, run = session.python(innocent), session.python(guilty)
    result = run.wait(30)
    gate.set()
    assert any("guilty.<locals>.part() at" in warning or "part() at" in warning for warning in result.warnings)
    assert list(other.wait(30).warnings) == []


def test_a_computation_that_holds_the_interpreter_is_found_out_too(session: nb.Session) -> None:
    async def cruncher() -> int:
        return sum(pow(7, 400_000 + n) % 97 for n in range(12))

    began = time.monotonic()
    result = session.python(cruncher).wait(120)
    if time.monotonic() - began > 2:
        assert any("cruncher" in warning for warning in result.warnings)


def test_a_cell_that_holds_the_interpreter_is_not_the_agents_fault(session: nb.Session) -> None:
    async def idle() -> str:
        await asyncio.sleep(1.0)
        return "ok"

    run = session.python(idle)
    until(lambda: run.status is RunStatus.RUNNING)
    pow(7, 2_500_000)  # in C, without letting go
    result = run.wait(30)
    assert (result.output, list(result.warnings)) == ("ok", [])


def test_a_blocked_run_is_over_at_its_timeout_and_says_that_it_may_go_on(session: nb.Session, gate: threading.Event) -> None:
    async def stuck() -> None:
        gate.wait(60)

    result = session.python(stuck, timeout=1, grace=0.2).wait(30)
    assert result.status is RunStatus.TIMEOUT
    assert any("stuck() at" in warning for warning in result.warnings)
    assert any("it may still be running in the notebook" in warning for warning in result.warnings)


def test_the_process_ends_although_an_agent_blocks_for_ever(run_script: Callable[[str], str]) -> None:
    began = time.monotonic()
    out = run_script("""
        import time
        async def forever():
            time.sleep(1000)
        print(session.python(forever, timeout=0.5, grace=0.1).wait().status)
    """)
    assert out == "timeout\n"
    assert time.monotonic() - began < 40


def test_without_async_agents_nobody_watches(session: nb.Session) -> None:
    session.shell("true").wait()
    session.python(polite).wait(30)
    until(lambda: "agentnb-watchdog" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.parametrize("limit", ["soon", 0, -1, True, 0.01])
def test_the_limit_is_a_duration_that_makes_sense(limit: Any) -> None:
    with pytest.raises(nb.ConfigError):
        nb.options.blocked_after = limit
    assert nb.options.blocked_after == 0.5


def test_a_loop_that_is_replaced_is_replaced_once() -> None:
    first = loops.agents_loop()
    second = loops.replace_agents_loop(first)
    assert second is not first
    assert loops.replace_agents_loop(first) is second
    assert loops.agents_loop() is second
