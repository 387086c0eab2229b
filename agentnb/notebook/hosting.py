"""Agents that live in this process: ``async def`` functions as tasks of the agents' loop thread."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from agentnb.events import Json
from agentnb.notebook import loop as loops

Send = Callable[[Json], None]
#: Makes the coroutine of one attempt: (where its reports go, the attempt's number).
Make = Callable[[Send, int], Coroutine[Any, Any, None]]

_current: contextvars.ContextVar[str | None] = contextvars.ContextVar("agentnb_run", default=None)


def current_run() -> str | None:
    """The id of the run that the caller is part of: an agent in this process, or the run that this process was started for."""
    return _current.get() or os.environ.get("AGENTNB_RUN_ID")


class Hosted:
    """The task of one run; started and cancelled when the engine says so, from any thread."""

    def __init__(self, run_id: str, name: str, make: Make, send: Send) -> None:
        """It sees the context variables of the caller, that is of the cell that launched it."""
        self._run_id = run_id
        self._name = name
        self._make = make
        self._send = send
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._attempt = 0

    def prepare(self, call: Callable[[], object]) -> None:
        """Call `call` in the context that its attempts will run in."""
        self._context.run(call)

    def start(self, attempt: int) -> None:
        """Begin an attempt."""
        loops.agents_loop().call_soon(self._start, attempt)

    def cancel(self) -> None:
        """Cancel the attempt, if one runs."""
        loops.agents_loop().call_soon(self._cancel)

    def _start(self, attempt: int) -> None:
        self._attempt = attempt
        context = self._context.copy()
        context.run(_current.set, self._run_id)
        coroutine = self._make(partial(self._report, attempt), attempt)
        self._task = asyncio.get_running_loop().create_task(coroutine, name=f"agentnb {self._name}", context=context)

    def _report(self, attempt: int, report: Json) -> None:
        if attempt == self._attempt:  # an earlier attempt that ignored its cancellation has no say any more
            self._send(report)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
