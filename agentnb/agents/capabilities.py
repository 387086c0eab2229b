"""What can run on this machine, and what can be bounded and measured here: only what is true, with the reason where it is not."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from agentnb._version import __version__
from agentnb.agents import workspaces
from agentnb.agents.adapters import adapter, kinds
from agentnb.engine.cgroups import backend
from agentnb.engine.limits import means
from agentnb.states import RuntimeKind

_OTHER_SYSTEM = "agentnb runs commands on Linux only so far; use a Linux machine, WSL or a container"


def capabilities() -> dict[str, Any]:
    """What this machine can do, as plain data.

    `targets`: for each kind of target {"available", "why_not"}. `limits`: for each field of nb.Limits {"enforced", "by", "precision",
    "why_not"}. `usage`: for each figure of a result's `usage` {"measured", "by"}. `runtimes`: where runs can be. `workspaces`: for each
    kind {"available", "diff", "why_not"}. `platform`: facts.
    """
    linux = sys.platform.startswith("linux")
    return {
        "agentnb": __version__,
        "targets": {kind: _target(kind) for kind in kinds()},
        "limits": {
            name: {"enforced": linux and bool(how.by), "by": how.by, "precision": how.precision, "why_not": how.why_not}
            for name, how in (means() if linux else {}).items()
        },
        "usage": _usage() if linux else {},
        "runtimes": [RuntimeKind.LOCAL.value] if linux else [],
        "workspaces": _workspaces() if linux else {},
        "platform": _platform(),
    }


def _workspaces() -> dict[str, dict[str, Any]]:
    """Which workspaces can be made, and whether what changes in them can be told as a diff."""
    lacks = workspaces.missing()
    kinds = {"worktree": not lacks, "temp_copy": True, "shared": True}
    return {kind: {"available": there, "diff": not lacks, "why_not": "" if there else lacks} for kind, there in kinds.items()}


def supports(kind: str) -> bool:
    """Whether targets of this kind ("shell", "local_model" ...) can run on this machine; False for a kind that is not known."""
    return kind in kinds() and not _why_not(kind)


def _target(kind: str) -> dict[str, Any]:
    why_not = _why_not(kind)
    return {"available": not why_not, "why_not": why_not}


def _why_not(kind: str) -> str:
    if not sys.platform.startswith("linux"):
        return _OTHER_SYSTEM
    try:
        return adapter(kind).missing()
    except Exception as bad:  # noqa: BLE001 - another package's fault is a reason, too
        return str(bad)


def _usage() -> dict[str, dict[str, Any]]:
    disk = os.access("/proc/self/io", os.F_OK)
    measured = {
        "wall_time": "monotonic clock of the supervisor",
        "cpu_time": "wait4, the whole tree",
        "peak_memory_bytes": "wait4 of the largest process, or the sum of the tree, sampled ten times a second, if that is more",
        "disk_read_bytes": "wait4, the whole tree, in blocks of 512 bytes" if disk else "",
        "disk_write_bytes": "wait4, the whole tree, in blocks of 512 bytes" if disk else "",
        "processes": "seen in samples or reaped",
        "network_bytes": "",
    }
    return {name: {"measured": bool(by), "by": by} for name, by in measured.items()}


def _platform() -> dict[str, Any]:
    group = backend()
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "cgroup": {"by": group.name, "version": group.version, "why_not": group.why_not},
    }
