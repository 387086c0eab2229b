"""Sortable unique ids: UUID version 7 as text (RFC 9562, section 5.7).

Within one process ids made later sort later: the 12 bits after the stamp count up inside a millisecond.
"""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0
#: Random bytes from the system, a page at a time, and how many of them are taken: a call for each id costs more than all the rest of it.
_pool, _taken = b"", 0
_POOL_BYTES = 4096
#: The first digit after the counter has two random bits; the others say which variant of UUIDs it is.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def random_bytes(size: int) -> bytes:
    """`size` bytes (at most 4096) that nobody else has, from the system's generator."""
    with _lock:
        return _take(size)


def _take(size: int) -> bytes:
    global _pool, _taken  # noqa: PLW0603 - shared by all threads, under the lock
    if len(_pool) < _taken + size:
        _pool, _taken = os.urandom(_POOL_BYTES), 0
    _taken += size
    return _pool[_taken - size : _taken]


def _forget() -> None:
    """In a forked copy of the process: the parent goes on with the bytes of the pool, and the lock may be held by nobody."""
    global _lock, _pool, _taken
    _lock, _pool, _taken = threading.Lock(), b"", 0


os.register_at_fork(after_in_child=_forget)


def new_id() -> str:
    """Return a new UUIDv7, such as ``0198f2a4-7c1d-7000-8a1b-3c4d5e6f7081``."""
    global _last  # noqa: PLW0603 - the counter is the module's one state, under its lock
    with _lock:
        # 48 bits of milliseconds, then 12 bits of the millisecond's fraction: one counter that only rises.
        tick = max(time.time_ns() * 4096 // 1_000_000, _last + 1)
        _last = tick
        tail = _take(8).hex()
    head = f"{tick:015x}"
    return f"{head[:8]}-{head[8:12]}-7{head[12:]}-{_VARIANT[tail[0]]}{tail[1:4]}-{tail[4:]}"
