"""What a dead owner left live, and the events that end it (reads only; the store applies them)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentnb.events import Json, Message, RunFinished, SessionEnded, StepFinished, now_us
from agentnb.history.owners import is_owner

_OWNERS = """SELECT owner FROM owners UNION SELECT owner FROM runs WHERE status IN ('pending', 'running')
             UNION SELECT owner FROM sessions WHERE status = 'active'"""
_RUNS = """SELECT id, status, coalesce((SELECT max(at) FROM events WHERE run_id = runs.id), started_at, created_at), attempts
           FROM runs WHERE owner = ? AND status IN ('pending', 'running') ORDER BY created_at, id"""
_STEPS = "SELECT id FROM steps WHERE run_id = ? AND status IN ('pending', 'running') ORDER BY created_at DESC, id DESC"
_SESSIONS = """SELECT id, coalesce((SELECT max(max(coalesce(finished_at, 0)), max(coalesce(started_at, 0)), max(created_at))
               FROM runs WHERE session_id = sessions.id), created_at) FROM sessions WHERE owner = ? AND status = 'active'"""


def owners(db: sqlite3.Connection, folder: Path) -> set[str]:
    """Every owner that the store knows of: by its row, by something live that it owns, or by its lock file."""
    named = {owner for (owner,) in db.execute(_OWNERS) if owner} | {lock.stem for lock in folder.glob("*.lock")}
    return {owner for owner in named if is_owner(owner)}


def endings(db: sqlite3.Connection, root: Path, owner: str) -> list[Message]:
    """The events that end what `owner` left live, each run at the time of the last thing known of it."""
    found = now_us()
    ends: list[Message] = []
    for run_id, status, at, attempts in db.execute(_RUNS, (owner,)).fetchall():
        ends += _run(db, root / "runs" / run_id, run_id, status, at=at or found, attempts=attempts or 0, found=found)
    last = {run.run_id: run.at for run in ends if isinstance(run, RunFinished)}
    for session_id, at in db.execute(_SESSIONS, (owner,)).fetchall():
        ends.append(SessionEnded(session_id, "ended", at=max([at or found, *last.values()])))
    return ends


def run_ids(events: Iterable[Message]) -> list[str]:
    """Ids of the runs that these events end."""
    return [event.run_id for event in events if isinstance(event, RunFinished)]


def _run(db: sqlite3.Connection, folder: Path, run_id: str, status: str, *, at: int, attempts: int, found: int) -> Iterator[Message]:
    running = status == "running"
    message = "its supervisor ended while it was running" if running else "its supervisor ended before it was started"
    error = {"kind": "interrupted", "message": message}
    for (step_id,) in db.execute(_STEPS, (run_id,)).fetchall():
        yield StepFinished(run_id, step_id, "interrupted", error=error, at=at)
    # The state model has no way from pending to interrupted: what never ran was cancelled, and its error says by what.
    yield RunFinished(
        run_id, "interrupted" if running else "cancelled", error=error, attempts=attempts, detail={"discovered_at": found}, at=at,
        stdout=_kept(folder, "stdout", attempts), stderr=_kept(folder, "stderr", attempts),
    )  # fmt: skip


def _kept(folder: Path, stream: str, attempt: int) -> Json | None:
    """What of a stream of the last attempt had reached its log file when the supervisor died."""
    path = folder / (f"{stream}.log" if attempt <= 1 else f"{stream}.{attempt}.log")
    try:
        return {"size": path.stat().st_size, "path": f"runs/{folder.name}/{path.name}"}
    except OSError:
        return None
