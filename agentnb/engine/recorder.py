"""Events go through here: first into the store, then, once they are committed, to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agentnb.engine.checkpoints import Checkpoints
from agentnb.errors import StoreError
from agentnb.events import Message, StoreTrouble
from agentnb.history.faults import is_lock
from agentnb.history.store import Store

#: A store that refuses is asked again after the first, then more rarely, until the second.
_RETRY_S, _LONGEST_RETRY_S = 0.05, 0.5
#: Another process may hold the database's lock so long before that counts as trouble.
_LOCKED_S = 1.0
#: While several runs work, their events are gathered this long: fewer transactions, and fewer times that the client is woken; longer
#: when so many came at once the last time.
GATHER_S, GATHER_MANY_S, MANY = 0.02, 0.05, 100
#: When there are so many, they are written before it is time to tell of them: to write many more at once would keep those waiting who
#: want to start. So many turns of the loop later, in which the runs that end just now give way to the next ones.
PIECE, TURNS = 200, 3


class Recorder:
    """Writes the events of one store in batches, one transaction each.

    While another process holds the database's lock, events wait; nobody is told of them before they are written. When the store
    refuses for another reason (full disk ...), or longer than _LOCKED_S, that is trouble: the listener is told of it, and then of events
    that are not written yet. Those are kept, and written as soon as the store takes them again; only a supervisor that is killed before
    that loses them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, publish: Callable[[list[Message]], None]) -> None:
        """`publish` gets each batch after its commit (but in trouble), in order."""
        self.store = store
        self._loop = loop
        self._publish = publish
        self._batch: list[Message] = []
        self._unwritten: list[Message] = []
        self._scheduled: asyncio.Handle | None = None
        self._ahead = False
        self._due = 0.0
        self._retrying: asyncio.TimerHandle | None = None
        self.trouble: str | None = None
        self._held: list[Message] = []
        self._untold: list[Message] = []
        self._pause = _RETRY_S
        self._refused_at: float | None = None
        self._waiting: list[Callable[[], None]] = []
        self._checkpoints = Checkpoints(loop, store)

    def emit(self, event: Message) -> None:
        """Take one event."""
        self._batch.append(event)
        if self._scheduled is None:
            if self._loop.time() >= self._due:
                self._flush_soon(TURNS)
            else:
                self._scheduled = self._loop.call_at(self._due, self.flush)
        elif not self._ahead and len(self._batch) >= PIECE and self._retrying is None:
            self._ahead = True
            self._loop.call_soon(self._write_soon, TURNS)

    def _flush_soon(self, turns: int) -> None:
        self._scheduled = self._loop.call_soon(self._flush_soon, turns - 1) if turns else self._loop.call_soon(self.flush)

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
        many = len(self._untold) + len(self._batch) >= MANY
        self._due = self._loop.time() + (GATHER_MANY_S if many else GATHER_S)
        self._write_ahead()
        untold, self._untold = self._untold, []
        if untold:
            self._publish(untold)

    def _write_soon(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._write_soon, turns - 1)
            return
        self._ahead = False
        self._write_ahead(PIECE)
        if len(self._batch) >= PIECE and self._retrying is None:
            self._ahead = True
            self._loop.call_soon(self._write_soon, TURNS)

    def _write_ahead(self, most: int | None = None) -> None:
        """Write the events so far, or so many of them; who listens hears of them with the others that come soon."""
        batch, self._batch = (self._batch, []) if most is None else (self._batch[:most], self._batch[most:])
        if batch:
            self._unwritten += batch
            if self._retrying is None:  # else the store refuses just now
                self._write()
            if self._retrying is None or self.trouble is not None:
                self._untold += batch
            else:
                self._held += batch

    @property
    def is_settled(self) -> bool:
        """Whether the store has taken all that it was given."""
        return self._retrying is None

    async def settled(self, within_s: float) -> bool:
        """Wait until the store has taken all that was emitted so far, or was deleted, at most so long; whether it has."""
        self.flush()
        until = self._loop.time() + within_s
        while self._retrying is not None and self._loop.time() < until and not self.store.gone():  # noqa: ASYNC110 - nobody tells only of this
            await asyncio.sleep(_RETRY_S)
        return self._retrying is None

    def when_settled(self, callback: Callable[[], None]) -> None:
        """Call back once all that was emitted so far is written, or there is trouble; now, if that is so."""
        self.flush()
        if self._retrying is not None and self.trouble is not None:  # it may be over since the last look
            self._retrying.cancel()
            self._retry()
        if self._retrying is None or self.trouble is not None:
            callback()
        else:
            self._waiting.append(callback)

    def _release(self) -> None:
        """Tell what was held back, and those who wait."""
        if self._held:
            told, self._untold, self._held = self._untold + self._held, [], []
            self._publish(told)
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def _write(self) -> None:
        pending, self._unwritten = self._unwritten, []
        try:
            self.store.apply(pending)
        except StoreError as bad:
            self._keep(pending, bad)
        except Exception:  # noqa: BLE001 - an event that the store cannot take must not keep the others out
            self._write_singly(pending)
        else:
            self._is_well()
            self._checkpoints.wrote(len(pending))

    def _is_well(self) -> None:
        self._pause, self._refused_at = _RETRY_S, None
        self._tell(None)
        self._release()

    def _write_singly(self, pending: list[Message]) -> None:
        for n, event in enumerate(pending):
            try:
                self.store.apply([event])
            except StoreError as bad:
                self._keep(pending[n:], bad)
                return
            except Exception as bad:  # noqa: BLE001
                self._loop.call_exception_handler({"message": f"the history cannot hold an event: {str(event)[:300]}", "exception": bad})
        self._is_well()

    def _keep(self, pending: list[Message], bad: StoreError) -> None:
        now = self._loop.time()
        if self._refused_at is None:
            self._refused_at = now
        self._unwritten = pending
        self._retrying = self._loop.call_later(self._pause, self._retry)
        self._pause = min(self._pause * 1.6, _LONGEST_RETRY_S)
        waits = is_lock(bad) and (now - self._refused_at < _LOCKED_S or self.store.copying)
        if self.trouble is not None or not waits:
            self._tell(str(bad))
            self._release()

    def _retry(self) -> None:
        self._retrying = None
        self._write()

    def _tell(self, message: str | None) -> None:
        if (message is None) != (self.trouble is None):
            self.store.tell_behind(message is not None)
            untold, self._untold = self._untold, []
            self._publish([*untold, StoreTrouble(str(self.store.root), message)])
        self.trouble = message

    def close(self) -> str | None:
        """Write what is left and close the store; returns why it could not, if so."""
        self._checkpoints.close()
        self.store.be_patient()
        self.flush()
        if self._retrying is not None:
            self._retrying.cancel()
            self._write()
            if self._retrying is not None:
                self._retrying.cancel()
        self.store.close()
        return self.trouble if self._unwritten else None
