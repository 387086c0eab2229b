"""`agentnb gc`: remove runs from a history, by age, size or session, and files that nothing refers to; give room back to the disk."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from agentnb.errors import StoreError, StoreTooNew
from agentnb.events import now_us
from agentnb.history.faults import store_fault
from agentnb.history.frames import snapshots
from agentnb.history.jsontext import dumps
from agentnb.history.keeping.collected import Asked, Collected, size_text
from agentnb.history.keeping.files_lock import PATIENCE_S, files_held
from agentnb.history.keeping.orphans import Sweep, Swept, workspaces_of
from agentnb.history.keeping.removable import Choice, Removable, run_sizes, still_removable
from agentnb.history.keeping.removal import remove_runs, remove_sessions, size_of
from agentnb.history.keeping.room import database_bytes, files_bytes, shrink, used_bytes
from agentnb.history.store import BUSY_MS, DATABASE, Store
from agentnb.history.tombstone import note_removal

#: By so much the clocks of those who write may be set back, or differ, while a gc works.
_DOUBT_US = 3_600_000_000
#: What a run takes is estimated: after so many looks at what is left, what was asked for is out of reach.
_ROUNDS = 8
#: Pages of the write-ahead log before it is copied: few, since a full disk has no room for many.
_CHECKPOINT_PAGES = 200

#: How many contents no artifact but those of some runs refers to.
_ONLY_OF = """SELECT count(*) FROM (SELECT checksum FROM artifacts WHERE checksum IS NOT NULL GROUP BY checksum
    HAVING sum(coalesce(source_run, '') NOT IN (SELECT value FROM json_each(?))) = 0)"""

#: Removes what is left of the workspaces of a run; returns why one has to stay.
ClearWorkspaces = Callable[[Path, str], str]


def collect(
    root: Path, asked: Asked, *, clear: ClearWorkspaces | None = None, dry_run: bool = False, patience_s: float = PATIENCE_S
) -> Collected:
    """Remove from the store at `root` what is `asked` for, and what nothing refers to; only say what that is with `dry_run`.

    `clear`: let runs go, too, whose workspaces were left; it removes those. Another gc or backup is waited for, `patience_s` at most.
    Raises StoreError.
    """
    with files_held(root, alone=True, patience_s=patience_s):
        _recover(root)
        with _connected(root) as db:
            return _Collector(db, root, asked, clear, dry_run=dry_run).run()


def _recover(root: Path) -> None:
    """End what dead supervisors left. On a full disk it is left as if it were live."""
    try:
        with Store.open(root) as store:
            store.recover()
    except StoreTooNew:
        raise
    except StoreError:
        pass


@contextmanager
def _connected(root: Path) -> Iterator[sqlite3.Connection]:
    path = root / DATABASE
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute(
                "PRAGMA secure_delete = FAST"
            ).fetchall()  # else each page that gets free is written, for which a full disk has no room
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            yield db
    except sqlite3.Error as bad:
        raise store_fault(bad, path, "cleaning") from bad


class _Collector:
    """One gc."""

    def __init__(self, db: sqlite3.Connection, root: Path, asked: Asked, clear: ClearWorkspaces | None, *, dry_run: bool) -> None:
        self._db, self._root, self._asked, self._clear, self._dry_run = db, root, asked, clear, dry_run
        self._done = Collected(dry_run)
        self._swept = Swept()
        self._shares = Counter[str | None]()
        self._names = dict(db.execute("SELECT id, name FROM sessions"))

    def run(self) -> Collected:
        before = used_bytes(self._db, self._root)
        self._sweep()  # first, since it needs no room
        if self._asked.any_runs:
            self._remove()
        done = self._done
        if self._dry_run:
            done.bytes += self._swept.bytes
            done.store_bytes = max(0, before - done.bytes)
        else:
            done.bytes = max(0, before - used_bytes(self._db, self._root))
            done.notes += filter(None, [shrink(self._db, self._root)])
            done.store_bytes = files_bytes(self._root) + sum(database_bytes(self._db))
        done.by_session = [{"id": id_, "name": self._names.get(id_), "runs": count} for id_, count in sorted(self._shares.items(), key=str)]
        self._tell_waiting()
        return done

    # --- what nothing refers to

    def _sweep(self) -> None:
        self._swept = Sweep(self._db, self._root, dry_run=self._dry_run).run()
        self._done.artifacts += self._swept.blobs
        self._done.files += self._swept.files
        if self._swept.rows:
            self._done.notes.append(f"rows of runs that are not known, which damage may have left: {self._swept.rows}")

    def _tell_waiting(self) -> None:
        waits = self._swept
        if waits.waiting:
            self._done.notes.append(
                f"files that nothing refers to, kept for now: {waits.waiting} ({size_text(waits.waiting_bytes)}); a living session may "
                "have written them just now, a later gc removes them"
            )
        self._done.notes += waits.kept

    # --- runs

    def _remove(self) -> None:
        if self._need() and not self._dry_run:
            self._drop_snapshots()  # what can be made again goes first
        for _ in range(_ROUNDS):
            since = now_us() - _DOUBT_US
            choice = self._choose(since)
            self._done.kept = dict(choice.kept)
            if self._dry_run or not choice.bundles:
                break
            self._take(choice, since)
            self._sweep()
            if self._asked.max_size is None:
                break
        self._end_sessions()

    def _need(self) -> int:
        """How many bytes still have to go for the size that was asked for."""
        if self._asked.max_size is None:
            return 0
        return max(0, used_bytes(self._db, self._root) - self._swept.waiting_bytes - self._asked.max_size)

    def _choose(self, since: int) -> Choice:
        found, asked = Removable(self._db), self._asked
        left = {run for run in found.workspaces if workspaces_of(self._root, run)}
        if self._clear is None:
            found.hold_workspaces(left)
        need = self._need() - (self._swept.bytes if self._dry_run else 0)
        sizes = self._sizes() if self._dry_run or need > 0 else Counter[str]()
        bound = (max(0, need), sizes) if asked.max_size is not None else None
        choice = found.choose(asked.before, asked.sessions, bound)
        if self._dry_run:
            self._count(choice.runs)
            self._done.bytes += sum(sizes[run] for run in choice.runs)
        elif self._clear is not None and (stuck := self._clear_all(left.intersection(choice.runs), since)):
            found.hold_workspaces(stuck)
            choice = found.choose(asked.before, asked.sessions, bound)
        return choice

    def _sizes(self) -> Counter[str]:
        folders = Counter({path.name: size_of(path) for path in (self._root / "runs").iterdir()})
        return run_sizes(self._db, database_bytes(self._db)[0], folders)

    def _clear_all(self, run_ids: set[str], since: int) -> list[str]:
        """Remove these runs' workspaces; returns the runs that have to stay."""
        assert self._clear is not None  # noqa: S101 - as was asked
        stuck = []
        for run_id in still_removable(self._db, sorted(run_ids), since):
            if why := self._clear(self._root, run_id):
                stuck.append(run_id)
                self._done.notes.append(f"the workspace of run {run_id} stays: {why}")
        return stuck

    def _take(self, choice: Choice, since: int) -> None:
        asked = {"before": self._asked.before, "max_size": self._asked.max_size, "sessions": self._asked.sessions}
        note_removal(self._root, {name: value for name, value in asked.items() if value is not None})
        homes = self._homes(choice.runs)
        gone = remove_runs(self._db, self._root, choice.runs, since)
        self._drop_snapshots()
        self._done.runs += len(gone)
        self._shares.update(homes[run] for run in gone)

    def _drop_snapshots(self) -> None:
        """The database strikes those that tell of a removed run; this is for the room that their files take."""
        with suppress(sqlite3.Error):
            snapshots.drop(self._root)

    def _count(self, run_ids: Sequence[str]) -> None:
        """What would go."""
        self._done.runs += len(run_ids)
        self._shares.update(self._homes(run_ids).values())
        self._done.artifacts += int(self._db.execute(_ONLY_OF, (dumps(list(run_ids)),)).fetchone()[0])

    def _homes(self, run_ids: Sequence[str]) -> dict[str, str | None]:
        """The session of each run."""
        wanted = set(run_ids)
        return {run: session for run, session in self._db.execute("SELECT id, session_id FROM runs") if run in wanted}

    # --- sessions

    def _end_sessions(self) -> None:
        """Sessions that are over and have no run left go, too."""
        over = self._over()
        if self._dry_run:
            left = Counter(dict(self._db.execute("SELECT session_id, count(*) FROM runs GROUP BY session_id"))) - self._shares
            self._done.sessions = sum(not left[session] for session in over)
        else:
            self._done.sessions = remove_sessions(self._db, self._root, over)

    def _over(self) -> list[str]:
        asked, found = self._asked, list[str]()
        for session, ended in self._db.execute("SELECT id, coalesce(ended_at, created_at, 0) FROM sessions"):
            if asked.sessions is not None and session not in asked.sessions:
                continue
            if (asked.before is None or ended < asked.before) and (asked.max_size is None or self._shares[session]):
                found.append(session)
        return found
