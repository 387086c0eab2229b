"""Who writes to a store: a lock file per writing process, which the system frees however the process ends."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from agentnb.errors import StoreError
from agentnb.history.faults import store_fault

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


def is_owner(name: str) -> bool:
    """Whether `name` can name an owner and its lock file."""
    return bool(_NAME.fullmatch(name)) and not name.startswith(".")


def door_path(root: Path, owner: str) -> Path:
    """Where the supervisor that is `owner` of the store at `root` listens for other processes."""
    return root / "owners" / f"{owner}.sock"


def is_behind(folder: Path) -> bool:
    """Whether one of the owners in `folder` said that it has events which the history did not take yet (see OwnerLock.tell_behind)."""
    for lock in folder.glob("*.lock"):
        with suppress(OSError):
            if lock.stat().st_mtime_ns == 0:
                return True
    return False


class OwnerLock:
    """The exclusive lock on ``owners/<owner>.lock``, held while the file is open (and not inherited by a child that execs)."""

    def __init__(self, folder: Path, owner: str, descriptor: int) -> None:
        """Wrap a descriptor that holds the lock."""
        self.owner = owner
        self.path = folder / f"{owner}.lock"
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path, owner: str) -> OwnerLock | None:
        """The lock of `owner`, or None when a living process holds it. Raises StoreError when locking does not work."""
        if not is_owner(owner):
            raise StoreError(f"owner {owner!r} cannot name a lock file; use letters, digits, '.', '_' and '-', not '.' first")
        path = folder / f"{owner}.lock"
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as bad:
                raise store_fault(bad, path, "opening the owner's lock of") from bad
            if not _lock(descriptor, path):
                os.close(descriptor)
                return None
            if _same_file(descriptor, path):
                return cls(folder, owner, descriptor)
            os.close(descriptor)  # whoever held it last removed the file between our open and our lock: take the new one

    def tell_behind(self, behind: bool) -> None:  # noqa: FBT001 - it is what is told
        """Tell other processes whether this owner has events that the history did not take yet.

        It is told by the file's time, for which a full disk has room.
        """
        with suppress(OSError):
            if behind:
                os.utime(self._descriptor, (0, 0))
            else:
                os.utime(self._descriptor)

    def remove(self) -> None:
        """Delete the file, and the socket beside it, then free the lock. A file that has taken its place is another's, and stays."""
        if self._descriptor >= 0 and _same_file(self._descriptor, self.path):
            self.path.with_suffix(".sock").unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Free the lock; the file stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as bad:
        if bad.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        os.close(descriptor)
        raise store_fault(bad, path, "locking") from bad
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
