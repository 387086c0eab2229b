"""Runs whose supervisor goes on without this process: launched with ``detach=True``, or attached to."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentnb.errors import AgentnbError, StoreError
from agentnb.events import Json, RunFinished, RunStarted, UsageReported
from agentnb.history import reader
from agentnb.history.store import Store
from agentnb.notebook import loop as loops
from agentnb.notebook.live import LiveRun
from agentnb.states import TRANSITIONS, RunStatus

#: A supervisor that ends closes its connections first; so long after that what it wrote last may still be out of reach.
_DOUBT_S = 3.0
_LOOK_S = 0.05
_TOTALS = ("input_tokens", "output_tokens", "cost_usd", "tokens_per_s")


class RemoteRun(LiveRun):
    """When the connection is lost the history, not the loss, says what became of it."""

    __slots__ = ()
    detached = True

    def on_lost(self, message: str) -> None:
        """The supervisor is gone: because it died, or because it was done."""
        loops.engine_loop().call_soon(self._look, message, time.monotonic() + _DOUBT_S)

    def _look(self, message: str, deadline: float) -> None:
        final = None
        try:
            _recover(self.output.root)
            final = end_of(self.output.root, reader.read_run(self.output.root, self.id))
        except AgentnbError:  # nothing is known of it there; it may be a moment too early
            pass
        if self.done:
            return
        if final is not None:
            self.on_event(final)
        elif time.monotonic() > deadline:
            super().on_lost(message)
        else:
            loops.engine_loop().call_later(_LOOK_S, self._look, message, deadline)

    def catch_up(self, row: Json) -> None:
        """Take over what is known of it already: a row of the history, or the reply to requests.Attach."""
        if self.status is RunStatus.PENDING and row["started_at"] is not None:
            self.on_event(RunStarted(self.id, at=row["started_at"]))
        self._attempt = max(self._attempt, row.get("attempts") or row.get("attempt") or 0)
        if any(row.get(name) is not None for name in _TOTALS):
            self.on_event(UsageReported(self.id, **{name: row[name] for name in _TOTALS}))


def _recover(root: Path) -> None:
    """Let what dead supervisors left read interrupted. A store that cannot be written to stays as it is."""
    with suppress(StoreError), Store.open(root) as store:
        store.recover()


def launched(row: dict[str, Any]) -> Json:
    """A row of the runs table as the run that was launched."""
    return row | {"name": row["name"] or row["id"], "params": row["params"] or {}, "target": _target(row["target"])}


def _target(target: Any) -> Json:
    found: Json = target if isinstance(target, dict) else {}
    return {"kind": found.get("kind") or "", "display": found.get("display") or "", "spec": found.get("spec") or {}}


def end_of(root: Path, row: dict[str, Any]) -> RunFinished | None:
    """The last event of a run, put together from the history; None for one that has not ended. Raises StoreError."""
    if RunStatus(row["status"]) in TRANSITIONS:
        return None
    logs = reader.read_logs(root, row["id"])
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
