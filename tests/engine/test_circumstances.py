"""What is noted about the circumstances of a run."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.engine.circumstances import environment_hash, git_commit

GIT = ["git", "-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> str:
    return subprocess.run([*GIT, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init")
    git(folder, "commit", "--allow-empty", "-m", "one")
    return folder


def test_the_commit_is_the_one_that_git_says(repository: Path, tmp_path: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    inner = repository / "a" / "b"
    inner.mkdir(parents=True)
    assert git_commit(str(repository)) == git_commit(str(inner)) == head
    git(repository, "pack-refs", "--all")
    assert git_commit(str(repository)) == head
    git(repository, "checkout", "--detach")
    assert git_commit(str(repository)) == head
    git(repository, "worktree", "add", "-b", "other", str(tmp_path / "tree"))
    assert git_commit(str(tmp_path / "tree")) == head
    assert git_commit("/") is None


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none\n", "ref: \n", "\xff"])
def test_a_repository_without_a_commit_or_in_disorder_has_none(tmp_path: Path, head: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head, encoding="utf-8")
    assert git_commit(str(tmp_path)) in {None, head.strip()}


@given(st.dictionaries(st.text("ab", min_size=1), st.text()), st.randoms())
def test_the_environment_hash_knows_names_and_values_but_no_order(env: dict[str, str], random: object) -> None:
    other = dict(reversed(env.items()))
    assert environment_hash(env) == environment_hash(other)
    assert environment_hash(env | {"c": "1"}) not in {environment_hash(env), environment_hash(env | {"c": "2"})}


def test_the_environment_hash_is_sha_256_of_names_and_values() -> None:
    assert (
        environment_hash({"B": "2", "A": "1"})
        == f"sha256:{hashlib.sha256(b'A' + bytes(1) + b'1' + bytes(1) + b'B' + bytes(1) + b'2' + bytes(1)).hexdigest()}"
    )
    environment_hash({"A": "\udcff"})
