"""Reading one run's records: plain functions over read-only connections, no pandas."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from agentnb.errors import ConfigError, StoreError
from agentnb.history import migrations
from agentnb.history.faults import store_fault
from agentnb.history.jsontext import bindable
from agentnb.history.store import BUSY_MS, DATABASE, Store
from agentnb.history.tombstone import last_removal, why_gone
from agentnb.states import TRANSITIONS, RunStatus

Record = dict[str, Any]

_JSON = frozenset({"target", "error", "input", "output", "params", "tags", "detail", "usage", "tokens", "location", "workspace"})
#: Shorter than this, a text is taken for a name only: ids that were made in one hour begin alike.
_PREFIX = 4


@contextmanager
def reading(root: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the store at `root`, closed at the end.

    A store of an older agentnb is migrated first. Raises StoreError when there is none or it cannot be read, StoreTooNew.
    """
    path = root / DATABASE
    db = _connect(path)
    try:
        if migrations.pending(db, path):
            Store.open(root).close()
        yield db
    except sqlite3.Error as bad:
        raise store_fault(bad, path, "reading") from bad
    finally:
        db.close()


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise StoreError(
            f"there is no history at {path}; run something first (nb.Session), or point AGENTNB_HOME/store= at one that exists"
        )
    plain = f"file:{quote(str(path))}?mode=ro"
    # A WAL database in a folder that cannot be written to opens only as immutable; that is true when no writer has left a WAL.
    modes = [plain] if path.with_name(f"{DATABASE}-wal").exists() else [plain, f"{plain}&immutable=1"]
    for mode in modes:
        db = sqlite3.connect(mode, uri=True, timeout=BUSY_MS / 1000, isolation_level=None)
        try:
            db.execute("SELECT 1 FROM sqlite_master").fetchall()
        except sqlite3.Error as bad:
            db.close()
            fault = bad
        else:
            return db
    raise store_fault(fault, path, "opening") from fault


def rows_of(cursor: sqlite3.Cursor) -> list[Record]:
    """Rows as dicts, JSON decoded."""
    names = [name for name, *_ in cursor.description]
    return [{n: json.loads(v) if n in _JSON and isinstance(v, str) else v for n, v in zip(names, row, strict=True)} for row in cursor]


def find_run(root: Path, key: str) -> str:
    """The id of the run that `key` means: its id, its name (the newest run of that name), or a unique start of its id.

    Raises ConfigError when no run, or more than one, is meant; StoreError.
    """
    key = str(bindable(key))
    with reading(root) as db:
        for query in ("SELECT id FROM runs WHERE id = ?", "SELECT id FROM runs WHERE name = ? ORDER BY created_at DESC, id DESC LIMIT 1"):
            if row := db.execute(query, (key,)).fetchone():
                return str(row[0])
        starts = []
        if len(key) >= _PREFIX:
            query = "SELECT id FROM runs WHERE id >= ? AND substr(id, 1, ?) = ? ORDER BY id LIMIT 4"
            starts = [str(run) for (run,) in db.execute(query, (key, len(key), key))]
        if len(starts) == 1:
            return starts[0]
        if starts:
            raise ConfigError(f"{key!r} is the start of several runs ({', '.join(starts)} ...); write more of the id")
        names = [
            name for (name,) in db.execute("SELECT DISTINCT name FROM runs WHERE name IS NOT NULL ORDER BY created_at DESC LIMIT 1000")
        ]
    near = get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "see `agentnb runs` for what there is"
    if when := last_removal(root):
        hint += f"; `agentnb gc` removed runs, last at {when:%Y-%m-%d %H:%M:%S} UTC"
    raise ConfigError(f"there is no run {key!r} in {root}; {hint}")


def read_run(root: Path, key: str) -> Record:
    """The run that `key` means (see `find_run`): its columns, JSON decoded, stamps in microseconds UTC."""
    run_id = find_run(root, key)
    with reading(root) as db:
        return rows_of(db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)))[0]


def check_ended(root: Path, run_id: str) -> Record:
    """The run, if it has ended. Raises ConfigError when it has not, StoreError."""
    run = read_run(root, run_id)
    if RunStatus(run["status"]) in TRANSITIONS:
        raise ConfigError(f"export: run {run['name']!r} has not ended, it reads {run['status']}; wait for it first: run.wait()")
    return run


def read_steps(root: Path, run_id: str) -> list[Record]:
    """The steps of a run in the order of their creation, JSON decoded, stamps in microseconds UTC."""
    with reading(root) as db:
        return rows_of(db.execute("SELECT * FROM steps WHERE run_id = ? ORDER BY created_at, rowid", (run_id,)))


def read_last_steps(root: Path, run_id: str, most: int) -> tuple[list[Record], int]:
    """The last `most` steps of a run, and those that they belong to, oldest first, and how many there are in all.

    For views: `input` and `output` are JSON text that may be cut, `error` is its message.
    """
    with reading(root) as db:
        [(total,)] = db.execute("SELECT count(*) FROM steps WHERE run_id = ?", (run_id,))
        found = _dicts(db.execute(f"{_BRIEF_STEPS} ORDER BY created_at DESC, rowid DESC LIMIT ?", (run_id, most)))[::-1]
        while missing := {row["parent_id"] for row in found} - {row["id"] for row in found} - {None}:
            marks = ", ".join("?" * len(missing))
            above = _dicts(db.execute(f"{_BRIEF_STEPS} AND id IN ({marks}) ORDER BY created_at, rowid", (run_id, *missing)))
            if not above:
                break
            found = above + found
        return found, total


#: More than this of a step's input or output no view shows.
_BRIEF = 2000
_BRIEF_STEPS = f"""SELECT id, parent_id, kind, name, status, started_at, finished_at, run_s, exit_code, input_tokens, output_tokens,
    cost_usd, substr(input, 1, {_BRIEF}) AS input, substr(output, 1, {_BRIEF}) AS output,
    substr(json_extract(error, '$.message'), 1, {_BRIEF}) AS error FROM steps WHERE run_id = ?"""  # noqa: S608 - no text of anybody


def _dicts(cursor: sqlite3.Cursor) -> list[Record]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def read_artifacts(root: Path, run_id: str) -> list[Record]:
    """The artifacts of a run in the order of their creation, JSON decoded, sizes in bytes, stamps in microseconds UTC."""
    with reading(root) as db:
        return rows_of(db.execute("SELECT * FROM artifacts WHERE source_run = ? ORDER BY created_at, rowid", (run_id,)))


def read_output(root: Path, run_id: str, stream: Literal["stdout", "stderr"]) -> bytes:
    """All that the history has of a run's stream; empty when there is nothing.

    Raises ConfigError for another stream, StoreError when the log file is gone or lies outside of the store.
    """
    if stream not in {"stdout", "stderr"}:
        raise ConfigError(f"there is no stream {stream!r}; it is 'stdout' or 'stderr'")
    with reading(root) as db:
        row = db.execute("SELECT inline, path FROM logs WHERE run_id = ? AND stream = ?", (run_id, stream)).fetchone()
    return output_bytes(root, *row) if row else b""


def read_runs(root: Path, run_ids: Collection[str]) -> list[Record]:
    """Those of these runs that the history knows, as `read_run` gives them."""
    with reading(root) as db:
        return rows_of(db.execute("SELECT * FROM runs WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(run_ids)),)))


def read_logs(root: Path, run_ids: Collection[str]) -> dict[str, dict[str, Record]]:
    """Where the streams of finished runs are, by run and name.

    Each is {"size": bytes, "text": str | None, "path": str | None}, one of which is None.
    """
    query = "SELECT run_id, stream, size, inline, path FROM logs WHERE run_id IN (SELECT value FROM json_each(?))"
    with reading(root) as db:
        rows = db.execute(query, (json.dumps(list(run_ids)),)).fetchall()
    found: dict[str, dict[str, Record]] = {}
    for run_id, stream, size, inline, path in rows:
        text = inline.decode("utf-8", "replace") if isinstance(inline, bytes) else inline
        found.setdefault(run_id, {})[str(stream)] = {"size": size, "text": text, "path": path}
    return found


def output_bytes(root: Path, inline: str | bytes | None, path: str | None) -> bytes:
    """The bytes that a row of the logs table stands for. Raises StoreError as `read_output` does."""
    if inline is not None:
        return inline.encode() if isinstance(inline, str) else inline
    if not path:
        return b""
    file = root / path
    if not file.resolve().is_relative_to(root.resolve()):
        raise StoreError(f"the log file {file} lies outside of the store {root}; the history was tampered with")
    try:
        return file.read_bytes()
    except OSError as bad:
        raise missing_log(root, file, bad) from bad


def missing_log(root: Path, file: Path, bad: OSError) -> StoreError:
    """What to say of a log file that cannot be read."""
    run_id = file.parent.name
    if not file.exists() and not read_runs(root, [run_id]):
        return StoreError(f"the output of run {run_id} cannot be read: the run {why_gone(root)}")
    return StoreError(f"the log file {file} cannot be read: {bad.strerror or bad}; was the store's folder cleaned by hand?")


def check_known(root: Path, run_id: str) -> None:
    """Raise StoreError when a gc removed the run from the history, which once knew it."""
    if last_removal(root) is not None and not read_runs(root, [run_id]):
        raise StoreError(f"run {run_id} {why_gone(root)}")
