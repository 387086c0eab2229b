"""All clients of a supervisor: the first, which started it, and those that came in through a door later."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from agentnb.engine.door import open_door
from agentnb.engine.peer import Peer
from agentnb.events import Message

#: More callers than this are turned away.
MAX_PEERS = 64
#: A caller that lets this much pile up is shown out; the first client is not, since its handles live by what it is told.
MAX_BACKLOG = 64 << 20
_CROWDED_S = 1.0


class Peers:
    """Who is connected. Events go to all of them; a client leaves out the runs that it does not know."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        greeting: Message,
        on_message: Callable[[Peer, Message], None],
        on_gone: Callable[[Peer], None],
    ) -> None:
        """`sock`: to the first client. Each client is sent `greeting` first."""
        self._loop = loop
        self._greeting = greeting
        self._on_message = on_message
        self._on_gone = on_gone
        self._doors: list[socket.socket] = []
        self._all: list[Peer] = []
        self.first = self._add(sock)

    @property
    def first_is_here(self) -> bool:
        """Whether the client that started the supervisor is still connected."""
        return self.first in self._all

    def _add(self, sock: socket.socket) -> Peer:
        peer = Peer(self._loop, sock, lambda message: self._on_message(peer, message), lambda: self._gone(peer))
        self._all.append(peer)
        peer.send([self._greeting])
        return peer

    def greet(self, greeting: Message) -> None:
        """Send a new greeting to everybody, and to those who come later."""
        self._greeting = greeting
        self.send([greeting])

    def _gone(self, peer: Peer) -> None:
        if peer in self._all:
            self._all.remove(peer)
            self._on_gone(peer)

    def dismiss(self, peer: Peer) -> None:
        """Close a client's connection."""
        peer.close()
        self._gone(peer)

    def send(self, messages: Sequence[Message]) -> None:
        """Tell everybody."""
        for peer in list(self._all):
            peer.send(messages)
            if peer is not self.first and peer.backlog > MAX_BACKLOG:
                self.dismiss(peer)

    def listen(self, path: Path) -> None:
        """Open a door at `path`; where that cannot be, runs are good, but other processes cannot reach them."""
        try:
            door = open_door(path)
        except OSError as bad:
            sys.stderr.write(f"no socket can be made at {path} ({bad.strerror or bad}): other processes cannot attach to these runs\n")
            return
        self._doors.append(door)
        self._loop.add_reader(door, self._accept, door)

    def _accept(self, door: socket.socket) -> None:
        try:
            sock, _ = door.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:  # too many files are open: whoever is at the door waits
            self._loop.remove_reader(door)
            self._loop.call_later(_CROWDED_S, self._again, door)
            return
        if len(self._all) > MAX_PEERS:
            sock.close()
        else:
            self._add(sock)

    def _again(self, door: socket.socket) -> None:
        if door in self._doors:
            self._loop.add_reader(door, self._accept, door)

    def shut(self) -> None:
        """Let nobody in any more."""
        doors, self._doors = self._doors, []
        for door in doors:
            self._loop.remove_reader(door)
            with suppress(OSError):
                door.close()

    def close(self) -> None:
        """Close all connections."""
        self.shut()
        peers, self._all = self._all, []
        for peer in peers:
            peer.close()
