"""Packets between supervisor and spawner. Imported by the spawner: nothing heavier than `os` may be imported here."""

from __future__ import annotations

import os

SOCKET_FD = 3
MAX_PACKET = 96 * 1024
#: A packet has so many descriptors at most.
MOST_FDS = 16
#: In place of a larger packet, which travels in a memfd; the first two items of its tuple follow.
BIG = b"big"


def read_all(fd: int) -> bytes:
    """The whole content of a memfd."""
    parts: list[bytes] = []
    at = 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
