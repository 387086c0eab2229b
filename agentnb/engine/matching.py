"""Files that match a pattern, as `glob.glob(recursive=True)` finds them, but searched so that it can be stopped at any entry."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from fnmatch import translate
from pathlib import Path

_SLICE = 50
_MAGIC = re.compile(r"[*?[]")


class Stopped(Exception):
    """The search was told to stop."""


def matching(pattern: str, folder: Path, stopped: Callable[[], bool]) -> list[str]:
    """Plain files that match, sorted, relative to `folder` unless the pattern is absolute. ``**`` is any folders, also none.

    Names that begin with a dot match only a part that does. `stopped` is asked before each entry; Raises Stopped.
    """
    root = "/" if pattern.startswith("/") else ""
    parts = [part for part in pattern.split("/") if part]
    search = _Search(os.fspath(folder), stopped)
    return sorted({name for name in search.below(root, parts) if os.path.isfile(os.path.join(folder, name))})  # noqa: PTH113, PTH118


class _Search:
    def __init__(self, folder: str, stopped: Callable[[], bool]) -> None:
        self._folder = folder
        self._stopped = stopped
        self._seen = 0

    def below(self, place: str, parts: list[str]) -> Iterator[str]:
        """Names of what matches `parts` in the folder `place`."""
        if not parts:
            yield place
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            yield from self._anywhere(place, rest)
        elif not _MAGIC.search(part):
            found = os.path.join(place, part)  # noqa: PTH118
            if os.path.lexists(os.path.join(self._folder, found)):  # noqa: PTH118
                yield from self.below(found, rest)
        else:
            fits = re.compile(translate(part)).match
            for name, is_dir in self._entries(place):
                if (is_dir or not rest) and fits(name) and (part.startswith(".") or not name.startswith(".")):
                    yield from self.below(os.path.join(place, name), rest)  # noqa: PTH118

    def _anywhere(self, place: str, rest: list[str]) -> Iterator[str]:
        if rest:
            yield from self.below(place, rest)
        for name, is_dir in self._entries(place):
            if name.startswith("."):
                continue
            inner = os.path.join(place, name)  # noqa: PTH118
            if is_dir:
                yield from self._anywhere(inner, rest)
            elif not rest:
                yield inner

    def _entries(self, place: str) -> Iterator[tuple[str, bool]]:
        """(name, whether it is a folder) of what is in a folder; nothing when it is none or may not be read."""
        try:
            with os.scandir(os.path.join(self._folder, place)) as entries:  # noqa: PTH118
                for entry in entries:
                    if self._stopped():
                        raise Stopped
                    self._seen += 1
                    if not self._seen % _SLICE:
                        time.sleep(0)  # let the loop's thread have its turn
                    yield entry.name, _is_folder(entry)
        except OSError:
            return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
