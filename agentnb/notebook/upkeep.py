"""Keeping a history small and safe: `nb.gc` and `nb.backup`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from agentnb import units
from agentnb.engine.git import Git, GitFailed
from agentnb.engine.making import remove, rescue_commits
from agentnb.engine.trees import Job
from agentnb.errors import ConfigError
from agentnb.events import now_us
from agentnb.history import reader
from agentnb.history.frames.filters import Identified, Moment, moment_us, suggestion
from agentnb.history.keeping.backup import BackedUp, back_up
from agentnb.history.keeping.collected import Asked, Collected
from agentnb.history.keeping.collector import collect
from agentnb.history.keeping.orphans import workspaces_of
from agentnb.history.reader import reading
from agentnb.history.store import Store
from agentnb.notebook.tables import Location

_SHORT = 12


def gc(
    *,
    older_than: Moment | float | None = None,
    max_size: float | str | None = None,
    session: str | Identified | Iterable[str | Identified] | None = None,
    workspaces: bool = False,
    dry_run: bool = False,
    store: Location = None,
) -> Collected:
    """Remove finished runs from the history, and what nothing refers to; returns what went.

    `older_than`: runs that ended longer ago ("30d", seconds) or before a moment (datetime, ISO text); `session`: runs of this session,
    or of several (id, name or Session); `max_size`: the oldest, until the store takes at most that ("10GiB", bytes). Given together, all
    must be true of a run. With none of them only what nothing refers to goes: contents without an artifact, logs without a run, what
    a kill left half-written. `dry_run`: remove nothing, and say what would go.

    Never removed: a live run, a run of a live session, whichever process has it, and a run that one that stays refers to (as reused,
    resumed or replayed). The runs of a group go together, as an agent and the runs it launched. A run whose workspace's folder was
    left stays, since there may be work in it; ``workspaces=True`` removes such folders, too, with git's entry of the worktree, and its
    branch when that has no commits of its own. Nothing else outside of the store is touched.

    `store`: the store's folder; default AGENTNB_HOME, else ``./.agentnb``. Raises ConfigError for a value that makes no sense or a
    session that is not there, StoreError when there is no store, it cannot be written, or another gc or backup goes on for a minute.
    """
    from agentnb.notebook.launching import settle

    before = None if older_than is None else moment_us(cast("Moment", older_than), now_us(), what="older_than")
    bound = None if max_size is None else units.bytes_(max_size, what="max_size")
    root = Store.locate(store)
    settle(root)
    with reading(root):
        pass  # a store that is not there, or is too new, is told of
    chosen = None if session is None else _sessions(root, session)
    return collect(root, Asked(before, bound, chosen), clear=clear_workspaces if workspaces else None, dry_run=dry_run)


def backup(dest: str | os.PathLike[str], *, store: Location = None) -> BackedUp:
    """Copy the whole history to the folder `dest`, which must not be there or be empty; returns what the copy has.

    Runs may go on meanwhile: the copy is the history at one moment, with all logs and artifacts that it names, each checked. Runs that
    are live then read interrupted in the copy. Folders of workspaces are not copied. To use it, point AGENTNB_HOME (or store=) at it.

    `store`: the store's folder; default AGENTNB_HOME, else ``./.agentnb``. Raises ConfigError for a destination that cannot be meant (a
    file, a folder that is not empty, one inside of the store), StoreError when there is no store or `dest` cannot be written: nothing
    is left there then.
    """
    from agentnb.notebook.launching import settle

    root = Store.locate(store)
    settle(root)
    return back_up(root, Path(dest).expanduser())


def _sessions(root: Path, given: str | Identified | Iterable[str | Identified]) -> tuple[str, ...]:
    several = [given] if isinstance(given, str) or isinstance(getattr(given, "id", None), str) else given
    if not isinstance(several, Iterable):
        raise ConfigError(f"session: {given!r} is no session; write its id or name, the Session itself, or a list of such")
    with reading(root) as db:
        names = dict(db.execute("SELECT id, name FROM sessions").fetchall())
    found: list[str] = []
    for one in several:
        key = one if isinstance(one, str) else getattr(one, "id", None)
        some = [session for session, name in names.items() if key in {session, name}]
        if not some or not isinstance(key, str):
            raise ConfigError(f"session: there is no session {key!r} in {root}; {suggestion(str(key), filter(None, names.values()))}")
        found += some
    return tuple(dict.fromkeys(found))


# --- workspaces


def clear_workspaces(root: Path, run_id: str) -> str:
    """Remove the folders of the workspaces of a run that is over; why one could not be, if so.

    What is touched is a folder of that name in this store and, in the repository that it was made of, the worktree's entry and the branch
    of that run, if it has no commits: whatever else the history, or a file in the folder, may tell of.
    """
    [run] = reader.read_runs(root, [run_id]) or [{"workspace": None}]
    known = run["workspace"] or {}
    for folder in workspaces_of(root, run_id):
        try:
            why = _clear(root, run_id, os.path.realpath(folder), known)
        except (GitFailed, OSError, LookupError, TypeError) as bad:
            why = str(bad)
        if why:
            return f"{folder}: {why}; look into it, and remove it by hand"
    return ""


def _clear(root: Path, run_id: str, folder: str, known: dict[str, Any]) -> str:
    suffix = os.path.basename(folder).removeprefix(run_id)  # noqa: PTH119
    if Path(folder).parent != Path(os.path.realpath(root / "workspaces")):
        return f"it leads out of the history, to {folder}"
    job: Job = {
        "kind": known["kind"],
        "source": known["source"],
        "folder": folder,
        "state": os.path.realpath(root / "runs" / run_id / f"workspace{suffix}"),
        "store": str(root),
    }
    if job["kind"] == "worktree":
        common = Git(job["source"])("rev-parse", "--path-format=absolute", "--git-common-dir")
        job["common"], job["commit"] = os.fsdecode(common).rstrip("\n"), known["commit"]
        job["branch"] = f"agentnb/{run_id.replace('-', '')[-_SHORT:]}{suffix}"
        entry = os.fsdecode(Git(folder)("rev-parse", "--absolute-git-dir")).rstrip("\n")
        if Path(entry).parent != Path(job["common"], "worktrees"):
            return f"it is no worktree of {job['source']}"
        job["heads"] = entry
        rescue_commits(job)
    return "; ".join(remove(job)["warnings"])
