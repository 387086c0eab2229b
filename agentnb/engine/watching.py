"""Live output for views: for watched runs only, ten times a second at most, bounded whatever the output rate."""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import Sequence

from agentnb.engine.capture import Output
from agentnb.engine.peer import Peer
from agentnb.events import Message, OutputTail

PERIOD_S = 0.1
#: More than this of one run in one period is left out from the front; the log file has it all.
MAX_PIECE = 16 * 1024
#: A client that does not keep up gets no output until it has taken this much.
MAX_BACKLOG = 1 << 20
_MERGE = 4096


class _Watched:
    """What a watched run printed since the last message."""

    __slots__ = ("decoders", "peers", "pieces", "size", "skipped")

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.pieces: deque[tuple[str, bytes]] = deque()
        self.size = 0
        self.skipped = 0
        self.decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}

    def add(self, stream: str, data: bytes) -> None:
        if self.pieces and self.pieces[-1][0] == stream and len(self.pieces[-1][1]) < _MERGE:
            kept = self.pieces.pop()[1]
            self.size -= len(kept)
            data = kept + data
        self.pieces.append((stream, data))
        self.size += len(data)
        while (excess := self.size - MAX_PIECE) > 0:
            name, first = self.pieces[0]
            gone = min(len(first), excess)
            if gone == len(first):
                self.pieces.popleft()
            else:
                self.pieces[0] = (name, first[gone:])
            self.size -= gone
            self.skipped += gone

    def message(self, run_id: str, *, last: bool = False) -> OutputTail | None:
        if not self.pieces and not last:
            return None
        if self.skipped:
            for decoder in self.decoders.values():
                decoder.reset()
        segments = [[stream, text] for stream, data in self.pieces if (text := self.decoders[stream].decode(data))]
        if last:  # half a character, which nothing completes any more
            segments += [[stream, text] for stream, decoder in self.decoders.items() if (text := decoder.decode(b"", final=True))]
        skipped, self.size, self.skipped = self.skipped, 0, 0
        self.pieces.clear()
        return OutputTail(run_id, segments, skipped) if segments else None


class Watching:
    """Which runs are watched, by whom, and what they printed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nobody watches yet."""
        self._loop = loop
        self._runs: dict[str, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many runs are watched."""
        return len(self._runs)

    def wants(self, run_id: str) -> bool:
        """Whether somebody watches this run."""
        return run_id in self._runs

    def set(self, run_id: str, peer: Peer, *, on: bool, out: Output | None) -> None:
        """`peer` starts (with the tail so far) or stops watching."""
        watched = self._runs.get(run_id)
        if not on:
            self._leave(run_id, peer)
        elif watched is None or peer not in watched.peers:
            missed = _Watched()
            if watched is None:
                watched = self._runs[run_id] = missed
            elif message := watched.message(run_id):  # the others get it now: it is part of the newcomer's tail
                _send(watched.peers, [message])
            for stream, data in out.tail.pieces() if out is not None else ():
                missed.add(stream, data)
            if message := missed.message(run_id):
                peer.send([message])
            watched.peers.append(peer)

    def leave(self, peer: Peer) -> None:
        """`peer` watches nothing any more."""
        for run_id in list(self._runs):
            self._leave(run_id, peer)

    def _leave(self, run_id: str, peer: Peer) -> None:
        watched = self._runs.get(run_id)
        if watched is not None and peer in watched.peers:
            watched.peers.remove(peer)
            if not watched.peers:
                del self._runs[run_id]

    def add(self, run_id: str, stream: str, data: bytes) -> None:
        """A run printed something."""
        watched = self._runs.get(run_id)
        if watched is not None:
            watched.add(stream, data)
            if self._timer is None:
                self._timer = self._loop.call_later(PERIOD_S, self._tick)

    def finish(self, run_id: str) -> None:
        """The run is over: send the rest, before its last events. `drop` follows these."""
        watched = self._runs.get(run_id)
        if watched is not None and (message := watched.message(run_id, last=True)) is not None:
            _send(watched.peers, [message])

    def drop(self, run_id: str) -> None:
        """Nothing of this run follows."""
        self._runs.pop(run_id, None)

    def _tick(self) -> None:
        self._timer = None
        found: dict[Peer, list[Message]] = {}
        for run_id, watched in self._runs.items():
            ready = [peer for peer in watched.peers if peer.backlog <= MAX_BACKLOG]
            if not ready and self._timer is None:  # nobody keeps up: it waits, and what is too much is left out
                self._timer = self._loop.call_later(PERIOD_S, self._tick)
            elif ready and (message := watched.message(run_id)) is not None:
                for peer in ready:
                    found.setdefault(peer, []).append(message)
        for peer, messages in found.items():
            peer.send(messages)


def _send(peers: Sequence[Peer], messages: Sequence[Message]) -> None:
    for peer in list(peers):  # one that turns out to be gone leaves
        peer.send(messages)
