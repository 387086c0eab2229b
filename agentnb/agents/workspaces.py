"""A validated workspace becomes the engine's plan of it; what can be wrong with it is said here, before anything starts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agentnb.engine.git import Git, GitFailed, GitMissing
from agentnb.engine.work import WorkspacePlan
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.workspaces import AnyWorkspace, Worktree

#: git gets this long to say what a repository is and where a ref leads.
_TIMEOUT_S = 30.0

#: Plans that were made for the same launch already: all rows of a map start from the same commit.
Known = dict[AnyWorkspace, WorkspacePlan]


def missing() -> str:
    """What worktrees lack on this machine and how to get it; "" when nothing."""
    return "" if shutil.which("git") else "git is not on the PATH; install it (apt-get install git)"


def plan_of(space: AnyWorkspace, known: Known | None = None) -> WorkspacePlan:
    """The plan. Raises ConfigError for a folder, repository or ref that cannot be used, RuntimeUnavailable without git."""
    found = None if known is None else known.get(space)
    if found is None:
        found = _worktree(space) if isinstance(space, Worktree) else _folder(space)
        if known is not None:
            known[space] = found
    return found.copy()


def _real(what: str, given: str | Path) -> str:
    try:
        folder = os.path.realpath(os.path.expanduser(given))  # noqa: PTH111
    except FileNotFoundError:
        raise ConfigError(f"{what}: the current directory of the notebook was deleted; give an absolute path") from None
    if not os.path.isdir(folder):  # noqa: PTH112
        why = "is no directory" if os.path.exists(folder) else "does not exist"  # noqa: PTH110
        raise ConfigError(f"{what}: {str(given)!r} {why}; give an existing folder")
    return folder


def _folder(space: AnyWorkspace) -> WorkspacePlan:
    what = f"workspace: {type(space).__name__}"
    folder = _real(what, getattr(space, "folder"))  # noqa: B009 - of both that have one
    if space.type == "temp_copy" and os.path.isfile(os.path.join(folder, ".git")):  # noqa: PTH113, PTH118
        raise ConfigError(f"{what}: {folder} is a linked worktree or a submodule: git would take a copy for the original; use nb.Worktree")
    if os.path.exists(os.path.join(folder, "history.db")) and os.path.isdir(os.path.join(folder, "blobs")):  # noqa: PTH110, PTH112, PTH118
        raise ConfigError(f"{what}: {folder} holds a history of runs; give another folder")
    return WorkspacePlan(kind=space.type, source=folder, cleanup=getattr(space, "cleanup", "keep"))


def _worktree(space: Worktree) -> WorkspacePlan:
    what = "workspace: Worktree"
    folder = _real(what, space.repo)
    git = Git(folder, timeout_s=_TIMEOUT_S)
    try:
        if git("rev-parse", "--is-bare-repository").strip() == b"true":
            raise ConfigError(f"{what}: {folder} is a bare repository, without files; give a checkout of it (git clone {folder})")
        top = _line(git("rev-parse", "--show-toplevel"))
        common = os.path.realpath(os.path.join(folder, _line(git("rev-parse", "--git-common-dir"))))  # noqa: PTH118
    except GitMissing:
        raise RuntimeUnavailable(f"{what} needs git: {missing()}") from None
    except GitFailed as bad:
        raise ConfigError(_no_repository(what, folder, str(bad))) from None
    return WorkspacePlan(kind="worktree", source=top, cleanup=space.cleanup, common=common, commit=_commit(what, git, top, space.ref))


def _line(output: bytes) -> str:
    return os.fsdecode(output).removesuffix("\n")


def _no_repository(what: str, folder: str, said: str) -> str:
    if "not a git repository" in said:
        return f"{what}: {folder} is in no git repository; run `git init` and commit there, or use nb.TempCopy({folder!r})"
    if "must be run in a work tree" in said:
        return f"{what}: {folder} is inside of a git directory; give the checkout's folder"
    return f"{what}: git refuses {folder}: {said}"


def _commit(what: str, git: Git, top: str, ref: str) -> str:
    """The commit that `ref` leads to."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    except GitFailed as bad:
        if "still running" in str(bad):
            raise ConfigError(f"{what}: {bad}") from None
    if git.text("rev-parse", "--verify", "--quiet", "HEAD") is None and ref == "HEAD":
        raise ConfigError(f"{what}: {top} has no commit yet; commit something first, or use nb.TempCopy({top!r})")
    raise ConfigError(f"{what}: {ref!r} names no commit in {top}; `git branch -a` and `git tag` list what there is")


def place(plan: WorkspacePlan, working_dir: str | Path | None) -> str:
    """Where a command starts, written as a folder of the plan's source. Raises ConfigError for one outside, or not there."""
    source = plan["source"]
    if working_dir is None:
        return source
    given = os.path.expanduser(working_dir)  # noqa: PTH111
    folder = os.path.normpath(os.path.join(source, given))  # noqa: PTH118
    if os.path.isabs(given):  # noqa: PTH117
        folder = os.path.realpath(given)
    if folder != source and not folder.startswith(source.rstrip("/") + "/"):
        raise ConfigError(f"working_dir: {str(working_dir)!r} is not in the workspace of {source}; give a folder relative to its top")
    below = os.path.relpath(folder, source)
    if below != "." and not _is_there(plan, folder, below):
        raise ConfigError(f"working_dir: the workspace of {source} has no folder {below!r}; create and commit it, or give another one")
    return folder


def _is_there(plan: WorkspacePlan, folder: str, below: str) -> bool:
    if plan["kind"] != "worktree":
        return os.path.isdir(folder)  # noqa: PTH112
    git = Git(git_dir=plan["common"], timeout_s=_TIMEOUT_S)
    return git.text("cat-file", "-t", f"{plan['commit']}:{below}") == "tree"
