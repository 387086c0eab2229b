"""What a run changed in its workspace, read from the history and brought back into the user's files."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, cast

from agentnb.engine.changes import FILES, PATCH, Diff
from agentnb.engine.git import Git, GitFailed, GitMissing, items
from agentnb.engine.trees import Job, shown_name
from agentnb.errors import ApplyConflict, ConfigError, RuntimeUnavailable, StoreError
from agentnb.history import reader
from agentnb.history.artifacts import Blobs
from agentnb.states import TRANSITIONS, RunStatus

#: One call of git gets this long.
_TIMEOUT_S = 120.0
_SHOWN = 10


def folder(root: Path, run_id: str) -> Path | None:
    """The workspace's folder, if it is there."""
    found = (reader.read_run(root, run_id)["workspace"] or {}).get("path")
    return Path(found) if found and Path(found).is_dir() else None


def _ended(root: Path, run_id: str, doing: str) -> dict[str, Any]:
    run = reader.read_run(root, run_id)
    if not run["workspace"]:
        waits = RunStatus(run["status"]) in TRANSITIONS
        why = (
            "its workspace is not made yet; wait for it: run.wait()"
            if waits
            else "it had no workspace; launch it with workspace=nb.Worktree('.')"
        )
        raise ConfigError(f"{doing}: run {run['name']!r}: {why}")
    if RunStatus(run["status"]) in TRANSITIONS:
        raise ConfigError(f"{doing}: run {run['name']!r} is still running; its changes are known at its end: run.wait()")
    return run


def patch(root: Path, run_id: str, doing: str = "diff") -> bytes:
    """The changes of a finished run. Raises ConfigError, StoreError as RunHandle.diff does."""
    run = _ended(root, run_id, doing)
    kept = [artifact for artifact in reader.read_artifacts(root, run_id) if artifact["name"] == PATCH]
    if kept and (checksum := kept[-1]["checksum"]):
        return Blobs(root / "blobs").read(checksum)
    if run["files_changed"] == 0:
        return b""
    if run["files_changed"] is None and (left := _left(run["workspace"])) is not None:
        return _read_folder(run["name"], left)
    where = f"; its folder is {run['workspace']['path']}" if run["workspace"].get("kept") else ""
    listed = f" (the artifact {FILES} lists the files)" if run["files_changed"] else ""
    raise StoreError(f"{doing}: there is no patch of run {run['name']!r}{listed}: its result's warnings say why{where}")


def _left(workspace: dict[str, Any]) -> Job | None:
    """What a run that was cut off left to read its changes by; None when there is nothing."""
    try:
        job = cast("Job", json.loads(Path(workspace["state"], "job.json").read_text(encoding="ascii")))
    except (KeyError, OSError, ValueError):
        return None
    return job if job.get("git") and job.get("base") and Path(job["folder"]).is_dir() else None


def _read_folder(name: str, job: Job) -> bytes:
    try:
        with tempfile.TemporaryFile() as file:
            Diff(job, _TIMEOUT_S).write_patch(file)
            file.seek(0)
            return file.read()
    except GitMissing:
        raise RuntimeUnavailable(f"run {name!r}: reading its changes needs git, which is not on the PATH; install it") from None
    except (GitFailed, OSError) as bad:
        raise StoreError(f"the changes of run {name!r} in {job['folder']} cannot be read: {bad}") from None


# --- bringing them back ---------------------------------------------------------------------------------------------


def apply(root: Path, run_id: str, repo: str | os.PathLike[str] | None = None) -> list[str]:
    """Apply a run's changes to files; returns the names of those that were changed. Raises as RunHandle.apply does."""
    run = _ended(root, run_id, "apply")
    space = run["workspace"]
    if space["kind"] == "shared":
        raise ConfigError(f"apply: run {run['name']!r} worked in {space.get('path', 'the folder')} itself: its changes are there already")
    if space.get("masked"):
        where = f"; its folder is {space['path']}" if space.get("kept") else ""
        raise ConfigError(
            f"apply: the patch of run {run['name']!r} held a secret, which is masked in it: it would not bring back the same{where}"
        )
    data = patch(root, run_id, "apply")
    if not data:
        return []
    target = _target(repo, space)
    try:
        with tempfile.TemporaryDirectory(prefix="agentnb-apply-") as scratch:
            return _Applying(Path(scratch), target, f"run {run['name']!r}").apply(data)
    except GitMissing:
        raise RuntimeUnavailable("apply needs git, which is not on the PATH; install it (apt-get install git)") from None
    except GitFailed as bad:
        raise ConfigError(f"apply: git refuses to apply the changes of run {run['name']!r} to {target}: {bad}") from None


def _target(repo: str | os.PathLike[str] | None, space: dict[str, Any]) -> str:
    """The folder that the patch's names are relative to."""
    if repo is None and "source" not in space:
        raise ConfigError("apply: a replay does not say which folder the recorded run worked on; give yours: run.apply('path')")
    given = os.path.realpath(Path(space["source"] if repo is None else repo).expanduser())
    if not Path(given).is_dir():
        raise ConfigError(f"apply: the folder {given} is not there; give another one: run.apply('path')")
    if repo is None or space["kind"] != "worktree":
        return given
    try:
        return os.fsdecode(Git(given, timeout_s=_TIMEOUT_S)("rev-parse", "--show-toplevel")).removesuffix("\n")
    except GitFailed as bad:
        raise ConfigError(f"apply: {given} is no checkout of a git repository ({bad}); give the folder of one") from None


class _Applying:
    """One patch on its way into a folder, by way of an index and objects of its own: the user's are only read."""

    def __init__(self, scratch: Path, target: str, what: str) -> None:
        self._target = target
        self._what = what
        self._patch = scratch / "changes.patch"
        git_dir = scratch / "git"
        around = Git(target, timeout_s=_TIMEOUT_S)
        objects, form = around.text("rev-parse", "--git-path", "objects"), around.text("rev-parse", "--show-object-format")
        Git(scratch, timeout_s=_TIMEOUT_S)("init", "--quiet", "--bare", "--template=", f"--object-format={form or 'sha1'}", str(git_dir))
        borrowed = os.path.realpath(Path(target, objects)) if objects is not None else None
        (scratch / "objects").mkdir()
        self._git = Git(
            target, git_dir=git_dir, work_tree=target, index=scratch / "index", objects=scratch / "objects", borrowed=borrowed,
            timeout_s=_TIMEOUT_S,
        )  # fmt: skip

    def apply(self, data: bytes) -> list[str]:
        self._patch.write_bytes(data)
        names = [item.split("\t", 2)[2] for item in items(self._git("apply", "--numstat", "-z", str(self._patch)))]
        before = self._tree_of(names)
        if self._git.call("apply", "--cached", "--check", "--reverse", str(self._patch)).returncode == 0:
            raise ConfigError(f"apply: the changes of {self._what} are in {self._target} already; nothing was changed")
        done = self._git.call("apply", "--cached", "--3way", "--whitespace=nowarn", str(self._patch))
        conflicts = self._conflicts()
        if done.returncode or conflicts:
            raise self._refused(conflicts, done.stderr.decode("utf-8", "replace"))
        after = self._git("write-tree").decode().strip()
        if after == before:
            raise ConfigError(f"apply: the changes of {self._what} are in {self._target} already; nothing was changed")
        changed = items(self._git("diff-tree", "-r", "--name-only", "--no-renames", "-z", before, after))
        with self._patch.open("wb") as file:
            self._git(
                "diff-tree",
                "-r",
                "-p",
                "--binary",
                "--full-index",
                "--no-renames",
                "--no-ext-diff",
                "--no-textconv",
                before,
                after,
                into=file,
            )
        done = self._git.call("apply", "--whitespace=nowarn", str(self._patch))
        if done.returncode:
            raise self._refused([], done.stderr.decode("utf-8", "replace"))
        return changed

    def _tree_of(self, names: list[str]) -> str:
        """The files of these names, as they are in the target now, as a tree; what is behind a link is not among them."""
        there = [name for name in names if self._is_file(name)]
        self._git("update-index", "--add", "-z", "--stdin", data=b"".join(os.fsencode(name) + b"\0" for name in there))
        return self._git("write-tree").decode().strip()

    def _is_file(self, name: str) -> bool:
        path = os.path.join(self._target, name)  # noqa: PTH118 - names may be any bytes
        parent = os.path.dirname(path)  # noqa: PTH120
        if os.path.realpath(parent) != os.path.normpath(parent):
            raise ApplyConflict(f"apply: {shown_name(name)} lies behind a symbolic link in {self._target}; nothing was changed", (name,))
        return os.path.islink(path) or os.path.isfile(path)  # noqa: PTH113, PTH114

    def _conflicts(self) -> list[str]:
        return list(dict.fromkeys(item.partition("\t")[2] for item in items(self._git("ls-files", "--unmerged", "-z"))))

    def _refused(self, names: list[str], said: str) -> ApplyConflict:
        names = names or _named(said)
        listed = ", ".join(shown_name(name) for name in names[:_SHOWN]) + (
            f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        )
        why = f"these files changed otherwise meanwhile: {listed}" if names else said.strip()[-500:]
        advice = "commit or undo what you have there and try again, or merge by hand (run.diff is the patch)"
        return ApplyConflict(
            f"apply: the changes of {self._what} do not fit {self._target}: {why}; nothing was changed; {advice}", tuple(names)
        )


def _named(said: str) -> list[str]:
    """The files that git's errors are about."""
    found: dict[str, None] = {}
    for line in said.splitlines():
        words = line.removeprefix("error: ")
        if words == line:
            continue
        if words.startswith("patch failed: "):
            found[words.removeprefix("patch failed: ").rpartition(":")[0]] = None
        elif ": " in words:
            found[words.partition(": ")[0]] = None
    return list(found)


__all__ = ["apply", "folder", "patch"]
