"""The circumstances of a run: where, by whom, in which environment."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from collections.abc import Mapping

from agentnb._version import __version__
from agentnb.engine.work import Work
from agentnb.events import Json

_HOST = socket.gethostname()
_PID = os.getpid()
_PYTHON = ".".join(map(str, sys.version_info[:3]))


_hashes: dict[int, str] = {}


def environment_hash(env: Mapping[str, str]) -> str:
    """SHA-256 over the sorted names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(env.items()):
        digest.update(f"{name}\0{value}\0".encode("utf-8", "surrogateescape"))
    return f"sha256:{digest.hexdigest()}"


_commits: dict[str, tuple[float, str | None]] = {}
_COMMIT_S = 1.0


def git_commit(folder: str) -> str | None:
    """The commit that is checked out in the repository around `folder`, read from its files; None outside of one.

    An answer is good for a second: a grid of short runs asks often.
    """
    now = time.monotonic()
    if folder in _commits and _commits[folder][0] > now:
        return _commits[folder][1]
    if len(_commits) > 1000:
        _commits.clear()
    found = _find_commit(folder)
    _commits[folder] = (now + _COMMIT_S, found)
    return found


def _find_commit(folder: str) -> str | None:
    while True:
        git = os.path.join(folder, ".git")  # noqa: PTH118 - called for each run: plain strings are cheaper
        if os.path.exists(git):  # noqa: PTH110
            return _head(git)
        parent = os.path.dirname(folder)  # noqa: PTH120
        if parent == folder:
            return None
        folder = parent


def _head(git: str) -> str | None:
    if (link := _text(git)) and link.startswith("gitdir: "):
        git = os.path.join(os.path.dirname(git), link[8:].strip())  # noqa: PTH118, PTH120
    head = (_text(f"{git}/HEAD") or "").strip()
    if not head.startswith("ref: "):
        return head or None
    name = head[5:]
    common = os.path.join(git, (_text(f"{git}/commondir") or ".").strip())  # noqa: PTH118
    if found := _text(f"{common}/{name}"):
        return found.strip()
    for line in (_text(f"{common}/packed-refs") or "").splitlines():
        if line.endswith(f" {name}"):
            return line.split()[0]
    return None


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read(1 << 20)
    except OSError:
        return None


def _environment_hash(work: Work, environment: Mapping[str, str]) -> str:
    """The hash of what the run saw; an environment that the client sent is hashed once, its number stands for it."""
    number = work["env_id"]
    if work["env"] or not environment:
        return environment_hash(dict(environment) | work["env"])
    if number not in _hashes:
        _hashes[number] = environment_hash(environment)
    return _hashes[number]


def metadata(work: Work, environment: Mapping[str, str], started_at: int | None, completed_at: int) -> Json:
    """The fields of results.ExecutionMetadata that are known of any run; stamps in microseconds."""
    found: Json = {
        "completed_at": completed_at,
        "hostname": _HOST,
        "parent_pid": _PID,
        "working_directory": work["cwd"],
        "environment_hash": _environment_hash(work, environment),
        "python_version": _PYTHON,
        "agentnb_version": __version__,
    }
    if started_at is not None:
        found["started_at"] = started_at
    if (commit := git_commit(work["cwd"])) is not None:
        found["git_commit"] = commit
    return found
