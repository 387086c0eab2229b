"""Runs that are not run again: their record is told from that of the completed run that they are reused from. Nothing is started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from agentnb.errors import StoreError
from agentnb.events import Json, Message, RunFinished
from agentnb.history.precedents.reuse import retold

#: So many records are in memory at once.
_READ_AT_ONCE = 500
#: After so many events the loop is left to others for a moment.
_AT_ONCE = 1000
_PAUSE_S = 0.005


class Reused:
    """The reused runs of a session whose records are being read; true while there are any."""

    def __init__(self, root: Path, emit: Callable[[Message], None], flush: Callable[[], None], over: Callable[[str], None]) -> None:
        """`root`: the store's folder; `flush` puts what was emitted into it; `over` is called for each run after its last event."""
        self._root, self._emit, self._flush, self._over = root, emit, flush, over
        self._waiting: dict[str, str] = {}
        self._under_way: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        """Whether a run is not over yet."""
        return bool(self._waiting or self._under_way)

    def take(self, run: Json) -> None:
        """A run came, and is recorded. Those that come together are read together, on a thread: there may be thousands."""
        self._waiting[run["id"]] = run["reused_from"]
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while self._waiting:
            wanted = {run_id: self._waiting.pop(run_id) for run_id in list(self._waiting)[:_READ_AT_ONCE]}
            self._under_way = set(wanted)
            self._flush()  # what they refer to is not removed from now on
            why = "the run that it was to be reused from was removed at this moment; launch it again"
            try:
                found = dict(await asyncio.to_thread(lambda wanted: list(retold(self._root, wanted)), wanted))
            except StoreError as bad:
                found, why = {}, f"the run that it was to be reused from cannot be read: {bad}"
            except Exception as bad:  # noqa: BLE001 - a fault of ours must end the runs, not leave them pending
                found, why = {}, f"agentnb failed: {type(bad).__name__}: {bad}"
            sent = 0
            for run_id in wanted:
                events = found.get(run_id) or [RunFinished(run_id, "failed", error={"kind": "not_found", "message": why})]
                for event in events:
                    self._emit(event)
                    sent += 1
                    if sent % _AT_ONCE == 0:
                        await asyncio.sleep(_PAUSE_S)
                self._under_way.discard(run_id)
                self._over(run_id)
