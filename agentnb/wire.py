"""Frames on the socket between client and supervisor: four bytes of length (big-endian), then a JSON array of messages.

An array after a space is one that only Python's json writes and reads exactly: it has NaN, numbers beyond 64 bits, lone surrogates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agentnb.compact import exactly, fast_or, loads
from agentnb.events import Json, Message, from_wire

_exact = exactly(allow_nan=True)
_encode = fast_or(lambda data: " " + _exact(data))

_OBJECTS = {dict}
#: A frame larger than this is no frame of ours.
MAX_FRAME = 1 << 30


class TooLarge(ValueError):
    """Messages that no frame takes."""


class ProtocolError(Exception):
    """The peer sent something that is no frame."""


def encode(messages: Iterable[Message]) -> bytes:
    """One frame with these messages. Raises TypeError or ValueError when one is no plain JSON data, TooLarge beyond MAX_FRAME."""
    body = _encode([message.to_wire() for message in messages]).encode("ascii")
    if len(body) > MAX_FRAME:
        raise TooLarge(f"it takes {len(body)} bytes in a message, of which {MAX_FRAME} are possible")
    return len(body).to_bytes(4, "big") + body


def parse(data: Json) -> Message | None:
    """The message that `data` stands for; None for a type that this version does not know. Raises ProtocolError when it is malformed."""
    try:
        return from_wire(data)
    except TypeError as bad:
        raise ProtocolError(f"a malformed message: {bad}") from None


class Decoder:
    """Bytes in, messages out, however the bytes were cut on their way."""

    def __init__(self) -> None:
        """Start at a frame's beginning."""
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> list[Json]:
        """Take the next bytes; return the messages (JSON objects) whose frames are complete now."""
        buffer = self._buffer
        buffer += data
        found: list[Json] = []
        start = 0
        while len(buffer) - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "big")
            if size > MAX_FRAME:
                raise ProtocolError(f"a frame of {size} bytes was announced")
            if len(buffer) - start - 4 < size:
                break
            found += self._messages(bytes(buffer[start + 4 : start + 4 + size]))
            start += 4 + size
        if start:
            del buffer[:start]
        return found

    @staticmethod
    def _messages(body: bytes) -> list[Json]:
        try:
            messages: Any = json.loads(body) if body[:1] == b" " else loads(body)
        except (ValueError, RecursionError) as bad:
            raise ProtocolError(f"a frame holds no JSON: {bad}") from None
        if not isinstance(messages, list) or not set(map(type, messages)) <= _OBJECTS:
            raise ProtocolError("a frame holds no array of objects")
        return messages
