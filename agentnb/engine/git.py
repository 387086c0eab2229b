"""git, called so that it does what it was asked and nothing else.

No hook, monitor or external diff of a repository runs, no variable of the environment leads to another repository, nobody is asked
for a password. The calls block: they are made in child processes (workspace_child.py), and in a notebook's cell by ``run.apply()``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

#: What would lead to another repository, index or store of objects than the one that is meant.
_MISLEADING = frozenset({
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_NAMESPACE", "GIT_PREFIX", "GIT_GRAFT_FILE", "GIT_SHALLOW_FILE", "GIT_QUARANTINE_PATH", "GIT_CEILING_DIRECTORIES",
    "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_PAGER", "GIT_EDITOR",
})  # fmt: skip
_FIXED = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_LITERAL_PATHSPECS": "1"}
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.trustctime": "true",
    "core.checkStat": "default",
    "core.safecrlf": "false",
    "core.bigFileThreshold": "64m",
    "core.looseCompression": "1",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.addEmbeddedRepo": "false",
    "init.defaultBranch": "main",
}
_OPTIONS = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
_SAID = 500


class GitFailed(Exception):
    """git refused; the message is what it said."""


class GitMissing(GitFailed):
    """There is no git on the PATH."""


class Git:
    """Calls of git with one idea of where the repository, the files and the index are."""

    def __init__(
        self,
        folder: str | Path = "/",
        *,
        git_dir: str | Path | None = None,
        work_tree: str | Path | None = None,
        index: str | Path | None = None,
        objects: str | Path | None = None,
        borrowed: str | Path | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Without `git_dir` the repository is the one around `folder`, where git is called.

        New objects go to `objects`, and those of `borrowed` are read as well. `timeout_s`: GitFailed after that.
        """
        self._folder = str(folder)
        self._timeout_s = timeout_s
        self._env = {n: v for n, v in os.environ.items() if n not in _MISLEADING and not n.startswith("GIT_TRACE")} | _FIXED
        places = {
            "GIT_DIR": git_dir,
            "GIT_WORK_TREE": work_tree,
            "GIT_INDEX_FILE": index,
            "GIT_OBJECT_DIRECTORY": objects,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(str(borrowed)) if borrowed is not None else None,
        }
        self._env |= {name: str(value) for name, value in places.items() if value is not None}

    def __call__(self, *words: str, data: bytes | None = None, into: BinaryIO | None = None) -> bytes:
        """What git prints, which goes to the file `into` if there is one. Raises GitFailed, GitMissing."""
        done = self.call(*words, data=data, into=into)
        if done.returncode:
            raise GitFailed(_message(done))
        return done.stdout or b""

    def call(
        self, *words: str, data: bytes | None = None, into: BinaryIO | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """As a call, for those who want to see the exit code. Raises GitMissing, GitFailed when it takes too long."""
        given: dict[str, Any] = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
        try:
            return subprocess.run(
                ["git", *_OPTIONS, *words],  # noqa: S607 - the git that the user has
                cwd=self._folder, env=self._env | dict(env or {}), stdout=into or subprocess.PIPE, stderr=subprocess.PIPE,
                check=False, timeout=self._timeout_s, **given,
            )  # fmt: skip
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.isdir(self._folder):  # noqa: PTH112
                raise GitFailed(f"the folder {self._folder} is not there") from None
            raise GitMissing("git is not on the PATH; install it") from None
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git {words[0]} was still running after {self._timeout_s:g} s") from None
        except OSError as bad:
            raise GitFailed(f"git cannot be started in {self._folder}: {bad.strerror or bad}") from None

    def text(self, *words: str) -> str | None:
        """What git prints, stripped; None when it refuses."""
        done = self.call(*words)
        return None if done.returncode else os.fsdecode(done.stdout).strip()


def _message(done: subprocess.CompletedProcess[bytes]) -> str:
    said = (done.stderr or b"").decode("utf-8", "replace").strip()
    lines = [line for line in said.splitlines() if not line.startswith(("hint:", "warning:"))]
    return "\n".join(lines)[-_SAID:] or f"git ended with {done.returncode}"


def _quoted(path: str) -> str:
    """A path as an item of git's colon-separated lists."""
    if ":" not in path and not path.startswith('"') and "\n" not in path:
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def items(output: bytes) -> list[str]:
    """The items of NUL-terminated output, as file names."""
    return [os.fsdecode(item) for item in output.split(b"\0") if item]
