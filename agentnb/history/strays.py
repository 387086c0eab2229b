"""Processes that a dead owner's runs left behind: found by the marks that every run puts on them, and ended.

A supervisor that dies has its spawner to end its commands; this is for when both were killed at once.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from agentnb.lineage import read_mark

_MARK = b"AGENTNB_RUN_ID="
#: Processes that go on making others are looked for again, so long.
_PATIENCE_S = 2.0


def still_serves(pid: int | None, hostname: str | None) -> bool:
    """Whether the process that wrote itself down as an owner may still be there: it is a supervisor, or on another machine."""
    if hostname is not None and hostname != socket.gethostname():
        return True
    try:
        return b"agentnb/engine/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()  # which a zombie has none of
    except OSError:
        return False


def end_strays(run_ids: Collection[str], stamp: int = 0) -> list[int]:
    """SIGKILL every process of this machine that belongs to one of these runs, which are over; returns their pids.

    `stamp`: of the marks of all runs of their dead owner (lineage.py): it is inherited where the environment is not.
    """
    wanted = {run_id.encode() for run_id in run_ids}
    found: list[int] = []
    deadline = time.monotonic() + _PATIENCE_S
    while wanted and (left := [pid for pid in _pids() if _belongs(pid, wanted, stamp)]) and time.monotonic() < deadline:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if set(left) <= set(found):
            time.sleep(0.01)
        found += [pid for pid in left if pid not in found]
    return found


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def _belongs(pid: int, wanted: Collection[bytes], stamp: int) -> bool:
    """Whether a live process bears one of the marks."""
    with suppress(OSError):  # it is gone, or somebody else's
        return ((stamp and read_mark(_read(pid, "limits"))[0] == stamp) or _names(pid, wanted)) and _lives(pid)
    return False


def _names(pid: int, wanted: Collection[bytes]) -> bool:
    words = _read(pid, "environ").split(b"\0")
    return any(word.removeprefix(_MARK) in wanted for word in words if word.startswith(_MARK))


def _lives(pid: int) -> bool:
    """Whether it is more than a zombie; one whose main thread has ended looks like one."""
    words = _read(pid, "stat").rpartition(b")")[2].split()
    return words[0] not in {b"X", b"Z"} or (words[0] == b"Z" and int(words[17]) > 1)


def _read(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()
