"""Whether the file system of a store keeps its promises: found out by trying, since a name tells little of what a mount does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from agentnb.errors import StoreError
from agentnb.history.faults import ON_A_LOCAL_DISK, store_fault

#: Folders that were tried by this process, with their file systems.
_tried: set[tuple[str, int, int]] = set()
_WORD = b"agentnb!"
#: struct flock, as fcntl takes it: type, whence, start, length, pid.
_RECORD = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)


def check_locks(folder: Path) -> None:
    """Try, once in this process, whether locks exclude and shared memory is shared in `folder`.

    SQLite and the locks of owners need both. Raises StoreError that says what does not work and what to do.
    """
    try:
        found = folder.stat()
        key = (os.fspath(folder), found.st_dev, found.st_ino)
        if key in _tried:
            return
        trouble = _try(folder)
    except OSError as bad:
        raise store_fault(bad, folder, "opening") from bad
    if trouble:
        raise StoreError(f"the history cannot be kept in {folder}, which seems to be a network share: {trouble}; {ON_A_LOCAL_DISK}")
    _tried.add(key)


def _try(folder: Path) -> str | None:
    """What does not work in `folder`, on a file that is gone afterwards."""
    descriptor, name = tempfile.mkstemp(prefix=".locks-", dir=folder)
    try:
        other = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, bytes(mmap.PAGESIZE))
            troubles = (_excludes(lock, descriptor, other, what) for what, lock in _LOCKS.items())
            return next(filter(None, troubles), None) or _shares(descriptor, other)
        finally:
            os.close(other)
    finally:
        os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108 - it is a plain name


def _lock_file(descriptor: int) -> None:
    """As owners do."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_record(descriptor: int) -> None:
    """As SQLite does, but the open file holds the lock, not the process: so this process alone sees whether locks exclude."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _RECORD)


_LOCKS = {"whole files": _lock_file} | ({"parts of files": _lock_record} if sys.platform == "linux" else {})  # others have no such locks


def _excludes(lock: Callable[[int], object], one: int, other: int, what: str) -> str | None:
    try:
        lock(one)
    except OSError as bad:
        return f"locks of {what} do not work ({bad.strerror or bad})"
    try:
        lock(other)
    except OSError as bad:
        return None if bad.errno in {errno.EAGAIN, errno.EACCES} else f"locks of {what} do not work ({bad.strerror or bad})"
    return f"locks of {what} do not exclude (two were given at once)"


def _shares(one: int, other: int) -> str | None:
    try:
        with mmap.mmap(one, mmap.PAGESIZE) as ours, mmap.mmap(other, mmap.PAGESIZE) as theirs:
            ours[: len(_WORD)] = _WORD
            if theirs[: len(_WORD)] == _WORD and os.pread(other, len(_WORD), 0) == _WORD:
                return None
    except OSError as bad:
        return f"memory cannot be shared by files ({bad.strerror or bad})"
    return "what one process writes into a shared file, others do not see"
