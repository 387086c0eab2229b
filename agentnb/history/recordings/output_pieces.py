"""A finished run's output, piece by piece, as far as known in the order and at the time it came (only the standard library)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from agentnb.errors import StoreError
from agentnb.history.reader import missing_log, read_logs

PIECE_BYTES = 48 * 1024

Json = dict[str, Any]


class OutputPieces:
    """The output of a run's last attempt, piece by piece, as far as known in the order and at the time it came."""

    def __init__(self, root: Path, run: Json, order: list[list[Any]]) -> None:
        """Open the run's streams. `order`: as Output.order gives it. Raises StoreError."""
        logs = read_logs(root, [run["id"]]).get(run["id"], {})
        exact = all(record["path"] or len((record["text"] or "").encode("utf-8", "replace")) == record["size"] for record in logs.values())
        self._order = order if exact else []
        self._next = 0
        self._files: dict[str, BinaryIO] = {}
        try:
            for name in logs:
                self._files[name] = opened(root, logs[name])
        except StoreError:
            self.close()
            raise

    def until(self, at: int | None, now: int) -> Iterator[tuple[int, str, bytes]]:
        """(microseconds, stream, bytes) of what came up to `at`; with None all that is left, what has no known time at `now`."""
        while self._next < len(self._order) and (at is None or self._order[self._next][2] <= at):
            stream, size, moment = self._order[self._next]
            self._next += 1
            if stream in self._files:
                yield from ((min(moment, now), stream, piece) for piece in _read(self._files[stream], size))
        if at is None:
            for stream, file in sorted(self._files.items(), reverse=True):  # stdout first
                yield from ((now, stream, piece) for piece in _read(file, None))

    def close(self) -> None:
        """Close the streams."""
        for file in self._files.values():
            file.close()


def opened(root: Path, record: Json) -> BinaryIO:
    """A stream's bytes. Raises StoreError when its log file is gone, or lies outside of the store."""
    if not record.get("path"):
        return BytesIO((record.get("text") or "").encode("utf-8", "replace"))
    path: Path = root / record["path"]
    if not path.resolve().is_relative_to(root.resolve()):
        raise StoreError(f"the log file {path} lies outside of the store {root}; the history was tampered with")
    try:
        return path.open("rb")
    except OSError as bad:
        raise missing_log(root, path, bad) from bad


def _read(file: BinaryIO, size: int | None) -> Iterator[bytes]:
    """The next `size` bytes (None: all that is left) in pieces."""
    while size is None or size > 0:
        piece = file.read(PIECE_BYTES if size is None else min(size, PIECE_BYTES))
        if size is None or size > len(piece):
            piece = whole(piece, file, most=None if size is None else size - len(piece))
        if not piece:
            return
        size = None if size is None else size - len(piece)
        yield piece


def whole(piece: bytes, file: BinaryIO, most: int | None = None) -> bytes:
    """`piece` with the rest of the character that it ends in the middle of, if it does."""
    for back in range(1, min(4, len(piece)) + 1):
        first = piece[-back]
        if first & 0xC0 != 0x80:
            length = 2 if first >> 5 == 0b110 else 3 if first >> 4 == 0b1110 else 4 if first >> 3 == 0b11110 else 1
            lacking = max(length - back, 0)
            return piece + file.read(lacking if most is None else min(lacking, most)) if lacking else piece
    return piece
