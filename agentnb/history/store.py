"""The store: one folder with the history's database, logs and artifacts; all SQL that writes is here.

Tables are what the events add up to: `apply` records each event and folds it into sessions, runs, steps, artifacts and logs, in one
transaction.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from agentnb.errors import StoreError
from agentnb.events import Message, now_us
from agentnb.history import fold, migrations, recovery
from agentnb.history.artifacts import Blobs
from agentnb.history.faults import store_fault
from agentnb.history.jsontext import dumps
from agentnb.history.locking import check_locks
from agentnb.history.owners import OwnerLock
from agentnb.history.strays import end_strays, still_serves
from agentnb.lineage import stamp_of

DATABASE = "history.db"
BUSY_MS = 10_000
#: The write-ahead log is copied into the database when it has so many pages of 4 KiB: less often than by default, as pages come again.
CHECKPOINT_PAGES = 4000
CACHE_KIB = 4_000
#: So many statements are kept: rows that give the same columns in the same order share one.
STATEMENTS = 128
#: Of so many runs at most the store knows by heart how they stand.
KNOWN = 20_000
#: A writer that serves others meanwhile waits for another's lock this long, and tries again later; at its end it waits longer.
OWNER_BUSY_MS, LAST_BUSY_MS = 20, 3_000
#: One that reads, and recovers what dead owners left on the way, does not wait for those who write.
READER_BUSY_MS = 200

_GONE = (
    "it was deleted or replaced while it was in use, so that nobody would find what is written; "
    "put it back, or end this session and make a new one, which makes a new history"
)
#: SQLite (or its binding) refused a value: the same rows are worth another try after Fold.clean.
_UNBINDABLE = (UnicodeEncodeError, OverflowError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - our own names


def _lay_over(table: str, columns: Sequence[str], changes: Sequence[str], live: str) -> str:
    """Insert a row; over one that is there and live, lay only its end."""
    end = ", ".join(f"{name} = excluded.{name}" for name in changes)
    insert = _insert(table, columns).replace(" OR IGNORE", "")
    return f"{insert} ON CONFLICT DO UPDATE SET {end} WHERE {table}.status = '{live}' AND excluded.status <> '{live}'"


_KNOWN = "SELECT id, status, session_id FROM runs WHERE id IN (SELECT value FROM json_each(?))"
_LOG = "INSERT INTO events (at, type, session_id, run_id, step_id, data) VALUES (?, ?, ?, ?, ?, ?)"
_SESSION = _lay_over("sessions", fold.SESSION_COLUMNS, fold.SESSION_CHANGES, "active")
#: A supervisor died and its sessions were ended with it, but the notebook lives and goes on under another supervisor.
_SESSION_AGAIN = "UPDATE sessions SET status = 'active', ended_at = NULL, owner = ? WHERE id = ? AND status = 'ended'"
_SESSION_END = "UPDATE sessions SET status = ?, ended_at = ? WHERE id = ? AND status = 'active'"
_STEP_USED = (
    f"UPDATE steps SET {', '.join(f'{c} = coalesce(?, {c})' for c in fold.STEP_USED)}"  # noqa: S608
    " WHERE run_id = ? AND id = ? AND status NOT IN ('pending', 'running')"
)
_ARTIFACT = _insert("artifacts", fold.ARTIFACT_COLUMNS)
_SPENT = (
    "SELECT sum(cost_usd), sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0) + coalesce(cache_read_tokens, 0)"
    " + coalesce(cache_write_tokens, 0)), min(started_at) FROM runs"
    " WHERE session_id = ? AND target_kind IS NOT 'replay' AND target_kind IS NOT 'swarm' AND reused_from IS NULL"
)
_OUTPUT = "INSERT OR REPLACE INTO logs (run_id, stream, size, inline, path) VALUES (?, ?, ?, ?, ?)"


@lru_cache(STATEMENTS)
def _insert_run(columns: tuple[str, ...]) -> str:
    return _insert("runs", columns)


@lru_cache(STATEMENTS)
def _change_run(columns: tuple[str, ...]) -> str:
    return f"UPDATE runs SET {' = ?, '.join(columns)} = ? WHERE id = ?"  # noqa: S608 - our own names


@lru_cache(STATEMENTS)
def _insert_step(columns: tuple[str, ...]) -> str:
    return _lay_over("steps", columns, fold.STEP_CHANGES, "running")


@lru_cache(STATEMENTS)
def _end_step(columns: tuple[str, ...]) -> str:
    end = f"UPDATE steps SET {' = ?, '.join(columns)} = ?"  # noqa: S608 - our own names
    return f"{end} WHERE run_id = ? AND id = ? AND status IN ('pending', 'running')"


def _grouped(
    statement: Callable[[tuple[str, ...]], str], rows: Mapping[Any, fold.Row], key: Callable[[Any], tuple[Any, ...]] | None = None
) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """Statements and their rows, in groups that name the same columns: to bind a NULL costs more than not to name its column.

    `key`: what of a row's key is bound after its values; default nothing.
    """
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for name, row in rows.items():
        columns, values = tuple(row), tuple(row.values())
        if columns not in groups:
            groups[columns] = []
        groups[columns].append(values if key is None else values + key(name))
    groups.pop((), None)  # nothing changed
    for columns, found in groups.items():
        yield statement(columns), found


def _rows(rows: Iterable[fold.Row], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return [tuple(map(row.get, columns)) for row in rows]


class Store:
    """A history, open for writing. Safe to use from several threads; several processes may have the same one open."""

    def __init__(self, root: Path, db: sqlite3.Connection) -> None:
        """Wrap an open, migrated database; use `open`."""
        self.root = root
        self._runs = os.fspath(root / "runs")
        self.blobs = Blobs(root / "blobs")
        self.recovered: list[str] = []
        self._db = db
        self._lock = threading.Lock()
        self._copying = threading.Lock()
        self._closed = False
        self._owner: OwnerLock | None = None
        self._known: fold.Known = {}
        self._version = -1
        self._path = os.fspath(root / DATABASE)
        self._file: os.stat_result | None = None
        with suppress(OSError):
            self._file = os.stat(self._path)  # noqa: PTH116 - as in `gone`

    @staticmethod
    def locate(store: str | os.PathLike[str] | None = None) -> Path:
        """The absolute path of the store's folder: `store` when given, else AGENTNB_HOME, else ``.agentnb`` in the current directory.

        Raises StoreError for a relative path in a current directory that was deleted.
        """
        chosen = store if store is not None else os.environ.get("AGENTNB_HOME") or ".agentnb"
        try:
            return Path(os.path.abspath(Path(chosen).expanduser()))  # noqa: PTH100 - resolve() would replace the user's own links
        except FileNotFoundError:
            advice = "os.chdir(...) to another directory, or give the store's absolute path"
            raise StoreError(f"the store {str(chosen)!r} cannot be found: the current directory was deleted; {advice}") from None

    @classmethod
    def open(cls, root: Path, *, owner: str | None = None, busy_ms: int = BUSY_MS) -> Store:
        """Open the store at `root`, creating and migrating it as needed. Another's lock is waited for `busy_ms`.

        With `owner` (letters, digits, ``.-_``), new runs belong to it for as long as this process holds its lock, and what dead
        owners left live is recovered (their ids: `recovered`). Raises StoreError, or StoreTooNew for one of a newer agentnb.
        """
        _make_folder(root)
        check_locks(root)
        db = _connect(root / DATABASE, busy_ms)
        store = cls(root, db)
        try:
            _furnish(root)
            if owner is not None:
                store._take(owner)
                store.recovered = store.recover()
                db.execute(f"PRAGMA busy_timeout = {OWNER_BUSY_MS}")
        except BaseException:
            store.close()
            raise
        return store

    def apply(self, events: Sequence[Message]) -> None:
        """Record these events and fold them into the tables, all or nothing.

        Raises StoreError when the database refuses them (full disk, lost lock ...) or is `gone`: nothing was written, and the same batch
        may be applied again, to a gone store's successor. Raises TypeError for a message that is not in events.RECORDED.
        """
        if not events:
            return
        with self._lock:
            if self.gone():
                raise StoreError(f"writing the history {self._path} failed: {_GONE}")
            try:
                with self._transaction():
                    self._write(events)
            except (StoreError, *_UNBINDABLE) as bad:
                if not isinstance(bad.__cause__ if isinstance(bad, StoreError) else bad, _UNBINDABLE):
                    raise
                with self._transaction():
                    self._write(events, clean=True)

    def gone(self) -> bool:
        """Whether the database was deleted or replaced since it was opened: what is written from then on nobody would find."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - once per apply: half the cost of Path.stat
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # nobody can say just now: the database itself will tell what is wrong
            return False
        # SQLite holds the one that was opened open, so that its inode number is not given to another meanwhile.
        return self._file is None or not os.path.samestat(found, self._file)

    def spent(self, session_id: str) -> dict[str, Any]:
        """What the runs of a session used: `cost_usd`, `tokens`, and `began`, the first start (microseconds UTC). Raises StoreError."""
        with self._lock, self._guarded("reading"):
            row = self._db.execute(_SPENT, (session_id,)).fetchone()
        return dict(zip(("cost_usd", "tokens", "began"), row, strict=True))

    def recover(self) -> list[str]:
        """End what owners that no longer live left live: running runs read interrupted, pending ones cancelled. Returns their ids."""
        with self._lock, self._guarded("recovering"):
            owners = recovery.owners(self._db, self.root / "owners") - {self._owner.owner if self._owner else ""}
        return [run for owner in sorted(owners) for run in self._recover(owner)]

    def run_dir(self, run_id: str) -> Path:
        """The folder for a run's files; it is not created. Raises StoreError for an id that is no plain file name."""
        return Path(self.run_path(run_id))

    def run_path(self, run_id: str) -> str:
        """The same as text: most runs need no folder."""
        if not run_id or run_id.startswith(".") or "/" in run_id or "\0" in run_id:
            raise StoreError(f"{run_id!r} cannot be a run's id: it is no plain file name")
        return f"{self._runs}/{run_id}"

    def tell_behind(self, behind: bool) -> None:  # noqa: FBT001 - it is what is told
        """Tell other processes whether there are events that this store did not take yet: what they refer to has to stay."""
        if self._owner is not None:
            self._owner.tell_behind(behind)

    def be_patient(self) -> None:
        """What is written from now on is the last: wait for another's lock, some seconds if need be."""
        with suppress(sqlite3.Error):
            self._db.execute(f"PRAGMA busy_timeout = {LAST_BUSY_MS}")

    def sync(self) -> None:
        """From now on a batch is on the disk when `apply` returns, and outlives a power cut. Raises StoreError."""
        with self._lock, self._guarded("opening"):
            self._db.execute("PRAGMA synchronous = FULL")

    @property
    def copying(self) -> bool:
        """Whether `checkpoint` is under way, which may lock the database for as long as the disk takes."""
        return self._copying.locked()

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the database, as far as nobody reads what is older; another thread may do that beside `apply`.

        What is copied to its end is begun anew: whoever writes first after that waits for the disk, and that shall not be `apply`.
        Never raises: what is not copied stays in the log.
        """
        with self._copying:
            if self._closed or self.gone():
                return
            where = f"{Path(self._path).absolute().as_uri()}?mode=rw"
            with suppress(sqlite3.Error), closing(sqlite3.connect(where, uri=True, isolation_level=None)) as db:
                _, pages, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if 0 < pages == copied:
                    _begin_log(db)

    def close(self) -> None:
        """Close the database and give up the owner's lock; closing twice is fine."""
        self._closed = True
        with self._copying, self._lock:
            if self._owner is not None:
                self.be_patient()
                with suppress(StoreError, sqlite3.Error), self._transaction():
                    self._db.execute("DELETE FROM owners WHERE owner = ?", (self._owner.owner,))
                with suppress(OSError):
                    self._owner.remove()
                self._owner.close()
                self._owner = None
            self._db.close()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _take(self, owner: str) -> None:
        self._owner = OwnerLock.take(self.root / "owners", owner)
        if self._owner is None:
            raise StoreError(f"the history {self.root} already has a living writer named {owner!r}; give each writer its own name")
        row = (owner, os.getpid(), socket.gethostname(), now_us())
        with self._lock, self._transaction():
            self._db.execute("INSERT OR REPLACE INTO owners (owner, pid, hostname, started_at) VALUES (?, ?, ?, ?)", row)

    def _recover(self, owner: str) -> list[str]:
        lock = OwnerLock.take(self.root / "owners", owner)
        if lock is None:  # it lives, or another process is recovering it just now
            return []
        try:
            with self._lock, self._transaction():
                writer = self._db.execute("SELECT pid, hostname FROM owners WHERE owner = ?", (owner,)).fetchone()
                left = recovery.endings(self._db, self.root, owner)
                if left:
                    self._write(left)
                self._db.execute("DELETE FROM owners WHERE owner = ?", (owner,))
            lock.remove()
        finally:
            lock.close()
        ended = recovery.run_ids(left)
        if not still_serves(*writer or (None, None)):  # else this store is a copy, and the runs go on in the one it was copied from
            end_strays(ended, stamp_of(owner))
        return ended

    def _write(self, events: Sequence[Message], *, clean: bool = False) -> None:
        db = self._db
        owner = self._owner.owner if self._owner else None
        batch = fold.Fold(self._known_of(events), owner)
        batch.take(events)
        if clean:
            batch.clean()
        db.executemany(_LOG, batch.log)
        for statement, rows in (
            (_SESSION_END, _rows(batch.session_ends.values(), (*fold.SESSION_CHANGES, "id"))),
            (_SESSION_AGAIN, [(owner, session) for session in batch.sessions]),
            (_SESSION, _rows(batch.sessions.values(), fold.SESSION_COLUMNS)),
            *_grouped(_insert_run, batch.new_runs),
            *_grouped(_change_run, batch.runs, lambda run: (run,)),
            (_STEP_USED, _rows(batch.used_before, (*fold.STEP_USED, "run_id", "id"))),
            *_grouped(_end_step, batch.step_ends, lambda step: step),
            (_STEP_USED, _rows(batch.used_after, (*fold.STEP_USED, "run_id", "id"))),
            *_grouped(_insert_step, batch.steps),
            (_ARTIFACT, _rows(batch.artifacts, fold.ARTIFACT_COLUMNS)),
            (_OUTPUT, batch.outputs),
        ):
            if rows:
                db.executemany(statement, rows)
        for run_id in batch.ended:  # a late event of theirs asks again
            self._known.pop(run_id, None)

    def _known_of(self, events: Iterable[Message]) -> fold.Known:
        """What the tables say of the runs of these events; what they said before holds until somebody else wrote to them."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self._known) > KNOWN:
            self._known.clear()
            self._version = version
        asked = fold.unknown(events, self._known)
        if asked:
            self._known.update((run, (status, session)) for run, status, session in self._db.execute(_KNOWN, (dumps(asked),)))
        return self._known

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarded("writing"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._known.clear()
                with suppress(sqlite3.Error):  # a full disk may have rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as bad:
            raise store_fault(bad, self.root / DATABASE, doing) from bad


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as bad:
        raise store_fault(bad, root, "opening") from bad


def _furnish(root: Path) -> None:
    try:
        for name in ("runs", "blobs", "owners"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    except OSError as bad:
        raise store_fault(bad, root, "opening") from bad


def _connect(path: Path, busy_ms: int) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS)
    except sqlite3.Error as bad:
        raise store_fault(bad, path, "opening") from bad
    try:
        migrations.pending(db, path)  # before anything is changed: a store that is too new is left as it is
        _use_wal(db)
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        migrations.migrate(db, path)
    except sqlite3.Error as bad:
        db.close()
        raise store_fault(bad, path, "opening") from bad
    except BaseException:
        db.close()
        raise
    return db


def _begin_log(db: sqlite3.Connection) -> None:
    """Write a page that changes nothing, unless somebody else writes just now."""
    db.execute("PRAGMA busy_timeout = 0")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {version:d}")
    db.execute("COMMIT")


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait for a lock here, so that several processes which open a new store at once must."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as bad:
            if bad.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
