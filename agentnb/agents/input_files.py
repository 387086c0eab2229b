"""Input files of a run: what was declared with ``inputs=``, found, and put down by content."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentnb.agents import template
from agentnb.errors import ConfigError

#: Folders that are no input, wherever they are in a tree: others write to them while somebody only reads.
SKIPPED = frozenset({".git", "__pycache__", ".ipynb_checkpoints"})
_PIECE = 1 << 20


def find_inputs(patterns: Sequence[str], params: Mapping[str, Any], cwd: str | None) -> list[str]:
    """The absolute paths that `patterns` mean, sorted, each once: templates filled, ``~`` and globs expanded, relative to `cwd`.

    `cwd` None: it is made of a commit, so that only absolute ones make sense. Raises ConfigError for one that means nothing there, or
    something that is neither file nor folder; TemplateError.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        name = template.render(pattern, params, shell=False, what=f"inputs: {pattern!r}")
        if cwd is None and not os.path.isabs(os.path.expanduser(name)):  # noqa: PTH111, PTH117
            raise ConfigError(
                f"inputs: {name!r}: the files of a worktree are those of its commit, which counts anyway; leave it out, or give the "
                "absolute path of a file outside of the repository"
            )
        paths = _meant(name, cwd or "/")
        if not paths:
            what = ("matches no file" if glob.has_magic(name) else "is not there") + (f" in {cwd}" if cwd else "")
            raise ConfigError(f"inputs: {name!r} {what}; give files, folders or globs, relative to the working directory")
        found |= dict.fromkeys(paths)
    return sorted(found)


def _meant(name: str, cwd: str) -> list[str]:
    path = os.path.normpath(os.path.join(cwd, os.path.expanduser(name)))  # noqa: PTH111, PTH118
    if os.path.exists(path):  # noqa: PTH110 - before globs are looked for: names may hold their signs
        if not os.path.isfile(path) and not os.path.isdir(path):  # noqa: PTH112, PTH113
            raise ConfigError(f"inputs: {path} is neither a file nor a folder; its content cannot be read beforehand")
        return [path]
    if not glob.has_magic(name):
        return []
    pattern = os.path.expanduser(name)  # noqa: PTH111 - of the folder that it is relative to nothing is a sign
    matches = [os.path.normpath(os.path.join(cwd, match)) for match in glob.glob(pattern, root_dir=cwd, recursive=True)]  # noqa: PTH118, PTH207
    return [match for match in matches if os.path.isfile(match)] or [match for match in matches if os.path.isdir(match)]  # noqa: PTH112, PTH113


class Contents:
    """Digests of files and trees; each file is read once, in pieces of 1 MiB."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._known: dict[str, str] = {}

    def of(self, path: str) -> str:
        """The digest of a file's bytes, or of a folder's tree. Raises ConfigError for what cannot be read."""
        if path not in self._known:
            try:
                self._known[path] = self._tree(path) if os.path.isdir(path) else _file(path)  # noqa: PTH112
            except OSError as bad:
                raise ConfigError(f"reuse: {bad.filename or path} cannot be read: {bad.strerror or bad}") from None
        return self._known[path]

    def _tree(self, top: str) -> str:
        """Over names, kinds and contents of all below `top`; links count with what they lead to."""
        digest = hashlib.sha256()
        for name, kind, content in _entries(top, "", (os.path.realpath(top),)):
            digest.update(f"{name}\0{kind}\0{content}\n".encode("utf-8", "surrogateescape"))
        return f"tree:{digest.hexdigest()}"


def _entries(top: str, below: str, around: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """(name, kind, content) of everything in a folder, in the order of names. `around`: the real folders that it is in."""
    with os.scandir(os.path.join(top, below)) as entries:  # noqa: PTH118
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = os.path.join(below, entry.name)  # noqa: PTH118
            link = os.readlink(entry.path) if entry.is_symlink() else ""  # noqa: PTH115
            if link:
                yield name, "link", link
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if entry.name not in SKIPPED and not is_history(entry.path) and real not in around:
                    yield name, "folder", ""
                    yield from _entries(top, name, (*around, real))
            elif entry.is_file():
                yield name, "program" if entry.stat().st_mode & stat.S_IXUSR else "file", _file(entry.path)


def is_history(folder: str) -> bool:
    """Whether a folder is a store of runs: it changes with each of them."""
    return os.path.exists(os.path.join(folder, "history.db")) and os.path.isdir(os.path.join(folder, "blobs"))  # noqa: PTH110, PTH112, PTH118


def _file(path: str) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"
