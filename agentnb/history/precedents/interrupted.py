"""Runs that were cut off, because their kernel or their supervisor ended, and that nobody launched again since."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from pathlib import Path

from agentnb.errors import ConfigError
from agentnb.events import Json
from agentnb.history.reader import reading, rows_of

_WITH_RUNS = "EXISTS (SELECT 1 FROM runs WHERE session_id = s.id)"
_EARLIER = f"SELECT id, status FROM sessions s WHERE name = ? AND id <> ? AND {_WITH_RUNS} ORDER BY created_at DESC, id DESC"  # noqa: S608
#: Runs that never started read cancelled: their error says by what. What an agent launched is launched again by the agent.
_CUT_OFF = """SELECT * FROM runs WHERE session_id IN (SELECT value FROM json_each(?)) AND status IN ('interrupted', 'cancelled')
    AND error_kind = 'interrupted' AND parent_run_id IS NULL ORDER BY created_at, id"""
#: Ids sort by time: what was launched again is younger.
_RESUMED = "SELECT resumed_from FROM runs WHERE id > ? AND resumed_from IN (SELECT value FROM json_each(?))"
_LAUNCHES = "SELECT run_id, data FROM events WHERE type = 'run_queued' AND run_id IN (SELECT value FROM json_each(?)) ORDER BY seq"


def sessions_before(root: Path, own_id: str, name: str, wanted: str | None, here: Collection[str]) -> tuple[list[str], list[str]]:
    """Ids of the sessions whose runs `wanted` means, and of those of them that are live in another process.

    `wanted` None: the session `own_id` itself, and the latest earlier one that is called `name` and has runs; else the session of that
    id, or the latest other one of that name. `here`: sessions of this process. Raises ConfigError when there is none, StoreError.
    """
    with reading(root) as db:
        if wanted is not None and (row := db.execute("SELECT id, status FROM sessions WHERE id = ?", (wanted,)).fetchone()):
            return [row[0]], [row[0]] if row[1] == "active" and row[0] not in here else []
        earlier = db.execute(_EARLIER, (name if wanted is None else wanted, own_id)).fetchall()
    live = [session for session, status in earlier if status == "active" and session not in here]
    ended = [session for session, _ in earlier if session not in live][:1]
    if wanted is not None and not earlier:
        raise ConfigError(f"resume: no session of {root} with runs is called {wanted!r}, or has that id; nb.sessions_df() lists them")
    return ([own_id] if wanted is None else []) + ended, [session for session in live if not ended or session > ended[0]]


def cut_off(root: Path, session_ids: Collection[str]) -> list[Json]:
    """The runs of these sessions that were cut off and not launched again since, in the order of their launch. Raises StoreError.

    Each as in the runs table, JSON decoded, with ``launched``: the run as it was launched (requests.Launch).
    """
    with reading(root) as db:
        rows = rows_of(db.execute(_CUT_OFF, (json.dumps(list(session_ids)),)))
        if not rows:
            return []
        ids = json.dumps([row["id"] for row in rows])
        again = {run for (run,) in db.execute(_RESUMED, (min(row["id"] for row in rows), ids))}
        launches = _launches(db, ids)
    return [row | {"launched": launches.get(row["id"], {})} for row in rows if row["id"] not in again]


def _launches(db: sqlite3.Connection, ids: str) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for run_id, data in db.execute(_LAUNCHES, (ids,)):
        found.setdefault(run_id, json.loads(data).get("run") or {})
    return found
