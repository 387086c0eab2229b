"""What changed is told and kept so that it can be brought back: for any files, and whatever the disk does."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentnb.engine import changes, making
from agentnb.engine.git import Git, GitFailed, GitMissing
from agentnb.engine.trees import Job
from agentnb.history.artifacts import Blobs
from agentnb.notebook.changes import _Applying
from tests.repositories import git, repository

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in {".", ".."} and not name.lower().startswith((".git", "git~")) and len(name.encode()) < 200
)
#: A file's content and whether it can be executed, or where a link leads.
FILES = st.dictionaries(NAMES, st.tuples(st.binary(max_size=40), st.booleans()) | st.text("ab.", min_size=1, max_size=5), max_size=5)


def write(folder: Path, files: dict[str, tuple[bytes, bool] | str]) -> None:
    for entry in folder.iterdir():
        entry.unlink()
    for name, content in files.items():
        path = folder / name
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content[0])
            path.chmod(0o755 if content[1] else 0o644)


def read(folder: Path) -> dict[str, tuple[bytes, bool] | str]:
    return {
        path.name: str(path.readlink()) if path.is_symlink() else (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in folder.iterdir()
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILES, FILES)
def test_what_is_brought_back_is_what_the_agent_left(
    before: dict[str, tuple[bytes, bool] | str], after: dict[str, tuple[bytes, bool] | str]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        (root / "source").mkdir()
        write(root / "source", before)
        job: Job = {"kind": "temp_copy", "source": str(root / "source"), "folder": str(root / "copy"), "state": "", "store": ""}
        job |= {"state": str(root / "state"), "store": str(root / "store")}
        made = cast("Job", making.make(job)["job"])
        assert read(root / "copy") == before
        write(root / "copy", after)
        found = changes.collect(json.loads(json.dumps(made)))
        assert found["complete"], found
        differ = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert found["files_changed"] == len(differ)
        patches = [item for item in found["artifacts"] if item["name"] == "changes.patch"]
        assert len(patches) == bool(differ)
        if patches:
            (root / "apply").mkdir()
            data = Blobs(root / "store" / "blobs").read(patches[0]["checksum"])
            assert set(_Applying(root / "apply", str(root / "source"), "it").apply(data)) == differ
        assert read(root / "source") == after
        assert making.remove(made) == {"removed": True, "warnings": []}


def worktree(tmp_path: Path) -> Job:
    repo = repository(tmp_path / "repo")
    job: Job = {"kind": "worktree", "source": str(repo), "folder": str(tmp_path / "tree"), "state": str(tmp_path / "state"), "store": ""}
    job |= {"store": str(tmp_path / "store"), "common": str(repo / ".git"), "commit": git(repo, "rev-parse", "HEAD"), "branch": "agentnb/x"}
    return cast("Job", making.make(job)["job"])


def test_a_store_that_takes_nothing_makes_the_changes_incomplete(tmp_path: Path) -> None:
    job = worktree(tmp_path)
    (tmp_path / "tree" / "new").write_text("x\n")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "blobs").write_text("no folder")
    found = changes.collect(job)
    assert not found["complete"]
    assert "what changed in the workspace could not be recorded: " in found["warnings"][0]
    assert (tmp_path / "state").is_dir()


def test_an_index_that_is_of_no_use_is_done_without(tmp_path: Path) -> None:
    job = worktree(tmp_path)
    (tmp_path / "state" / "index").write_bytes(b"garbage")
    (tmp_path / "tree" / "new").write_text("x\n")
    found = changes.collect(job)
    assert (found["complete"], found["files_changed"]) == (True, 1)


def test_a_worktree_that_was_moved_or_removed_by_hand_is_no_fault(tmp_path: Path) -> None:
    job = worktree(tmp_path)
    git(job["source"], "worktree", "remove", "--force", job["folder"])
    assert changes.collect(job)["files_changed"] is None
    assert making.remove(job) == {"removed": True, "warnings": []}
    assert git(job["source"], "branch", "--list", "agentnb/*") == ""


def test_a_shared_folder_keeps_what_another_attempt_left(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    job: Job = {"kind": "shared", "source": str(repo), "folder": str(repo), "state": str(tmp_path / "state"), "store": str(tmp_path / "s")}
    made = cast("Job", making.make(job)["job"])
    (repo / "first").write_text("1\n")
    assert changes.collect(made)["files_changed"] == 1
    assert not (tmp_path / "state").exists()
    assert (repo / "first").exists()


def test_git_is_called_in_no_folder_but_the_one_meant_and_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GitFailed, match="the folder .*gone is not there"):
        Git(tmp_path / "gone")("status")
    with pytest.raises(GitFailed, match="not a git repository"):
        Git(tmp_path)("status")
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(GitFailed, match="git status was still running after 0.2 s"):
        Git(tmp_path, timeout_s=0.2)("status")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(GitMissing, match="install it"):
        Git(tmp_path)("status")


def test_objects_are_borrowed_from_a_path_with_any_characters(tmp_path: Path) -> None:
    odd = repository(tmp_path / 'a:b"c\\d')
    (tmp_path / "objects").mkdir()
    head = git(odd, "rev-parse", "HEAD")
    scratch = tmp_path / "scratch"
    git(tmp_path, "init", "-q", "--bare", str(scratch))
    assert Git(git_dir=scratch, objects=tmp_path / "objects", borrowed=odd / ".git" / "objects").text("cat-file", "-t", head) == "commit"
    shutil.rmtree(odd)
