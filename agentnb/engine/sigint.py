"""SIGINT to a program that tells what it used when it is interrupted."""

from __future__ import annotations

import os
import signal

from agentnb import lineage
from agentnb.engine.proc import read_file


def interrupted(pid: int, key: int) -> bool:
    """Send it to the command's own process, and to no other one that may have got its number; whether it was sent.

    `key`: the number by which the spawner knows the command, and its processes are marked.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        _, marked = lineage.read_mark(read_file(f"/proc/{pid}/limits"))
        if marked == lineage.key_of(key):
            signal.pidfd_send_signal(process, signal.SIGINT)
            return True
    except OSError:
        pass  # it has just ended
    finally:
        os.close(process)
    return False
