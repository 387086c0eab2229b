"""The kernel's end of a supervisor: of its own, of a detached one, or of another process's, whose door it came in through.

Requests are sent from the calling thread at once, so that a cell which then holds the GIL delays nothing. Events are read on the
loop thread and handed to whoever listens for their run.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from agentnb import requests, wire
from agentnb.compact import FOLDER
from agentnb.engine.door import knock
from agentnb.engine.farewell import see_it_end
from agentnb.engine.interrupts import Deferred
from agentnb.errors import RuntimeUnavailable
from agentnb.events import BudgetSpent, Json, Message, Ready, Reply, RunQueued, StoreTrouble

_PACKAGE = Path(__file__).resolve().parent.parent.parent
_MAIN = Path(__file__).with_name("__main__.py")
#: A supervisor that goes on is told of the last launches before it is left alone; this long it may take to say that it heard.
_GOODBYE_S = 10.0

#: Whether the supervisor lives is looked at so often: a loop of launches need not ask each time.
_LOOK_S = 0.002
#: When the supervisor died, its spawner ends what is left within this long.
_LAST_PROCESSES_S = 5.0
_clients: list[Client] = []


class Listener(Protocol):
    """Hears of one run, on the loop thread."""

    def on_event(self, event: Message) -> None:
        """An event of the run."""

    def on_lost(self, message: str) -> None:
        """The supervisor died; the run with it."""


class Client:
    """The socket to one supervisor; of one that this process started, `process` too, unless it is detached."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, detached: bool = False, door: Path | None = None) -> None:
        """Start a supervisor; `loop` runs in another thread and reads its events. Raises RuntimeUnavailable.

        A detached one goes on without this process, until no run of it is left. `door`: see `connect`.
        """
        if not sys.platform.startswith("linux"):
            raise RuntimeUnavailable(
                f"agentnb runs commands on Linux only so far, not on {sys.platform}; use a Linux machine, WSL or a container"
            )
        self._prepare(loop)
        self._sock, self.process = self._start(detached=detached) if door is None else (knock(door), None)
        self._sock.setblocking(False)  # noqa: FBT003 - positional only
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        _clients.append(self)
        loop.call_soon_threadsafe(self._attach)
        self.send([requests.Hello(requests.PROTOCOL_VERSION, os.getpid())])

    @classmethod
    def connect(cls, loop: asyncio.AbstractEventLoop, path: Path) -> Client:
        """A client of the supervisor that listens at `path` (history.owners.door_path). Raises OSError when there is none."""
        return cls(loop, door=path)

    def _prepare(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.owner_pid = os.getpid()
        self._lock = threading.Lock()
        self._outbox = bytearray()
        self._decoder = wire.Decoder()
        self._listeners: dict[str, Listener] = {}
        self._replies: dict[int, concurrent.futures.Future[Json]] = {}
        self._numbers = 0
        self._env: tuple[int, dict[Any, Any]] = (0, {})
        self._env_lock = threading.Lock()
        self._log: IO[bytes] | None = None
        self._spawners: dict[int, int] = {}  # descriptors that become readable at their end -> pids
        self.alive = True
        self._looked_at = -_LOOK_S
        self.trouble: dict[str, str] = {}
        self.budgets: dict[str, BudgetSpent] = {}
        self._adopters: dict[str, Callable[[Json], Listener | None]] = {}
        self.ready: concurrent.futures.Future[int] = concurrent.futures.Future()
        self.gone: concurrent.futures.Future[str] = concurrent.futures.Future()

    def _start(self, *, detached: bool) -> tuple[socket.socket, subprocess.Popen[bytes] | None]:
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the client
        paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *([FOLDER] if FOLDER else [])}
        kind = "detached" if detached else "attached"
        argv = [sys.executable, "-I", "-S", "-X", "utf8", str(_MAIN), str(_PACKAGE), str(theirs.fileno()), kind, *sorted(paths)]
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
            self._log.close()
            raise RuntimeUnavailable(f"the supervisor process cannot be started with {sys.executable}: {bad}") from bad
        finally:
            theirs.close()
        if detached:
            process.wait()  # it only forked
            return ours, None
        return ours, process

    @property
    def usable(self) -> bool:
        """Whether this process may ask its supervisor for something."""
        if not self.alive or self.owner_pid != os.getpid():
            return False
        if self.process is None:
            return True
        if (now := time.monotonic()) - self._looked_at > _LOOK_S:
            self.process.poll()
            self._looked_at = now
        return self.process.returncode is None

    # --- sending, from any thread

    def send(self, messages: Sequence[Message]) -> None:
        """Send at once what the socket takes; the rest follows from the loop thread. Raises TypeError, ValueError on no JSON data."""
        frame = wire.encode(messages)
        with Deferred(), self._lock:  # half of a frame, or one that nobody pushes, would be the end of the connection
            if not self.alive:
                return
            if self._outbox:
                self._outbox += frame
            elif not self._push(frame):
                self._loop.call_soon_threadsafe(self._await_room)

    def _push(self, frame: bytes) -> bool:
        """Send a frame while none waits; False when the socket is full, and what is left of it waits."""
        try:
            sent = self._sock.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:  # its end is seen by the reader
            return True
        if sent == len(frame):
            return True
        self._outbox += memoryview(frame)[sent:]
        return self._push_more()

    def _push_more(self) -> bool:
        """Send what waits; False when the socket is full."""
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
            if self._push_more():
                self._loop.remove_writer(self._sock)

    def request(self, make: Callable[[int], Message]) -> concurrent.futures.Future[Json]:
        """Send a request that is replied to; the future fails with RuntimeError when the reply is an error."""
        future: concurrent.futures.Future[Json] = concurrent.futures.Future()
        with Deferred(), self._lock:
            self._numbers += 1
            number = self._numbers
            self._replies[number] = future
        self.send([make(number)])
        if not self.alive and not future.done():
            future.set_exception(RuntimeError("the supervisor is gone"))
        return future

    def environment(self, env: Mapping[str, str]) -> int:
        """The number of this environment; it is sent when it is not the one that was sent last."""
        now, (number, last) = _comparable(env), self._env
        if number and last == now:
            return number
        with Deferred(), self._env_lock:  # a number that is kept but was not sent would fail every launch that names it
            number, last = self._env
            if not number or last != now:
                number, kept = number + 1, dict(now)  # other threads may change it meanwhile
                self.send([requests.SetEnv(number, {_text(name): _text(value) for name, value in kept.items()})])
                self._env = number, kept
        return number

    def listen(self, run_id: str, listener: Listener) -> None:
        """Hand the run's events to `listener` until it is finished."""
        self._listeners[run_id] = listener

    def listener(self, run_id: str) -> Listener | None:
        """Who listens for the run."""
        return self._listeners.get(run_id)

    def adopt_for(self, session_id: str, adopter: Callable[[Json], Listener | None]) -> None:
        """Runs of this session that are launched elsewhere, by agents, are handed to `adopter`; what it returns listens to them."""
        self._adopters[session_id] = adopter

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
            if listener is None and isinstance(message, RunQueued):
                self._adopt(message.run)
            elif listener is not None:
                if message.type == "run_finished":
                    del self._listeners[run_id]
                listener.on_event(message)
        elif isinstance(message, Reply):
            self._reply(message)
        elif isinstance(message, BudgetSpent):
            self.budgets[message.scope_id] = message
        elif isinstance(message, StoreTrouble):
            self._note_trouble(message)
        elif isinstance(message, Ready):
            self._watch(message.spawners)
            if not self.ready.done():
                self._greeted(message)

    def _greeted(self, message: Ready) -> None:
        if message.version == requests.PROTOCOL_VERSION:
            self.ready.set_result(message.pid)
            return
        self.ready.set_exception(
            RuntimeError(
                f"it speaks version {message.version} of agentnb's protocol, this process {requests.PROTOCOL_VERSION}: "
                "use the agentnb that it was started with"
            )
        )

    def _adopt(self, run: Json) -> None:
        adopter = self._adopters.get(run["session_id"])
        if adopter is not None and (listener := adopter(run)) is not None:
            self.listen(run["id"], listener)

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
        why = f"the supervisor process {self._pid()} ended{self._last_words()}"
        if not self._spawners or not self._listeners:
            self._all_ended(why)
            return
        # Its spawners are ending what it left behind just now: a run is over when its processes are.
        timer = self._loop.call_later(_LAST_PROCESSES_S, self._spawners_are_late, why)

        def ended(fd: int) -> None:
            self._unwatch(fd)
            if not self._spawners:
                timer.cancel()
                self._all_ended(why)

        for fd in self._spawners:
            _signal(fd, signal.SIGCONT)  # in case that somebody stopped it
            self._loop.add_reader(fd, ended, fd)

    def _spawners_are_late(self, why: str) -> None:
        for fd, pid in self._spawners.items():
            if self._is_orphan(pid):  # else its supervisor lives, and only this connection to it is lost
                _signal(fd, signal.SIGKILL)  # the recovery of the history ends what it had
        self._all_ended(why)

    def _is_orphan(self, pid: int) -> bool:
        """Whether a spawner has lost its supervisor, too."""
        try:
            words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return False
        return self.ready.done() and self.ready.exception() is None and int(words[1]) != self.ready.result()

    def _all_ended(self, why: str) -> None:
        self._watch([])
        self._tell_of_the_end(why)

    def _watch(self, pids: Sequence[int]) -> None:
        """Keep descriptors that become readable at the end of these processes, and no others."""
        for fd in list(self._spawners):
            self._unwatch(fd)
        for pid in pids:
            with suppress(OSError):  # it has ended
                self._spawners[os.pidfd_open(pid)] = pid

    def _unwatch(self, fd: int) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(fd)
        del self._spawners[fd]
        os.close(fd)

    def _tell_of_the_end(self, why: str) -> None:
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
        if self.process is None:
            self._forget()
        self.gone.set_result(why)

    def _pid(self) -> int | str:
        if self.process is not None:
            return self.process.pid
        return self.ready.result() if self.ready.done() and self.ready.exception() is None else "(of which no pid is known)"

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        with suppress(OSError, ValueError):
            start = max(os.fstat(self._log.fileno()).st_size - 2000, 0)
            if text := os.pread(self._log.fileno(), 2000, start).decode(errors="replace").strip():
                return f"; its last words: {text}"
        return " (killed?)"

    def disown(self) -> None:
        """In a forked copy of the process: close the copy of the socket, without a word to the other side."""
        self._lock, self._env_lock = threading.Lock(), threading.Lock()  # they may be held by threads that were not copied
        self.alive = False
        self._sock.close()
        for fd in self._spawners:
            os.close(fd)
        self._spawners.clear()

    def close(self) -> None:
        """Let go of the supervisor. One that ends with this process is told to (it ends its runs first), and waited for."""
        if os.getpid() != self.owner_pid:  # a forked child has a copy; the supervisor is not its own
            return
        if self.process is None:
            self._hang_up()
        else:
            self.send([requests.Shutdown()])
            see_it_end(self.process, self._sock, self.trouble.values())
        with suppress(concurrent.futures.TimeoutError, RuntimeError):
            if not self._loop.is_closed() and self._loop.is_running():
                self.gone.result(5)
        if self.alive:  # the loop is gone: nobody else will
            self.alive = False
            self._sock.close()
        self._forget()

    def _forget(self) -> None:
        if self._loop.is_closed():
            self._watch([])
        if self._log is not None:
            self._log.close()
        if self in _clients:
            _clients.remove(self)

    def _hang_up(self) -> None:
        """Close this end of the socket, once all that was asked for has been heard. The runs go on: nobody is told that they ended."""
        if self.alive and self._loop.is_running():
            with suppress(concurrent.futures.TimeoutError, RuntimeError):
                self.request(requests.Ping).result(_GOODBYE_S)
        self._listeners.clear()
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class Nobody(Client):
    """The client of runs that are over: it is closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect to nothing."""
        self._prepare(loop)
        self.alive = False
        self.process = None


def _disown_all() -> None:
    """In a forked copy of the process: let go of the sockets, or the supervisors would not see the end of the parent."""
    for client in _clients:
        client.disown()
    _clients.clear()


os.register_at_fork(after_in_child=_disown_all)


def _signal(fd: int, signo: int) -> None:
    with suppress(OSError):  # it has ended
        signal.pidfd_send_signal(fd, signo)


def _comparable(env: Mapping[str, str]) -> Mapping[Any, Any]:
    """`env`, to be compared only: of os.environ the dict behind it, if there is one, since os.environ decodes every value."""
    behind = getattr(env, "_data", None)
    return behind if isinstance(behind, dict) else env


def _text(word: Any) -> str:
    return word if isinstance(word, str) else os.fsdecode(word)


def clients() -> list[Client]:
    """All that this process has."""
    return list(_clients)


def shutdown_all() -> None:
    """End every supervisor of this process and wait for them; runs that are live read interrupted, but for detached ones."""
    for client in [*_clients]:
        client.close()
