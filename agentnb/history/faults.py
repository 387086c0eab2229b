"""From a low-level error to a StoreError that says what happened, where, and what to do."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from agentnb.errors import StoreError

_ELSEWHERE = "point AGENTNB_HOME or store= to another folder"

ON_A_LOCAL_DISK = f"{_ELSEWHERE} on a local disk"

_NOT_WRITABLE = f"it is not writable; change its permissions, or {_ELSEWHERE}"
_READ_ONLY = f"it is on a read-only file system; {_ELSEWHERE}"
_FULL = f"the disk is full; free some space, or {_ELSEWHERE}"
_NO_FOLDER = f"a file is where a folder should be; move it away, or {_ELSEWHERE}"
_NO_LOCKS = f"the file system does not support locking (a network share?); {ON_A_LOCAL_DISK}"
_DAMAGED = f"it is not a database, or is damaged; restore it from a backup, move it away to start anew, or {_ELSEWHERE}"
_BUSY = "another process keeps it locked; end that process, or try again"
_DISK = f"the disk does not read or write; check the disk and its free space, or {_ELSEWHERE}"
_OPEN = f"the file cannot be opened; check that the folder exists and its permissions, or {_ELSEWHERE}"

_BY_ERRNO = {
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _READ_ONLY,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
}
#: Most telling first: an extended name (SQLITE_IOERR_LOCK) is looked up before its family (SQLITE_IOERR).
_BY_SQLITE = {
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_FULL": _FULL,
    "SQLITE_READONLY": _NOT_WRITABLE,
    "SQLITE_PERM": _NOT_WRITABLE,
    "SQLITE_BUSY": _BUSY,
    "SQLITE_LOCKED": _BUSY,
    "SQLITE_PROTOCOL": _NO_LOCKS,
    "SQLITE_NOLFS": _NO_LOCKS,
    "SQLITE_IOERR_LOCK": _NO_LOCKS,
    "SQLITE_IOERR_UNLOCK": _NO_LOCKS,
    "SQLITE_IOERR_RDLOCK": _NO_LOCKS,
    "SQLITE_IOERR_SHMOPEN": _NO_LOCKS,
    "SQLITE_IOERR_SHMMAP": _NO_LOCKS,
    "SQLITE_IOERR_SHMSIZE": _FULL,
    "SQLITE_IOERR": _DISK,
    "SQLITE_CANTOPEN": _OPEN,
}


def store_fault(error: Exception, path: Path, doing: str) -> StoreError:
    """The StoreError for `error`, which came while `doing` something (such as "opening") with `path`."""
    advice = _advice(error)
    return StoreError(f"{doing} the history {path} failed: {advice} ({type(error).__name__}: {error})")


def is_lock(fault: BaseException) -> bool:
    """Whether a StoreError only says that another process is writing just now."""
    cause = fault.__cause__
    code = getattr(cause, "sqlite_errorcode", 0) if isinstance(cause, sqlite3.OperationalError) else 0
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def is_full(fault: BaseException) -> bool:
    """Whether a StoreError says that the disk has no room for what SQLite had to write."""
    cause = fault.__cause__
    return isinstance(cause, sqlite3.OperationalError) and getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _advice(error: Exception) -> str:
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", "") or ""
        family = "_".join(name.split("_")[:2])
        return _BY_SQLITE.get(name) or _BY_SQLITE.get(family) or "SQLite refused it; see the reason in brackets"
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0, f"the system refused it; mend the cause in brackets, or {_ELSEWHERE}")
    return "see the reason in brackets"
