"""The supervisor's end of the spawner: start commands, learn of their end, signal whole trees."""

from __future__ import annotations

import array
import asyncio
import ctypes
import errno
import itertools
import marshal
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentnb import lineage
from agentnb.engine.delay import Delay
from agentnb.engine.packets import BIG, MAX_PACKET, SOCKET_FD
from agentnb.ids import new_id

_PR_SET_CHILD_SUBREAPER = 36
_SPAWNER = Path(__file__).with_name("spawner.py")
#: The system has too many descriptors or buffers on their way just now: try again soon.
_CROWDED = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
_CROWDED_S = 0.02
#: A command that runs longer than this has its pipes watched; what a shorter one prints is read at its end.
LISTEN_AFTER_S = 0.005
#: What is over is told with the next packet, or after this long.
_FORGET_S = 0.05
#: How many files this process may open as it was started; commands get the same.
_NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)
#: A spawner that owes an answer and says nothing is looked at so often. It is sent SIGCONT after so many looks, in case that somebody
#: stopped it, and SIGKILL after more; after many more while it works (on a machine that has no time for it), or when all that it owes
#: is a start (from a file system that hangs).
TICK_S = 1.0
_CONTINUE, _KILL, _KILL_LATE = 2, 5, 30
#: When it is to end it kills what is left; this long that may take.
_END_S = 10.0
#: Numbers of commands and questions: those of one spawner are not used again by its successor, since commands are marked with them.
_numbers = itertools.count(1)


class SpawnerDied(Exception):
    """The spawner process is gone; every command it had was ended."""


class StartFailed(Exception):
    """A command could not be started. `what` says which part was at fault: "program" or "working directory"."""

    def __init__(self, what: str, path: str, errno: int) -> None:
        """Keep the parts for the error message."""
        super().__init__(f"{what} {path!r}: {os.strerror(errno) if errno else 'refused'}")
        self.what, self.path, self.errno = what, path, errno


@dataclass(slots=True)
class Exit:
    """How a command ended and what it used. Memory in bytes, CPU in seconds, `at` on the monotonic clock.

    `floor_bytes`: the spawner's own peak memory; no child's can be told apart below it.
    """

    status: int
    at: float
    cpu_s: float
    peak_memory_bytes: int
    floor_bytes: int
    read_bytes: int | None
    write_bytes: int | None
    orphans: list[int]
    tree_peak_bytes: int = 0
    seen: int = 0

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None when a signal ended it."""
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None

    @property
    def signal(self) -> int | None:
        """The signal that ended it, or None."""
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None


@dataclass(slots=True)
class Extra:
    """What adopted descendants that were reaped used, added up; of memory the largest. Bytes and CPU seconds."""

    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    count: int = 0

    def add(self, cpu_s: float, rss_kb: int, read: int | None, written: int | None, count: int) -> None:
        """Add what a packet tells of some."""
        self.cpu_s += cpu_s
        self.peak_memory_bytes = max(self.peak_memory_bytes, rss_kb * 1024)
        self.read_bytes += read or 0
        self.write_bytes += written or 0
        self.count += count


@dataclass(slots=True)
class Child:
    """One command that a spawner was asked for.

    `on_change` is called when it has started (`pid`), when it could not be (`failure`), and when it has ended (`exit`). `extra`: what its
    descendants used that were reaped so far.
    """

    key: int
    on_change: Callable[[Child], None]
    on_sample: Callable[[float, float, int, int, int, int], None] | None = None
    pid: int = 0
    started_at: float = 0.0
    failure: StartFailed | SpawnerDied | None = None
    exit: Exit | None = None
    extra: Extra | None = None

    @property
    def is_owed(self) -> bool:
        """Whether it neither started nor failed to, so far."""
        return not self.pid and self.failure is None


@dataclass(slots=True)
class Limited:
    """What a command's limits ask of the spawner: what to sample (sampler.REPORT ...) and for whom, RLIMIT_NOFILE, groups to join."""

    flags: int = 0
    nofile: int = 0
    joins: Sequence[str] = ()
    on_sample: Callable[[float, float, int, int, int, int], None] | None = None


_UNLIMITED = Limited()


class Spawner:
    """Talks with one spawner process. `owed`: how many starts it was asked for and has not answered; `listen_later`: see LISTEN_AFTER_S."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_death: Callable[[], None], stamp: int = 0) -> None:
        """Start the process; `on_death` is called once if it goes away by itself. `stamp`: of its runs' marks (lineage.py), or 0: any.

        Raises OSError when the system has no room for a process.
        """
        self._loop = loop
        self._on_death = on_death
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)  # noqa: FBT003 - positional only
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        try:
            self.pid = _fork_spawner(theirs, stamp or lineage.stamp_of(new_id()))
        except OSError:
            self._sock.close()
            raise
        finally:
            theirs.close()
        self._children: dict[int, Child] = {}
        self._asked: dict[int, asyncio.Future[list[int]]] = {}
        self._silent = 0
        self._ticking = False
        self._over: list[int] = []
        self._telling = False
        self.listen_later = Delay(loop, LISTEN_AFTER_S)
        self._buffer = bytearray(1 << 20)
        self._writing = False
        self.owed = 0
        self._waiting: list[tuple[bytes, Sequence[int]]] = []
        self.alive = True
        loop.add_reader(self._sock, self._readable)

    def set_env(self, env_id: int, env: dict[str, str]) -> None:
        """Keep an environment under a number that `start` can name."""
        self._send(("env", env_id, env), [])

    def drop_env(self, env_id: int) -> None:
        """Forget an environment."""
        self._send(("drop_env", env_id), [])

    def start(  # noqa: PLR0917 - the parts of one packet
        self,
        argv: Sequence[str],
        cwd: str,
        env_id: int,
        env: dict[str, str],
        fds: Sequence[int],
        targets: Sequence[int],
        on_change: Callable[[Child], None],
        limited: Limited = _UNLIMITED,
    ) -> Child:
        """Ask for a command; `fds` become its `targets`, and are closed here in every case. `forget` has to follow.

        Of its 0, 1 and 2 those that are no targets are the null device.

        Raises SpawnerDied when nobody can start it.
        """
        child = Child(next(_numbers), on_change, limited.on_sample)
        over, self._over = self._over, []
        how = (limited.flags, limited.nofile, tuple(limited.joins))
        try:
            self._send(("spawn", child.key, tuple(argv), cwd, env_id, env, tuple(targets), *how, tuple(over)), fds)
        except BaseException:
            close_all(fds)
            self._over = over + self._over
            raise
        self._children[child.key] = child
        self.owed += 1
        if not self._ticking:
            self._watch()
        return child

    async def signal(self, child: Child, signo: int) -> list[int]:
        """Signal every live process of the child's tree; return their pids."""
        return await self._ask("signal", child.key, int(signo))

    async def tree(self, child: Child) -> list[int]:
        """Pids of the live processes of the child's tree."""
        return await self._ask("tree", child.key)

    def forget(self, child: Child) -> None:
        """The child's run is over; nothing of it is alive. The spawner hears it with the next command, or a little later."""
        if self._children.pop(child.key, None) is not None and child.is_owed:
            self.owed -= 1
        if self.alive:
            if not self._telling:
                self._telling = True
                self._loop.call_later(_FORGET_S, self._forget)
            self._over.append(child.key)

    def _forget(self) -> None:
        self._telling = False
        if self._over and self.alive:
            over, self._over = self._over, []
            self._send(("forget", tuple(over)), [])

    def close(self) -> None:
        """Let the spawner end, and reap it."""
        if self.alive:
            self.let_go()
            self.reap()

    def let_go(self) -> None:
        """Let the spawner end: it kills whatever is left. `reap` has to follow."""
        self.alive = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._drop_waiting()
        os.kill(self.pid, signal.SIGCONT)

    def reap(self) -> None:
        """Wait for the end of the spawner. One that does not end is killed: its children are ours then."""
        fd = os.pidfd_open(self.pid)
        if not select.select([fd], [], [], _END_S)[0]:
            os.kill(self.pid, signal.SIGKILL)
        os.close(fd)
        os.waitpid(self.pid, 0)

    def _watch(self) -> None:
        """See to it that what is owed now is answered."""
        self._silent, self._ticking = 0, True
        self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        if not self.alive or not (self._asked or self.owed):
            self._ticking = False
            return
        self._loop.call_later(TICK_S, self._tick)
        self._silent += 1
        if self._silent == _CONTINUE:
            os.kill(self.pid, signal.SIGCONT)
        elif self._silent >= (_KILL if self._asked and not _works(self.pid) else _KILL_LATE):
            os.kill(self.pid, signal.SIGKILL)

    async def _ask(self, kind: str, key: int, *more: int) -> list[int]:
        number = next(_numbers)
        answer: asyncio.Future[list[int]] = self._loop.create_future()
        self._asked[number] = answer
        try:
            self._send((kind, key, *more, number), [])
            if not self._ticking:
                self._watch()
            return await answer
        finally:
            self._asked.pop(number, None)

    def _send(self, packet: tuple[Any, ...], fds: Sequence[int]) -> None:
        data = marshal.dumps(packet)
        if not self.alive:
            raise SpawnerDied
        if len(data) > MAX_PACKET:
            head = packet[:2] if isinstance(packet[1], int) else packet[:1]
            data, fds = BIG + marshal.dumps(head), [_memfd(data), *fds]
        self._waiting.append((data, fds))
        if len(self._waiting) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self.alive:
            data, fds = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self._sock.sendmsg([data], rights)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._flush)
                self._writing = True
                return
            except OSError as bad:
                self._stop_writing()
                if bad.errno in _CROWDED:
                    self._loop.call_later(_CROWDED_S, self._flush)
                return  # else its end is seen by the reader
            close_all(fds)
            del self._waiting[0]
        if self._writing and self.alive:
            self._stop_writing()

    def _stop_writing(self) -> None:
        self._loop.remove_writer(self._sock)
        self._writing = False

    def _readable(self) -> None:
        try:
            size = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self._died()
            return
        self._silent = 0
        for item in marshal.loads(self._buffer):  # noqa: S302 - written by our own process; what is left of older packets is not read
            try:
                self._take(item)
            except Exception as bad:  # noqa: BLE001 - the others of the packet are innocent
                self._loop.call_exception_handler({"message": f"what a spawner told was left out: {item[:2]}", "exception": bad})

    def _take(self, item: tuple[Any, ...]) -> None:
        kind, key = item[0], item[1]
        if kind == "tree":
            answer = self._asked.pop(key, None)
            if answer is not None and not answer.done():
                answer.set_result(item[2])
        elif (child := self._children.get(key)) is not None:
            self._about(child, kind, item)

    def _about(self, child: Child, kind: str, item: tuple[Any, ...]) -> None:
        if kind == "spawned":
            self.owed -= 1
            child.pid, child.started_at = item[2], item[3]
            child.on_change(child)
        elif kind == "failed":
            self.owed -= 1
            child.failure = StartFailed(item[3], item[4], item[2])
            child.on_change(child)
        elif kind == "exit":
            _, _, status, at, cpu, rss, read, written, orphans, floor, tree_peak, seen = item
            child.exit = Exit(status, at, cpu, rss * 1024, floor * 1024, read, written, orphans, tree_peak, seen)
            child.on_change(child)
        elif kind == "sample" and child.on_sample is not None:
            child.on_sample(*item[2:])
        elif kind == "orphans":
            child.extra = child.extra or Extra()
            child.extra.add(*item[2:])

    def _died(self) -> None:
        self.alive = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._drop_waiting()
        os.waitpid(self.pid, 0)
        for future in self._asked.values():
            if not future.done():
                future.set_exception(SpawnerDied())
                future.exception()  # whoever waits sees it; nobody waiting is fine too
        self._asked.clear()
        self.owed = 0
        for child in list(self._children.values()):
            if child.is_owed:
                child.failure = SpawnerDied()
                child.on_change(child)
        self._on_death()

    def _drop_waiting(self) -> None:
        for _, fds in self._waiting:
            close_all(fds)
        self._waiting.clear()


def _works(pid: int) -> bool:
    """Whether a process is not stopped and does not wait, as far as can be told: there may be no descriptor left to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return True


def _fork_spawner(sock: socket.socket, stamp: int) -> int:
    """Fork and exec the spawner, a subreaper, with `sock` as its descriptor 3."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    argv = [sys.executable, "-I", "-S", "-X", "utf8", str(_SPAWNER), str(stamp)]
    pid = os.fork()
    if pid:
        return pid
    try:
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, _NOFILE)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # also while it starts; it ends when its socket is closed
        fd = sock.fileno()
        if fd == SOCKET_FD:
            os.set_inheritable(fd, True)  # noqa: FBT003 - positional only
        else:
            os.dup2(fd, SOCKET_FD)
        os.execv(argv[0], argv)  # noqa: S606 - no shell is wanted
    finally:
        os._exit(127)


def prepare_host() -> None:
    """Make this process ready to host a spawner: open as many files as are allowed (each run takes some), be a subreaper.

    Should the spawner die, its children become this process's, which can then end them.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (_NOFILE[1], _NOFILE[1]))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _memfd(data: bytes) -> int:
    fd = os.memfd_create("agentnb")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def memfd(data: bytes) -> int:
    """A descriptor of an in-memory file that holds `data`, read from its start."""
    fd = _memfd(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def close_all(fds: Sequence[int]) -> None:
    """Close them."""
    for fd in fds:
        os.close(fd)
