"""Pipes of a process beside its output: what it reads on stdin, and the reports that an agent writes to its channel."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentnb.engine.reports import ReportLines
from agentnb.events import Json

#: So many reads of 64 KiB empty a pipe.
_PIPE_READS = 32


@dataclass(slots=True)
class EarlyInput:
    """Text for the stdin of a process that has not started. `written` is set as Stdin.write's future is."""

    data: bytes
    eof: bool
    written: asyncio.Future[Any]

    def give(self, stdin: Stdin) -> None:
        """Write it now."""
        stdin.write(self.data, eof=self.eof).add_done_callback(lambda done: self.settle(done.result()))

    def settle(self, error: str | None) -> None:
        """Say what became of it."""
        if not self.written.done():
            self.written.set_result(error)


class ReportReader:
    """Reads the report lines of an agent process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, on_report: Callable[[Json], None]) -> None:
        """Own `fd`, the reading end of the channel."""
        self._loop = loop
        self._fd = fd
        self._on_report = on_report
        self.lines = ReportLines()
        self.done: asyncio.Future[None] = loop.create_future()
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._readable)

    def _readable(self) -> bool:
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return False
        except ConnectionError:  # a socket whose other end was closed before all was read there
            data = b""
        for report in self.lines.feed(data or b"\n"):
            self._on_report(report)
        if not data:
            self._close()
        return bool(data)

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._loop.remove_reader(fd)
            os.close(fd)
            if not self.done.done():
                self.done.set_result(None)

    def stop(self) -> None:
        """Take what is there (a pipe holds no more than this; whoever still writes is none of ours) and close."""
        for _ in range(_PIPE_READS):
            if self._fd < 0 or not self._readable():
                break
        self._close()


class Stdin:
    """Writes to a child's stdin without blocking."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        """Own `fd`."""
        self._loop = loop
        self._fd = fd
        self._waiting = bytearray()
        self._eof = False
        self._written: list[asyncio.Future[Any]] = []
        os.set_blocking(fd, False)

    def write(self, data: bytes, *, eof: bool = False) -> asyncio.Future[Any]:
        """Write all of `data`, then close when `eof`. The future's result is an error text, or None when it is written."""
        done: asyncio.Future[Any] = self._loop.create_future()
        if self._fd < 0 or self._eof:
            done.set_result("its stdin is closed")
            return done
        self._waiting += data
        self._eof = eof
        self._written.append(done)
        self._flush()
        return done

    def _flush(self) -> None:
        try:
            while self._waiting:
                done = os.write(self._fd, self._waiting)
                del self._waiting[:done]
        except BlockingIOError:
            self._loop.add_writer(self._fd, self._flush)
            return
        except OSError as bad:  # it closed its end: what it did not want is dropped
            self._settle(f"it does not read its stdin: {bad.strerror}")
            self.close()
            return
        self._loop.remove_writer(self._fd)
        self._settle(None)
        if self._eof:
            self.close()

    def _settle(self, error: str | None) -> None:
        for future in self._written:
            if not future.done():
                future.set_result(error)
        self._written.clear()

    def close(self) -> None:
        """Close it; what is not written yet is dropped."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._loop.remove_writer(fd)
            os.close(fd)
            self._settle("its stdin is closed")
