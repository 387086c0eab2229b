"""The kernel's end of the supervisor: one per process, started with the first session.

Requests are sent from the calling thread at once, so that a cell which then holds the GIL delays nothing. Events are read on the
loop thread and handed to whoever listens for their run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from agentnb import requests, wire
from agentnb.errors import RuntimeUnavailable
from agentnb.events import Json, Message, Ready, Reply, StoreTrouble

_PACKAGE = Path(__file__).resolve().parent.parent.parent
_MAIN = Path(__file__).with_name("__main__.py")
#: The supervisor ends its runs and writes their rows when its client closes the socket; this long it may take.
SHUTDOWN_S = 15.0

_clients: list[Client] = []


class Listener(Protocol):
    """Hears of one run, on the loop thread."""

    def on_event(self, event: Message) -> None:
        """An event of the run."""

    def on_lost(self, message: str) -> None:
        """The supervisor died; the run with it."""


class Client:
    """One supervisor process and the socket to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the supervisor; `loop` runs in another thread and reads its events. Raises RuntimeUnavailable."""
        if not sys.platform.startswith("linux"):
            raise RuntimeUnavailable(
                f"agentnb runs commands on Linux only so far, not on {sys.platform}; use a Linux machine, WSL or a container"
            )
        self._loop = loop
        self.owner_pid = os.getpid()
        self._lock = threading.Lock()
        self._outbox = bytearray()
        self._decoder = wire.Decoder()
        self._listeners: dict[str, Listener] = {}
        self._replies: dict[int, concurrent.futures.Future[Json]] = {}
        self._numbers = 0
        self._env: dict[Any, Any] = {}
        self._env_id = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the client
        self.alive = True
        self.trouble: dict[str, str] = {}
        self.ready: concurrent.futures.Future[int] = concurrent.futures.Future()
        self.gone: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._sock, self.process = self._start()
        _clients.append(self)
        loop.call_soon_threadsafe(self._attach)
        self.send([requests.Hello(requests.PROTOCOL_VERSION, os.getpid())])

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        argv = [sys.executable, "-I", "-S", "-X", "utf8", str(_MAIN), str(_PACKAGE), str(theirs.fileno()), *sorted(paths)]
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # an interrupt of the notebook's process group is not for it
                cwd="/",
            )
        except OSError as bad:
            ours.close()
            raise RuntimeUnavailable(f"the supervisor process cannot be started with {sys.executable}: {bad}") from bad
        finally:
            theirs.close()
        ours.setblocking(False)  # noqa: FBT003 - positional only
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return ours, process

    # --- sending, from any thread

    def send(self, messages: Sequence[Message]) -> None:
        """Send at once what the socket takes; the rest follows from the loop thread. Raises TypeError, ValueError on no JSON data."""
        frame = wire.encode(messages)
        with self._lock:
            if not self.alive:
                return
            waiting = bool(self._outbox)
            self._outbox += frame
            if not waiting and not self._push():
                self._loop.call_soon_threadsafe(self._await_room)

    def _push(self) -> bool:
        """Send from the outbox; False when the socket is full."""
        try:
            while self._outbox:
                sent = self._sock.send(memoryview(self._outbox)[: 1 << 20])
                del self._outbox[:sent]
        except BlockingIOError:
            return False
        except OSError:  # its end is seen by the reader
            self._outbox.clear()
        return True

    def _await_room(self) -> None:
        with self._lock:
            if self.alive and self._outbox:
                self._loop.add_writer(self._sock, self._room)

    def _room(self) -> None:
        with self._lock:
            if self._push():
                self._loop.remove_writer(self._sock)

    def request(self, make: Callable[[int], Message]) -> concurrent.futures.Future[Json]:
        """Send a request that is replied to; the future fails with RuntimeError when the reply is an error."""
        future: concurrent.futures.Future[Json] = concurrent.futures.Future()
        with self._lock:
            self._numbers += 1
            number = self._numbers
            self._replies[number] = future
        self.send([make(number)])
        if not self.alive and not future.done():
            future.set_exception(RuntimeError("the supervisor is gone"))
        return future

    def environment(self, env: Mapping[str, str]) -> int:
        """The number of this environment; it is sent when it is not the one that was sent last."""
        now = _comparable(env)
        with self._lock:
            if self._env_id and self._env == now:
                return self._env_id
            self._env = dict(now)
            self._env_id += 1
            number = self._env_id
        self.send([requests.SetEnv(number, dict(env))])
        return number

    def listen(self, run_id: str, listener: Listener) -> None:
        """Hand the run's events to `listener` until it is finished."""
        self._listeners[run_id] = listener

    def ignore(self, run_id: str) -> None:
        """Nobody listens for this run any more."""
        self._listeners.pop(run_id, None)

    # --- receiving, on the loop thread

    def _attach(self) -> None:
        if self.alive:
            self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(1 << 18)
            found = self._decoder.feed(data)
        except BlockingIOError:
            return
        except (OSError, wire.ProtocolError):
            data, found = b"", []
        for item in found:
            try:
                if (message := wire.parse(item)) is not None:
                    self._take(message)
            except Exception as bad:  # noqa: BLE001 - one bad message or listener must not take the others with it
                self._loop.call_exception_handler({"message": f"an event was left out: {str(item)[:200]}", "exception": bad})
        if not data:
            self._lost()

    def _take(self, message: Message) -> None:
        run_id = getattr(message, "run_id", None)
        if run_id is not None:
            listener = self._listeners.get(run_id)
            if listener is not None:
                if message.type == "run_finished":
                    del self._listeners[run_id]
                listener.on_event(message)
        elif isinstance(message, Reply):
            self._reply(message)
        elif isinstance(message, StoreTrouble):
            self._note_trouble(message)
        elif isinstance(message, Ready) and not self.ready.done():
            self.ready.set_result(message.pid)

    def _reply(self, reply: Reply) -> None:
        future = self._replies.pop(reply.request_id, None)
        if future is not None and not future.done():
            if reply.error is None:
                future.set_result(reply.data)
            else:
                future.set_exception(RuntimeError(reply.error))

    def _note_trouble(self, message: StoreTrouble) -> None:
        if message.message is None:
            self.trouble.pop(message.store, None)
        else:
            self.trouble[message.store] = message.message

    def _lost(self) -> None:
        """The supervisor closed its end: it died, or was told to stop."""
        with self._lock:
            if not self.alive:
                return
            self.alive = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
        why = f"the supervisor process {self.process.pid} ended{self._last_words()}"
        listeners = list(self._listeners.values())
        self._listeners.clear()
        for listener in listeners:
            try:
                listener.on_lost(why)
            except Exception as bad:  # noqa: BLE001 - the others must hear of it too
                self._loop.call_exception_handler({"message": "a listener failed", "exception": bad})
        futures: list[concurrent.futures.Future[Any]] = [*self._replies.values(), self.ready]
        for future in futures:
            if not future.done():
                future.set_exception(RuntimeError(why))
        self._replies.clear()
        self.gone.set_result(why)

    def _last_words(self) -> str:
        with suppress(OSError, ValueError):
            start = max(os.fstat(self._log.fileno()).st_size - 2000, 0)
            if text := os.pread(self._log.fileno(), 2000, start).decode(errors="replace").strip():
                return f"; its last words: {text}"
        return " (killed?)"

    def disown(self) -> None:
        """In a forked copy of the process: close the copy of the socket, without a word to the other side."""
        self._lock = threading.Lock()  # it may be held by a thread that was not copied
        self.alive = False
        self._sock.close()

    def close(self) -> None:
        """Tell the supervisor to end (it ends its runs first) and wait for it."""
        if os.getpid() != self.owner_pid:  # a forked child has a copy; the supervisor is not its own
            return
        self.send([requests.Shutdown()])
        try:
            self.process.wait(SHUTDOWN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with suppress(concurrent.futures.TimeoutError, RuntimeError):
            if not self._loop.is_closed() and self._loop.is_running():
                self.gone.result(5)
        if self.alive:  # the loop is gone: nobody else will
            self.alive = False
            self._sock.close()
        self._log.close()
        if self in _clients:
            _clients.remove(self)


def _disown_all() -> None:
    """In a forked copy of the process: let go of the sockets, or the supervisors would not see the end of the parent."""
    for client in _clients:
        client.disown()
    _clients.clear()


os.register_at_fork(after_in_child=_disown_all)


def _comparable(env: Mapping[str, str]) -> Mapping[Any, Any]:
    """`env`, to be compared only: of os.environ the dict behind it, if there is one, since os.environ decodes every value."""
    behind = getattr(env, "_data", None)
    return behind if isinstance(behind, dict) else env


def shutdown_all() -> None:
    """End every supervisor of this process and wait for them; runs that are live read interrupted."""
    for client in [*_clients]:
        client.close()
