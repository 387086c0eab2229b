"""Sortable unique ids: UUID version 7 as text (RFC 9562, section 5.7).

Within one process ids made later sort later: the 12 bits after the stamp count up inside a millisecond.
"""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Return a new UUIDv7, such as ``0198f2a4-7c1d-7000-8a1b-3c4d5e6f7081``."""
    global _last  # noqa: PLW0603 - the counter is the module's one state, under its lock
    with _lock:
        # 48 bits of milliseconds, then 12 bits of the millisecond's fraction: one counter that only rises.
        tick = max(time.time_ns() * 4096 // 1_000_000, _last + 1)
        _last = tick
    value = (tick >> 12) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0b10 << 62 | int.from_bytes(os.urandom(8)) >> 2
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
