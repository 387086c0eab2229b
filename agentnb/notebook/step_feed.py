"""The steps of a run as they become known here: from its events while it is watched, from the history when that begins and at the end."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agentnb import requests
from agentnb.errors import AgentnbError
from agentnb.events import Json, StepFinished, StepStarted, StepUsed
from agentnb.history import reader
from agentnb.notebook.steps import MAX_STEPS, StepLog

if TYPE_CHECKING:
    from agentnb.engine.client import Client


class StepFeed:
    """Keeps one run's `StepLog` true. Events come on the loop thread."""

    def __init__(self, root: Path, run_id: str, client: Client, changed: Callable[[], None]) -> None:
        """`root`: the store's folder; `changed` is called, on the loop thread, when the history had something to tell."""
        self._root = root
        self._run_id = run_id
        self._client = client
        self._changed = changed
        self._log = StepLog()
        self._asked = False
        self._complete = False

    def on_event(self, event: StepStarted | StepFinished | StepUsed) -> None:
        """A step of the run, which is watched, began or ended, or it became known what it used."""
        if isinstance(event, StepStarted):
            self._log.started(event)
        elif isinstance(event, StepFinished):
            self._log.finished(event)
        else:
            self._log.used(event)

    def unwatched(self) -> None:
        """Nothing is told of its steps from now on."""
        self._asked = False

    def log(self, *, watched: bool, done: bool) -> StepLog:
        """The steps so far. What came before the run was `watched` is asked for, and read when all of it is in the history."""
        if done and not self._complete:
            self._complete = True
            self._read()
        elif watched and not done and not self._asked:
            self._asked = True
            self._client.request(requests.Ping).add_done_callback(self._recorded)
        return self._log

    def _recorded(self, reply: concurrent.futures.Future[Json]) -> None:
        if reply.exception() is None and not self._complete:
            self._read()
            self._changed()

    def _read(self) -> None:
        with suppress(AgentnbError):  # the store was removed meanwhile: what is known has to do
            self._log.take(*reader.read_last_steps(self._root, self._run_id, MAX_STEPS))
