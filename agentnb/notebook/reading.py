"""Reading a run's output, while it runs and afterwards."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentnb import requests
from agentnb.errors import ConfigError, StoreError
from agentnb.events import Json, RunFinished
from agentnb.history.reader import missing_log
from agentnb.notebook import loop as loops
from agentnb.notebook.snapshot import Segment

if TYPE_CHECKING:
    from agentnb.notebook.live import LiveRun

Stream = Literal["stdout", "stderr"]
_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
_Records = dict[Stream, Json | None]
_REPLY_S = 30.0
_POLL_S = 0.1
_TAIL_BYTES = 16 * 1024
_PIECE = 1 << 20


def log_record(root: Path, run_id: str, stream: str, attempt: int) -> Json | None:
    """Where the output of a run whose supervisor died is, as in events.RunFinished; None when nothing of it is on disk."""
    suffix = "" if attempt <= 1 else f".{attempt}"
    path = f"runs/{run_id}/{stream}{suffix}.log"
    try:
        return {"size": (root / path).stat().st_size, "text": None, "path": path}
    except OSError:
        return None


def kept_bytes(root: Path, record: Json | None, start: int = 0, most: int = -1) -> bytes:
    """What a stream's record stands for, from byte `start`, at most `most` bytes. Raises StoreError when its log file is gone."""
    if record is None:
        return b""
    if record.get("path") is None:
        text: str = record.get("text") or ""
        data = text.encode("utf-8", "replace")
        return data[start : None if most < 0 else start + most]
    path: Path = root / record["path"]
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(most)
    except OSError as bad:
        raise missing_log(root, path, bad) from bad


class OutputReader:
    """Reads one run's streams: from its final event, from its log files, or, while it runs, after asking for a flush."""

    __slots__ = ("_live", "root")

    def __init__(self, root: Path, live: LiveRun) -> None:
        """`root`: the store's folder."""
        self.root = root
        self._live = live

    def read(self, stream: Stream) -> bytes:
        """All of the stream so far. Raises StoreError when its log file is gone."""
        return kept_bytes(self.root, self._records()[stream])

    def tail(self, n: int) -> str:
        """The last `n` lines of both streams; of a line that was rewritten by carriage returns, what it read last."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ConfigError(f"tail: {n!r} is no number of lines; give zero or more")
        if not n:
            return ""
        records, final = self._records(), self._live.final
        text = self._ordered_lines(records, final, n)
        if text is None:
            text = "\n".join(filter(None, (self._last_lines(records[stream], n) for stream in _STREAMS)))
        lines = text.removesuffix("\n").split("\n")[-n:]
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)

    def tail_segments(self, final: RunFinished) -> list[Segment]:
        """The end of a finished run's output, in the order it came as far as that is known."""
        records: _Records = {"stdout": final.stdout, "stderr": final.stderr}
        segments = _interleaved(self.root, records, final, _TAIL_BYTES, part=True)
        if segments is not None:
            return segments
        ends = [(name, kept_bytes(self.root, r, max(r["size"] - _TAIL_BYTES, 0)) if r else b"") for name, r in records.items()]
        return [(name, data.decode("utf-8", "replace")) for name, data in ends if data]

    async def lines(self, stream: Stream) -> AsyncIterator[str]:
        """The stream's lines as they come."""
        _check_stream(stream)
        decoder, rest, at, path = codecs.getincrementaldecoder("utf-8")("replace"), "", 0, None
        while True:
            finished = self._live.final is not None
            record = await self._record_async(stream)
            if record and record["size"] and path is not None and record.get("path") != path:  # another attempt writes to a file of its own
                decoder, rest, at = codecs.getincrementaldecoder("utf-8")("replace"), "", 0
            path = (record and record.get("path")) or path
            data = kept_bytes(self.root, record, at, _PIECE)
            at += len(data)
            *complete, rest = (rest + decoder.decode(data)).split("\n")
            for line in complete:
                yield line.removesuffix("\r")
            if not data:
                if finished:
                    break
                await asyncio.sleep(_POLL_S)
        if rest := rest + decoder.decode(b"", final=True):
            yield rest

    def _ordered_lines(self, records: _Records, final: RunFinished | None, n: int) -> str | None:
        """At least the last `n` lines of both streams in the order they came; None when that is not known."""
        most, size = _TAIL_BYTES, sum(record["size"] for record in records.values() if record)
        while final is not None:
            segments = _interleaved(self.root, records, final, most)
            if segments is None:
                return None
            text = "".join(text for _, text in segments)
            if text.count("\n") > n or most >= size:
                return text
            most *= 4
        return None

    def _last_lines(self, record: Json | None, n: int) -> str:
        """At least the last `n` lines of one stream, read from its end."""
        size = record["size"] if record else 0
        length = min(_TAIL_BYTES, size)
        while True:
            data = kept_bytes(self.root, record, size - length, length) if length else b""
            if data.count(b"\n") > n or length >= size:
                break
            length = min(length * 4, size)
        if length < size:  # it begins somewhere in a line
            data = data.partition(b"\n")[2]
        return data.decode("utf-8", "replace").removesuffix("\n")

    def _records(self) -> _Records:
        """Both streams' records, those of a live run after a flush."""
        reply: Mapping[str, Any] = {}
        if self._live.final is None:
            loops.refuse_to_block("reading the output of a live run")
            try:
                reply = self._flush().result(_REPLY_S)
            except TimeoutError:
                raise TimeoutError(f"the supervisor did not answer within {_REPLY_S:g} s") from None
            except RuntimeError as bad:
                if self._live.final is None:  # else it ended, or its supervisor did, at this moment
                    raise StoreError(f"the output of run {self._live.name!r} cannot be read now: {bad}") from None
        return {stream: self._chosen(reply, stream) for stream in _STREAMS}

    async def _record_async(self, stream: Stream) -> Json | None:
        reply: Mapping[str, Any] = {}
        if self._live.final is None:
            try:
                reply = await asyncio.wrap_future(self._flush())
            except RuntimeError:
                reply = {}
        return self._chosen(reply, stream)

    def _chosen(self, reply: Mapping[str, Any], stream: Stream) -> Json | None:
        final = self._live.final
        return reply.get(stream) if final is None else getattr(final, stream)

    def _flush(self) -> Any:
        return self._live.client.request(lambda number: requests.Flush(number, self._live.id))


def _check_stream(stream: str) -> None:
    if stream not in _STREAMS:
        raise ConfigError(f"there is no stream {stream!r}; it is 'stdout' or 'stderr'")


def _interleaved(root: Path, records: _Records, final: RunFinished, most: int, *, part: bool = False) -> list[Segment] | None:
    """The last `most` bytes of both streams, piece by piece as they came; None when the order of all pieces is not known.

    With `part`, fewer bytes than that where only the order of the last pieces is known.
    """
    order: list[list[Any]] = final.detail.get("order") or []
    sizes: dict[Any, int] = {name: record["size"] if record else 0 for name, record in records.items()}
    known = {name: sum(size for stream, size, *_ in order if stream == name) for name in sizes}
    if not all(_exact(record) for record in records.values()):
        return None
    if known != sizes:
        order = (final.detail.get("last_order") or []) if part else []
        if not order or any(sum(size for stream, size in order if stream == name) > sizes.get(name, 0) for name, _ in order):
            return None
    start, pieces = dict(sizes), list[tuple[str, int, int]]()
    for stream, size, *_ in reversed(order):
        wanted = min(size, most)
        pieces.append((stream, start[stream] - wanted, start[stream]))
        start[stream] -= wanted
        most -= wanted
        if most <= 0:
            break
    texts = {name: kept_bytes(root, records[name], start[name]) for name in sizes}
    cut = [(name, texts[name][first - start[name] : last - start[name]]) for name, first, last in reversed(pieces)]
    return [(name, data.decode("utf-8", "replace")) for name, data in cut if data]


def _exact(record: Json | None) -> bool:
    """Whether the stream's bytes are kept as they were: a small one is kept as text, in which U+FFFD stands for what was none."""
    return not record or record.get("text") is None or len(record["text"].encode("utf-8", "replace")) == record["size"]
