# ruff: noqa: PTH100, PTH120, SIM105
# (pathlib and contextlib would make this process bigger)
"""The spawner: the small process that is the parent of all commands.

It is run by path with ``python -I -S`` and imports next to nothing, for two reasons. A child's peak memory as the kernel
reports it is never below that of the process which started it, so the starter must be small. And when the supervisor dies,
somebody must be left to end its commands: the spawner sees its socket close and kills everything that descends from it.
It is a subreaper (set by the supervisor before exec), so daemonised grandchildren become its own children.

Packets on descriptor 3 (SOCK_SEQPACKET) hold marshalled tuples; a packet too big for the socket travels in a memfd, and in its place
``big`` with its first two items. Its argument is the stamp of its runs' marks (lineage.py).

    in   ("env", env_id, {name: value})                      ("drop_env", env_id)
         ("spawn", key, argv, cwd, env_id, overrides, fd_targets, flags, nofile, joins, keys to forget)
             + descriptors, to be the child's fd_targets (0, 1 and 2 are the null device if they are not among them); flags: see
             sampler.py; nofile: RLIMIT_NOFILE or 0; joins: cgroup.procs files of the groups that the child shall be a member of
         ("signal", key, signo, tag)  ("tree", key, tag)  ("forget", keys)
    out  a list of
         ("spawned", key, pid, monotonic)                    ("failed", key, errno, what, path)
         ("exit", key, wait status, monotonic, cpu seconds, max rss kB, read bytes, write bytes, orphan pids ([0]: ask), own peak kB,
             sampled peak bytes of the tree, processes seen)
         ("sample", key, monotonic, cpu seconds, memory bytes, processes, disk bytes, descriptors)      for flag REPORT
         ("orphans", key, cpu seconds, max rss kB, read bytes, write bytes, how many)       adopted descendants were reaped
         ("tree", tag, pids)                                 who was alive (and, for "signal", was signalled); MOST_PIDS at most
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
from errno import ECONNRESET, EMFILE, EMSGSIZE, ENOTCONN, EPIPE

if __name__ == "__main__":  # run by path, isolated: nothing else puts the package on the path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from agentnb import lineage
from agentnb.engine.finding import find_program
from agentnb.engine.joining import Joined
from agentnb.engine.packets import BIG, MAX_PACKET, MOST_FDS, SOCKET_FD, read_all
from agentnb.engine.proc import Kept, bound_descriptors, children_of, environ_of, is_live, let_go, read_file, relief, send_signal, stat_of
from agentnb.engine.sampler import PERIOD_S, REPORT, Room, Tree
from agentnb.engine.starting import Environment, nothing, start

TYPE_CHECKING = False  # the typing module would make this process bigger
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LAST_TARGET = 9
SIGTERM, SIGKILL, SIGCHLD = 15, 9, 17
RECEIVING = _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
MARK = b"AGENTNB_RUN_ID="
#: wait4 counts disk traffic in blocks of this many bytes, where the system counts it at all.
BLOCK = 512
COUNTS_DISK = os.access("/proc/self/io", os.F_OK)
#: Of a path or message, and of a list of pids, so much is told.
MOST_TEXT, MOST_PIDS = 4096, 8000
#: Between two looks at the socket so many processes are reaped with care, then others so long at most, and a tree that grows all the
#: time is signalled so long.
REAPED, REAPING_S, KILLING_S = 64, 0.01, 0.05
#: While there are more than that, a question waits so long until they are reaped.
CATCHING_UP_S = 0.2
#: Errors of the socket that mean that nobody is at its other end.
GONE = frozenset({EPIPE, ECONNRESET, ENOTCONN})
CROWDED_S = 0.01
#: So many answers may wait until nothing more is asked; an end is told at once.
GATHERED = 4


class Spawner:
    """One loop over the socket and SIGCHLD."""

    def __init__(self, sock: _socket.socket, stamp: int) -> None:
        """Serve the supervisor at the other end of `sock`; `stamp`: of the marks."""
        self.sock = sock
        self.stamp = stamp
        self.own = Kept(os.getpid())
        self.most_locks = resource.getrlimit(lineage.LIMIT)[1]
        self.room = Room(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.peak_kb = 0
        self.buffer = bytearray(MAX_PACKET + 4096)
        self.sent_envs: dict[int, dict[str, str]] = {}  # those that no command has named yet
        self.envs: dict[int, Environment] = {}
        self.mains: dict[int, int] = {}  # pid -> key, of commands that have not been reaped
        self.keys: dict[int, tuple[int, str | None]] = {}  # key -> (pid of the command, run id or None)
        self.adopted: dict[int, int | None] = {}  # pid -> key, of orphans that belong to a run
        self.behind = False
        self.latest: int | None = None  # key of the orphan that was adopted last
        self.nobodys: dict[int, set[int]] = {}  # pid -> keys of the runs that it may have come from, of the others
        self.told: dict[int, set[int]] = {}  # key -> pids that were sent SIGTERM
        self.reaped: dict[int, tuple[float, int, int | None, int | None, int]] = {}  # key -> what orphans used, to be told
        self.trees: dict[int, Tree] = {}  # key -> what was sampled, until the run is forgotten
        self.next_sample = 0.0
        self.out: list[tuple[Any, ...]] = []
        relief.append(self.spare)

    def spare(self) -> None:
        """Close the files that were kept open for speed only."""
        for tree in self.trees.values():
            tree.close()

    # --- requests
    def handle(self, packet: tuple[Any, ...], fds: list[int]) -> None:
        """Do what one packet asks."""
        kind = packet[0]
        if kind == "spawn":
            self.spawn(packet, fds)
        elif kind == "signal":
            self.signal(*packet[1:])
        elif kind == "tree":
            self.out.append(("tree", packet[2], self.members(packet[1])[:MOST_PIDS]))
        elif kind == "forget":
            self.forget(packet[1])
        elif kind == "env":
            self.sent_envs[packet[1]] = packet[2]
            self.envs.pop(packet[1], None)
        elif kind == "drop_env":
            self.envs.pop(packet[1], None)
            self.sent_envs.pop(packet[1], None)

    def forget(self, keys: Sequence[int]) -> None:
        """These runs are over; nothing of them is alive."""
        for key in keys:
            self.keys.pop(key, None)
            self.told.pop(key, None)
            if (tree := self.trees.pop(key, None)) is not None:
                tree.close()
        if self.nobodys:
            self.end_nobodys(keys)

    def end_nobodys(self, over: Sequence[int]) -> None:
        """End the orphans that can only come from runs which are over."""
        for pid, keys in list(self.nobodys.items()):
            keys.difference_update(over)
            if not keys:
                del self.nobodys[pid]
                self.live_below([pid], SIGKILL)

    def spawn(self, packet: tuple[Any, ...], fds: list[int]) -> None:
        """Start a command in a session of its own and answer "spawned" or "failed"."""
        _, key, argv, cwd, env_id, overrides, targets, flags, nofile, joins, over = packet
        self.forget(over)
        what, path = "working directory", cwd
        try:
            os.chdir(cwd)
            variables = env, own = self.env(env_id), Environment(overrides)
            what, path = "program", argv[0]
            if not path.startswith("/"):
                path = find_program(path, own.variables if "PATH" in own.variables else env.variables, cwd)
            self.mark(key)
            with Joined(joins):
                pid = start(path, argv, variables, fds, targets)
            if nofile:  # afterwards: under a low limit the child could not copy its descriptors
                bound_descriptors(pid, nofile)
        except OSError as error:
            self.out.append(("failed", key, error.errno or 0, what, path[:MOST_TEXT]))
        except (ValueError, TypeError, LookupError, AttributeError) as error:  # NUL in a word, no words, an environment nobody sent ...
            self.out.append(("failed", key, 22, f"{type(error).__name__}: {error}"[:MOST_TEXT], path[:MOST_TEXT]))
        else:
            self.mains[pid] = key
            self.keys[key] = (pid, overrides.get("AGENTNB_RUN_ID"))
            if not self.trees:
                self.next_sample = time.monotonic() + PERIOD_S
            self.trees[key] = Tree(flags, self.room)
            self.out.append(("spawned", key, pid, time.monotonic()))
        finally:
            if not self.mains:
                os.chdir("/")
            for fd in fds:
                os.close(fd)

    def env(self, env_id: int) -> Environment:
        """An environment, encoded when it is named first. Raises LookupError, ValueError, TypeError."""
        if env_id not in self.envs:
            self.envs[env_id] = Environment(self.sent_envs[env_id])
            del self.sent_envs[env_id]
        return self.envs[env_id]

    def signal(self, key: int, signo: int, tag: int) -> None:
        """Send `signo` to every live process of a run and say who they were. SIGKILL goes on while new ones appear, for a moment."""
        if signo != SIGKILL:
            pids = self.members(key)
            if signo == SIGTERM:
                self.told[key] = set(pids)
            for pid in pids:
                send_signal(pid, signo)
        else:
            pids, known, deadline = [], set[int](), time.monotonic() + KILLING_S
            while new := [pid for pid in self.members(key, SIGKILL) if pid not in known]:
                pids += new
                known.update(new)
                self.reap()
                if time.monotonic() > deadline:
                    break
        self.out.append(("tree", tag, pids[:MOST_PIDS]))

    # --- who belongs to a run
    def members(self, key: int, signo: int = 0) -> list[int]:
        """Live processes of a run: its command, the orphans it left, and all below them. Each is sent `signo` as it is found."""
        if key not in self.keys:
            return []
        until = time.monotonic() + CATCHING_UP_S
        while self.behind and self.reap() and time.monotonic() < until:
            pass
        self.adopt(key, signo)
        roots = [pid for pid, owner in self.mains.items() if owner == key]
        roots += [pid for pid, owner in self.adopted.items() if owner == key]
        return self.live_below(roots, signo)

    def live_below(self, roots: list[int], signo: int = 0) -> list[int]:
        """These processes and all below them, as far as they live; each is sent `signo` as it is found.

        Parents come before children: a shell whose child is signalled first would go on with its next command.
        """
        found: list[int] = []
        seen = set[int]()
        while roots:
            pid = roots.pop()
            if pid in seen or (stat := stat_of(pid)) is None:
                continue
            seen.add(pid)
            if stat[0]:
                found.append(pid)
                if signo:
                    send_signal(pid, signo)
            roots += children_of(pid)
        return found

    def adopt(self, key: int = 0, signo: int = 0) -> None:
        """Find out to which runs new orphans belong; those of `key` are sent `signo` at once: they may be gone, and others there."""
        if self.own.has_children(len(self.mains) + len(self.adopted)):  # nobody but these
            return
        for pid in self.own.children():
            if pid not in self.mains and pid not in self.adopted:
                self.adopt_one(pid)
                if signo and self.adopted[pid] == key:
                    send_signal(pid, signo)

    def adopt_one(self, pid: int) -> None:
        """Find out to which run an orphan belongs."""
        owner = self.latest = self.adopted[pid] = self.owner(pid)
        if owner is None:
            self.nobodys[pid] = set(self.keys)
            if not self.keys:
                self.end_nobodys(())
        elif pid not in (told := self.told.get(owner, {pid})):
            # Its parent, which is gone, started it while it was told to end. What a parent starts to clean up is left to the parent.
            told.update(self.live_below([pid], SIGTERM))

    def mark(self, key: int) -> None:
        """Mark what is started next."""
        try:
            resource.setrlimit(lineage.LIMIT, (lineage.mark_of(self.stamp, key), self.most_locks))
        except (OSError, ValueError):
            pass  # somebody bounded it: `owner` has other ways

    def owner(self, pid: int) -> int | None:
        """The run that an orphan comes from: by its mark, what was seen of it, its session, or its environment, else the only run."""
        stamp, key = lineage.read_mark(read_file(f"/proc/{pid}/limits"))
        if key in self.keys and stamp == self.stamp:
            return key
        for key, tree in self.trees.items():
            if pid in tree.known:
                return key
        stat = stat_of(pid)
        session = stat[1] if stat else 0
        for key, (main, _) in self.keys.items():
            if main == session:
                return key
        for word in environ_of(pid).split(b"\0"):
            if word.startswith(MARK):
                run_id = word[len(MARK) :].decode()
                for key, (_, name) in self.keys.items():
                    if name == run_id:
                        return key
        return next(iter(self.keys)) if len(self.keys) == 1 else None

    # --- reaping
    def reap(self) -> bool:
        """Account for children that have ended, and let them go; False when there are no more."""
        try:
            for _ in range(REAPED):
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if info is None:
                    return False
                if info.si_pid not in self.mains and info.si_pid not in self.adopted:
                    self.adopt_one(info.si_pid)
                self.account(*os.wait4(info.si_pid, 0))
            until = time.monotonic() + REAPING_S
            while time.monotonic() < until:  # a storm: those that nobody asked about are taken for more of the same run
                ended = os.wait4(-1, os.WNOHANG)
                if not ended[0]:
                    return False
                self.account(*ended)
        except ChildProcessError:
            return False
        return True

    def hurry(self, *, on: bool) -> None:
        """While processes end faster than they are reaped, come before them if the system allows it: else they would fill its table."""
        self.behind = on
        try:
            policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK if on else os.SCHED_OTHER
            os.sched_setscheduler(0, policy, os.sched_param(int(on)))
        except OSError:
            pass  # it does not

    def account(self, pid: int, status: int, use: resource.struct_rusage) -> None:
        """Report what a process that was reaped, and the children it waited for, used."""
        now = time.monotonic()
        if use.ru_maxrss > self.peak_kb:  # else it is below what was our own peak before, and so below that of now
            self.peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read, written = (use.ru_inblock * BLOCK, use.ru_oublock * BLOCK) if COUNTS_DISK else (None, None)
        used = (use.ru_utime + use.ru_stime, use.ru_maxrss, read, written)
        tree = self.trees.get((self.mains[pid] if pid in self.mains else self.adopted.get(pid, self.latest)) or 0)
        if tree is not None:
            tree.ended(used[0], (read or 0) + (written or 0))
        if pid in self.mains:
            key = self.mains.pop(pid)
            if not self.mains:
                os.chdir("/")  # no folder is held longer than by what runs there
            orphans = self.orphans(key)
            seen = (tree.peak_rss, tree.seen) if tree is not None else (0, 0)
            self.out.append(("exit", key, status, now, *used, orphans, self.peak_kb, *seen))
        else:
            owner = self.adopted.pop(pid, self.latest)
            self.nobodys.pop(pid, None)
            if owner is not None and owner in self.keys:
                self.add_up(owner, *used)

    def orphans(self, key: int) -> list[int]:
        """Live orphans of a run whose command has ended; [0] when there is no time to look."""
        if self.behind:
            return [0]
        self.adopt()
        if self.nobodys:
            self.claim(key)
        if not self.adopted:
            return []
        return [pid for pid, owner in self.adopted.items() if owner == key and is_live(pid)][:MOST_PIDS]

    def claim(self, key: int) -> None:
        """Orphans of unknown origin fall to the last of the runs that they may have come from, and are told to end."""
        others = {*self.mains.values(), *self.adopted.values()} - {key}
        for pid, keys in list(self.nobodys.items()):
            if key in keys and not keys & others:
                del self.nobodys[pid]
                self.adopted[pid] = key
                send_signal(pid, SIGTERM)

    def add_up(self, key: int, cpu: float, rss: int, read: int | None, written: int | None) -> None:
        """Add what an orphan used to what the next packet tells: a storm of them shall not become a flood of answers."""
        before = self.reaped.get(key, (0.0, 0, 0, 0, 0))
        total = [None if more is None else (so_far or 0) + more for so_far, more in ((before[2], read), (before[3], written))]
        self.reaped[key] = (before[0] + cpu, max(before[1], rss), total[0], total[1], before[4] + 1)

    # --- the loop
    def serve(self) -> None:
        """Serve until the supervisor is gone, then end all that is left."""
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        while (fd := os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)) <= LAST_TARGET:
            pass  # a received descriptor must not have a number that a child's is to get: starting.py would overwrite it
        os.close(fd)
        nothing()  # now: later there may be no descriptor left
        _signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        poll.register(wake_r, select.POLLIN)
        open_ = True
        while open_:
            received = self.receive()
            open_ = received is not False
            before = len(self.out)
            more = self.reap()
            if more is not self.behind:
                self.hurry(on=more)
            if self.trees and not more and time.monotonic() >= self.next_sample:
                self.sample()
            if received is None or len(self.out) > before or before >= GATHERED:  # else there is more to do, and one answer will do
                open_ = self.flush() and open_
            if received is None and not more:
                self.sleep(poll, wake_r)
        self.end_all()

    def sleep(self, poll: select.poll, wake_r: int) -> None:
        """Wait until there is something to do. Only here a signal tells of the end of a child: at other times it would only interrupt."""
        _signal.signal(SIGCHLD, _nothing)
        try:
            asleep = not self.reap() and not self.out  # else it ended before that
            until = max(int(1000 * (self.next_sample - time.monotonic())) + 1, 0) if self.trees else None
            if asleep and any(fd == wake_r for fd, _ in poll.poll(until)):
                os.read(wake_r, 4096)
        finally:
            _signal.signal(SIGCHLD, _signal.SIG_DFL)

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

    def receive(self) -> bool | None:
        """Take one packet; None when there is none, False at the end of the stream."""
        try:
            size, anc, flags, _ = self.sock.recvmsg_into([self.buffer], _socket.CMSG_SPACE(4 * MOST_FDS), RECEIVING)
        except BlockingIOError:
            return None
        except OSError as bad:
            time.sleep(CROWDED_S)
            return bad.errno not in GONE
        if not size:
            return False
        fds = [fd for _, _, raw in anc for fd in memoryview(raw)[: len(raw) // 4 * 4].cast("i")]
        data: bytes | memoryview = memoryview(self.buffer)[:size]
        big = data[: len(BIG)] == BIG
        if flags & _socket.MSG_CTRUNC:
            self.refuse(marshal.loads(data[len(BIG) :] if big else data), fds)  # noqa: S302 - written by the supervisor
            return True
        if big:
            memfd = fds.pop(0)
            data = read_all(memfd)
            os.close(memfd)
        self.handle(marshal.loads(data), fds)  # noqa: S302
        return True

    def refuse(self, packet: tuple[Any, ...], fds: list[int]) -> None:
        """The system had no room for all descriptors of a packet: it cannot be done."""
        self.spare()
        for fd in fds:
            os.close(fd)
        if packet[0] == "spawn":
            self.out.append(("failed", packet[1], EMFILE, "program", ""))

    def flush(self) -> bool:
        """Send what was found out; False when nobody listens any more."""
        if not self.out:
            return True  # what orphans used can wait for the next answer
        out, self.out = self.out, []
        if self.reaped:
            out = [("orphans", key, *used) for key, used in self.reaped.items()] + out  # before the "exit" that sums up
            self.reaped = {}
        return self.tell(out)

    def tell(self, out: list[tuple[Any, ...]]) -> bool:
        """Send these answers, in as many packets as they need."""
        data = marshal.dumps(out)
        if len(data) > MAX_PACKET and len(out) > 1:
            half = len(out) // 2
            return self.tell(out[:half]) and self.tell(out[half:])
        while True:
            try:
                self.sock.send(data)
            except OSError as bad:
                if bad.errno in GONE:
                    return False
                if bad.errno == EMSGSIZE:
                    return True  # nothing that is told is so long
                time.sleep(CROWDED_S)  # the system has no room for it just now
            else:
                return True

    def end_all(self) -> None:
        """The supervisor is gone: ask every descendant to end, then make it."""
        deadline = time.monotonic() + 0.4
        signo, before = SIGTERM, list[int]()
        while found := self.live_below(self.own.children(), signo):
            while time.monotonic() < deadline and self.live_below(self.own.children()):
                time.sleep(0.01)
                let_go()
            let_go()
            if found == before:
                time.sleep(0.01)  # else new ones appear, and it is a race
            signo, before = SIGKILL, found


def _nothing(*_: object) -> None:
    """The handler of signals that are not ignored, and no more."""


if __name__ == "__main__":
    os.set_inheritable(SOCKET_FD, False)  # noqa: FBT003 - a command that held it would hide this process's end
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    for signo in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(signo, _nothing)  # a command would inherit that it is ignored
    Spawner(_socket.socket(fileno=SOCKET_FD), int(sys.argv[1])).serve()
