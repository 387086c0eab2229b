"""Getting at a run again: from another process, or after the notebook's kernel was started anew."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from pathlib import Path
from typing import Any

from agentnb import requests
from agentnb.engine.client import Client, Nobody, clients
from agentnb.errors import ConfigError, StoreError
from agentnb.events import Json
from agentnb.history import reader
from agentnb.history.owners import door_path, is_owner
from agentnb.history.store import Store
from agentnb.notebook import loop as loops
from agentnb.notebook.aftermath import ends_of
from agentnb.notebook.handles import RunHandle
from agentnb.notebook.launching import settle
from agentnb.notebook.live import LiveRun
from agentnb.notebook.remote import RemoteRun, launched

#: A run that reads live but is nowhere to be found may be ending just now; after this long it is not.
_DOUBT_S = 3.0
_LOOK_S = 0.05
_REPLY_S = 10.0

_lock = threading.Lock()
_attached: dict[Path, Client] = {}


def attach(run_id: str, store: str | os.PathLike[str] | None = None) -> RunHandle:
    """A handle of a run, whichever process launched it: live if it is not over, else with its result from the history.

    `run_id`: its id, the start of it, or its name (the newest of that name). `store`: the store's folder; default AGENTNB_HOME, else
    ``./.agentnb``. A live one is waited for, cancelled, sent input and shown as any other. It ends when its supervisor does: that of
    a run launched with ``detach=True`` goes on until its end, any other ends with the kernel that launched it.

    Raises ConfigError when no run, or more than one, is meant; StoreError when there is no store, or the run reads live but its
    supervisor cannot be reached from here.
    """
    loops.refuse_to_block("attach()")
    if not isinstance(run_id, str) or not run_id:
        raise ConfigError(f"attach: {run_id!r} is no run's id or name; `agentnb runs` lists them")
    root = Store.locate(store)
    settle(root)
    with _lock:
        return _handle(root, reader.find_run(root, run_id))


def _handle(root: Path, run_id: str) -> RunHandle:
    deadline = time.monotonic() + _DOUBT_S
    while True:
        row = reader.read_run(root, run_id)
        final = ends_of(root, [row])[row["id"]]
        if final is not None:
            run = RemoteRun(Nobody(loops.engine_loop().loop), root, launched(row), grace_s=0.0)
            run.catch_up(row)
            run.on_event(final)
            return RunHandle(run, root, run.launched)
        if (known := _known(root, run_id)) is not None:
            return RunHandle(known, root, known.launched)
        try:
            return _live_handle(root, row)
        except (OSError, RuntimeError) as bad:
            if time.monotonic() > deadline:
                raise StoreError(_unreachable(root, row, bad)) from None
        time.sleep(_LOOK_S)
        settle(root)


def _known(root: Path, run_id: str) -> LiveRun | None:
    """The run, if somebody in this process follows it already."""
    for client in clients():
        run = client.listener(run_id) if client.usable else None
        if isinstance(run, LiveRun) and run.output.root == root:
            return run
    return None


def _live_handle(root: Path, row: dict[str, Any]) -> RunHandle:
    """Raises OSError or RuntimeError when the run's supervisor cannot be reached, or has just seen the run's end."""
    client = _client(root, row["owner"])
    run = RemoteRun(client, root, launched(row), grace_s=0.0)
    run.catch_up(row)
    client.listen(run.id, run)
    try:
        reply = client.request(lambda number: requests.Attach(number, run.id)).result(_REPLY_S)
    except (RuntimeError, TimeoutError):
        client.ignore(run.id)
        if not run.done:
            raise
    else:
        run.grace_s = reply["grace_s"]
        _on_loop_thread(run, reply)
    return RunHandle(run, root, run.launched)


def _on_loop_thread(run: RemoteRun, reply: Json) -> None:
    """Take the reply in where events are taken in, so that none of them comes in between."""
    taken: concurrent.futures.Future[None] = concurrent.futures.Future()

    def take() -> None:
        if not run.done:
            run.catch_up(reply)
        taken.set_result(None)

    loops.engine_loop().call_soon(take)
    taken.result(_REPLY_S)


def _client(root: Path, owner: str | None) -> Client:
    """The connection to that supervisor; runs of the same one share it."""
    if not owner or not is_owner(owner):
        raise ConnectionError("the history does not say which")
    path = door_path(root, owner)
    client = _attached.get(path)
    if client is None or not client.usable:
        client = Client.connect(loops.engine_loop().loop, path)
        try:
            client.ready.result(_REPLY_S)
        except (RuntimeError, TimeoutError):
            client.close()
            raise
        _attached[path] = client
    return client


def _unreachable(root: Path, row: dict[str, Any], bad: Exception) -> str:
    why = getattr(bad, "strerror", None) or str(bad) or type(bad).__name__
    return (
        f"run {row['name'] or row['id']!r} reads {row['status']} in {root}, but the supervisor that looks after it cannot be reached "
        f"({why}); attach on the machine and from the store that it was launched in"
    )


def _forget() -> None:
    """In a forked copy of the process: the connections are the parent's."""
    global _lock  # noqa: PLW0603 - it may be held by a thread that was not copied
    _lock = threading.Lock()
    _attached.clear()


os.register_at_fork(after_in_child=_forget)
