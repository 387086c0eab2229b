"""What a run printed: all of it, or as it comes (`agentnb logs -f`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from agentnb.errors import StoreError
from agentnb.history.reader import read_output, read_run
from agentnb.history.store import DATABASE, READER_BUSY_MS, Store
from agentnb.states import RunStatus

CHUNK = 1 << 20
#: Seconds between two looks at a live run, and until a run whose supervisor may have died is looked into.
POLL_S = 0.1
DOUBT_S = 2.0

LIVE = {RunStatus.PENDING.value, RunStatus.RUNNING.value}


class Out(Protocol):
    """What a stream is copied to: a binary file, or printing.TerminalText before one."""

    def write(self, data: bytes, /) -> object:
        """Take these bytes."""

    def flush(self) -> object:
        """Pass on what was taken."""


class Stream:
    """One stream of one run, copied to `out` from where the last copy stopped."""

    def __init__(self, root: Path, run_id: str, name: str, out: Out) -> None:
        """Start at the beginning; a log file need not exist yet."""
        self._root, self._run_id, self._name, self._out = root, run_id, name, out
        self._file = root / "runs" / Path(run_id).name / f"{name}.log"
        self._done = 0

    def copy_file(self) -> bool:
        """Copy what the log file has got since the last time; say whether that was anything."""
        before = self._done
        with suppress(FileNotFoundError), self._file.open("rb") as log:
            log.seek(self._done)
            while chunk := log.read(CHUNK):
                self._out.write(chunk)
                self._done += len(chunk)
        self._out.flush()
        return self._done > before

    def copy_rest(self) -> None:
        """Copy the rest of a run that has ended, which small output has in the database only."""
        if self._file.exists():
            self.copy_file()
            return
        self._out.write(read_output(self._root, self._run_id, "stdout" if self._name == "stdout" else "stderr")[self._done :])
        self._out.flush()


def recover(root: Path) -> None:
    """Let runs whose supervisor died read interrupted. A store that cannot be written to stays as it is."""
    if (root / DATABASE).exists():
        with suppress(StoreError), Store.open(root, busy_ms=READER_BUSY_MS) as store:
            store.recover()


def show_logs(root: Path, run_id: str, outs: Sequence[tuple[str, Out]], *, follow: bool = False) -> None:
    """Copy the streams of a run to `outs`, ("stdout" | "stderr", where) each; with `follow`, until the run has ended.

    A live run's output so far is what its supervisor has put on disk, which is at most 0.25 seconds old.
    """
    streams = [Stream(root, run_id, name, out) for name, out in outs]
    wait = threading.Event().wait
    quiet_since = time.monotonic()
    live = _live(root, run_id)
    while live and follow:
        if sum(stream.copy_file() for stream in streams):
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > DOUBT_S:
            recover(root)
            quiet_since = time.monotonic()
        wait(POLL_S)
        live = _live(root, run_id)
    for stream in streams:
        stream.copy_rest()


def _live(root: Path, run_id: str) -> bool:
    return read_run(root, run_id)["status"] in LIVE
