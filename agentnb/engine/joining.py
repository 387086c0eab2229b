"""Being a member of control groups for a moment. Imported by the spawner: nothing heavier than `os` may be imported here."""

from __future__ import annotations

import os
from errno import ENOENT

from agentnb.engine.proc import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


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
