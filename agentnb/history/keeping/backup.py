"""A copy of a whole history, made while it is written: the database as it is at one moment, then the files that its rows name.

It is made beside its destination, under a name that says that it is not whole, and gets its name when it is. What a killed backup left
there goes when the next one to the same destination begins. Folders of workspaces are not copied: they belong to checkouts.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentnb.errors import ConfigError, StoreError
from agentnb.history.artifacts import Blobs
from agentnb.history.keeping.collected import few, size_text
from agentnb.history.keeping.files_lock import PATIENCE_S, files_held
from agentnb.history.keeping.removable import LIVE
from agentnb.history.keeping.removal import remove_tree
from agentnb.history.reader import reading
from agentnb.history.store import DATABASE
from agentnb.history.tombstone import FILE as REMOVED

_PIECE = 1 << 20
#: Pages of the database at a time, so that an interrupt comes through.
_PAGES = 4096
_LIVE = ", ".join("?" * len(LIVE))
_COUNTS = f"SELECT count(*), count(CASE WHEN status IN ({_LIVE}) THEN 1 END) FROM runs"  # noqa: S608 - only marks
_UNNAMED = f"""INSERT OR IGNORE INTO owners (owner, hostname) SELECT owner, ? FROM (
    SELECT owner FROM runs WHERE status IN ({_LIVE}) UNION SELECT owner FROM sessions WHERE status = 'active')
    WHERE owner IS NOT NULL"""  # noqa: S608 - only marks


@dataclass(slots=True)
class BackedUp:
    """What a backup has. `runs`: how many, of which `live` ones will read interrupted; `artifacts`, `logs`: files; `bytes`: of all.

    `missing`: what the store itself has no more, or only damaged: what, where, and why.
    """

    path: str
    runs: int = 0
    live: int = 0
    artifacts: int = 0
    logs: int = 0
    bytes: int = 0
    missing: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def __str__(self) -> str:
        """A few lines for people."""
        live = f" ({self.live} of them live: in the copy they will read interrupted)" if self.live else ""
        told = f"{self.runs} runs{live}, {self.artifacts} artifact contents and {self.logs} logs, {size_text(self.bytes)}"
        lines = [f"{self.path}: {told}; use it with AGENTNB_HOME={self.path}"]
        return "\n".join(lines + few([f"not in the copy: {what}" for what in self.missing]))

    __repr__ = __str__


def back_up(root: Path, dest: Path, *, patience_s: float = PATIENCE_S) -> BackedUp:
    """Copy the store at `root` to the folder `dest`, which must not be there or be empty; runs and sessions go on meanwhile.

    Raises ConfigError for a destination that cannot be meant, StoreError when it cannot be written (nothing is left there then), when there
    is no store, or when a gc or another backup to `dest` is still at work after `patience_s`.
    """
    dest = Path(os.path.realpath(dest))
    _check(root, dest)
    with reading(root) as db, files_held(root, alone=False, patience_s=patience_s), _made(root, dest) as folder:
        copy = _Copy(root, folder, dest)
        copy.database(db)
        copy.artifacts()
        copy.run_files()
        return copy.finish()


def _check(root: Path, dest: Path) -> None:
    store = Path(os.path.realpath(root))
    if dest.is_relative_to(store):
        raise ConfigError(f"backup: {dest} is inside of the history {store}; give a folder elsewhere, best on another disk")
    if os.path.lexists(dest) and not dest.is_dir():
        raise ConfigError(f"backup: {dest} is a file; give a folder that is not there yet")
    if dest.is_dir() and any(dest.iterdir()):
        raise ConfigError(f"backup: {dest} is not empty; give a folder that is not there yet, such as {dest / 'history'}")


@contextmanager
def _made(root: Path, dest: Path) -> Iterator[Path]:
    """A folder that becomes `dest` when the block ends well, and is removed otherwise."""
    folder = dest.with_name(f".{dest.name[:100]}.partial")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        for part in (folder, folder / "blobs"):
            part.mkdir(mode=0o700, exist_ok=True)
        with files_held(folder, alone=True, patience_s=0):
            for left in (*folder.glob("[!b]*"), *(folder / "blobs").iterdir()):  # by one that was killed
                remove_tree(left)
            try:
                yield folder
                os.sync()  # else a power cut could leave the name without the bytes
                folder.rename(dest)
            except BaseException:
                remove_tree(folder)
                raise
    except (sqlite3.Error, OSError) as bad:
        if isinstance(bad, StoreError):
            raise
        raise StoreError(
            f"the backup of {root} to {dest} failed: {getattr(bad, 'strerror', None) or bad}; nothing of it is left there: "
            "make room, or give another folder"
        ) from bad


class _Copy:
    """One copy, as it grows in `folder`."""

    def __init__(self, root: Path, folder: Path, dest: Path) -> None:
        self._root, self._folder = root, folder
        self._database = folder / f"{DATABASE}.part"
        self.done = BackedUp(str(dest))

    def database(self, db: sqlite3.Connection) -> None:
        """The database as it is now."""
        db.execute("BEGIN")
        db.execute("SELECT 1 FROM sqlite_master").fetchone()  # what is written from now on is not in the copy
        with closing(sqlite3.connect(self._database, isolation_level=None)) as copy:
            db.backup(copy, pages=_PAGES, sleep=0)
            db.execute("ROLLBACK")
            self._disown(copy)
            if (verdict := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                self.done.missing.append(f"rows of {self._root / DATABASE}, which is damaged: {verdict}; see `agentnb doctor`")
            self.done.runs, self.done.live = copy.execute(_COUNTS, LIVE).fetchone()

    def _disown(self, copy: sqlite3.Connection) -> None:
        """Whoever opens the copy shall end its live runs there, and none of the processes of the store that it was made of."""
        here = f"copied from {self._root}"  # owners elsewhere are left alone: see strays.still_serves
        copy.execute("UPDATE owners SET hostname = ?", (here,))
        copy.execute(_UNNAMED, (here, *LIVE))
        if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'snapshots'").fetchone():
            copy.execute("DELETE FROM snapshots")  # their files can be made again

    def artifacts(self) -> None:
        """The contents that the copied rows name, each verified."""
        source, target = Blobs(self._root / "blobs"), Blobs(self._folder / "blobs")
        with closing(sqlite3.connect(self._database)) as copy:
            rows = copy.execute("SELECT checksum, min(size) FROM artifacts WHERE location LIKE '%\"local\"%' GROUP BY checksum")
            for checksum, _ in rows:
                try:
                    path = source.locate(checksum or "")
                    size = self._file(path, target.locate(checksum), checksum)
                except StoreError as bad:
                    self.done.missing.append(str(bad))
                else:
                    self.done.artifacts += 1
                    self.done.bytes += size

    def _file(self, source: Path, target: Path, checksum: str | None = None) -> int:
        """Copy what the file has now; raises StoreError when it cannot be read, or is not what the checksum says."""
        digest = hashlib.sha256()
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            file = source.open("rb")
        except OSError as bad:
            raise StoreError(f"{source}: {bad.strerror or bad}") from bad
        with file, open(target, "wb", opener=_private) as out:
            left = size = os.fstat(file.fileno()).st_size  # a live run's log may grow faster than it is copied
            while left > 0 and (piece := file.read(min(left, _PIECE))):
                digest.update(piece)
                left -= out.write(piece)
        if checksum is not None and checksum != f"sha256:{digest.hexdigest()}":
            target.unlink()
            raise StoreError(f"{source}: its bytes are not those of its checksum")
        return size - left

    def run_files(self) -> None:
        """The logs of the runs that were copied, also what live ones have printed so far."""
        with closing(sqlite3.connect(self._database)) as copy:
            for entry in _folders(self._root / "runs"):
                if copy.execute("SELECT 1 FROM runs WHERE id = ?", (entry.name,)).fetchone():
                    self._logs(entry)
            for (path,) in copy.execute("SELECT path FROM logs WHERE path IS NOT NULL"):
                if not (self._folder / path).is_file():
                    self.done.missing.append(f"{self._root / path}: it is not there")

    def _logs(self, folder: Path) -> None:
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.is_symlink():
                self.done.bytes += self._file(file, self._folder / "runs" / folder.name / file.name)
                self.done.logs += 1

    def finish(self) -> BackedUp:
        """Give the database its name: now there is a store."""
        with suppress(StoreError):  # most have none
            self._file(self._root / REMOVED, self._folder / REMOVED)
        self.done.bytes += self._database.stat().st_size
        self._database.rename(self._folder / DATABASE)
        return self.done


def _folders(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
