"""When a history's write-ahead log is copied into its database: beside the work, in a thread, so that no run waits for the disk."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from agentnb.history.store import Store

#: It is copied after so many events, and when for so long no more came, if there are enough to be worth it. SQLite itself copies what
#: becomes more than that (store.CHECKPOINT_PAGES), in the middle of a commit.
MANY, ENOUGH, QUIET_S = 8_000, 100, 0.25


class Checkpoints:
    """Has the log of one store copied."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store) -> None:
        """Nothing is to be copied."""
        self._loop = loop
        self._store = store
        self._events = self._looked_at = 0
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def wrote(self, events: int) -> None:
        """So many events were written."""
        self._events += events
        if self._events >= MANY and not self._is_busy():
            self._begin()
        elif self._events >= ENOUGH and self._timer is None:
            self._looked_at = self._events
            self._timer = self._loop.call_later(QUIET_S, self._look)

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _look(self) -> None:
        self._timer = None
        if self._events == self._looked_at and not self._is_busy():
            self._begin()
        else:
            self.wrote(0)

    def _begin(self) -> None:
        self._events = 0
        self._thread = threading.Thread(target=self._store.checkpoint, daemon=True)
        with suppress(RuntimeError):  # no room for a thread: SQLite does it later
            self._thread.start()

    def close(self) -> None:
        """Begin no more."""
        if self._timer is not None:
            self._timer.cancel()
