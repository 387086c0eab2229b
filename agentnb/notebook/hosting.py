"""Agents that live in this process: ``async def`` functions as tasks of the agents' loop thread."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from agentnb.events import Json
from agentnb.notebook import loop as loops
from agentnb.notebook.watchdog import watchdog

Send = Callable[[Json], None]
#: Makes the coroutine of one attempt: (where its reports go, the attempt's number).
Make = Callable[[Send, int], Coroutine[Any, Any, None]]

#: The run that this process was started for.
_OF_PROCESS = os.environ.get("AGENTNB_RUN_ID")
_current: contextvars.ContextVar[str | None] = contextvars.ContextVar("agentnb_run", default=None)


def current_run() -> str | None:
    """The id of the run that the caller is part of: an agent in this process, or the run that this process was started for."""
    return _current.get() or _OF_PROCESS


def run_in(context: contextvars.Context | None) -> str | None:
    """The id of the run that a context is of; None: that of the caller."""
    return _current.get() if context is None else context.get(_current)


class Hosted:
    """The task of one run; started and cancelled when the engine says so, from any thread."""

    def __init__(self, run_id: str, name: str, make: Make, send: Send, note: Callable[[str], None] = lambda _: None) -> None:
        """It sees the context variables of the caller, that is of the cell that launched it. `note`: shows a warning at once."""
        self.run_id = run_id
        self._name = name
        self._make = make
        self._send = send
        self._note = note
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._attempt = 0
        self._lock = threading.Lock()
        self._place: loops.LoopThread | None = None
        self._waits = False

    def prepare(self, call: Callable[[], object]) -> None:
        """Call `call` in the context that its attempts will run in."""
        self._context.run(call)

    def start(self, attempt: int) -> None:
        """Begin an attempt."""
        with self._lock:
            self._attempt, self._waits = attempt, True
            self._go(loops.agents_loop())

    def move(self, thread: loops.LoopThread) -> None:
        """Begin on another loop, if it has not begun."""
        with self._lock:
            if self._waits and self._place is not None:
                watchdog.unwatch(self._place, self)
                self._go(thread)

    def _go(self, thread: loops.LoopThread) -> None:
        self._place = thread
        watchdog.watch(thread, self)
        thread.call_soon(self._start, self._attempt, thread)

    def cancel(self) -> None:
        """Cancel the attempt, if one runs."""
        with self._lock:
            if self._place is not None:
                self._place.call_soon(self._cancel)

    def warn(self, text: str) -> None:
        """Say something about the attempt that runs."""
        self._note(text)
        self._send({"t": "warning", "text": text})

    def _start(self, attempt: int, thread: loops.LoopThread) -> None:
        with self._lock:
            if not self._waits or self._place is not thread or attempt != self._attempt:
                return
            self._waits = False
        context = self._context.copy()
        context.run(_current.set, self.run_id)
        coroutine = self._make(partial(self._report, attempt), attempt)
        self._task = asyncio.get_running_loop().create_task(coroutine, name=f"agentnb {self._name}", context=context)
        self._task.add_done_callback(lambda _: watchdog.unwatch(thread, self))

    def _report(self, attempt: int, report: Json) -> None:
        if attempt == self._attempt:  # an earlier attempt that ignored its cancellation has no say any more
            self._send(report)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
