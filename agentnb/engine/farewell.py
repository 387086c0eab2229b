"""How a supervisor's end is waited for: it ends what runs and writes the rest first, and what it cannot write now it writes alone."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import warnings
from collections.abc import Iterable
from contextlib import suppress

#: A supervisor that was told to end is killed when it has neither done so nor hung up after this long.
SHUTDOWN_S = 15.0
#: Between its last word and its end.
_LAST_MOMENT_S = 1.0


def see_it_end(process: subprocess.Popen[bytes], sock: socket.socket, troubles: Iterable[str]) -> None:
    """Wait for the end of the supervisor at the other end of `sock`, and kill one that does not come to it.

    One that has hung up, and is there all the same, has only to write yet, which its `troubles` keep it from: that is told and left to it.
    """
    poll = _poll(sock)
    with suppress(ProcessLookupError):  # it was reaped already
        fd = os.pidfd_open(process.pid)
        poll.register(fd, select.POLLIN)
        if not _has_hung_up(sock):
            poll.poll(SHUTDOWN_S * 1000)
        os.close(fd)
    try:
        process.wait(_LAST_MOMENT_S)
    except subprocess.TimeoutExpired:
        if _has_hung_up(sock):
            why = "; ".join(troubles) or "there is much to write"
            left = f"the rest is written as soon as that is possible, for at most ten minutes, by process {process.pid}"
            warnings.warn(f"the history is not complete yet ({why}); {left}", RuntimeWarning, stacklevel=2)
        else:
            process.kill()
            process.wait()


def _has_hung_up(sock: socket.socket) -> bool:
    return sock.fileno() < 0 or bool(_poll(sock).poll(0))


def _poll(sock: socket.socket) -> select.poll:
    """What notices that the other end is closed, whatever there is to be read before that."""
    poll = select.poll()
    with suppress(OSError, ValueError):  # closed by the thread that reads it
        poll.register(sock, 0)
    return poll
