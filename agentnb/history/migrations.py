"""The schema of the store: name-stamped migrations, append-only, each with its record in one transaction."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from agentnb.errors import StoreError, StoreTooNew

#: What each column means is declared in frames/columns.py. Stamps are microseconds UTC, durations seconds, sizes bytes.
_INITIAL = (
    """CREATE TABLE sessions (
        id TEXT PRIMARY KEY, name TEXT, status TEXT NOT NULL, created_at INTEGER, ended_at INTEGER,
        tags TEXT NOT NULL DEFAULT '{}', owner TEXT, schema_version INTEGER)""",
    """CREATE TABLE runs (
        id TEXT PRIMARY KEY, session_id TEXT, group_id TEXT, name TEXT, status TEXT NOT NULL,
        target_kind TEXT, target TEXT, command TEXT, runtime_kind TEXT,
        created_at INTEGER, started_at INTEGER, finished_at INTEGER, timeout_s REAL,
        exit_code INTEGER, signal INTEGER, reason TEXT, error_kind TEXT, error TEXT, input TEXT, output TEXT,
        params TEXT NOT NULL DEFAULT '{}', tags TEXT NOT NULL DEFAULT '{}',
        parent_run_id TEXT, cache_key TEXT, owner TEXT, attempts INTEGER, handle TEXT,
        run_s REAL, cpu_s REAL, peak_memory_bytes INTEGER, disk_read_bytes INTEGER, disk_write_bytes INTEGER, processes INTEGER,
        input_tokens INTEGER, output_tokens INTEGER, cost_usd REAL, tokens_per_s REAL,
        stdout_bytes INTEGER, stderr_bytes INTEGER, detail TEXT, usage TEXT, schema_version INTEGER)""",
    "CREATE INDEX runs_by_session ON runs (session_id, created_at)",
    "CREATE INDEX runs_by_creation ON runs (created_at)",
    "CREATE INDEX runs_by_status ON runs (status)",
    # The key leads with the run, so that it also serves as the index by run: an append keeps one index, not two.
    """CREATE TABLE steps (
        run_id TEXT NOT NULL, id TEXT NOT NULL, parent_id TEXT, kind TEXT, name TEXT, status TEXT NOT NULL, attempt INTEGER,
        created_at INTEGER, started_at INTEGER, finished_at INTEGER, error_kind TEXT, error TEXT, exit_code INTEGER,
        usage TEXT, cpu_s REAL, peak_memory_bytes INTEGER, tokens TEXT, input_tokens INTEGER, output_tokens INTEGER,
        cost_usd REAL, input TEXT, output TEXT, PRIMARY KEY (run_id, id))""",
    """CREATE TABLE artifacts (
        id TEXT PRIMARY KEY, name TEXT, content_type TEXT, size INTEGER, location TEXT, checksum TEXT, created_at INTEGER,
        source_run TEXT, source_step TEXT, schema_version INTEGER)""",
    "CREATE INDEX artifacts_by_run ON artifacts (source_run)",
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, type TEXT NOT NULL, session_id TEXT, run_id TEXT, step_id TEXT,
        data TEXT NOT NULL)""",
    "CREATE INDEX events_by_run ON events (run_id)",
    """CREATE TABLE logs (
        run_id TEXT NOT NULL, stream TEXT NOT NULL, size INTEGER NOT NULL, inline BLOB, path TEXT, PRIMARY KEY (run_id, stream))""",
    "CREATE TABLE owners (owner TEXT PRIMARY KEY, pid INTEGER, hostname TEXT, started_at INTEGER)",
)

_AGENTS = (
    "model TEXT", "turns INTEGER", "cache_read_tokens INTEGER", "cache_write_tokens INTEGER", "agent_session TEXT", "replay_of TEXT",
    "workspace TEXT", "files_changed INTEGER", "insertions INTEGER", "deletions INTEGER",
)  # fmt: skip

_REUSE = (
    "ALTER TABLE runs ADD COLUMN reused_from TEXT",
    "ALTER TABLE runs ADD COLUMN resumed_from TEXT",
    # Partial: runs that are not to be found again cost nothing.
    "CREATE INDEX runs_by_cache_key ON runs (cache_key) WHERE cache_key IS NOT NULL",
)

#: What a change of these columns would make untrue: no event changes them, so that no event pays for these triggers.
_SETTLED = {
    "sessions": "id, name",
    "runs": "id, session_id, group_id, name, created_at, params, tags",
    "steps": "run_id, id, parent_id, kind, name, attempt, created_at, started_at, input",
    "artifacts": "id, name, content_type, size, location, checksum, created_at, source_run, source_step",
}
_FORGET = "BEGIN DELETE FROM snapshots; UPDATE snapshot_changes SET seen = seen + 1; END"
_SNAPSHOTS = (
    """CREATE TABLE snapshots (
        file TEXT PRIMARY KEY, frame TEXT NOT NULL, layout TEXT NOT NULL, last INTEGER NOT NULL, anchor TEXT NOT NULL,
        rows INTEGER NOT NULL, open TEXT NOT NULL, size INTEGER NOT NULL, checksum TEXT NOT NULL, created_at INTEGER)""",
    "CREATE TABLE snapshot_changes (seen INTEGER NOT NULL)",
    "INSERT INTO snapshot_changes VALUES (0)",
    *(f"CREATE TRIGGER {table}_deleted AFTER DELETE ON {table} {_FORGET}" for table in _SETTLED),
    *(f"CREATE TRIGGER {table}_edited AFTER UPDATE OF {columns} ON {table} {_FORGET}" for table, columns in _SETTLED.items()),
)

#: Append only: a name that was released once keeps its statements for ever.
MIGRATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("0001_initial", _INITIAL),
    ("0002_trace_id", ("ALTER TABLE runs ADD COLUMN trace_id TEXT",)),
    ("0003_agents", tuple(f"ALTER TABLE runs ADD COLUMN {column}" for column in _AGENTS)),
    ("0004_step_duration", ("ALTER TABLE steps ADD COLUMN run_s REAL",)),
    ("0005_reuse", _REUSE),
    ("0006_snapshots", _SNAPSHOTS),
)

_RECORD = "CREATE TABLE migrations (name TEXT PRIMARY KEY, applied_at INTEGER NOT NULL)"


def pending(db: sqlite3.Connection, path: Path) -> list[str]:
    """Names of the migrations that the database at `path` still needs; it is only read.

    Raises StoreTooNew when it holds a migration that this version does not know, StoreError when it is something else's.
    """
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "migrations" not in tables:
        if tables:
            raise StoreError(f"{path} is a database of something else (tables {', '.join(sorted(tables)[:5])}); point store= elsewhere")
        return [name for name, _ in MIGRATIONS]
    applied = {name for (name,) in db.execute("SELECT name FROM migrations")}
    known = {name for name, _ in MIGRATIONS}
    if unknown := sorted(applied - known):
        raise StoreTooNew(
            f"{path} was written by a newer agentnb (migration {unknown[0]!r} is not known here) and was left untouched; "
            "upgrade agentnb or point AGENTNB_HOME/store= elsewhere; if it was upgraded already, restart this kernel"
        )
    return [name for name, _ in MIGRATIONS if name not in applied]


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Apply what is pending, each migration with its record in one transaction; safe when several processes do it at once.

    Raises StoreTooNew and StoreError as `pending` does.
    """
    statements = dict(MIGRATIONS)
    for name in pending(db, path):
        db.execute("BEGIN IMMEDIATE")
        try:
            if name in pending(db, path):  # another process may have applied it while this one waited for the lock
                _apply(db, name, statements[name])
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the disk may have failed it, and that is what to tell
                db.execute("ROLLBACK")
            raise


def _apply(db: sqlite3.Connection, name: str, statements: tuple[str, ...]) -> None:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migrations'").fetchone():
        db.execute(_RECORD)
    for statement in statements:
        db.execute(statement)
    db.execute("INSERT INTO migrations VALUES (?, ?)", (name, time.time_ns() // 1000))
