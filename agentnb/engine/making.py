"""Making a run's workspace, and removing it: a git worktree with a branch, a copy of a folder, or the folder itself."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentnb.engine.copying import copy_folder, remove_folder
from agentnb.engine.git import Git, GitFailed, GitMissing, items
from agentnb.engine.listing import TooMany, listing, save
from agentnb.engine.trees import Job, Trees, _few
from agentnb.events import Json

#: A copy with more than this is told by a list of its files: to write all of it down once more would cost too much.
MAX_TRACKED_BYTES = 2 << 30
#: Commits to list at most.
MAX_COMMITS = 1000


class CannotMake(Exception):
    """The workspace cannot be made; the message says why and what to do."""


def make(job: Job) -> Json:
    """Make the workspace: what is to be remembered of it, and `warnings`. Raises CannotMake, GitFailed, OSError."""
    warnings: list[str] = []
    os.makedirs(job["state"], mode=0o700, exist_ok=True)  # noqa: PTH103
    if job["kind"] != "shared":
        os.makedirs(os.path.dirname(job["folder"]), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
    {"worktree": _worktree, "temp_copy": _temp_copy, "shared": _shared}[job["kind"]](job, warnings)
    return {"job": job, "warnings": warnings}


@contextmanager
def _alone(common: str) -> Iterator[None]:
    """Nobody else adds or removes worktrees of this repository meanwhile; the end of the process ends this, too."""
    descriptor = os.open(common, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks: git's own have to do
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _worktree(job: Job, warnings: list[str]) -> None:
    folder, common, commit = job["folder"], job["common"], str(job["commit"])
    with _alone(common):
        Git(git_dir=common)("worktree", "add", "--quiet", "--no-checkout", "-b", job["branch"], folder, commit)
    admin = Git(folder)("rev-parse", "--absolute-git-dir")
    job["heads"] = os.fsdecode(admin).rstrip("\n")
    Git(folder, git_dir=job["heads"], work_tree=folder)("reset", "--quiet", "--hard")
    job["git"] = common
    trees = Trees(job)
    job["base"] = trees.begin(os.path.join(job["heads"], "index"))  # noqa: PTH118
    if absent := trees.submodules:
        warnings.append(f"submodules are not checked out in the worktree: {_few(absent)}; begin with `git submodule update --init`")
    warnings += _uncommitted(job["source"], commit)


def _uncommitted(source: str, commit: str) -> list[str]:
    """A warning when the checkout has what a worktree of its commit has not."""
    git = Git(source)
    if git.text("rev-parse", "--verify", "--quiet", "HEAD") != commit:
        return []  # another commit was asked for by name
    found = git.call("status", "--porcelain", "-z", "--untracked-files=normal", "--ignore-submodules=dirty", "--no-renames")
    names = [item[3:] for item in items(found.stdout)]
    if not names:
        return []
    return [f"{source} has uncommitted changes, which the worktree has not: {_few(names)}; commit them, or use nb.TempCopy"]


def _temp_copy(job: Job, warnings: list[str]) -> None:
    source, folder, store = job["source"], job["folder"], os.path.realpath(job["store"])
    if source == store or (folder.startswith(source + os.sep) and source.startswith(store + os.sep)):
        raise CannotMake(f"{source} is part of the history that the copy would be in; copy another folder, or keep the history elsewhere")
    done = copy_folder(source, folder, store)
    if done.leaving:
        warnings.append(f"links that lead out of the copy: what is written through them is not written to it: {_few(done.leaving)}")
    if done.special:
        warnings.append(f"pipes, sockets and devices were not copied: {_few(done.special)}")
    scratch = os.path.join(job["state"], "git")  # noqa: PTH118
    if done.size > MAX_TRACKED_BYTES:
        _list(job, warnings, f"it has {done.size} bytes, more than {MAX_TRACKED_BYTES}")
        return
    try:
        Git(job["state"])("init", "--quiet", "--bare", "--template=", scratch)
        job["git"] = scratch
        git = os.path.join(folder, ".git")  # noqa: PTH118
        if os.path.isdir(git):  # noqa: PTH112
            job |= {"heads": git, "commit": _head(git)}
        job["base"] = Trees(job).begin(None)
    except GitFailed as bad:
        _list(job, warnings, str(bad))


def _shared(job: Job, warnings: list[str]) -> None:
    folder = job["source"]
    try:
        job["heads"] = os.fsdecode(Git(folder)("rev-parse", "--absolute-git-dir")).rstrip("\n")
        top = os.fsdecode(Git(folder)("rev-parse", "--show-toplevel")).rstrip("\n")
    except GitFailed as bad:
        _list(job, warnings, str(bad) if isinstance(bad, GitMissing) else "")
        return
    job["git"], job["commit"], job["folder"] = job["heads"], _head(job["heads"]), top
    job["scope"] = os.path.relpath(folder, top)
    job["base"] = Trees(job).begin(os.path.join(job["heads"], "index"))  # noqa: PTH118


def _list(job: Job, warnings: list[str], why: str) -> None:
    """Do without git: of changes it will only be known which files they are in."""
    job["git"] = ""
    shutil.rmtree(os.path.join(job["state"], "git"), ignore_errors=True)  # noqa: PTH118
    try:
        save(listing(job["folder"], os.path.realpath(job["store"])), Path(job["state"], "before.json"))
    except TooMany as bad:
        warnings.append(f"what changes in it is not recorded: {bad}")
    else:
        warnings += [f"changes are recorded by file only, without a diff: {why}"] if why else []


def _head(git_dir: str) -> str | None:
    """The commit that is checked out there."""
    return Git(git_dir=git_dir).text("rev-parse", "--verify", "--quiet", "HEAD^{commit}")


# --- removing -------------------------------------------------------------------------------------------------------


def remove(job: Job) -> Json:
    """Remove the workspace, and its branch when that has no commits of its own: {"removed": ..., "warnings": ...}."""
    warnings = [why] if (why := remove_folder(job["folder"])) else []
    if job["kind"] == "worktree":
        warnings += _forget_worktree(job)
    if not warnings:
        shutil.rmtree(job["state"], ignore_errors=True)
    return {"removed": not os.path.lexists(job["folder"]), "warnings": warnings}


def _forget_worktree(job: Job) -> list[str]:
    git, branch = Git(git_dir=job["common"]), f"refs/heads/{job['branch']}"
    try:
        with _alone(job["common"]):
            known = os.fsdecode(git("worktree", "list", "--porcelain")).splitlines()
            if f"worktree {job['folder']}" in known:
                git("worktree", "remove", "--force", "--force", job["folder"])
            tip = git.text("rev-parse", "--verify", "--quiet", branch)
            if tip is not None and not git.text("rev-list", "--max-count=1", tip, f"^{job['commit']}"):
                git("update-ref", "-d", branch, tip)
    except (GitFailed, OSError) as bad:
        return [f"git could not forget the worktree {job['folder']}: {bad}"]
    return []


# --- commits --------------------------------------------------------------------------------------------------------


def rescue_commits(job: Job) -> tuple[list[Json], str | None]:
    """The commits that were made in the workspace, newest first, and the branch that has them now.

    Those of a worktree are in the repository; a branch is made to lead to them where none does. Raises GitFailed.
    """
    if "heads" not in job:
        return [], None
    head = _head(job["heads"])
    if job["kind"] != "worktree":
        return (_commits(Git(git_dir=job["heads"]), [head], job.get("commit")), None) if head else ([], None)
    git, branch = Git(git_dir=job["common"]), f"refs/heads/{job['branch']}"
    tip = git.text("rev-parse", "--verify", "--quiet", branch)
    own = Git(git_dir=job["heads"]).text("symbolic-ref", "--quiet", "HEAD") if head is not None else None
    commits = _commits(git, [commit for commit in (head, tip) if commit], job["commit"])
    if head is not None and git.text("rev-list", "--max-count=1", head, f"^{job['commit']}", *([f"^{tip}"] if tip else [])):
        if own is not None:
            branch = own
        elif tip is None or git.call("merge-base", "--is-ancestor", tip, head).returncode == 0:
            git("update-ref", branch, head, tip or "")
        else:
            branch += "-head"
            git("update-ref", branch, head, "")
    return commits, branch.removeprefix("refs/heads/") if commits else None


_FORMAT = "%H%x00%P%x00%an%x00%aI%x00%s"


def _commits(git: Git, heads: list[str], base: str | None) -> list[Json]:
    without = [f"^{base}"] if base else []
    said = git("rev-list", f"--max-count={MAX_COMMITS}", f"--format={_FORMAT}", "--encoding=UTF-8", *heads, *without)
    found = []
    for line in said.decode("utf-8", "replace").splitlines():
        if line.count("\0") == 4:
            commit, parents, author, date, subject = line.split("\0")
            found.append({"commit": commit, "parents": parents.split(), "author": author, "date": date, "subject": subject})
    return found
