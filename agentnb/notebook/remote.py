"""Runs whose supervisor goes on without this process: launched with ``detach=True``, or attached to."""

from __future__ import annotations

from typing import Any

from agentnb.events import Json, RunStarted, UsageReported
from agentnb.notebook.live import LiveRun
from agentnb.states import RunStatus

_TOTALS = ("input_tokens", "output_tokens", "cost_usd", "tokens_per_s")


class RemoteRun(LiveRun):
    """It may have begun before this process heard of it, and be over although the connection is lost."""

    __slots__ = ()
    detached = True

    def catch_up(self, row: Json) -> None:
        """Take over what is known of it already: a row of the history, or the reply to requests.Attach."""
        if self.status is RunStatus.PENDING and row["started_at"] is not None:
            self.on_event(RunStarted(self.id, at=row["started_at"]))
        self._attempt = max(self._attempt, row.get("attempts") or row.get("attempt") or 0)
        if any(row.get(name) is not None for name in _TOTALS):
            self.on_event(UsageReported(self.id, **{name: row[name] for name in _TOTALS}))


def launched(row: dict[str, Any]) -> Json:
    """A row of the runs table as the run that was launched."""
    return row | {"name": row["name"] or row["id"], "params": row["params"] or {}, "target": _target(row["target"])}


def _target(target: Any) -> Json:
    found: Json = target if isinstance(target, dict) else {}
    return {"kind": found.get("kind") or "", "display": found.get("display") or "", "spec": found.get("spec") or {}}
