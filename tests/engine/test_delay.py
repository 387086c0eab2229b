"""Many calls after the same delay, by few timers of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentnb.engine.delay import Delay

if TYPE_CHECKING:
    import pytest


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


def test_each_is_called_once_in_order_and_not_before_its_time() -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        delay, called, added = Delay(loop, 0.01), list[tuple[int, float]](), list[float]()
        for n in range(30):
            added.append(loop.time())
            delay.add(lambda n=n: called.append((n, loop.time())))  # type: ignore[misc]
            await asyncio.sleep(0.001)
        await until(lambda: len(called) == 30)
        assert [n for n, _ in called] == list(range(30))
        assert all(at >= added[n] + 0.01 for n, at in called)
        await asyncio.sleep(0.03)
        assert len(called) == 30

    asyncio.run(play())


def test_a_crowd_shares_a_timer_and_none_is_left_when_all_were_called(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        loop, timers = asyncio.get_running_loop(), list[float]()
        call_at = loop.call_at

        def counted(when: float, callback: Any, *args: Any, **how: Any) -> asyncio.TimerHandle:
            timers.append(when)
            return call_at(when, callback, *args, **how)

        monkeypatch.setattr(loop, "call_at", counted)
        delay, called = Delay(loop, 0.01), list[int]()
        for n in range(1000):
            delay.add(lambda n=n: called.append(n))  # type: ignore[misc]
        while len(called) < 1000:
            await loop.run_in_executor(None, lambda: None)
        assert called == list(range(1000))
        assert len(timers) < 20

    asyncio.run(play())


def test_one_that_fails_is_told_of_and_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        faults, called = list[dict[str, Any]](), list[int]()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        delay = Delay(loop, 0.001)
        delay.add(lambda: called.append(1))
        delay.add(lambda: 1 / 0)
        delay.add(lambda: called.append(2))
        await until(lambda: faults)
        delay.add(lambda: called.append(3))  # it goes on
        await until(lambda: called[-1] == 3)
        assert called == [1, 2, 3]
        assert len(faults) == 1

    asyncio.run(play())
