"""The background threads that run event loops beside the notebook's own."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal

_ENGINE = "agentnb-engine"
_AGENTS = "agentnb-agents"
_lock = threading.Lock()
_threads: dict[str, LoopThread] = {}


class LoopThread:
    """One daemon thread with one event loop."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self._portal: AbstractContextManager[BlockingPortal] = start_blocking_portal(name=name)
        portal = self._portal.__enter__()
        self.loop: asyncio.AbstractEventLoop = portal.call(asyncio.get_running_loop)
        self.pid = os.getpid()
        self.thread_id: int = portal.call(threading.get_ident)

    def call_soon(self, fn: Callable[..., Any], *args: Any) -> None:
        """Run `fn` on the loop thread; from any thread. Does nothing once the thread has ended."""
        if not self.loop.is_closed():
            # in an empty context: a cell's would tie what is displayed to that cell, and nbclient drops what comes after its end
            self.loop.call_soon_threadsafe(fn, *args, context=contextvars.Context())

    def call_later(self, delay_s: float, fn: Callable[..., Any], *args: Any) -> None:
        """Run `fn` on the loop thread after `delay_s` seconds; from the loop thread only."""
        self.loop.call_later(delay_s, fn, *args)

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._portal.__exit__(None, None, None)


def engine_loop() -> LoopThread:
    """The thread that reads the engine's events and writes to views."""
    return _thread(_ENGINE)


def agents_loop() -> LoopThread:
    """The thread that ``async def`` agents run on: one that blocks stops its like, but no view and no other run."""
    return _thread(_AGENTS)


def _thread(name: str) -> LoopThread:
    with _lock:
        thread = _threads.get(name)
        if thread is None or thread.pid != os.getpid():  # a fork does not take threads along
            thread = _threads[name] = LoopThread(name)
        return thread


def on_loop_thread() -> bool:
    """Whether the caller runs on one of these threads, where waiting would be a deadlock."""
    here = threading.get_ident()
    return any(thread.thread_id == here and thread.pid == os.getpid() for thread in list(_threads.values()))


def refuse_to_block(what: str) -> None:
    """Raise RuntimeError when the caller runs on one of these threads."""
    if on_loop_thread():
        raise RuntimeError(f"{what} would block the loop thread that it waits for; inside an async agent write `await` instead")


def shutdown() -> None:
    """End this process's supervisors, then the threads."""
    from agentnb.engine.client import shutdown_all

    shutdown_all()
    with _lock:
        threads, mine = list(_threads.values()), os.getpid()
        _threads.clear()
    for thread in threads:
        if thread.pid == mine:
            thread.stop()


def _forget() -> None:
    """In a forked copy of the process: its threads were not copied, and the lock may be held by one of them."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _parents.append(dict(_threads))  # kept: the end of a loop's life would unregister its files from the parent's epoll, too
    _threads.clear()


_parents: list[dict[str, LoopThread]] = []
os.register_at_fork(after_in_child=_forget)
atexit.register(shutdown)
