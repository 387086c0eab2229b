"""Reading SQLite's write-ahead log to see whether it is one, and whole: what SQLite finds damaged in it, it leaves out without a word.

The format is described at sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER, _FRAME = 32, 24
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_VERSION = 3007000
#: To look through more than this takes seconds.
_MOST_BYTES = 32 << 20


def wal_fault(path: Path) -> str:
    """What is wrong with the write-ahead log of a database that nobody has open; nothing for one that is whole, empty or not there."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES)
    except OSError:
        return ""
    if not data:
        return ""
    order = _MAGIC.get(int.from_bytes(data[:4])) if len(data) >= _HEADER else None
    if order is None or struct.unpack(">I", data[4:8])[0] != _VERSION or _sums(data[:24], order) != struct.unpack(">II", data[24:32]):
        return f"it is no write-ahead log ({len(data)} bytes)"
    return _frame_fault(data, order)


def _frame_fault(data: bytes, order: str) -> str:
    """Whether a frame is damaged that a committed one of the same round follows; what is behind the last round is none of it."""
    size, salt = struct.unpack(">I", data[8:12])[0], data[16:24]
    if size not in {1 << power for power in range(9, 17)}:
        return f"its pages have {size} bytes"
    sums, bad = _sums(data[:24], order), 0
    for number, at in enumerate(range(_HEADER, len(data) - _FRAME - size + 1, _FRAME + size), start=1):
        head = data[at : at + _FRAME]
        if head[8:16] != salt:
            continue  # of an earlier round; or damaged, which a later one tells
        if bad and struct.unpack(">I", head[4:8])[0]:
            return f"its page {bad} is damaged, and what was written from there on is lost"
        if not bad:
            sums = _sums(head[:8] + data[at + _FRAME : at + _FRAME + size], order, *sums)
            if sums != struct.unpack(">II", head[16:24]):
                bad = number
    return ""


def _sums(data: bytes, order: str, one: int = 0, two: int = 0) -> tuple[int, int]:
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2], strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
