"""The background threads that run event loops beside the notebook's own."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any

_ENGINE = "agentnb-engine"
_AGENTS = "agentnb-agents"
#: How long the end of the process waits for an agents' thread.
_PATIENCE_S = 3.0
_lock = threading.Lock()
_threads: dict[str, LoopThread] = {}
_helpers: set[threading.Thread] = set()
#: How long the end of the process waits for one that looks something up.
_HELPER_S = 6.0


class LoopThread:
    """One daemon thread with one event loop."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self.loop = asyncio.new_event_loop()
        self.pid = os.getpid()
        # No portal of anyio: in a forked copy of the process its generator is finalised at the end, and waits for a thread
        # that was not copied.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self.thread_id = self._thread.ident

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    @property
    def usable(self) -> bool:
        """Whether it is this process's (a fork does not take threads along), and nobody has stopped its loop."""
        return self.pid == os.getpid() and self._thread.is_alive() and not self.loop.is_closed()

    def call_soon(self, fn: Callable[..., Any], *args: Any) -> None:
        """Run `fn` on the loop thread; from any thread. Does nothing once the thread has ended."""
        if not self.loop.is_closed():
            # in an empty context: a cell's would tie what is displayed to that cell, and nbclient drops what comes after its end
            self.loop.call_soon_threadsafe(fn, *args, context=contextvars.Context())

    def call_later(self, delay_s: float, fn: Callable[..., Any], *args: Any) -> None:
        """Run `fn` on the loop thread after `delay_s` seconds; from the loop thread only."""
        self.loop.call_later(delay_s, fn, *args)

    def stop(self) -> None:
        """End the thread and wait for it; for one that an agent blocks only a moment: it ends with the process, which it shall not hold."""
        self.call_soon(self.loop.stop)
        self._thread.join(None if self._thread.name == _ENGINE else _PATIENCE_S)


def engine_loop() -> LoopThread:
    """The thread that reads the engine's events and writes to views."""
    return _thread(_ENGINE)


def agents_loop() -> LoopThread:
    """The thread that ``async def`` agents run on: one that blocks stops its like, but no view and no other run."""
    return _thread(_AGENTS)


def replace_agents_loop(blocked: LoopThread) -> LoopThread:
    """The thread for agents that come from now on, since one blocks this one; those that have begun there stay."""
    with _lock:
        if _threads.get(_AGENTS) is blocked:
            del _threads[_AGENTS]
            _threads[f"{_AGENTS} {id(blocked)}"] = blocked
    return agents_loop()


def start_helper(name: str, fn: Callable[..., None], *args: Any) -> None:
    """Run `fn`, which may block for some seconds, on a thread of its own; the end of the process waits for it."""

    def run() -> None:
        try:
            fn(*args)
        finally:
            _helpers.discard(thread)

    thread = threading.Thread(target=run, name=name, daemon=True)
    _helpers.add(thread)
    thread.start()


def _thread(name: str) -> LoopThread:
    with _lock:
        thread = _threads.get(name)
        if thread is None or not thread.usable:
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
    for helper in list(_helpers):
        helper.join(_HELPER_S)
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
    _helpers.clear()


_parents: list[dict[str, LoopThread]] = []
os.register_at_fork(after_in_child=_forget)
atexit.register(shutdown)
