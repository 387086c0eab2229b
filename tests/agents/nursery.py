"""Child processes of agents that are forked from one that has loaded their modules: what takes most of a start is done once.

What runs is agentnb/agents/child.py, from its first line, with descriptors, environment and folder of its own. Run by path, this file
is the process that is forked: it takes one request at a time from the socket that is its stdin, and watches all that it started.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import selectors
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

CHILD = Path(__file__).resolve().parents[2] / "agentnb" / "agents" / "child.py"


@dataclass
class Forked:
    """A child of the nursery, with the words of a Popen."""

    pid: int
    status: int
    code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code (negative: a signal)."""
        if self.code is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self.status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired("a forked child", timeout or 0)
            self.code = int(os.read(self.status, 16))
            os.close(self.status)
        return self.code

    def poll(self) -> int | None:
        """The exit code, if there is one yet."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send it this signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(15)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(9)


class Nursery:
    """The process that is forked, with one module loaded; a context manager."""

    def __init__(self, module: str) -> None:
        """`module`: what all children import, such as "agentnb.agents.a2a_talk"."""
        self._module = module

    def __enter__(self) -> Self:
        self._requests, theirs = socket.socketpair()
        argv = [sys.executable, "-P", __file__, self._module, json.dumps([str(CHILD.parents[2]), *sys.path])]
        self._process = subprocess.Popen(argv, stdin=theirs, start_new_session=True)
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()
        assert self._process.wait(60) == 0

    def start(self, argv: list[str], env: dict[str, str], fds: tuple[int, int, int, int]) -> Forked:
        """Start child.py with this environment; `fds`: of payload, channel, stdout and stderr."""
        assert argv == [sys.executable, "-P", str(CHILD)], "a nursery has the children of child.py only"
        status, theirs = os.pipe()
        request = os.memfd_create("request")
        os.write(request, json.dumps({"env": env, "cwd": os.getcwd()}).encode())
        socket.send_fds(self._requests, [b"."], [request, theirs, *fds])
        os.close(request)
        os.close(theirs)
        pid = self._requests.recv(16)
        assert pid, "the nursery has ended"
        return Forked(int(pid), status)


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork once for each request. In a child, return what was asked; None once nobody can ask any more."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data:
                    pid, status = key.data
                    os.write(status, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    os.close(status)
                    continue
                data, fds, _, _ = socket.recv_fds(requests, 1, 6)
                if not data:
                    return None
                if not (pid := os.fork()):
                    requests.detach()
                    return {
                        "fds": fds,
                        "siblings": [fd for other in selector.get_map().values() if other.data for fd in (other.fd, other.data[1])],
                    }
                for fd in (fds[0], *fds[2:]):
                    os.close(fd)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, fds[1]))
                requests.send(str(pid).encode())


def become(asked: dict[str, Any]) -> None:
    """Be the child that was asked for."""
    os.setsid()
    request, status, payload, channel, out, err = asked["fds"]
    for fd in (*asked["siblings"], status):
        os.close(fd)
    with open(request, "rb") as lines:
        lines.seek(0)
        wanted = json.load(lines)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, place in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(fd, place)
        os.close(fd)
    os.environ.clear()
    os.environ.update(wanted["env"] | {"AGENTNB_PAYLOAD_FD": str(payload), "AGENTNB_CHANNEL_FD": str(channel)})
    os.chdir(wanted["cwd"])
    sys.argv = [str(CHILD)]
    runpy.run_path(str(CHILD), run_name="__main__")


if __name__ == "__main__":
    module, path = sys.argv[1:]
    sys.path[:] = json.loads(path)
    import_module(module)
    assert threading.active_count() == 1, "a process with threads is not forked"
    gc.freeze()
    if asked := serve(socket.socket(fileno=0)):
        become(asked)
