"""The mark that names the run which a process comes from: the soft RLIMIT_LOCKS.

That limit does nothing since Linux 2.4.25, but every descendant inherits it, whatever it does to its session, parents, environment and
descriptors. Imported by the spawner: nothing may be imported here.
"""

from __future__ import annotations

#: RLIMIT_LOCKS, and its line in /proc/PID/limits.
LIMIT, _LINE = 10, b"Max file locks"
_KEY_BITS = 27
_DIGITS = 9


def stamp_of(owner: str) -> int:
    """The part of the mark that all runs of a supervisor share: 36 random bits of its id; 0 when that is no UUID."""
    digits = owner.replace("-", "")[-_DIGITS:]
    try:
        return int(digits, 16) if len(owner) == 36 else 0
    except ValueError:
        return 0


def mark_of(stamp: int, key: int) -> int:
    """The mark of a run's processes."""
    return stamp << _KEY_BITS | key_of(key)


def key_of(key: int) -> int:
    """The part of a run's number that its mark has room for."""
    return key & (1 << _KEY_BITS) - 1


def read_mark(limits: bytes) -> tuple[int, int]:
    """(stamp, key) as in the content of a /proc/PID/limits; (0, 0) when there is no mark."""
    at = limits.find(_LINE)
    word = limits[at + len(_LINE) :].split(None, 1)[0] if at >= 0 else b""
    return (int(word) >> _KEY_BITS, int(word) & (1 << _KEY_BITS) - 1) if word.isdigit() else (0, 0)
