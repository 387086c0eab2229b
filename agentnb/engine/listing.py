"""States of a folder told by a list of its files: for folders that git does not look after, and where there is no git."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

#: More files than this are not listed.
MAX_FILES = 200_000
#: Files up to this size are told apart by their content, too, as long as there is not more of it than that in all.
HASHED_BYTES, HASHED_IN_ALL = 1 << 20, 64 << 20

Listing = dict[str, list[Any]]


class TooMany(Exception):
    """The folder has more than MAX_FILES files."""


def listing(folder: str, skip: str) -> Listing:
    """Size, time and, of small ones, a hash of every file and link below `folder`, but for the folder `skip`. Raises TooMany."""
    found: Listing = {}
    left = HASHED_IN_ALL
    for here, folders, names in os.walk(folder):
        linked = [name for name in folders if os.path.islink(os.path.join(here, name))]  # noqa: PTH114, PTH118
        folders[:] = [name for name in folders if name not in linked and os.path.join(here, name) != skip]  # noqa: PTH118
        for name in [*names, *linked]:
            path = os.path.join(here, name)  # noqa: PTH118
            with suppress(OSError):  # it went away, or cannot be looked at
                about = os.lstat(path)
                small = os.path.isfile(path) and not os.path.islink(path) and 0 < about.st_size <= min(HASHED_BYTES, left)  # noqa: PTH113, PTH114
                left -= about.st_size if small else 0
                found[os.path.relpath(path, folder)] = [about.st_mode, about.st_size, about.st_mtime_ns, _hash(path) if small else None]
        if len(found) > MAX_FILES:
            raise TooMany(f"{folder} has more than {MAX_FILES} files")
    return found


def _hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def changes(before: Listing, after: Listing) -> dict[str, str]:
    """Files that were added, modified or deleted, with which of these."""
    found = {name: "added" for name in after if name not in before} | {name: "deleted" for name in before if name not in after}
    found |= {name: "modified" for name in after if name in before and not _same(before[name], after[name])}
    return dict(sorted(found.items()))


def _same(old: list[Any], new: list[Any]) -> bool:
    if old[:2] != new[:2]:
        return False
    return bool(old[3] == new[3]) if old[3] and new[3] else bool(old[2] == new[2])


def save(found: Listing, path: Path) -> None:
    """Keep a listing in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found), encoding="ascii")


def load(path: Path) -> Listing:
    """A listing from a file."""
    found: Listing = json.loads(path.read_text(encoding="ascii"))
    return found
