"""Finds out which async agent blocks the thread that they share, says so, and gets the others a new thread.

A thread of its own looks four times in the allowed time whether each agents' loop still turns. It lives as long as async agents run.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from agentnb.notebook import loop as loops
from agentnb.notebook.loop import LoopThread

DEFAULT_LIMIT_S = 1.0
_MAX_CODE = 120
_LIBRARIES = tuple(
    {*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")), str(Path(__file__).parents[1]), "<frozen"}
)
_IDLE = ("selectors.py", "select")


class Watched(Protocol):
    """A run whose coroutine lives on a loop."""

    run_id: str

    def warn(self, text: str) -> None:
        """Tell its run; from any thread."""

    def move(self, thread: LoopThread) -> None:
        """Go to another loop, if it has not begun on this one."""


class _Pulse:
    """What is known of one loop."""

    def __init__(self, thread: LoopThread) -> None:
        self.thread = thread
        self.runs: dict[str, Watched] = {}
        self.pending = self.told = False
        self.waited_s = 0.0
        self.sent = self.cpu = 0.0
        self.retired = False

    def beat(self) -> None:
        """The loop turns: to be called on it."""
        self.pending = False

    def send(self) -> None:
        """Ask the loop to turn."""
        self.pending, self.told, self.waited_s = True, False, 0.0
        self.sent, self.cpu = time.monotonic(), self._cpu_s()
        self.thread.call_soon(self.beat)

    def is_blocked(self, tick_s: float, limit_s: float) -> bool:
        """Whether it did not turn for too long. A thread that only was not let run by another one, as this one, does not block."""
        self.waited_s += tick_s
        worked = time.monotonic() - self.sent > limit_s and self._cpu_s() - self.cpu > limit_s / 2
        return not self.told and (self.waited_s > limit_s or worked)

    def _cpu_s(self) -> float:
        with suppress(OSError, AttributeError, TypeError):
            return time.clock_gettime(time.pthread_getcpuclockid(self.thread.thread_id))  # type: ignore[arg-type]
        return 0.0


class Watchdog:
    """Watches the loops that agents run on."""

    def __init__(self) -> None:
        """Sleep until the first agent comes."""
        self.limit_s = DEFAULT_LIMIT_S
        self._pulses: dict[LoopThread, _Pulse] = {}
        self._changed = threading.Condition()
        self._alive = False

    def watch(self, thread: LoopThread, run: Watched) -> None:
        """`run` is going to begin on this loop."""
        with self._changed:
            pulse = self._pulses.get(thread)
            if pulse is None:
                pulse = self._pulses[thread] = _Pulse(thread)
                thread.loop.set_task_factory(_task)
            pulse.runs[run.run_id] = run
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._look_on, name="agentnb-watchdog", daemon=True).start()

    def unwatch(self, thread: LoopThread, run: Watched) -> None:
        """`run` is over, or on another loop."""
        with self._changed:
            pulse = self._pulses.get(thread)
            if pulse is not None and pulse.runs.get(run.run_id) is run:
                del pulse.runs[run.run_id]
                if not pulse.runs:
                    del self._pulses[thread]
                    if pulse.retired:
                        thread.call_soon(thread.loop.stop)  # it turned again, and nobody is left there
                    self._changed.notify()

    def forget(self) -> None:
        """In a forked copy of the process: neither its loops nor its thread were copied."""
        self._pulses, self._changed, self._alive = {}, threading.Condition(), False

    def _look_on(self) -> None:
        while True:
            with self._changed:
                if not self._pulses:
                    self._alive = False
                    return
                tick = self.limit_s / 4
                self._changed.wait(tick)
                pulses = list(self._pulses.values())
            for pulse in pulses:
                if not pulse.pending:
                    pulse.send()
                elif pulse.is_blocked(tick, self.limit_s):
                    self._blocked(pulse)

    def _blocked(self, pulse: _Pulse) -> None:
        frame = sys._current_frames().get(pulse.thread.thread_id or 0)  # noqa: SLF001 - there is no other way
        if frame is None or _is_idle(frame) or not pulse.pending:
            return
        with self._changed:
            runs = list(pulse.runs.values())
            owner = _owner(pulse.thread.loop)
            pulse.told = pulse.retired = True
        guilty = [run for run in runs if run.run_id == owner] or runs
        text = (
            f"it blocks the thread that all async agents share, for more than {self.limit_s:g} s, in {_place(frame)}; "
            "await asyncio.to_thread(...) there, or write the agent as `def`"
        )
        for run in guilty:
            run.warn(text)
        fresh = loops.replace_agents_loop(pulse.thread)
        for run in runs:
            run.move(fresh)


def _is_idle(frame: FrameType) -> bool:
    code = frame.f_code
    return (Path(code.co_filename).name, code.co_name) == _IDLE


def _place(frame: FrameType) -> str:
    """The innermost line that is no library's, and where in a library it waits."""
    inner, user = _told(frame), next((f for f in _outwards(frame) if not f.f_code.co_filename.startswith(_LIBRARIES)), frame)
    if user is frame:
        return inner
    return f"{_told(user)} (there in {frame.f_code.co_qualname}())"


def _told(frame: FrameType) -> str:
    code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()[:_MAX_CODE]
    return f"{frame.f_code.co_qualname}() at {frame.f_code.co_filename}:{frame.f_lineno}" + (f", `{code}`" if code else "")


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


_owners: WeakKeyDictionary[asyncio.Task[Any], str] = WeakKeyDictionary()


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """A task that is known to belong to a run, also when the agent made it."""
    from agentnb.notebook.hosting import run_in

    task = asyncio.Task(coroutine, loop=loop, **options)
    if (run_id := run_in(options.get("context"))) is not None:
        _owners[task] = run_id
    return task


def _owner(loop: asyncio.AbstractEventLoop) -> str | None:
    task = asyncio.current_task(loop)
    return None if task is None else _owners.get(task)


watchdog = Watchdog()
os.register_at_fork(after_in_child=watchdog.forget)
