"""Control groups for runs with limits: exact bounds for memory and processes, where this machine lets us make them.

Version 2 where an ancestor of our own group is delegated to us (a systemd user session, a container with a private tree), else
version 1 where its hierarchies are writable, else none (the limits are then kept by sampling).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_PREFIX = "agentnb-"
#: No program runs in less than the first, and in much less the spawner, who is a member while it starts one, would be killed for it; the
#: system takes more than the second for something small.
LEAST_MEMORY, _MOST_MEMORY = 256 * 1024, 2**62


@dataclass(frozen=True, slots=True)
class Backend:
    """Where groups can be made. `version` is 2, 1 or 0 (none); `why_not` says why it is not better."""

    version: int
    memory: Path | None = None
    pids: Path | None = None
    why_not: str = ""

    @property
    def name(self) -> str:
        """For people: "cgroup v2", "cgroup v1" or "sampling"."""
        return f"cgroup v{self.version}" if self.version else "sampling"


@lru_cache(maxsize=1)
def backend() -> Backend:
    """What this machine allows this process, found out once."""
    v2, why_v2 = _delegated()
    if v2 is not None:
        return Backend(2, v2, v2)
    memory, pids = _v1("memory"), _v1("pids")
    if memory is not None and pids is not None:
        return Backend(1, memory, pids, why_v2)
    return Backend(0, why_not=f"{why_v2}; no writable cgroup v1 hierarchies for memory and pids")


def _own(controller: str) -> str | None:
    """The path of our own group in a hierarchy; controller "" is version 2."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, names, path = line.split(":", 2)
            if controller in names.split(","):
                return path
    return None


def _delegated() -> tuple[Path | None, str]:
    """The nearest ancestor of our own v2 group that we may make groups with memory and pids bounds in."""
    own = _own("")
    if own is None:
        return None, "no cgroup v2"
    mount = ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "unified"
    folder = mount / own.lstrip("/")
    reason = "cgroup v2 has no memory and pids controllers here"
    while True:
        with suppress(OSError):
            enabled = (folder / "cgroup.subtree_control").read_text(encoding="ascii").split()
            if {"memory", "pids"} <= set(enabled):
                if os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK) and _usable(folder):
                    return folder, ""
                reason = "cgroup v2 is not delegated to this user"
        if folder == mount or mount not in folder.parents:
            return None, reason
        folder = folder.parent


def _v1(controller: str) -> Path | None:
    own = _own(controller)
    for folder in (ROOT / controller / (own or "").lstrip("/"), ROOT / controller):
        if (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK) and _usable(folder):
            return folder
    return None


def _usable(folder: Path) -> bool:
    """Whether a group can really be made there (a read-only mount says no only now)."""
    trial = folder / f"{_PREFIX}trial-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True


class Group:
    """The control group, or groups, of one run. Raises OSError when it cannot be made."""

    def __init__(self, run_id: str, *, memory: int | None, processes: int | None) -> None:
        """Make it with these bounds (bytes, number of processes)."""
        where = backend()
        self.version = where.version
        name = f"{_PREFIX}{run_id}"
        self.memory = where.memory / name if where.memory and memory is not None else None
        self.pids = where.pids / name if where.pids and processes is not None else None
        try:
            for folder in self._folders:
                folder.mkdir()
            if self.memory is not None:
                self._bound_memory(self.memory, memory or 0)
            if self.pids is not None:
                _write(self.pids / "pids.max", processes or 0)
        except OSError:
            self.remove()
            raise

    def _bound_memory(self, folder: Path, asked: int) -> None:
        bound = min(max(asked, LEAST_MEMORY), _MOST_MEMORY)
        if self.version == 2:
            _write(folder / "memory.max", bound)
            with suppress(OSError):
                _write(folder / "memory.swap.max", 0)
        else:
            _write(folder / "memory.limit_in_bytes", bound)
            with suppress(OSError):  # only where swap is accounted for
                _write(folder / "memory.memsw.limit_in_bytes", bound)

    @property
    def _folders(self) -> set[Path]:
        return {folder for folder in (self.memory, self.pids) if folder is not None}

    @property
    def joins(self) -> list[str]:
        """Files that a process writes its pid to, to become a member."""
        return sorted(str(folder / "cgroup.procs") for folder in self._folders)

    def memory_kills(self) -> int:
        """How many processes were killed because the memory bound was reached."""
        if self.memory is None:
            return 0
        return _field(self.memory / ("memory.events" if self.version == 2 else "memory.oom_control"), "oom_kill")

    def memory_peak(self) -> int | None:
        """The highest memory reading in bytes (it counts the page cache too)."""
        if self.memory is None:
            return None
        with suppress(OSError, ValueError):
            name = "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"
            return int((self.memory / name).read_text(encoding="ascii"))
        return None

    def refused_forks(self) -> int:
        """How many forks failed because the bound on processes was reached."""
        return _field(self.pids / "pids.events", "max") if self.pids is not None else 0

    def remove(self) -> None:
        """Remove the group; it must have no processes."""
        for folder in self._folders:
            with suppress(OSError):
                folder.rmdir()


def _write(path: Path, value: int) -> None:
    path.write_text(str(value), encoding="ascii")


def _field(path: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
