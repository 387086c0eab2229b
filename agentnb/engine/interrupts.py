"""Interrupts that wait: a KeyboardInterrupt may strike between any two steps, and would leave half of a change behind."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Deferred:
    """While this is entered on the main thread, an interrupt is noted; at the end it is raised. On other threads none strikes."""

    __slots__ = ("_old", "_on", "_pending")

    def __init__(self) -> None:
        """Not entered yet."""
        self._on = False
        self._old: Any = None
        self._pending: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        """Note interrupts from here on."""
        if threading.get_ident() == threading.main_thread().ident and callable(signal.getsignal(signal.SIGINT)):
            self._on = True
            self._old = signal.signal(signal.SIGINT, self._note)

    def _note(self, signo: int, frame: FrameType | None) -> None:
        self._pending = (signo, frame)

    def __exit__(self, *_: object) -> None:
        """Let them strike again, first the one that was noted."""
        if self._on:
            signal.signal(signal.SIGINT, self._old)
            if self._pending is not None:
                self._old(*self._pending)
