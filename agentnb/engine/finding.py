# ruff: noqa: PTH113, PTH118
# (pathlib would make the spawner bigger)
"""Where a program is. Imported by the spawner: nothing heavier than `os` may be imported here."""

from __future__ import annotations

import os
from errno import ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


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
