"""Draining a run's pipes: complete on disk, bounded in memory, whatever the rate.

Small output stays in memory and goes to the history's row. Once a stream is larger than INLINE_BYTES, or its run is older
than SPILL_AFTER_S, it goes to a file below the run's folder, so that a crash loses little and a reader can follow it.
When the disk is full, reading stops until there is room: the child waits, nothing is lost.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from agentnb.engine.masking import Masker

INLINE_BYTES = 16 * 1024
SPILL_AFTER_S = 0.25
TAIL_BYTES = 8 * 1024
PIPE_BYTES = 1 << 20
_CHUNK = 256 * 1024
#: After this much of one stream the loop gets its turn: a flood must not delay the other runs.
_TURN = 4
_RETRY_DISK_S = 0.5
#: So many pieces of a run's output have their place and time known; so many of them for the sake of the time.
_PIECES, _MOMENTS = 1000, 500
_LATE_US = 100_000

_CONTINUATION = bytes(range(0x80, 0xC0))

_buffer = bytearray(_CHUNK)
_view = memoryview(_buffer)


def _pause_us(since_first_us: int) -> int:
    """How long a piece of output may last: the longer the run, the fewer pieces."""
    return max(_LATE_US, since_first_us // 50)


class Tail:
    """The last pieces of a run's output in the order they came, at most TAIL_BYTES of them."""

    def __init__(self) -> None:
        """Start empty."""
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._size = 0
        self._cut = False

    def add(self, stream: str, data: bytes | memoryview) -> None:
        """Append a piece; old ones go."""
        self._cut = self._cut or len(data) > TAIL_BYTES
        piece = bytes(data[-TAIL_BYTES:])
        if self._pieces and self._pieces[-1][0] == stream and len(self._pieces[-1][1]) < 1024:
            piece = self._pieces.pop()[1] + piece
            self._size -= len(piece) - len(data[-TAIL_BYTES:])
        self._pieces.append((stream, piece))
        self._size += len(piece)
        while self._size > TAIL_BYTES and len(self._pieces) > 1:
            self._size -= len(self._pieces.popleft()[1])
            self._cut = True

    def order(self) -> list[list[Any]]:
        """The pieces as [stream, bytes]."""
        return [[stream, len(data)] for stream, data in self._pieces]

    def pieces(self) -> list[tuple[str, bytes]]:
        """The pieces; a stream's first one begins after the rest of a character whose beginning went."""
        found = list(self._pieces)
        for stream in ("stdout", "stderr") if self._cut else ():
            for n, (name, data) in enumerate(found):
                if name == stream:
                    found[n] = (name, data[:3].lstrip(_CONTINUATION) + data[3:])
                    break
        return found


class Stream:
    """One output stream of one attempt."""

    turn = _TURN

    def __init__(self, name: str, folder: str, file_name: str, out: Output) -> None:
        """`folder` is made when the stream has to go to a file."""
        self.name = name
        self.size = 0
        self.path: Path | None = None
        self._folder, self._file_name = folder, file_name
        self._kept = bytearray()
        self._file = -1
        self._out = out
        self._masker = Masker(out.secrets) if out.secrets else None

    def add(self, data: bytes | memoryview) -> None:
        """Keep the next bytes. Raises OSError when the disk refuses them: call `add` again with what `left` holds."""
        if self._masker is not None:
            data = self._masker.feed(bytes(data))
            if not data:
                return
        self._keep(data)

    def _keep(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        try:
            if self._file >= 0 and not self._kept:
                self._write(data)
            else:
                self._kept += data
                if self._file >= 0 or self._out.eager or len(self._kept) > INLINE_BYTES:
                    self.spill()
        finally:  # what the disk refused is kept, so it was seen all the same
            self._out.seen(self.name, data)

    def spill(self) -> None:
        """Put what is in memory into the file. Raises OSError, keeping what could not be written."""
        if self._file < 0:
            if not self._kept:
                return
            folder = Path(self._folder)  # not before: most streams never need one
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = folder / self._file_name
            self._file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self.path = target
        while self._kept:
            done = os.write(self._file, self._kept)
            del self._kept[:done]

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            self._kept += view
            raise

    def end(self) -> None:
        """No more comes: let go of what masking kept back, and of the file. Raises OSError as `spill` does."""
        if self._masker is not None:
            rest = self._masker.feed(b"", last=True)
            self._masker = None
            if rest:
                self._keep(rest)
        if self._file >= 0:
            self.spill()
            os.close(self._file)
            self._file = -1

    def abandon(self) -> int:
        """Close the file although bytes are left that the disk refuses; return how many those are: none, if all are few and still here."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self.size == len(self._kept) <= INLINE_BYTES:
            self.path = None
        return len(self._kept) if self.path else 0

    def text(self) -> str | None:
        """All of it as text, when it is small enough to be in memory."""
        return self._kept.decode("utf-8", "replace") if self.path is None else None

    def content(self) -> bytes:
        """All of it."""
        return bytes(self._kept) if self.path is None else self.path.read_bytes()

    def end_text(self, size: int) -> str:
        """The last `size` bytes of it as text; "" when they cannot be read."""
        if self.path is None:
            return self._kept[-size:].decode("utf-8", "replace")
        try:
            with self.path.open("rb") as file:
                file.seek(max(0, self.path.stat().st_size - size))
                return file.read(size).decode("utf-8", "replace")
        except OSError:
            return ""

    def record(self, root: Path) -> dict[str, Any]:
        """What the history keeps: {"size", and "text" or "path"}; the path is relative to the store."""
        return {"size": self.size, "path": str(self.path.relative_to(root))} if self.path else {"size": self.size, "text": self.text()}


class Output:
    """Both streams of one attempt, their order, the tail, and the bound on their size."""

    def __init__(
        self,
        folder: str,
        attempt: int,
        *,
        secrets: list[str],
        max_bytes: int | None = None,
        on_data: Callable[[str, bytes], None] | None = None,
        on_limit: Callable[[int], None] | None = None,
    ) -> None:
        """Files go to `folder`; those of attempts after the first carry its number.

        `on_data`: sees every piece (parsers, live views). `on_limit`: called once with the size that crossed `max_bytes`.
        """
        self.secrets = secrets
        suffix = "" if attempt == 1 else f".{attempt}"
        self.streams = {name: Stream(name, folder, f"{name}{suffix}.log", self) for name in ("stdout", "stderr")}
        self.tail = Tail()
        self.eager = False
        self._order: list[list[Any]] = []
        self._max = max_bytes
        self._on_data = on_data
        self._on_limit = on_limit

    def seen(self, stream: str, data: bytes | memoryview) -> None:
        """A stream has kept a piece: note its place, pass it on, mind the bound."""
        self.tail.add(stream, data)
        order, now = self._order, time.time_ns() // 1000
        if order and order[-1][0] == stream and (len(order) >= _MOMENTS or now - order[-1][2] < _pause_us(now - order[0][2])):
            order[-1][1] += len(data)
        elif len(order) < _PIECES:
            order.append([stream, len(data), now])
        if self._on_data is not None:
            self._on_data(stream, bytes(data))
        if self._max is not None and self._on_limit is not None:
            size = sum(s.size for s in self.streams.values())
            if size > self._max:
                self._max = None
                self._on_limit(size)

    def order(self) -> list[list[Any]] | None:
        """The output piece by piece: [stream, bytes, microseconds of its first byte]; None when there is but one, and it came just now.

        A piece ends where the other stream goes on, and, so that a replay has the pace, after a while.
        """
        order = self._order
        return order if len(order) > 1 or (order and time.time_ns() // 1000 - order[0][2] > _LATE_US) else None

    def last_order(self) -> list[list[Any]] | None:
        """The last pieces, [stream, bytes], where the order of all is not known; else None."""
        return self.tail.order() if len(self._order) >= _PIECES else None

    def release(self) -> None:
        """Nobody needs it any more: let go of the streams, which know it."""
        self.streams.clear()

    def spill(self) -> None:
        """Put both streams on disk as far as they are, and what comes from now on at once."""
        self.eager = True
        for stream in self.streams.values():
            stream.spill()


class Taker(Protocol):
    """Where a pipe's bytes go: a Stream, or what does as one (see Stream for each of these). `turn`: pieces it takes at a time."""

    turn: int

    def add(self, data: bytes | memoryview) -> None:
        """Keep the next bytes."""

    def spill(self) -> None:
        """Put what is in memory into the file."""

    def end(self) -> None:
        """No more comes."""

    def abandon(self) -> int:
        """Close the file although bytes are left."""


class Drain:
    """Reads one pipe into one stream until its end; `is_over` then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, stream: Taker, on_trouble: Callable[[str | None], None]) -> None:
        """Own `fd`. `on_trouble` hears why writing fails, and None when it works again."""
        self._loop = loop
        self._fd = fd
        self._stream = stream
        self._on_trouble = on_trouble
        self.troubled = False
        self._retry: asyncio.TimerHandle | None = None
        self.is_over = False
        self._waiter: asyncio.Future[None] | None = None
        self._listening = False
        os.set_blocking(fd, False)

    def listen(self) -> None:
        """Read whenever there is something to be read. Until then the pipe holds it; most commands end before."""
        if self._fd < 0 or self._listening:
            return
        self._listening = True
        with suppress(OSError):  # over the user's quota of pipe memory: the default size works too
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        if not self.troubled:
            self._loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        for _ in range(self._stream.turn):
            try:
                size = os.readv(self._fd, [_buffer])
            except BlockingIOError:
                return
            try:
                if size == 0:
                    self._finish()
                    return
                self._stream.add(_view[:size])
            except OSError as bad:
                self._pause(bad)
                return
            if size < _CHUNK:
                return

    def catch_up(self) -> None:
        """Its writer has ended: read what is in the pipe at once, to its end if nobody else holds it."""
        for _ in range(2 + PIPE_BYTES // (_CHUNK * _TURN)):
            if self._fd < 0 or self.troubled:
                break
            self._readable()

    def _pause(self, bad: OSError) -> None:
        """The disk refuses: stop reading (the child waits on its pipe) and try again soon."""
        if self._fd >= 0 and self._listening:
            self._loop.remove_reader(self._fd)
        if not self.troubled:
            self.troubled = True
            self._on_trouble(f"output cannot be written: {bad.strerror}; it waits until it can")
        self._retry = self._loop.call_later(_RETRY_DISK_S, self._resume)

    def _resume(self) -> None:
        self._retry = None
        try:
            self._stream.spill()
            if self._fd < 0:
                self._finish()
                return
        except OSError as bad:
            self._pause(bad)
            return
        self.troubled = False
        self._on_trouble(None)
        self._listening = True
        self._loop.add_reader(self._fd, self._readable)

    def _finish(self) -> None:
        self._close_pipe()
        self._stream.end()
        self._tell_over()

    def _tell_over(self) -> None:
        self.is_over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def over(self) -> asyncio.Future[None]:
        """What is done when it is over."""
        if self._waiter is None:
            self._waiter = self._loop.create_future()
            if self.is_over:
                self._waiter.set_result(None)
        return self._waiter

    def _close_pipe(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            if self._listening:
                self._loop.remove_reader(fd)
            os.close(fd)

    def stop(self) -> int:
        """Take what is in the pipe now and close it; return how many bytes the disk refused.

        Also after its end: since then the stream may have been put on disk.
        """
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        left = 2 * PIPE_BYTES  # more than a pipe holds: whoever still writes is none of ours
        while self._fd >= 0 and not self.troubled and left > 0:
            try:
                size = os.readv(self._fd, [_buffer])
                if size == 0:
                    break
                left -= size
                self._stream.add(_view[:size])
            except OSError:
                break
        self._close_pipe()
        lost = 0
        try:
            self._stream.end()
        except OSError:
            lost = self._stream.abandon()
        if not self.is_over:
            self._tell_over()
        return lost
