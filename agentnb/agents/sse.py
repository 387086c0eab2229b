"""Server-sent events: the bytes of a streamed answer in, the data of its events out. Only the standard library is imported."""

from __future__ import annotations

import re

#: An event larger than this is no part of an answer (bytes).
MAX_EVENT = 4 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")


class TooLarge(ValueError):
    """An event, or a line, is larger than MAX_EVENT."""


class Events:
    """Splits a stream into events, whatever pieces it comes in. What is no UTF-8 is replaced, other fields than data are left out."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[str]:
        """Take the next bytes; return the data of the events that are complete now. Raises TooLarge."""
        text = self._rest + piece
        held = b"\r" if text.endswith(b"\r") else b""  # its line feed may be on its way
        *lines, rest = _LINE_END.split(text[: len(text) - len(held)])
        self._rest = rest + held
        if len(self._rest) + self._size > MAX_EVENT:
            raise TooLarge(f"an event has more than {MAX_EVENT} bytes")
        return [event for line in lines if (event := self._line(line)) is not None]

    def end(self) -> list[str]:
        """The stream is over: what an event that its end cut off holds, if it holds anything."""
        found = [*self.feed(b"\n\n"), self._line(b"")]
        return [event for event in found if event is not None]

    def _line(self, line: bytes) -> str | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._size += len(value)
                if self._size > MAX_EVENT:
                    raise TooLarge(f"an event has more than {MAX_EVENT} bytes")
            return None
        if not self._data:
            return None
        event = b"\n".join(self._data).decode("utf-8", "replace")
        self._data, self._size = [], 0
        return event
