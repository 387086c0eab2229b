"""Events go through here: first into the store, then, once they are committed, to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentnb.errors import StoreError
from agentnb.events import Message, StoreTrouble
from agentnb.history.store import Store

_RETRY_S = 0.5
#: While several runs work, their events are gathered this long: fewer transactions, and fewer times that the client is woken.
GATHER_S = 0.02


class Recorder:
    """Writes the events of one store in batches, one transaction each.

    When the store refuses (full disk ...), the events still go on to the listener, which is told of the trouble; they are
    kept and written as soon as the store takes them again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, publish: Callable[[list[Message]], None]) -> None:
        """`publish` gets each batch after its commit, in order."""
        self.store = store
        self._loop = loop
        self._publish = publish
        self._batch: list[Message] = []
        self._unwritten: list[Message] = []
        self._scheduled: asyncio.Handle | None = None
        self._flushed_at = 0.0
        self._retrying: asyncio.TimerHandle | None = None
        self.trouble: str | None = None

    def emit(self, event: Message) -> None:
        """Take one event."""
        self._batch.append(event)
        if self._scheduled is None:
            due = self._flushed_at + GATHER_S
            if self._loop.time() >= due:
                self._scheduled = self._loop.call_soon(self.flush)
            else:
                self._scheduled = self._loop.call_at(due, self.flush)

    def hurry(self) -> None:
        """Nothing more is to be expected soon: write what was gathered in the loop's next turn."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write and publish all events so far."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        self._flushed_at = self._loop.time()
        batch, self._batch = self._batch, []
        if batch:
            self._unwritten += batch
            if self._retrying is None:  # else the store refuses just now
                self._write()
            self._publish(batch)

    def _write(self) -> None:
        pending, self._unwritten = self._unwritten, []
        try:
            self.store.apply(pending)
        except StoreError as bad:
            self._keep(pending, bad)
        except Exception:  # noqa: BLE001 - an event that the store cannot take must not keep the others out
            self._write_singly(pending)
        else:
            self._tell(None)

    def _write_singly(self, pending: list[Message]) -> None:
        for n, event in enumerate(pending):
            try:
                self.store.apply([event])
            except StoreError as bad:
                self._keep(pending[n:], bad)
                return
            except Exception as bad:  # noqa: BLE001
                self._loop.call_exception_handler({"message": f"the history cannot hold an event: {str(event)[:300]}", "exception": bad})
        self._tell(None)

    def _keep(self, pending: list[Message], bad: StoreError) -> None:
        self._unwritten = pending
        self._tell(str(bad))
        self._retrying = self._loop.call_later(_RETRY_S, self._retry)

    def _retry(self) -> None:
        self._retrying = None
        self._write()

    def _tell(self, message: str | None) -> None:
        if (message is None) != (self.trouble is None):
            self._publish([StoreTrouble(str(self.store.root), message)])
        self.trouble = message

    def close(self) -> str | None:
        """Write what is left and close the store; returns why it could not, if so."""
        self.flush()
        if self._retrying is not None:
            self._retrying.cancel()
            self._write()
            if self._retrying is not None:
                self._retrying.cancel()
        self.store.close()
        return self.trouble if self._unwritten else None
