"""What ran while the history could not be written is written later, also after the end of the process that launched it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

import agentnb as nb
from tests.disks import small_tmpfs
from tests.engine.driver import wait_until

#: Longer than the client waits for what is left to be written.
LONG_S = 7.0

ATTACHED = """
import sys, agentnb as nb
session = nb.Session("s", store=sys.argv[1])
session.shell("true").wait()
print("ready", flush=True)
sys.stdin.readline()
runs = [session.shell("echo done") for _ in range(20)]
session.wait()
print(*[run.id for run in runs], flush=True)
"""
DETACHED = """
import sys, time, agentnb as nb
session = nb.Session("s", store=sys.argv[1], max_parallel=4)
runs = [session.shell("echo up; sleep 2", detach=True) for _ in range(4)]
while not all("up" in run.tail(1) for run in runs):
    time.sleep(0.02)
print("ready", flush=True)
sys.stdin.readline()
print(*[run.id for run in runs], flush=True)
"""


def locked(store: Path) -> Callable[[], None]:
    """Keep the database's lock until the result is called."""
    db = sqlite3.connect(store / "history.db", isolation_level=None, timeout=30)
    db.execute("BEGIN EXCLUSIVE")
    return db.close


def filled(store: Path) -> Callable[[], None]:
    """Fill the disk until the result is called."""
    ballast = store.parent / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return ballast.unlink


@pytest.mark.parametrize(("program", "obstacle"), [(ATTACHED, locked), (DETACHED, filled)], ids=["attached", "detached"])
def test_runs_that_end_while_nothing_can_be_written_are_found_later(
    tmp_path: Path, program: str, obstacle: Callable[[Path], Callable[[], None]]
) -> None:
    with small_tmpfs(tmp_path / "disk", "8m") as disk:
        store = disk / "store"
        argv = [sys.executable, "-W", "ignore", "-c", program, str(store)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            remove = obstacle(store)
            began = time.monotonic()
            said, _ = process.communicate("\n", timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 0
        while time.monotonic() - began < LONG_S:
            time.sleep(0.1)
        remove()

        def found() -> dict[str, str]:
            with closing(sqlite3.connect(store / "history.db", timeout=30)) as db:
                return dict(db.execute("SELECT id, status FROM runs"))

        wait_until(lambda: {found().get(run) for run in said.split()} == {"completed"}, "the rest of the history")
        frame = nb.runs_df(store=store)
        assert set(frame["status"]) == {"completed"}
        wait_until(lambda: not list((store / "owners").glob("*.lock")), "the end of the last supervisor")
