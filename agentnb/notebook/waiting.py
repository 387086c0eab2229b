"""Waiting for runs and ending them: what a run, a group and a session have in common."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from agentnb import requests, units
from agentnb.errors import ConfigError
from agentnb.notebook import loop as loops

if TYPE_CHECKING:
    from agentnb.engine.client import Client
    from agentnb.notebook.live import LiveRun

OnInterrupt = Literal["cancel", "detach"]
Timeout = float | str | timedelta | None

#: An awaited run looks up this often whether the awaiting cell was interrupted: an idle loop does not notice.
_SLICE_S = 0.1
#: After an interrupt the ladder gets its grace and this long more.
_LADDER_S = 12.0


def wait_all(runs: Sequence[LiveRun], timeout: Timeout, on_interrupt: OnInterrupt) -> None:
    """Block until all of `runs` have ended; see RunHandle.wait."""
    loops.refuse_to_block("wait()")
    if on_interrupt not in {"cancel", "detach"}:
        raise ConfigError(f"on_interrupt: {on_interrupt!r} is neither 'cancel' nor 'detach'")
    left = None if timeout is None else min(units.seconds(timeout, what="timeout"), threading.TIMEOUT_MAX)
    live = own([run for run in runs if not run.done])
    try:
        if not _all_ended(live, left):
            names = [run.name for run in live if not run.done]
            raise TimeoutError(f"{len(names)} of {len(runs)} runs had not ended after {left:g} s and go on: {', '.join(names[:3])}")
    except KeyboardInterrupt:
        if on_interrupt == "cancel":
            cancel_all(live, "interrupted by the user")
            _all_ended(live, patience(live))
        raise


def _all_ended(live: Sequence[LiveRun], timeout: float | None) -> bool:
    deadline = None if timeout is None else time.monotonic() + timeout
    left = list(live)
    while left:  # what was launched last mostly ends last: to be woken by each of many would cost more than they do
        if not left[-1].wait(None if deadline is None else max(deadline - time.monotonic(), 0.0)):
            return False
        while left and left[-1].done:
            left.pop()
    return True


async def await_all(runs: Sequence[LiveRun]) -> None:
    """Await the end of all of `runs`; if the awaiting task is cancelled, cancel them and await their end first."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()

    def notify() -> None:
        with suppress(RuntimeError):  # that loop is closed: nobody awaits any more
            loop.call_soon_threadsafe(ended.set)

    live = own([run for run in runs if not run.done])
    if not live:
        return
    call_after_all(live, notify)
    try:
        while not ended.is_set():
            await _within(ended, _SLICE_S)
    except (asyncio.CancelledError, KeyboardInterrupt) as stop:
        cancel_all(live, "the cell or task that awaited it was interrupted or cancelled")
        deadline = time.monotonic() + patience(live)
        while isinstance(stop, asyncio.CancelledError) and not ended.is_set() and time.monotonic() < deadline:
            await _within(ended, _SLICE_S)
        raise


async def _within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def call_after_all(runs: Sequence[LiveRun], callback: Callable[[], None]) -> None:
    """Call `callback` once, on any thread, when all of `runs` have ended; at once if they have."""
    live = [run for run in runs if not run.done]
    left = itertools.count(len(live) - 1, -1)  # next() is atomic, whichever threads the runs end on
    if not live:
        callback()
    for run in live:
        run.when_done(lambda: callback() if next(left) == 0 else None)


def cancel_all(runs: Sequence[LiveRun], reason: str) -> None:
    """Ask for the end of all of `runs`, in one message to each supervisor; those that have ended stay as they are."""
    by_client: dict[Client, list[str]] = {}
    for run in own([run for run in runs if not run.done]):
        run.note_cancelling()
        by_client.setdefault(run.client, []).append(run.id)
    for client, ids in by_client.items():
        client.send([requests.Cancel(ids, str(reason))])


def patience(runs: Sequence[LiveRun]) -> float:
    """How long the ladder of these runs may take, in seconds."""
    return max((run.grace_s for run in runs), default=0.0) + _LADDER_S


def own(live: list[LiveRun]) -> list[LiveRun]:
    """These live runs. Raises RuntimeError when one belongs to the process that this one was forked from."""
    here = os.getpid()
    for run in live:
        if run.client.owner_pid != here:
            raise RuntimeError(
                f"run {run.name!r} was launched by process {run.client.owner_pid}, which this one was forked from: wait for it and "
                "cancel it there; here launch new runs, or read its history with agentnb.runs_df()"
            )
    return live
