"""The door of a supervisor: a Unix socket beside its lock in the store, through which any process of its user may ask for its runs."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: The system takes no longer address of a Unix socket, in bytes.
_MAX_ADDRESS = 107
QUEUE = 64
#: A supervisor lets in at once unless it is stopped or drowned in callers.
KNOCK_S = 10


def open_door(path: Path) -> socket.socket:
    """Listen at `path`, for this user only; what is there is taken for a leftover. Raises OSError where no socket can be made."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        os.fchmod(door.fileno(), 0o600)  # before it has a name, so that it is never open to others
        with _address(path) as address:
            door.bind(address)
        door.listen(QUEUE)
        door.setblocking(False)  # noqa: FBT003 - positional only
    except BaseException:
        door.close()
        raise
    return door


def knock(path: Path) -> socket.socket:
    """A connection to who listens at `path`. Raises OSError when there is nobody."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", KNOCK_S, 0))  # bounds the wait at a full door
        with _address(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The path as the address of a socket: a long one goes through a descriptor of its folder."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
