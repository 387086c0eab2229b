"""The supervisor's end of the socket to a client: never blocks, keeps order, sees the client's end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from agentnb import wire
from agentnb.events import Message

#: So much is taken at a time: a thousand launches shall not keep the runs waiting that have started.
_buffer = bytearray(1 << 14)
_view = memoryview(_buffer)


class Peer:
    """Messages to and from one client."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, on_message: Callable[[Message], None], on_gone: Callable[[], None]
    ) -> None:
        """Own `sock`; `on_gone` is called once when the client has closed it or sends what is no frame."""
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._on_message = on_message
        self._on_gone = on_gone
        self._decoder = wire.Decoder()
        self._outbox = bytearray()
        self._writing = False
        sock.setblocking(False)  # noqa: FBT003 - positional only
        loop.add_reader(sock, self._readable)

    @property
    def backlog(self) -> int:
        """Bytes that the client has not taken yet."""
        return len(self._outbox)

    def send(self, messages: Sequence[Message]) -> None:
        """Queue messages and send what the socket takes now."""
        if self._sock is None:
            return
        waiting = bool(self._outbox)
        self._outbox += self._encoded(messages)
        if not waiting:
            self._flush()

    def _encoded(self, messages: Sequence[Message]) -> bytes:
        try:
            return wire.encode(messages)
        except (TypeError, ValueError, RecursionError) as bad:
            if len(messages) > 1:  # the others are innocent
                return b"".join(self._encoded([message]) for message in messages)
            self._loop.call_exception_handler({"message": f"a {messages[0].type} message is no JSON", "exception": bad})
            return b""

    def _flush(self) -> None:
        if self._sock is None:
            return
        try:
            while self._outbox:
                sent = self._sock.send(memoryview(self._outbox)[: 1 << 20])
                del self._outbox[:sent]
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._flush)
            self._writing = True
            return
        except OSError:  # nobody is there any more; what was sent before that is read to its end, and then that is seen
            self._outbox.clear()
        if self._writing:
            self._loop.remove_writer(self._sock)
            self._writing = False

    def finish(self) -> None:
        """The client has ended, whoever else holds its end of the socket: take what it had sent, and close."""
        while self._sock is not None and self._readable():
            pass
        self._gone()

    def _readable(self) -> bool:
        """Take what is there; False when that was all."""
        assert self._sock is not None  # noqa: S101 - the reader is removed first
        try:
            size = self._sock.recv_into(_buffer)
            found = self._decoder.feed(_view[:size])
        except BlockingIOError:
            return False
        except (OSError, wire.ProtocolError):
            size, found = 0, []
        for item in found:
            try:
                if (message := wire.parse(item)) is not None:
                    self._on_message(message)
            except Exception as bad:  # noqa: BLE001 - one bad message must not take the others with it
                self._loop.call_exception_handler({"message": f"a message was left out: {str(item)[:200]}", "exception": bad})
        if not size:
            self._gone()
        return bool(size)

    def _gone(self) -> None:
        if self._sock is not None:
            self.close()
            self._on_gone()

    def close(self) -> None:
        """Close the socket."""
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None
