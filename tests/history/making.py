"""Events as the engine sends them, made in a line."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from agentnb.events import Message, RunFinished, RunQueued, RunStarted, SessionStarted, StepFinished, StepStarted

#: 2026-01-01T00:00:00Z, in microseconds.
T0 = 1_767_225_600_000_000
SECOND = 1_000_000


def started_session(session_id: str = "S", name: str = "first", at: int = T0) -> SessionStarted:
    return SessionStarted({"id": session_id, "name": name, "created_at": at, "tags": {}}, at=at)


def queued(run_id: str, *, at: int = T0, session_id: str = "S", **more: Any) -> RunQueued:
    target = {"kind": "shell", "display": "echo hi", "spec": {"type": "shell", "command": "echo hi"}}
    run = {"id": run_id, "session_id": session_id, "name": run_id, "target": target, "runtime_kind": "local", "created_at": at}
    return RunQueued(run | more, at=at)


def finished(run_id: str, status: str = "completed", *, at: int = T0 + 3 * SECOND, **more: Any) -> RunFinished:
    return RunFinished(run_id, status, at=at, **more)


def whole_run(run_id: str, status: str = "completed", *, at: int = T0, run_s: float = 2.0, **more: Any) -> list[Message]:
    """The usual five events: queued, a second later started, one step, finished after `run_s`."""
    start, end = at + SECOND, at + SECOND + round(run_s * SECOND)
    return [
        queued(run_id, at=at, **more),
        RunStarted(run_id, "pid:1", at=start),
        StepStarted(run_id, f"{run_id}-1", "attempt", "attempt 1", at=start),
        StepFinished(run_id, f"{run_id}-1", status, exit_code=0, usage={"cpu_time": 0.5, "peak_memory_bytes": 1000}, at=end),
        RunFinished(
            run_id, status, exit_code=0, run_s=run_s, attempts=1, at=end, detail={"reason": None},
            stdout={"size": 3, "text": "hi\n", "path": None}, stderr={"size": 0, "text": "", "path": None},
            usage={"cpu_time": 0.5, "peak_memory_bytes": 1000, "disk_read_bytes": 1, "disk_write_bytes": 2, "processes": 1},
        ),
    ]  # fmt: skip


TABLES = ("sessions", "runs", "steps", "artifacts", "events", "logs")


def table(root: Path, name: str) -> list[dict[str, Any]]:
    """All rows of a table, read without any of our own code."""
    db = sqlite3.connect(root / "history.db")
    try:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {name} ORDER BY rowid")]
    finally:
        db.close()


def everything(root: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: table(root, name) for name in TABLES}
