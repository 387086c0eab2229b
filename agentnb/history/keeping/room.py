"""How much room a store takes, and giving back what its database does not use any more."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from agentnb.history.keeping.collected import size_text
from agentnb.history.keeping.orphans import is_written
from agentnb.history.keeping.removable import LIVE
from agentnb.history.keeping.removal import size_of
from agentnb.history.store import DATABASE

#: To copy the whole database for less than this, or for less than this share of it, is not worth it.
_WORTH_BYTES, _WORTH_SHARE = 64 << 10, 0.1
#: So much is copied in less than a second, for which a supervisor that has no live run can wait.
_QUICK_BYTES = 64 << 20
_PATIENCE_MS = 1000
#: Folders of users' work, which a gc leaves alone unless it is told otherwise.
_NOT_COUNTED = "workspaces"


def files_bytes(root: Path) -> int:
    """The bytes of all files of the store but the database, and workspaces."""
    return sum(size_of(entry) for entry in root.iterdir() if entry.name != _NOT_COUNTED and not entry.name.startswith(DATABASE))


def database_bytes(db: sqlite3.Connection) -> tuple[int, int]:
    """(bytes of the database that are in use, bytes that are free for later rows)."""
    size, pages, free = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_size", "page_count", "freelist_count"))
    return size * (pages - free), size * free


def used_bytes(db: sqlite3.Connection, root: Path) -> int:
    """The bytes that are in use, of files and in the database."""
    return files_bytes(root) + database_bytes(db)[0]


def shrink(db: sqlite3.Connection, root: Path) -> str:
    """Make the database's file as small as it can be; why not, if it would be worth it and cannot be done now.

    SQLite shrinks a file by writing all of it anew, which needs room, and keeps writers waiting meanwhile: that is done only while no
    run is live and, for a large one, no session is open. Otherwise free pages stay in the file, and later rows go there.
    """
    used, free = database_bytes(db)
    why = ""
    if free >= max(_WORTH_BYTES, _WORTH_SHARE * (used + free)) and not (why := _why_not(db, root, used)):
        why = _rewrite(db)
    db.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return f"{size_text(free)} of {root / DATABASE} are free for later runs, the file did not shrink: {why}" if why else ""


def _why_not(db: sqlite3.Connection, root: Path, used: int) -> str:
    marks = ", ".join("?" * len(LIVE))
    if db.execute(f"SELECT 1 FROM runs WHERE status IN ({marks}) LIMIT 1", LIVE).fetchone():  # noqa: S608 - only marks
        return "runs are live; run gc again when they are over"
    if used > _QUICK_BYTES and is_written(db, root):
        return "sessions are open; run gc again when their kernels have ended"
    if shutil.disk_usage(root).free < 2 * used:
        return f"the disk has no room for a copy of it ({size_text(2 * used)}); free some, and run gc again"
    return ""


def _rewrite(db: sqlite3.Connection) -> str:
    try:
        db.execute("PRAGMA temp_store = FILE")
        db.execute("VACUUM")
    except sqlite3.Error as bad:
        return f"{bad}; run gc again"
    return ""
