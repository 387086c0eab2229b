# ruff: noqa: PTH208 - pathlib would make the spawner bigger
"""What /proc says of processes. Imported by the spawner: nothing but `os` may be imported here."""

from __future__ import annotations

import os

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_HALF_PAGE = 2048


def read_file(path: str) -> bytes:
    """The bytes of a file of /proc; empty when it is gone or may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = piece = os.read(fd, 1 << 17)
        # One read of a list of children gives a page of it at most.
        while len(piece) >= _HALF_PAGE:
            piece = os.read(fd, 1 << 17)
            data += piece
    except OSError:
        return b""
    else:
        return data
    finally:
        os.close(fd)


def children_of(pid: int) -> list[int]:
    """Pids of the direct children of `pid`, of all its threads."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        found += [int(word) for word in read_file(f"/proc/{pid}/task/{thread}/children").split()]
    return found


def stat_of(pid: int) -> tuple[bytes, int] | None:
    """(state, session id) of `pid`, or None when it is gone."""
    text = read_file(f"/proc/{pid}/stat")
    if not text:
        return None
    words = text[text.rindex(b")") + 2 :].split(None, 4)
    return words[0], int(words[3])


def io_of(pid: int) -> tuple[int | None, int | None]:
    """(bytes read from disk, bytes written to it) by `pid` and the children it waited for; a zombie still knows."""
    read = written = None
    for line in read_file(f"/proc/{pid}/io").splitlines():
        name, _, value = line.partition(b": ")
        if name == b"read_bytes":
            read = int(value)
        elif name == b"write_bytes":
            written = int(value)
    return read, written


def fds_of(pid: int) -> int:
    """How many descriptors `pid` has open; 0 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


class Kept:
    """One live process, its files of /proc kept open: a pread costs a fifth of opening them each time."""

    __slots__ = ("_children", "_stat", "cpu_s", "pid", "rss", "state", "threads")

    def __init__(self, pid: int) -> None:
        """Raises OSError when it is gone."""
        self.pid = pid
        self.cpu_s = 0.0
        self.rss = 0
        self.threads = 1
        self.state = b"?"
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._children = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(self._stat)
            raise

    def read(self) -> bool:
        """Take the figures now (CPU seconds with those of the children it waited for, memory in bytes); False when it is gone."""
        try:
            text = os.pread(self._stat, 1024, 0)
        except OSError:
            return False
        words = text[text.rindex(b")") + 2 :].split(None, 23)
        self.state = words[0]
        self.cpu_s = (int(words[11]) + int(words[12]) + int(words[13]) + int(words[14])) / _TICKS
        self.threads = int(words[17])
        self.rss = int(words[21]) * _PAGE
        return self.state not in b"ZX"

    def children(self) -> list[int]:
        """Its direct children."""
        if self.threads > 1:
            return children_of(self.pid)
        try:
            return [int(word) for word in os.pread(self._children, 1 << 16, 0).split()]
        except OSError:
            return []

    def close(self) -> None:
        """Close its files."""
        os.close(self._stat)
        os.close(self._children)
