"""Waiting for conditions, and looking at processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until `condition` holds; fail when it does not `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.01)


def lives(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_in(path: Path) -> int:
    """The number that a command writes to `path` some time."""
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())
