"""Git repositories for tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_GIT = ["git", "-c", "user.name=n", "-c", "user.email=e@example.invalid", "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false"]
#: What a command needs to commit, wherever it runs.
WHO = {f"GIT_{who}_{what}": f"{who.lower()}@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path | str, *words: str) -> str:
    """What git prints in a folder."""
    done = subprocess.run([*_GIT, *words], cwd=folder, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    return os.fsdecode(done.stdout).strip()


def repository(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A repository with one commit of these files (default: old.txt with two lines)."""
    folder.mkdir()
    git(folder, "init")
    for name, content in (files or {"old.txt": "one\ntwo\n"}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(folder, "add", "--all")
    git(folder, "commit", "-m", "first")
    return folder


def state(folder: Path) -> tuple[str, str, str, str, bytes]:
    """What must stay as it is in a repository where nobody was asked to change anything: status, HEAD, branches, stashes, index."""
    return (
        git(folder, "--no-optional-locks", "status", "--porcelain"),
        git(folder, "rev-parse", "HEAD"),
        git(folder, "branch", "--all", "--list", "--format=%(refname) %(objectname)"),
        git(folder, "stash", "list"),
        (folder / ".git" / "index").read_bytes(),
    )
