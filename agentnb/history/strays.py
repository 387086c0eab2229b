"""Processes that a dead owner's runs left behind: found by the mark that every run puts into its environment, and ended.

A supervisor that dies has its spawner to end its commands; this is for when both were killed at once.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_MARK = b"AGENTNB_RUN_ID="


def still_serves(pid: int | None, hostname: str | None) -> bool:
    """Whether the process that wrote itself down as an owner may still be there: it is a supervisor, or on another machine."""
    if hostname is not None and hostname != socket.gethostname():
        return True
    try:
        return b"agentnb/engine/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()  # which a zombie has none of
    except OSError:
        return False


def end_strays(run_ids: Collection[str]) -> list[int]:
    """SIGKILL every process of this machine that belongs to one of these runs, which are over; returns their pids."""
    wanted = {run_id.encode() for run_id in run_ids}
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*") if wanted else ():
        with suppress(OSError):  # it is gone, or somebody else's
            words = (folder / "environ").read_bytes().split(b"\0")
            if any(word.removeprefix(_MARK) in wanted for word in words if word.startswith(_MARK)):
                os.kill(int(folder.name), signal.SIGKILL)
                found.append(int(folder.name))
    return found
