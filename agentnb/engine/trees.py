"""States of a folder written down as git trees, beside any repository of its own: its index, its refs and its objects stay as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NotRequired, TypedDict

from agentnb.engine.git import Git, GitFailed, items

_LINK = b"160000"
#: So many files of repositories inside of the folder are looked at.
MAX_NESTED = 20_000
_SHOWN = 3


class Job(TypedDict):
    """What the child process is asked for, and what is remembered of a workspace until its changes are kept. Paths are absolute.

    `source`: the checkout or folder that it is made of, `folder`: the workspace. `state`: a folder for what is remembered, `store`: that
    of the history. `git`: the git directory that states are told by, "" when there is none. `scope`: only what is below this
    counts. `base`: the tree at the start, `heads`: where HEAD is read, `commit`: what it was at the start.
    `common`, `branch`: of a worktree. `attempt`: the number of the attempt. `skip`: names that are artifacts already.
    """

    kind: str
    source: str
    folder: str
    state: str
    store: str
    do: NotRequired[str]
    git: NotRequired[str]
    scope: NotRequired[str]
    base: NotRequired[str]
    heads: NotRequired[str]
    commit: NotRequired[str | None]
    common: NotRequired[str]
    branch: NotRequired[str]
    attempt: NotRequired[int]
    last: NotRequired[bool]
    skip: NotRequired[list[str]]
    secrets: NotRequired[list[str]]


class Trees:
    """Writes the state of a folder as a tree into objects of its own. `warnings`: what is missing in the trees; `incomplete` then.

    `submodules`: those that the repository knows.
    """

    def __init__(self, job: Job, timeout_s: float | None = None) -> None:
        """`job`: kind, folder, state, git and scope are looked at."""
        self.folder = job["folder"]
        self.warnings: list[str] = []
        self.incomplete = False
        self.submodules: set[str] = set()
        self._kind = job["kind"]
        self._scope = job.get("scope") or "."
        self._state = Path(job["state"])
        self._base = self._state / "index"
        self._now = self._state / "index.now"
        self._objects = self._state / "objects"
        self._git_dir = job["git"]
        self._timeout_s = timeout_s
        self.git = self._with(self._now)

    def _with(self, index: Path) -> Git:
        borrowed = _objects_of(self._git_dir)
        return Git(
            self.folder, git_dir=self._git_dir, work_tree=self.folder, index=index, objects=self._objects, borrowed=borrowed,
            timeout_s=self._timeout_s,
        )  # fmt: skip

    def begin(self, index: str | Path | None) -> str:
        """The tree of the folder now, from which changes are counted. `index`: one that git keeps for it, to be copied for its speed."""
        self._objects.mkdir(parents=True, exist_ok=True)
        if index is not None:
            with suppress(OSError):
                shutil.copy2(index, self._base)  # with its time, by which git knows what it must not trust
        tree = self.write()
        os.replace(self._now, self._base)  # noqa: PTH105
        return tree

    def write(self) -> str:
        """The tree of the folder as it is now. Raises GitFailed."""
        with suppress(FileNotFoundError):
            self._now.unlink()
        if self._base.exists():
            shutil.copy2(self._base, self._now)
        try:
            return self._write()
        except GitFailed:
            if not self._now.exists():
                raise
            self._now.unlink()  # the index that was copied is of no use: do without
            return self._write()

    def _write(self) -> str:
        known = self.submodules = self._links()
        done = self.git.call("add", "--all", "--ignore-errors", "--", self._scope)
        left = items(self.git("ls-files", "--others", "--exclude-standard", "-z", "--", self._scope))
        nested = {name.rstrip("/") for name in left if name.endswith("/")} | {name for name in self._links() if name not in known}
        self._add_nested(nested)
        unread = [name for name in left if not name.endswith("/")]
        if done.returncode and (unread or not nested):
            said = _few(unread) if unread else done.stderr.decode("utf-8", "replace").strip()[-200:]
            self._missing(f"files could not be read and are not among the changes: {said}")
        # a submodule's folder is empty in a worktree: what is in it was made there, or is a checkout of it
        if self._kind == "worktree" and (changed := [name for name in known if next(_anything_below(self.folder, name), None)]):
            self._missing(f"changes inside of submodules are not among the changes: {_few(changed)}")
        return self.git("write-tree").decode().strip()

    def _links(self) -> set[str]:
        """The submodules, and repositories that git takes for some, in the index."""
        return {
            os.fsdecode(item.partition(b"\t")[2]) for item in self.git("ls-files", "--stage", "-z").split(b"\0") if item.startswith(_LINK)
        }

    def _add_nested(self, names: set[str]) -> None:
        """Repositories inside of the folder: their files count as any, their history is left where it is."""
        if not names:
            return
        self.git("update-index", "--force-remove", "-z", "--stdin", data=_lines(sorted(names)))
        files = [file for name in sorted(names) for file in _files_below(self.folder, name)][: MAX_NESTED + 1]
        self.git("update-index", "--add", "-z", "--stdin", data=_lines(files[:MAX_NESTED]))
        if len(files) > MAX_NESTED:
            self._missing(f"only {MAX_NESTED} files of the repositories inside of it are among the changes")
        if self._kind != "temp_copy":
            self._missing(f"repositories were made inside of it; their files are among the changes, their commits are not: {_few(names)}")

    def _missing(self, warning: str) -> None:
        self.incomplete = True
        if warning not in self.warnings:
            self.warnings.append(warning)


def _objects_of(git_dir: str) -> str:
    link = os.path.join(git_dir, "commondir")  # noqa: PTH118
    if os.path.isfile(link):  # noqa: PTH113
        git_dir = os.path.join(git_dir, Path(link).read_text(encoding="utf-8", errors="surrogateescape").strip())  # noqa: PTH118
    return os.path.join(os.path.normpath(git_dir), "objects")  # noqa: PTH118


def _lines(names: list[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def _files_below(folder: str, below: str) -> Iterator[str]:
    """Files and links below a folder of the workspace, without those of repositories themselves, relative to the workspace."""
    for here, folders, names in os.walk(os.path.join(folder, below)):  # noqa: PTH118
        linked = [name for name in folders if os.path.islink(os.path.join(here, name))]  # noqa: PTH114, PTH118
        folders[:] = sorted(name for name in folders if name != ".git" and name not in linked)
        for name in sorted([*names, *linked]):
            path = os.path.join(here, name)  # noqa: PTH118
            if name != ".git" and (os.path.islink(path) or os.path.isfile(path)):  # noqa: PTH113, PTH114
                yield os.path.relpath(path, folder)


def _anything_below(folder: str, below: str) -> Iterator[str]:
    with suppress(OSError), os.scandir(os.path.join(folder, below)) as found:  # noqa: PTH118
        yield from (entry.name for entry in found)


def _few(names: list[str] | set[str]) -> str:
    """Some names, for people."""
    shown = [shown_name(name) for name in sorted(names)]
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")


def shown_name(name: str) -> str:
    """A file's name as text that can be printed and stored."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
