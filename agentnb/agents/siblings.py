"""Parts of a flow that are under way at the same time; whatever happens, none of them outlives the others' end (standard library only)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Self

from agentnb.agents.failures import FlowFailed


async def ended(tasks: Iterable[asyncio.Future[Any]], *, cancel: bool = True) -> None:
    """Cancel these, and wait until all have ended; a cancellation that comes meanwhile is raised after that."""
    waiting, again = [task for task in tasks if not task.done()], None
    for task in waiting if cancel else ():
        task.cancel()
    while waiting := [task for task in waiting if not task.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as bad:
            again = bad
    if again is not None:
        raise again


class Siblings:
    """Numbered coroutines that run together, within an ``async with``; at its end those that are left are cancelled and awaited.

    `outputs`: what those gave that succeeded. `failed`: the failures of the others, also of those that failed while they were cancelled.
    """

    def __init__(self) -> None:
        """Nobody is there yet."""
        self.outputs: dict[int, Any] = {}
        self.failed: dict[int, FlowFailed] = {}
        self._tasks: dict[asyncio.Task[Any], int] = {}

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, bad: BaseException | None, trace: TracebackType | None) -> None:
        """Cancel and await who is left."""
        await self.cancel()

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def start(self, number: int, work: Coroutine[Any, Any, Any]) -> None:
        """Begin one."""
        self._tasks[asyncio.ensure_future(work)] = number

    def restart(self, number: int, work: Coroutine[Any, Any, Any]) -> None:
        """Begin one again; how it ended before is forgotten."""
        self.outputs.pop(number, None)
        self.failed.pop(number, None)
        self.start(number, work)

    async def some(self, timeout_s: float | None = None) -> list[int]:
        """Wait until one has ended, or so long; returns the numbers of all that have ended since, lowest first."""
        done, _ = await asyncio.wait(self._tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return self._note(done)

    async def cancel(self) -> None:
        """Cancel all that are under way, and await them."""
        tasks = list(self._tasks)
        try:
            await ended(tasks)
        finally:
            self._note(tasks)

    def failure(self) -> FlowFailed:
        """All failures as one, in order of the numbers."""
        return FlowFailed(list(dict.fromkeys(failure for number in sorted(self.failed) for failure in self.failed[number].failures)))

    def _note(self, done: Iterable[asyncio.Task[Any]]) -> list[int]:
        numbers, fault = [], None
        for task in done:
            number = self._tasks.pop(task)
            if task.cancelled():
                continue
            numbers.append(number)
            bad = task.exception()
            if bad is None:
                self.outputs[number] = task.result()
            elif isinstance(bad, FlowFailed):
                self.failed[number] = bad
            else:
                fault = bad
        if fault is not None:
            raise fault
        return sorted(numbers)
