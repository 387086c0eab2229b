"""The child's end of the channel: writes reports as JSON lines to the engine.

Only the standard library is imported: the start of every child pays for it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

CHANNEL_VARIABLE = "AGENTNB_CHANNEL_FD"
PAYLOAD_VARIABLE = "AGENTNB_PAYLOAD_FD"


class Channel:
    """Writes whole lines, from any thread, also when a signal comes in the middle of one."""

    def __init__(self, fd: int) -> None:
        """Take over `fd`; programs that this process starts shall not have it."""
        os.set_inheritable(fd, False)  # noqa: FBT003 - positional only
        self._fd = fd
        self._pid = os.getpid()
        self._lock = threading.RLock()  # re-entrant: an exception from a signal may strike between taking and using it
        self._writer: int | None = None
        self._pending: BaseException | None = None

    def send(self, report: dict[str, Any]) -> None:
        """Write one report. Does nothing in a forked copy of the process, and when nobody reads any more."""
        if os.getpid() != self._pid:
            return
        line = json.dumps(report, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        with self._lock:
            self._writer = threading.get_ident()
            try:
                self._write(memoryview(line))
            except (BrokenPipeError, ConnectionError):
                pass  # the engine is gone, and this process soon will be
            finally:
                self._writer = None
        if self._pending is not None and threading.current_thread() is threading.main_thread():
            pending, self._pending = self._pending, None
            raise pending

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def receive(self) -> bytes:
        """The next bytes that the engine answers, b"" when nothing more will come; blocks. Only where the channel goes both ways."""
        try:
            return os.read(self._fd, 1 << 16)
        except OSError:
            return b""

    def interrupt(self, bad: BaseException) -> None:
        """Raise `bad` in the main thread, from a signal handler: at once, or after the line that is being written."""
        if self._writer == threading.get_ident():
            self._pending = bad
        else:
            raise bad

    def _write(self, line: memoryview) -> None:
        while line:
            line = line[os.write(self._fd, line) :]


def write_out(fd: int, text: str) -> None:
    """Write at once, past any buffer; a reader that is gone ends the process, as it would end any program."""
    data = memoryview(text.encode("utf-8", "replace"))
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        sys.exit(1)
