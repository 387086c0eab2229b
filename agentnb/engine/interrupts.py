"""Interrupts that wait: a KeyboardInterrupt may strike between any two steps, and would leave half of a change behind."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module `signal` makes enums of what it gives: ten times the cost, for each launch
import os
import threading
from types import FrameType
from typing import Any

_SIGINT = int(_signal.SIGINT)
_main = threading.main_thread().ident
_entered = False


class Deferred:
    """While this is entered on the main thread, an interrupt is noted; at the end it is raised. On other threads none strikes.

    Inside of another one it does nothing: the outer one's end is the end.
    """

    __slots__ = ("_old", "_on", "_pending")

    def __init__(self) -> None:
        """Not entered yet."""
        self._on = False
        self._old: Any = None
        self._pending: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        """Note interrupts from here on."""
        global _entered  # noqa: PLW0603 - only the main thread touches it
        if not _entered and threading.get_ident() == _main and callable(_signal.getsignal(_SIGINT)):
            self._on = True
            self._old = _signal.signal(_SIGINT, self._note)
            _entered = True

    def _note(self, signo: int, frame: FrameType | None) -> None:
        self._pending = (signo, frame)

    def __exit__(self, *_: object) -> None:
        """Let them strike again, first the one that was noted."""
        global _entered  # noqa: PLW0603 - only the main thread touches it
        if self._on:
            _entered = False
            _signal.signal(_SIGINT, self._old)
            if self._pending is not None:
                self._old(*self._pending)


def _renew() -> None:
    """In a forked copy of the process the thread that forked is the main one."""
    global _main, _entered
    _main, _entered = threading.get_ident(), False


os.register_at_fork(after_in_child=_renew)
