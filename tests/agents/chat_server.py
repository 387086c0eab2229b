"""A server on loopback that answers as it is told, byte by byte, for tests of what asks servers of chat completions."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

Handler = Callable[[socket.socket], None]


def event(**chunk: Any) -> bytes:
    """One server-sent event that holds a chunk."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


def text(piece: str, finish: str | None = None) -> bytes:
    """An event with a piece of the answer."""
    return event(choices=[{"index": 0, "delta": {"content": piece}, "finish_reason": finish}])


DONE = b"data: [DONE]\n\n"


def ok(*parts: bytes, content_type: str = "text/event-stream") -> bytes:
    """A response whose end is the end of the connection."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type.encode() + b"\r\nConnection: close\r\n\r\n" + b"".join(parts)


def status(code: int, body: Any = b"", **headers: str) -> bytes:
    """A response with another status."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class ChatServer:
    """Answers each connection with the next of `answers`, the last one again and again; keeps what was asked."""

    def __init__(self, *answers: bytes | Handler) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(30)
                try:
                    self._answer(connection)
                except OSError:
                    continue  # the client went away, which some tests want

    def _answer(self, connection: socket.socket) -> None:
        head, body = _read(connection)
        lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.requests.append((lines[0], headers, json.loads(body or b"{}")))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer(connection)
        else:
            connection.sendall(answer)

    @property
    def asked(self) -> dict[str, Any]:
        """The body of the latest request."""
        return self.requests[-1][2]


def _read(connection: socket.socket) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    size = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
    while len(body) < size:
        body += _some(connection)
    return head.decode(), body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the client went away")
    return data


def reset(*parts: bytes) -> Handler:
    """Send this, then cut the connection with a reset."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(b"".join(parts))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return handle


def flood(pieces: Iterable[bytes]) -> Handler:
    """Send all of these, one by one."""

    def handle(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return handle
