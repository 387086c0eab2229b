"""Reading a run's output, while it runs and afterwards."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentnb import requests
from agentnb.errors import StoreError
from agentnb.events import Json, RunFinished
from agentnb.notebook import loop as loops
from agentnb.notebook.snapshot import Segment

if TYPE_CHECKING:
    from agentnb.engine.client import Client

Stream = Literal["stdout", "stderr"]
_REPLY_S = 30.0
_POLL_S = 0.1
_TAIL_BYTES = 16 * 1024
_PIECE = 1 << 20


class OutputReader:
    """Reads one run's streams: from its final event, from its log files, or, while it runs, after asking for a flush."""

    def __init__(self, root: Path, run_id: str, client: Callable[[], Client], final: Callable[[], RunFinished | None]) -> None:
        """`root`: the store's folder."""
        self._root = root
        self._run_id = run_id
        self._client = client
        self._final = final

    def read(self, stream: Stream) -> bytes:
        """All of the stream so far. Raises StoreError when its log file is gone."""
        return self._content(self._record(stream), 0)

    def tail(self, n: int) -> str:
        """The last `n` lines of both streams."""
        segments = self._segments({name: self._record(name) for name in ("stdout", "stderr")}, self._order())
        text = "".join(text for _, text in segments)
        return "\n".join(text.rstrip("\n").split("\n")[-n:]) if n > 0 else ""

    def tail_segments(self, final: RunFinished) -> list[Segment]:
        """The end of a finished run's output, in the order it came as far as that is known."""
        return self._segments({"stdout": final.stdout, "stderr": final.stderr}, final.detail.get("order"))

    async def lines(self, stream: Stream) -> AsyncIterator[str]:
        """The stream's lines as they come."""
        decoder, rest, at = codecs.getincrementaldecoder("utf-8")("replace"), "", 0
        while True:
            finished = self._final() is not None
            data = self._content(await self._record_async(stream), at, _PIECE)
            at += len(data)
            *complete, rest = (rest + decoder.decode(data)).split("\n")
            for line in complete:
                yield line.removesuffix("\r")
            if finished and not data:
                break
            if not data:
                await asyncio.sleep(_POLL_S)
        if rest := rest + decoder.decode(b"", final=True):
            yield rest

    def _order(self) -> Any:
        final = self._final()
        return final.detail.get("order") if final else None

    def _record(self, stream: Stream) -> Json | None:
        final = self._final()
        if final is not None:
            return getattr(final, stream)
        loops.refuse_to_block(f"reading {stream} of a live run")
        try:
            reply: Json = self._flush().result(_REPLY_S)
        except RuntimeError:
            final = self._final()  # it ended, or its supervisor did, at this moment
            return getattr(final, stream) if final else None
        return self._from_reply(reply, stream)

    async def _record_async(self, stream: Stream) -> Json | None:
        final = self._final()
        if final is not None:
            return getattr(final, stream)
        try:
            reply: Json = await asyncio.wrap_future(self._flush())
        except RuntimeError:
            reply = {}
        return self._from_reply(reply, stream)

    def _from_reply(self, reply: Json, stream: Stream) -> Json | None:
        final = self._final()
        return getattr(final, stream) if final is not None else reply.get(stream)

    def _flush(self) -> Any:
        return self._client().request(lambda number: requests.Flush(number, self._run_id))

    def _content(self, record: Json | None, start: int, most: int = -1) -> bytes:
        if record is None:
            return b""
        if record["path"] is None:
            data = (record["text"] or "").encode("utf-8", "replace")
            return data[start:] if most < 0 else data[start : start + most]
        path = self._root / record["path"]
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(most)
        except OSError as bad:
            raise StoreError(f"the log file {path} cannot be read: {bad.strerror or bad}; was the store's folder cleaned by hand?") from bad

    def _segments(self, records: dict[str, Json | None], order: Any) -> list[Segment]:
        """The last _TAIL_BYTES of each stream, interleaved when `order` covers them."""
        texts = {}
        for name, record in records.items():
            size = record["size"] if record else 0
            start = max(size - _TAIL_BYTES, 0)
            texts[name] = self._content(record, start) if size else b""
            if start or (record and record["path"]):
                order = None
        if not order:
            return [(name, data.decode("utf-8", "replace")) for name, data in texts.items() if data]
        return list(_interleave(texts, order))


def _interleave(texts: dict[str, bytes], order: list[list[Any]]) -> list[Segment]:
    at = dict.fromkeys(texts, 0)
    found: list[Segment] = []
    for name, size, *_ in order:
        piece = texts[name][at[name] : at[name] + size]
        at[name] += size
        if piece:
            found.append((name, piece.decode("utf-8", "replace")))
    found += [(name, data[at[name] :].decode("utf-8", "replace")) for name, data in texts.items() if data[at[name] :]]
    return found

