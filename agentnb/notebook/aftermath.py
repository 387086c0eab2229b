"""What became of runs whose supervisor is gone: the history says it, once what dead supervisors left there is recovered.

Recovery also ends the processes that were left, so that a handle which reads terminal has none. It may wait for a lock: it is done on
a thread of its own, for all runs that were lost together.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.errors import AgentnbError
from agentnb.events import RunFinished
from agentnb.history import reader
from agentnb.history.store import DATABASE, Store
from agentnb.notebook import loop as loops
from agentnb.states import TRANSITIONS, RunStatus

if TYPE_CHECKING:
    from agentnb.notebook.live import LiveRun

#: A supervisor that ends closes its connections first; so long after that what it wrote last may still be out of reach.
_DOUBT_S = 3.0
_LOOK_S = 0.05
_LOCK_MS = 1000

_lock = threading.Lock()
_lost: dict[Path, list[tuple[LiveRun, str]]] = {}


def look_up(run: LiveRun, message: str) -> None:
    """Find out how a run ended that nobody tells of any more, and tell it; `message` says how it was lost."""
    root = run.output.root
    with _lock:
        batch = _lost.setdefault(root, [])
        batch.append((run, message))
        first = len(batch) == 1
    if first:
        loops.start_helper("agentnb-aftermath", _settle, root)


def _settle(root: Path) -> None:
    with _lock:
        batch = _lost.pop(root)
    deadline = time.monotonic() + _DOUBT_S
    while batch:
        late = time.monotonic() > deadline
        dead = {run.id for run, _ in batch if _is_reaped(run)}  # before the look: what they wrote is there then
        rows = _rows(root, [run.id for run, _ in batch])
        left: list[tuple[LiveRun, str]] = []
        for run, message in batch:
            final = rows.get(run.id) if rows is not None else None
            if final is not None:
                _tell(run, final, message)
            elif late or (rows is not None and run.id not in rows and run.id in dead):
                run.give_up(message)
            else:
                left.append((run, message))
        if batch := left:
            time.sleep(_LOOK_S)


def _rows(root: Path, run_ids: list[str]) -> dict[str, RunFinished | None] | None:
    """How the runs that the history knows ended, None for those that read live; None when it cannot be asked just now."""
    if not (root / DATABASE).exists():
        return {}
    try:
        with Store.open(root, busy_ms=_LOCK_MS) as store:
            store.recover()
    except AgentnbError:
        pass  # one that cannot be written to is read as it is
    try:
        return ends_of(root, reader.read_runs(root, run_ids))
    except AgentnbError:
        return None


def _is_reaped(run: LiveRun) -> bool:
    process = getattr(run.client, "process", None)
    return process is not None and process.poll() is not None


def _tell(run: LiveRun, final: RunFinished, message: str) -> None:
    if (final.error or {}).get("kind") == "interrupted" and "discovered_at" in final.detail:
        final.error = final.error | {"message": message} if final.error else None  # which says more
    if not run.done:
        run.on_event(final)


def ends_of(root: Path, rows: list[dict[str, Any]]) -> dict[str, RunFinished | None]:
    """The last events of runs, put together from rows of the history; None for those that have not ended. Raises StoreError."""
    over = [row["id"] for row in rows if RunStatus(row["status"]) not in TRANSITIONS]
    logs = reader.read_logs(root, over) if over else {}
    ended = set(over)
    return {row["id"]: _end(row, logs.get(row["id"], {})) if row["id"] in ended else None for row in rows}


def _end(row: dict[str, Any], logs: dict[str, Any]) -> RunFinished:
    return RunFinished(
        row["id"],
        row["status"],
        exit_code=row["exit_code"],
        signal=row["signal"],
        error=row["error"],
        output=row["output"],
        stdout=logs.get("stdout"),
        stderr=logs.get("stderr"),
        usage=row["usage"],
        attempts=row["attempts"] or 0,
        run_s=row["run_s"],
        detail=row["detail"] or {},
        at=row["finished_at"] or row["created_at"],
    )


def _forget() -> None:
    """In a forked copy of the process: the thread was not copied, and the lock may be held by it."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _lost.clear()


os.register_at_fork(after_in_child=_forget)
