"""Events go through here: first into the store, then, once they are committed, to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentnb.errors import StoreError
from agentnb.events import Message, StoreTrouble
from agentnb.history.store import Store

_RETRY_S = 0.5


class Recorder:
    """Writes the events of one store in batches, one transaction for each turn of the loop.

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
        self._scheduled = False
        self.trouble: str | None = None

    def emit(self, event: Message) -> None:
        """Take one event."""
        self._batch.append(event)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write and publish all events so far."""
        self._scheduled = False
        batch, self._batch = self._batch, []
        if batch or self._unwritten:
            self._write(batch)
        if batch:
            self._publish(batch)

    def _write(self, batch: list[Message]) -> None:
        pending = self._unwritten + batch
        try:
            self.store.apply(pending)
        except StoreError as bad:
            self._unwritten = pending
            self._tell(str(bad))
            self._loop.call_later(_RETRY_S, self._retry)
        else:
            self._unwritten = []
            self._tell(None)

    def _retry(self) -> None:
        if self._unwritten and not self._scheduled:
            self.flush()

    def _tell(self, message: str | None) -> None:
        if (message is None) != (self.trouble is None):
            self._publish([StoreTrouble(str(self.store.root), message)])
        self.trouble = message

    def close(self) -> str | None:
        """Write what is left and close the store; returns why it could not, if so."""
        self.flush()
        self.store.close()
        return self.trouble if self._unwritten else None
