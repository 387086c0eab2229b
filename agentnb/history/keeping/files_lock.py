"""Who may remove files of a store, and who wants them to stay where they are meanwhile.

`agentnb gc` removes alone; a backup and a check hold the files still, several at a time. Writers need none of it: they only add.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentnb.errors import StoreError
from agentnb.history.faults import store_fault

#: How long one that is at work is waited for, in seconds.
PATIENCE_S = 60.0
_LOOK_S = 0.05


@contextmanager
def files_held(root: Path, *, alone: bool, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the files of the store at `root`, until the block or the process ends; `alone`: to remove some of them.

    Raises StoreError when another process still holds them after `patience_s`, or when the file system has no locks.
    """
    folder = root / "blobs"
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as bad:
        raise store_fault(bad, folder, "locking the files of") from bad
    try:
        _lock(descriptor, folder, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, patience_s)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, how: int, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except OSError as bad:
            if bad.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise store_fault(bad, folder, "locking the files of") from bad
        else:
            return
        if time.monotonic() >= deadline:
            raise StoreError(
                f"another gc, backup or check of {folder.parent} is at work (waited {patience_s:g} s); let it end, and try again"
            )
        time.sleep(_LOOK_S)
