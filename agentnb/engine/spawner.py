# ruff: noqa: PTH100, PTH113, PTH118, PTH120, SIM105
# (pathlib and contextlib would make this process bigger)
"""The spawner: the small process that is the parent of all commands.

It is run by path with ``python -I -S`` and imports next to nothing, for two reasons. A child's peak memory as the kernel
reports it is never below that of the process which started it, so the starter must be small. And when the supervisor dies,
somebody must be left to end its commands: the spawner sees its socket close and kills everything that descends from it.
It is a subreaper (set by the supervisor before exec), so daemonised grandchildren become its own children.

Packets on descriptor 3 (SOCK_SEQPACKET) hold marshalled tuples; a packet too big for the socket travels in a memfd.

    in   ("env", env_id, {name: value})                      ("drop_env", env_id)
         ("spawn", key, argv, cwd, env_id, overrides, fd_targets, flags, nofile, joins)
             + descriptors, to be the child's 0, 1, 2 and fd_targets; flags: see sampler.py; nofile: RLIMIT_NOFILE or 0;
             joins: cgroup.procs files of the groups that the child shall be a member of
         ("signal", key, signo, tag)  ("tree", key, tag)  ("forget", key)
    out  a list of
         ("spawned", key, pid, monotonic)                    ("failed", key, errno, what, path)
         ("exit", key, wait status, monotonic, cpu seconds, max rss kB, read bytes, write bytes, orphan pids, own peak kB,
             sampled peak bytes of the tree, processes seen)
         ("sample", key, monotonic, cpu seconds, memory bytes, processes, disk bytes, descriptors)      for flag REPORT
         ("orphan", key, cpu seconds, max rss kB, read bytes, write bytes)       one adopted descendant was reaped
         ("tree", tag, pids)                                 who was alive (and, for "signal", was signalled)
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has none
import _socket
import marshal
import os
import resource
import select
import sys
import time
from errno import ENOENT, ENOEXEC

if __name__ == "__main__":  # run by path, isolated: nothing else puts the package on the path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from agentnb.engine.proc import children_of, io_of, read_file, stat_of
from agentnb.engine.sampler import PERIOD_S, REPORT, Tree

TYPE_CHECKING = False  # the typing module would make this process bigger
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

SOCKET_FD = 3
LAST_TARGET = 9
SIGTERM, SIGKILL, SIGCHLD = 15, 9, 17
#: Python ignores these; a command expects the default.
DEFAULTED = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
MAX_PACKET = 96 * 1024
MARK = b"AGENTNB_RUN_ID="
#: RLIMIT_LOCKS does nothing since Linux 2.4.25, but every descendant inherits it, whatever it does to its session, parents,
#: environment and descriptors: it names the run that a process comes from.
LINEAGE, LINEAGE_LINE = 10, b"Max file locks"
#: A packet of answers holds this many at most, so that it fits the socket.
ANSWERS = 100


def find_program(name: str, env: Mapping[str, str], cwd: str) -> str:
    """The path to execute for `name`, searched in PATH of the child's own environment. Raises FileNotFoundError."""
    if "/" in name:
        return name if name.startswith("/") else os.path.join(cwd, name)
    denied = None
    for folder in env.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
        path = os.path.join(cwd, folder or ".", name)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            denied = path
    if denied:
        raise PermissionError(13, "not executable", denied)
    raise FileNotFoundError(ENOENT, "no such program on PATH", name)


class Spawner:
    """One loop over the socket and SIGCHLD."""

    def __init__(self, sock: _socket.socket) -> None:
        """Serve the supervisor at the other end of `sock`."""
        self.sock = sock
        self.envs: dict[int, dict[str, str]] = {}
        self.mains: dict[int, int] = {}  # pid -> key, of commands that have not been reaped
        self.keys: dict[int, tuple[int, str | None]] = {}  # key -> (pid of the command, run id or None)
        self.adopted: dict[int, int | None] = {}  # pid -> key, of orphans that belong to a run
        self.trees: dict[int, Tree] = {}  # key -> what was sampled, until the run is forgotten
        self.next_sample = 0.0
        self.out: list[tuple[Any, ...]] = []

    # --- requests

    def handle(self, packet: tuple[Any, ...], fds: list[int]) -> None:
        """Do what one packet asks."""
        kind = packet[0]
        if kind == "spawn":
            self.spawn(packet, fds)
        elif kind == "signal":
            self.signal(*packet[1:])
        elif kind == "tree":
            self.out.append(("tree", packet[2], self.members(packet[1])))
        elif kind == "forget":
            self.keys.pop(packet[1], None)
            if (tree := self.trees.pop(packet[1], None)) is not None:
                tree.close()
        elif kind == "env":
            self.envs[packet[1]] = packet[2]
        elif kind == "drop_env":
            self.envs.pop(packet[1], None)

    def spawn(self, packet: tuple[Any, ...], fds: list[int]) -> None:
        """Start a command in a session of its own and answer "spawned" or "failed"."""
        _, key, argv, cwd, env_id, overrides, targets, flags, nofile, joins = packet
        what, path = "working directory", cwd
        try:
            os.chdir(cwd)
            env = self.envs[env_id] | overrides
            what, path = "program", argv[0]
            path = find_program(argv[0], env, cwd)
            self.mark(key)
            with Joined(joins):
                pid = self.start(path, argv, env, fds, targets)
            if nofile:  # afterwards: under a low limit the child could not copy its descriptors
                bound_descriptors(pid, nofile)
        except OSError as error:
            self.out.append(("failed", key, error.errno or 0, what, path))
        except (ValueError, TypeError, LookupError) as error:  # NUL in a word, no words, an environment nobody sent ...
            self.out.append(("failed", key, 22, f"{type(error).__name__}: {error}", path))
        else:
            self.mains[pid] = key
            self.keys[key] = (pid, overrides.get("AGENTNB_RUN_ID"))
            if not self.trees:
                self.next_sample = time.monotonic() + PERIOD_S
            self.trees[key] = Tree(flags)
            self.out.append(("spawned", key, pid, time.monotonic()))
        finally:
            os.chdir("/")
            for fd in fds:
                os.close(fd)

    def start(self, path: str, argv: tuple[str, ...], env: Mapping[str, str], fds: Sequence[int], targets: Sequence[int]) -> int:
        """Call posix_spawn; a text file without an interpreter line is given to sh, as execvp would."""
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(fds, (0, 1, 2, *targets), strict=True)]
        try:
            return os.posix_spawn(path, argv, env, file_actions=actions, setsid=True, setsigdef=DEFAULTED, setsigmask=())
        except OSError as error:
            if error.errno != ENOEXEC:
                raise
            words = ("sh", path, *argv[1:])
            return os.posix_spawn("/bin/sh", words, env, file_actions=actions, setsid=True, setsigdef=DEFAULTED, setsigmask=())

    def signal(self, key: int, signo: int, tag: int) -> None:
        """Send `signo` to every live process of a run and say who they were."""
        pids = self.members(key)
        for pid in pids:
            try:
                os.kill(pid, signo)
            except OSError:
                pass  # it ended meanwhile
        self.out.append(("tree", tag, pids))

    # --- who belongs to a run

    def members(self, key: int) -> list[int]:
        """Live processes of a run: its command, the orphans it left, and all below them.

        Parents come before children: a shell whose child is signalled first would go on with its next command.
        """
        if key not in self.keys:
            return []
        self.adopt()
        roots = [pid for pid, owner in self.mains.items() if owner == key]
        roots += [pid for pid, owner in self.adopted.items() if owner == key]
        found: list[int] = []
        while roots:
            pid = roots.pop()
            stat = stat_of(pid)
            if stat is None or pid in found:
                continue
            if stat[0] not in (b"Z", b"X"):
                found.append(pid)
            roots += children_of(pid)
        return found

    def adopt(self) -> None:
        """Find out to which runs new orphans belong."""
        for pid in children_of(os.getpid()):
            if pid not in self.mains and pid not in self.adopted:
                self.adopted[pid] = self.owner(pid)

    @staticmethod
    def lineage(key: int) -> int:
        """The mark of a run's processes, unlike that of any other spawner's."""
        return os.getpid() << 32 | key

    def mark(self, key: int) -> None:
        """Mark what is started next."""
        try:
            resource.setrlimit(LINEAGE, (self.lineage(key), resource.getrlimit(LINEAGE)[1]))
        except (OSError, ValueError):
            pass  # somebody bounded it: `owner` has other ways

    def owner(self, pid: int) -> int | None:
        """The run that an orphan comes from: by its mark, its session, or its environment, else the only run there is."""
        for line in read_file(f"/proc/{pid}/limits").splitlines():
            if line.startswith(LINEAGE_LINE) and (word := line.split()[3]).isdigit():
                key = int(word) & 0xFFFFFFFF
                if key in self.keys and self.lineage(key) == int(word):
                    return key
        stat = stat_of(pid)
        session = stat[1] if stat else 0
        for key, (main, _) in self.keys.items():
            if main == session:
                return key
        for word in read_file(f"/proc/{pid}/environ").split(b"\0"):
            if word.startswith(MARK):
                run_id = word[len(MARK) :].decode()
                for key, (_, name) in self.keys.items():
                    if name == run_id:
                        return key
        return next(iter(self.keys)) if len(self.keys) == 1 else None

    # --- reaping

    def reap(self) -> None:
        """Account for every child that has ended, and let it go."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            self.account(info.si_pid)

    def account(self, pid: int) -> None:
        """Read what a zombie used, reap it, and report."""
        now = time.monotonic()
        if pid not in self.mains and pid not in self.adopted:
            self.adopted[pid] = self.owner(pid)
        read, written = io_of(pid)
        _, status, use = os.wait4(pid, 0)
        used = (use.ru_utime + use.ru_stime, use.ru_maxrss, read, written)
        tree = self.trees.get(self.mains[pid] if pid in self.mains else self.adopted[pid] or 0)
        if tree is not None:
            tree.ended(used[0], (read or 0) + (written or 0))
        if pid in self.mains:
            key = self.mains.pop(pid)
            self.adopt()
            orphans = [p for p, owner in self.adopted.items() if owner == key and is_live(p)]
            seen = (tree.peak_rss, tree.seen) if tree is not None else (0, 0)
            self.out.append(("exit", key, status, now, *used, orphans, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, *seen))
        else:
            owner = self.adopted.pop(pid)
            if owner in self.keys:
                self.out.append(("orphan", owner, *used))

    # --- the loop

    def serve(self) -> None:
        """Serve until the supervisor is gone, then end all that is left."""
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) <= LAST_TARGET:
            pass  # a received descriptor must not have a number that a child's is to get: `start` would overwrite it
        os.close(fd)
        _signal.signal(SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        poll.register(wake_r, select.POLLIN)
        open_ = True
        while open_:
            for fd, _ in poll.poll(self.until_sample()):
                if fd == wake_r:
                    os.read(wake_r, 4096)
                    self.reap()
                else:
                    open_ = self.receive()
            if self.trees and time.monotonic() >= self.next_sample:
                self.sample()
            open_ = self.flush() and open_
        self.end_all()

    def until_sample(self) -> int | None:
        """Milliseconds to wait at most; None when nothing is to be sampled."""
        return max(int(1000 * (self.next_sample - time.monotonic())) + 1, 0) if self.trees else None

    def sample(self) -> None:
        """Read every live tree."""
        now = time.monotonic()
        self.next_sample = now + PERIOD_S
        roots: dict[int | None, list[int]] = {}
        for pid, key in (*self.mains.items(), *self.adopted.items()):
            roots.setdefault(key, []).append(pid)
        for key, tree in self.trees.items():
            if key in roots:
                readings = tree.sample(roots[key])
                if tree.flags & REPORT:
                    self.out.append(("sample", key, now, *readings))

    def receive(self) -> bool:
        """Take one packet; False at the end of the stream."""
        try:
            data, anc, _, _ = self.sock.recvmsg(MAX_PACKET + 4096, _socket.CMSG_SPACE(4 * 16), _socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return False
        if not data:
            return False
        fds = [int.from_bytes(raw[n : n + 4], "little") for _, _, raw in anc for n in range(0, len(raw) // 4 * 4, 4)]
        if data == b"big":
            big = fds.pop(0)
            data = read_all(big)
            os.close(big)
        self.handle(marshal.loads(data), fds)  # noqa: S302 - written by the supervisor
        return True

    def flush(self) -> bool:
        """Send what was found out; False when nobody listens any more."""
        out, self.out = self.out, []
        try:
            for start in range(0, len(out), ANSWERS):
                self.sock.send(marshal.dumps(out[start : start + ANSWERS]))
        except OSError:
            return False
        return True

    def end_all(self) -> None:
        """The supervisor is gone: ask every descendant to end, then make it."""
        deadline = time.monotonic() + 0.4
        signo = SIGTERM
        while pids := self.descendants():
            for pid in pids:
                try:
                    os.kill(pid, signo)
                except OSError:
                    pass
            while time.monotonic() < deadline and self.descendants():
                time.sleep(0.01)
                self.reap()
            self.reap()
            signo = SIGKILL
            time.sleep(0.01)

    def descendants(self) -> list[int]:
        """Everything alive below this process."""
        found: list[int] = []
        roots = children_of(os.getpid())
        while roots:
            pid = roots.pop()
            stat = stat_of(pid)
            if stat and pid not in found:
                if stat[0] not in (b"Z", b"X"):
                    found.append(pid)
                roots += children_of(pid)
        return found


class Joined:
    """While it is entered this process is a member of control groups, and so is whatever it starts."""

    def __init__(self, joins: Sequence[str]) -> None:
        """`joins`: cgroup.procs files."""
        self.joins = joins
        self.homes: list[str] = []

    def __enter__(self) -> None:
        """Join. Raises OSError."""
        for path in self.joins:
            self.homes.append(home_of(path))
            write_file(path, b"0")

    def __exit__(self, *_: object) -> None:
        """Go home."""
        for path in self.homes:
            write_file(path, b"0")


def bound_descriptors(pid: int, most: int) -> None:
    """Set the RLIMIT_NOFILE of a process that was just started."""
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(most, hard), hard))
    except OSError:
        pass  # it has ended


def home_of(path: str) -> str:
    """The cgroup.procs file of the group that this process is in, in the hierarchy that `path` belongs to. Raises OSError."""
    own = [line.split(":", 2) for line in read_file("/proc/self/cgroup").decode().splitlines()]
    for line in read_file("/proc/self/mountinfo").decode().splitlines():
        words = line.split()
        mount, kind, options = words[4], words[words.index("-") + 1], words[-1].split(",")
        if kind in {"cgroup", "cgroup2"} and path.startswith(f"{mount}/"):
            for _, names, group in own:
                if names.split(",")[0] in options if names else kind == "cgroup2":
                    return f"{mount}{group.rstrip('/')}/cgroup.procs"
    raise FileNotFoundError(ENOENT, "no such cgroup hierarchy", path)


def write_file(path: str, data: bytes) -> None:
    """Write a control file. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def is_live(pid: int) -> bool:
    """Whether `pid` is there and no zombie."""
    stat = stat_of(pid)
    return stat is not None and stat[0] not in {b"Z", b"X"}


def read_all(fd: int) -> bytes:
    """The whole content of a memfd."""
    parts: list[bytes] = []
    at = 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


if __name__ == "__main__":
    os.set_inheritable(SOCKET_FD, False)  # noqa: FBT003 - a command that held it would hide this process's end
    for ignored in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGPIPE):
        _signal.signal(ignored, _signal.SIG_IGN)
    Spawner(_socket.socket(fileno=SOCKET_FD)).serve()
