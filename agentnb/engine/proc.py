# ruff: noqa: SIM105 - contextlib would make the spawner bigger
"""What /proc says of processes, and what is done to one. Imported by the spawner: nothing heavier than `os` may be imported here."""

from __future__ import annotations

import os
import resource
from errno import EMFILE, ENFILE, ENOMEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Found = TypeVar("Found")

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_HALF_PAGE = 2048
_SHORT = frozenset({EMFILE, ENFILE, ENOMEM})
#: Called when there are no descriptors left: each closes what it can spare.
relief: list[Callable[[], object]] = []


def _insisting(read: Callable[[str], Found], path: str) -> Found:
    """What `read` makes of `path`, tried again with more room when the system is short of descriptors. Raises OSError."""
    try:
        return read(path)
    except OSError as bad:
        if bad.errno not in _SHORT:
            raise
        for spare in relief:
            spare()
        return read(path)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def read_file(path: str) -> bytes:
    """The bytes of a file of /proc; empty when it is gone or may not be read."""
    try:
        fd = _insisting(_open, path)
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


def threads_of(pid: int) -> list[str]:
    """Ids of the threads of `pid`; none when it is gone."""
    try:
        return _insisting(os.listdir, f"/proc/{pid}/task")
    except OSError:
        return []


def children_of(pid: int) -> list[int]:
    """Pids of the direct children of `pid`, of all its threads."""
    found: list[int] = []
    for thread in threads_of(pid):
        found += [int(word) for word in read_file(f"/proc/{pid}/task/{thread}/children").split()]
    return found


def is_over(state: bytes, threads: int) -> bool:
    """Whether a process in this state (as in /proc/PID/stat) is dead. One whose main thread has ended looks like a zombie, too."""
    return state == b"X" or (state == b"Z" and threads <= 1)


def stat_of(pid: int) -> tuple[bool, int] | None:
    """(whether it lives, session id) of `pid`, or None when it is gone. One that cannot be read just now lives."""
    text = read_file(f"/proc/{pid}/stat")
    if not text:
        return (True, 0) if os.access(f"/proc/{pid}", os.F_OK) else None
    words = text[text.rindex(b")") + 2 :].split(None, 18)
    return not is_over(words[0], int(words[17])), int(words[3])


def is_live(pid: int) -> bool:
    """Whether `pid` is there and not dead."""
    stat = stat_of(pid)
    return stat is not None and stat[0]


def environ_of(pid: int) -> bytes:
    """The first environment of `pid`, from whichever of its threads is left."""
    if found := read_file(f"/proc/{pid}/environ"):
        return found
    return next(filter(None, (read_file(f"/proc/{pid}/task/{thread}/environ") for thread in threads_of(pid))), b"")


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


def fds_of(pid: int, place: str = "") -> int:
    """How many descriptors `pid` has open, by its folder of /proc or another `place`; 0 when it is gone."""
    try:
        return len(_insisting(os.listdir, f"{place or f'/proc/{pid}'}/fd"))
    except OSError:
        return 0


def send_signal(pid: int, signo: int) -> None:
    """Send it, unless the process has ended meanwhile."""
    try:
        os.kill(pid, signo)
    except OSError:
        pass


def let_go() -> None:
    """Reap children that have ended."""
    try:
        for _ in range(1000):
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return
    except ChildProcessError:
        pass


def bound_descriptors(pid: int, most: int) -> None:
    """Set the RLIMIT_NOFILE of a process that was just started."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(most, hard), hard))
    except OSError:
        pass  # it has ended


class Kept:
    """One live process, its files of /proc kept open: a pread costs a fifth of opening them each time."""

    __slots__ = ("_children", "_stat", "cpu_s", "pid", "place", "rss", "start", "threads")

    def __init__(self, pid: int) -> None:
        """Raises OSError when it is gone."""
        self.pid = pid
        self.place = ""
        self.cpu_s = 0.0
        self.rss = 0
        self.threads = 1
        self.start = 0
        self._stat = _insisting(_open, f"/proc/{pid}/stat")
        try:
            self._children = _insisting(_open, f"/proc/{pid}/task/{pid}/children")
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
        self.cpu_s = (int(words[11]) + int(words[12]) + int(words[13]) + int(words[14])) / _TICKS
        self.threads = int(words[17])
        self.start = int(words[19])
        self.rss = int(words[21]) * _PAGE
        if is_over(words[0], self.threads):
            return False
        if words[0] == b"Z":
            self._read_headless()
        return True

    def _read_headless(self) -> None:
        """Its main thread has ended and knows nothing of the memory and descriptors of the others."""
        for thread in threads_of(self.pid):
            place = f"/proc/{self.pid}/task/{thread}"
            if int(thread) != self.pid and len(sizes := read_file(f"{place}/statm").split()) > 1:
                self.place, self.rss = place, int(sizes[1]) * _PAGE
                return

    def children(self) -> list[int]:
        """Its direct children."""
        if self.threads > 1 or self._children < 0:
            return children_of(self.pid)
        try:
            data = os.pread(self._children, 1 << 16, 0)
        except OSError:
            return []
        return [int(word) for word in data.split()] if len(data) < _HALF_PAGE else children_of(self.pid)

    def has_children(self, count: int) -> bool:
        """Whether it has exactly so many; at the price of the list's length. False when that cannot be told so cheaply."""
        if self.threads > 1 or self._children < 0:
            return False
        try:
            data = os.pread(self._children, _HALF_PAGE, 0)
        except OSError:
            return False
        return len(data) < _HALF_PAGE and data.count(b" ") == count

    def close(self) -> None:
        """Close its files."""
        for fd in (self._stat, self._children):
            if fd >= 0:
                os.close(fd)
        self._stat = self._children = -1
