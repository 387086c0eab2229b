"""The end of a run, as something to wait for: what a future would do, at a twentieth of its cost, since each run is one."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)
#: One for all: it is held for a few steps only.
_lock = threading.Lock()


def _renew() -> None:
    """In a forked copy of the process nobody may be left who would release it."""
    global _lock  # noqa: PLW0603 - as in ids.py
    _lock = threading.Lock()


class End:
    """Comes once. Safe to use from several threads."""

    __slots__ = ("_callbacks", "come")

    def __init__(self) -> None:
        """Not come yet."""
        self.come = False
        self._callbacks: list[Callable[[], None]] | None = None

    def announce(self) -> None:
        """It has come: call who waits for it, once, on this thread."""
        with _lock:
            self.come = True
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:  # noqa: BLE001 - what one of them does wrong is nothing to the others
                _log.exception("what waits for the end of a run failed")

    def call(self, callback: Callable[[], None]) -> None:
        """Call `callback` when it comes, on the thread that says so; now, if it has come."""
        with _lock:
            if not self.come:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it any more."""
        with _lock:
            if self._callbacks is not None and callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it comes, or for so many seconds; whether it has come."""
        if not self.come:
            waiter = threading.Event()
            self.call(waiter.set)
            try:
                waiter.wait(timeout)
            finally:
                self.forget(waiter.set)  # who polls shall leave nothing behind at each turn
        return self.come


os.register_at_fork(after_in_child=_renew)
