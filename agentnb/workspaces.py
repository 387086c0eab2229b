"""Workspaces: where a run works instead of the notebook's folder, as validated data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from agentnb.data import Data
from agentnb.errors import ConfigError

CleanUp = Literal["keep", "on_success", "always"]


def _folder(value: object) -> object:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"workspace: {value!r} is no folder; give its path as text or a pathlib.Path")
    if "\0" in str(value):
        raise ConfigError("workspace: the path contains a NUL character")
    return value


Folder = Annotated[str | Path, BeforeValidator(_folder)]


class Worktree(Data):
    """A git worktree of its own for each run, on a branch ``agentnb/<end of the run's id>`` that starts at `ref`.

    `repo`: a folder in a checkout. The worktree is of the whole repository; commands start at its top (also in AGENTNB_WORKSPACE), and a
    `working_dir` is relative to that. What is not committed is not in it (a warning of the run says so); submodules are empty, as in any
    new worktree.

    When the run is over, what changed is kept with it: as the artifact ``changes.patch``, which ``run.apply()`` brings back, as new
    files, as a list of commits, and as columns of ``runs_df``. Files that git ignores count for nothing. Then the folder is removed:
    `cleanup` ``"on_success"``, the default, leaves that of a run that did not complete; ``"keep"`` leaves every one, ``"always"`` none. The
    branch stays if it has commits. What could not be kept is not removed. A retry gets a fresh worktree (of an earlier attempt stay the
    patch, as ``changes.1.patch``, and the commits); a run that was cut off leaves its folder for you to look at.
    """

    type: Literal["worktree"] = "worktree"
    repo: Folder = "."
    ref: str = "HEAD"
    cleanup: CleanUp = "on_success"

    if TYPE_CHECKING:

        def __init__(self, repo: str | Path = ".", ref: str = "HEAD", *, cleanup: CleanUp = "on_success") -> None:
            """The repository and what to start from: a branch, tag or commit."""
    else:

        def __init__(self, repo: Any = ".", ref: Any = "HEAD", **fields: Any) -> None:
            """Take repository and ref positionally."""
            super().__init__(**({"repo": repo, "ref": ref} | fields))

    @field_validator("ref")
    @classmethod
    def _ref(cls, value: str) -> str:
        if not value.strip() or "\0" in value:
            raise ConfigError(f"workspace: the ref {value!r} is empty; name a branch, tag or commit")
        return value


class TempCopy(Data):
    """A copy of `folder` for each run: everything in it but the history's own folder; links as links.

    Commands start at its top, and a `working_dir` is relative to that. What changes is kept as with Worktree, from the state of the copy;
    ``run.apply()`` brings it back to `folder`. Where there is no git, or the folder has more than 2 GiB, only which files changed
    is known, and a copy with changes stays. `cleanup`, retries and runs that were cut off: as with Worktree.
    """

    type: Literal["temp_copy"] = "temp_copy"
    folder: Folder
    cleanup: CleanUp = "on_success"

    if TYPE_CHECKING:

        def __init__(self, folder: str | Path, *, cleanup: CleanUp = "on_success") -> None:
            """The folder to copy."""
    else:

        def __init__(self, folder: Any = None, **fields: Any) -> None:
            """Take the folder positionally."""
            super().__init__(**({"folder": folder} | fields))


class Shared(Data):
    """The folder itself, nothing made and nothing removed; what changes in it while the run lasts is recorded.

    Runs in it at the same time share it: each sees, and is counted, the changes of the others. In a git checkout the record is a
    diff; elsewhere it is a list of files, by their size, time and, of small ones, content. A retry finds what the attempt before it left.
    """

    type: Literal["shared"] = "shared"
    folder: Folder = Field(default=".")

    if TYPE_CHECKING:

        def __init__(self, folder: str | Path) -> None:
            """The folder to work in."""
    else:

        def __init__(self, folder: Any = None, **fields: Any) -> None:
            """Take the folder positionally."""
            super().__init__(**({"folder": folder} | fields))


AnyWorkspace = Worktree | TempCopy | Shared
_BY_TYPE: dict[object, type[AnyWorkspace]] = {"worktree": Worktree, "temp_copy": TempCopy, "shared": Shared}


def _workspace(value: object) -> object:
    """What was given for a workspace, if it is one. Raises ConfigError that says what to write."""
    if value is None or isinstance(value, Worktree | TempCopy | Shared):
        return value
    if isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] in _BY_TYPE:  # as it is in JSON
        return _BY_TYPE[value["type"]](**value)
    if isinstance(value, type) and issubclass(value, Worktree | TempCopy | Shared):
        raise ConfigError(f"workspace: {value.__name__} is a class; write nb.{value.__name__}('.')")
    shown = repr(str(value)) if isinstance(value, str | Path) else "'.'"
    raise ConfigError(f"workspace: {value!r} is no workspace; write nb.Worktree({shown}), nb.TempCopy({shown}) or nb.Shared({shown})")


Workspace = Annotated[AnyWorkspace | None, BeforeValidator(_workspace)]
