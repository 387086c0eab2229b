"""The spawner: the small process that is the parent of all commands.

It is run by path with ``python -I -S`` and imports next to nothing, for two reasons. A child's peak memory as the kernel
reports it is never below that of the process which started it, so the starter must be small. And when the supervisor dies,
somebody must be left to end its commands: the spawner sees its socket close and kills everything that descends from it.
It is a subreaper (set by the supervisor before exec), so daemonised grandchildren become its own children.

Packets on descriptor 3 (SOCK_SEQPACKET) hold marshalled tuples; a packet too big for the socket travels in a memfd.

    in   ("env", env_id, {name: value})                      ("drop_env", env_id)
         ("spawn", key, argv, cwd, env_id, overrides, fd_targets) + descriptors, to be child's 0, 1, 2 and fd_targets
         ("signal", key, signo, tag)  ("tree", key, tag)  ("forget", key)
    out  a list of
         ("spawned", key, pid, monotonic)                    ("failed", key, errno, what, path)
         ("exit", key, wait status, monotonic, cpu seconds, max rss kB, read bytes, write bytes, orphan pids, own peak kB)
         ("orphan", key, cpu seconds, max rss kB, read bytes, write bytes)       one adopted descendant was reaped
         ("tree", tag, pids)                                 who was alive (and, for "signal", was signalled)
"""

import _signal
import _socket
import marshal
import os
import resource
import select
import time
from errno import ENOENT, ENOEXEC

SOCKET_FD = 3
SIGTERM, SIGKILL, SIGCHLD = 15, 9, 17
#: Python ignores these; a command expects the default.
DEFAULTED = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
MAX_PACKET = 96 * 1024
MARK = b"AGENTNB_RUN_ID="


def read_file(path):
    """The bytes of a small file of /proc; empty when it is gone or may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, 1 << 17)
    except OSError:
        return b""
    finally:
        os.close(fd)


def children_of(pid):
    """Pids of the direct children of `pid`, of all its threads."""
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task") if pid != os.getpid() else [str(pid)]
    except OSError:
        return found
    for thread in threads:
        found += [int(word) for word in read_file(f"/proc/{pid}/task/{thread}/children").split()]
    return found


def stat_of(pid):
    """(state, session id) of `pid`, or None when it is gone."""
    text = read_file(f"/proc/{pid}/stat")
    if not text:
        return None
    words = text[text.rindex(b")") + 2 :].split()
    return words[0], int(words[3])


def io_of(pid):
    """(bytes read from disk, bytes written to it) by `pid` and the children it waited for; a zombie still knows."""
    read = written = None
    for line in read_file(f"/proc/{pid}/io").splitlines():
        name, _, value = line.partition(b": ")
        if name == b"read_bytes":
            read = int(value)
        elif name == b"write_bytes":
            written = int(value)
    return read, written


def find_program(name, env, cwd):
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

    def __init__(self, sock):
        """Serve the supervisor at the other end of `sock`."""
        self.sock = sock
        self.envs = {}
        self.mains = {}  # pid -> key, of commands that have not been reaped
        self.keys = {}  # key -> (pid of the command, run id or None)
        self.adopted = {}  # pid -> key, of orphans that belong to a run
        self.out = []

    # --- requests

    def handle(self, packet, fds):
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
        elif kind == "env":
            self.envs[packet[1]] = packet[2]
        elif kind == "drop_env":
            self.envs.pop(packet[1], None)

    def spawn(self, packet, fds):
        """Start a command in a session of its own and answer "spawned" or "failed"."""
        _, key, argv, cwd, env_id, overrides, targets = packet
        what, path = "working directory", cwd
        try:
            os.chdir(cwd)
            env = self.envs[env_id] | overrides
            what, path = "program", argv[0]
            path = find_program(argv[0], env, cwd)
            pid = self.start(path, argv, env, fds, targets)
        except OSError as error:
            self.out.append(("failed", key, error.errno or 0, what, path))
        except (ValueError, TypeError) as error:
            self.out.append(("failed", key, 22, str(error), path))
        else:
            self.mains[pid] = key
            self.keys[key] = (pid, overrides.get("AGENTNB_RUN_ID"))
            self.out.append(("spawned", key, pid, time.monotonic()))
        finally:
            os.chdir("/")
            for fd in fds:
                os.close(fd)

    def start(self, path, argv, env, fds, targets):
        """Call posix_spawn; a text file without an interpreter line is given to sh, as execvp would."""
        # A descriptor that already has a target's number would be overwritten before it is copied: move all out of the way.
        high = [os.dup2(fd, 64 + n, False) for n, fd in enumerate(fds)]
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in zip(high, (0, 1, 2, *targets))]
        try:
            return os.posix_spawn(path, argv, env, file_actions=actions, setsid=True, setsigdef=DEFAULTED, setsigmask=())
        except OSError as error:
            if error.errno != ENOEXEC:
                raise
            return os.posix_spawn(
                "/bin/sh", ["sh", path, *argv[1:]], env, file_actions=actions, setsid=True, setsigdef=DEFAULTED, setsigmask=()
            )
        finally:
            for fd in high:
                os.close(fd)

    def signal(self, key, signo, tag):
        """Send `signo` to every live process of a run and say who they were."""
        pids = self.members(key)
        for pid in pids:
            try:
                os.kill(pid, signo)
            except OSError:
                pass  # it ended meanwhile
        self.out.append(("tree", tag, pids))

    # --- who belongs to a run

    def members(self, key):
        """Live processes of a run: its command, the orphans it left, and all below them. Children come before parents."""
        if key not in self.keys:
            return []
        self.adopt()
        roots = [pid for pid, owner in self.mains.items() if owner == key]
        roots += [pid for pid, owner in self.adopted.items() if owner == key]
        found = []
        while roots:
            pid = roots.pop()
            stat = stat_of(pid)
            if stat is None or pid in found:
                continue
            if stat[0] not in (b"Z", b"X"):
                found.append(pid)
            roots += children_of(pid)
        return found[::-1]

    def adopt(self):
        """Find out to which runs new orphans belong."""
        for pid in children_of(os.getpid()):
            if pid not in self.mains and pid not in self.adopted:
                self.adopted[pid] = self.owner(pid)

    def owner(self, pid):
        """The run that an orphan comes from: by its session, else by the mark in its environment, else the only run there is."""
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

    def reap(self):
        """Account for every child that has ended, and let it go."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            self.account(info.si_pid)

    def account(self, pid):
        """Read what a zombie used, reap it, and report."""
        now = time.monotonic()
        if pid not in self.mains and pid not in self.adopted:
            self.adopted[pid] = self.owner(pid)
        read, written = io_of(pid)
        _, status, use = os.wait4(pid, 0)
        used = (use.ru_utime + use.ru_stime, use.ru_maxrss, read, written)
        if pid in self.mains:
            key = self.mains.pop(pid)
            self.adopt()
            orphans = [p for p, owner in self.adopted.items() if owner == key]
            self.out.append(("exit", key, status, now, *used, orphans, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        else:
            key = self.adopted.pop(pid)
            if key in self.keys:
                self.out.append(("orphan", key, *used))

    # --- the loop

    def serve(self):
        """Serve until the supervisor is gone, then end all that is left."""
        wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.signal(SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLIN)
        poll.register(wake_r, select.POLLIN)
        open_ = True
        while open_:
            for fd, _ in poll.poll():
                if fd == wake_r:
                    os.read(wake_r, 4096)
                    self.reap()
                else:
                    open_ = self.receive()
            open_ = self.flush() and open_
        self.end_all()

    def receive(self):
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
        self.handle(marshal.loads(data), fds)
        return True

    def flush(self):
        """Send what was found out; False when nobody listens any more."""
        if not self.out:
            return True
        packet, self.out = marshal.dumps(self.out), []
        try:
            self.sock.send(packet)
        except OSError:
            return False
        return True

    def end_all(self):
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

    def descendants(self):
        """Everything alive below this process."""
        found, roots = [], children_of(os.getpid())
        while roots:
            pid = roots.pop()
            stat = stat_of(pid)
            if stat and pid not in found:
                if stat[0] not in (b"Z", b"X"):
                    found.append(pid)
                roots += children_of(pid)
        return found


def read_all(fd):
    """The whole content of a memfd."""
    parts, at = [], 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


if __name__ == "__main__":
    for ignored in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGPIPE):
        _signal.signal(ignored, _signal.SIG_IGN)
    Spawner(_socket.socket(fileno=SOCKET_FD)).serve()
