"""Calls after the same delay each, by one timer: a timer of the loop for each run costs more than most runs have to be told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Delay:
    """Calls back `seconds` after it was asked to, or up to half as much again later."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Nothing is due."""
        self._loop = loop
        self._seconds = seconds
        self._queue: deque[tuple[float, Callable[[], object]]] = deque()

    def add(self, callback: Callable[[], object]) -> None:
        """Call this; it cannot be taken back."""
        if not self._queue:
            self._loop.call_later(self._seconds, self._tick)
        self._queue.append((self._loop.time() + self._seconds, callback))

    def _tick(self) -> None:
        queue, now = self._queue, self._loop.time()
        due = []
        while queue and queue[0][0] <= now:
            due.append(queue.popleft()[1])
        if queue:
            self._loop.call_at(max(queue[0][0], now + self._seconds / 2), self._tick)
        for callback in due:
            try:
                callback()
            except Exception as bad:  # noqa: BLE001 - the others wait for it too
                self._loop.call_exception_handler({"message": "a delayed call failed", "exception": bad})
