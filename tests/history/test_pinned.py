"""Stores as earlier versions made them (pinned/<newest migration>.sql, see pin_store.py) open in this one, whoever is killed meanwhile."""

from __future__ import annotations

import hashlib
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb import cli
from agentnb.errors import StoreTooNew
from agentnb.history import migrations, reader
from agentnb.history.store import Store
from tests.engine.driver import Loop, running
from tests.history.making import table, whole_run

REPOSITORY = Path(__file__).parents[2]
PINNED = {file.stem: file for file in sorted(Path(__file__).with_name("pinned").glob("*.sql"))}
NAMES = [name for name, _ in migrations.MIGRATIONS]
OLDER = [name for name in PINNED if name != NAMES[-1]]
FRAMES = {"sessions": nb.sessions_df, "runs": nb.runs_df, "steps": nb.steps_df, "artifacts": nb.artifacts_df, "events": nb.events_df}
#: What was released stays as it is: SHA-256 of the statements of each migration.
RELEASED = {
    "0001_initial": "245bcc033c85c519e2390078994f7c12c6e98c70fee52aaf4af67001d2c9517a",
    "0002_trace_id": "d20956e38a50b2f731a707cd103559d223d6cacbdd0534f2e2ebffeaba2a160b",
    "0003_agents": "6a0deeb6e500754b2908a8542a70f94cbad0a79e8f107913e1eb55efe25ecacf",
    "0004_step_duration": "daa5de0960e0c3981d7a57f91d3928705543f39dd1715f5ee6d91ea2b3cf53a7",
    "0005_reuse": "7b19be1dced849a6c3de4c2795b4b3a96e473800a9a42787ad7afddc8acbaf07",
    "0006_snapshots": "f5f3c7f8814fb81e0375c53a7d1dd024d35dcacb796ac5d9b8bcb040c90ec265",
}
ENDS = {"greeting": "completed", "failing": "failed", "filled": "completed", "grid [0]": "completed", "grid [1]": "completed"}
ENDS |= {"late": "timeout", "doubled": "completed", "interrupted": "interrupted", "never begun": "cancelled"}


def old_store(folder: Path, name: str) -> Path:
    """A store as it was when `name` was the newest migration."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "history.db")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(PINNED[name].read_text(encoding="utf-8"))
    return folder


def tables_of(root: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(root / "history.db")) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: table(root, name) for name in names}


def schema_of(root: Path) -> dict[str, str]:
    """What the database declares, without spaces and the order in which columns came."""
    with closing(sqlite3.connect(root / "history.db")) as db:
        return {name: re.sub(r"\s+", "", sql) for name, sql in db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")}


def applied(root: Path) -> list[str]:
    return [row["name"] for row in table(root, "migrations")]


def assert_kept(before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]) -> None:
    """Every row and value of `before` is in `after`, in its place; columns that came are empty."""
    for name, rows in before.items():
        if name != "migrations":
            assert [{column: row[column] for column in old} for row, old in zip(after[name], rows, strict=True)] == rows
            assert all(row[column] is None for row, old in zip(after[name], rows, strict=True) for column in row.keys() - old)


def test_what_was_released_is_never_changed_and_every_migration_is_pinned() -> None:
    found = {name: hashlib.sha256("\n;\n".join(statements).encode()).hexdigest() for name, statements in migrations.MIGRATIONS}
    assert {name: found.get(name) for name in RELEASED} == RELEASED, "add a migration instead of changing one"
    assert [*RELEASED] == NAMES[: len(RELEASED)]
    assert len(NAMES) - len(RELEASED) <= 1, "pin what was released: its hash here, its store by pin_store.py"


def test_a_migration_only_adds_so_that_writers_of_the_version_before_go_on() -> None:
    for name, statements in migrations.MIGRATIONS[1:]:
        for statement in statements:
            added = re.match(r"ALTER TABLE \w+ ADD COLUMN (?!.*NOT NULL)|CREATE (TABLE|INDEX|TRIGGER) |INSERT INTO ", statement)
            assert added, f"{name}: a supervisor that runs meanwhile names the columns of its version: {statement}"


@pytest.mark.parametrize("name", PINNED)
def test_a_store_of_an_earlier_version_is_brought_up_to_date_with_all_that_is_in_it(store: Path, name: str) -> None:
    old_store(store, name)
    before = tables_of(store)
    assert applied(store)[-1] == name
    Store.open(store).close()
    assert_kept(before, tables_of(store))
    assert applied(store) == NAMES
    Store.open(store.with_name("new")).close()
    assert schema_of(store) == schema_of(store.with_name("new"))


@pytest.mark.parametrize("name", PINNED)
def test_a_store_of_an_earlier_version_is_read_by_every_frame_and_written_to(store: Path, name: str) -> None:
    old_store(store, name)
    Store.open(store.with_name("new")).close()
    runs = nb.runs_df(store=store)
    assert dict(zip(runs["name"], runs["status"], strict=True)) == ENDS
    assert dict(zip(runs["name"], runs["param.letter"], strict=True))["grid [1]"] == "y"
    assert set(runs["param.word"].dropna()) == {"grüße ☃"}
    expected = {"sessions": 2, "runs": 9, "steps": 8, "artifacts": 2, "events": len(table(store, "events"))}
    for frame, read in FRAMES.items():
        found, empty = read(store=store), read(store=store.with_name("new"))
        assert len(found) == expected[frame]
        assert found.dtypes[empty.columns].astype(str).to_dict() == empty.dtypes.astype(str).to_dict()
    assert reader.read_output(store, reader.find_run(store, "greeting"), "stdout") == b"hello\n"
    assert reader.read_run(store, "doubled")["output"] == {"doubled": 42}
    with Store.open(store, owner="new") as opened:
        opened.apply(whole_run("R"))
    assert len(nb.runs_df(store=store)) == 10


STOPPING = """
import functools, sqlite3, sys
from pathlib import Path
from agentnb.history import store

class Stops(sqlite3.Connection):
    changes = 0
    def execute(self, sql, *rest):
        if sql.startswith(("ALTER", "CREATE", "INSERT", "COMMIT")):
            if self.changes == int(sys.argv[2]):
                print(sql, flush=True)
                sys.stdin.read()
            self.changes += 1
        return super().execute(sql, *rest)

store.sqlite3.connect = functools.partial(sqlite3.connect, factory=Stops)
store.Store.open(Path(sys.argv[1])).close()
print("done", flush=True)
"""


def stopping(store: Path, at: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", STOPPING, str(store), str(at)]
    return subprocess.Popen(argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("name", OLDER)
def test_a_migration_that_is_killed_half_way_leaves_the_schema_before_it_and_runs_again(store: Path, name: str) -> None:
    for at in range(0, 60, 4):
        folder = old_store(store / str(at), name)
        before, schema = tables_of(folder), schema_of(folder)
        with stopping(folder, at) as child:
            assert child.stdout is not None
            line = child.stdout.readline().strip()
            if line == "done":
                break
            child.send_signal(signal.SIGKILL)
        left = applied(folder)
        assert left == NAMES[: len(left)]
        assert len(left) >= NAMES.index(name) + 1
        if left[-1] == name:
            assert schema_of(folder) == schema, f"killed before {line!r}"
        Store.open(folder).close()
        assert applied(folder) == NAMES
        assert_kept(before, tables_of(folder))
        with closing(sqlite3.connect(folder / "history.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    else:
        raise AssertionError("no child came to the end: look at more statements")
    assert at > 0


def test_processes_that_migrate_at_once_each_find_the_new_schema(store: Path) -> None:
    old_store(store, OLDER[0])
    before = tables_of(store)
    children = [stopping(store, 1000) for _ in range(4)]
    with suppress(BrokenPipeError):
        said = [child.communicate()[0] for child in children]
    assert (said, [child.returncode for child in children]) == (["done\n"] * 4, [0] * 4)
    assert applied(store) == NAMES
    assert_kept(before, tables_of(store))


def test_who_waits_for_another_that_migrates_finds_it_done(store: Path) -> None:
    old_store(store, OLDER[0])
    with stopping(store, 1) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline().startswith("INSERT")  # in its transaction
        with stopping(store, 1000) as second:
            first.stdin.close()
            assert second.communicate()[0] == "done\n"
        assert first.wait(30) == 0
    assert applied(store) == NAMES


def test_a_supervisor_that_works_while_its_store_is_migrated_loses_nothing(store: Path, no_leaks: None) -> None:
    """Its statements name their columns, and a migration only adds."""
    loop = Loop()
    try:
        with running(store, loop) as engine:
            assert engine.run("echo before").status == "completed"
            run = engine.launch("until test -e go; do sleep 0.01; done; exit 3").started()
            with closing(sqlite3.connect(store / "history.db", isolation_level=None)) as db:  # as a later version does
                db.execute("BEGIN IMMEDIATE")
                for changed in ("runs", "steps", "events"):
                    db.execute(f"ALTER TABLE {changed} ADD COLUMN later TEXT")
                for statement in ("CREATE TABLE later (x)", "CREATE INDEX later_runs ON runs (later)"):
                    db.execute(statement)
                db.execute("INSERT INTO migrations VALUES ('9999_later', 1)")
                db.execute("COMMIT")
            assert engine.run("echo after").status == "completed"
            Path("go").touch()
            assert run.wait().exit_code == 3
            engine.settle()
            rows = engine.rows("SELECT status, later FROM runs ORDER BY created_at")
            assert [status for status, _ in rows] == ["completed", "failed", "completed"]
            assert {later for _, later in rows} == {None}
    finally:
        loop.stop()


def files_of(root: Path) -> dict[str, bytes]:
    """What is in the folder, but for the files in which readers of a database keep account of themselves, if they hold nothing new."""
    files = {file.name: file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file() and not file.name.endswith("-shm")}
    return {name: data for name, data in files.items() if data or not name.endswith("-wal")}


def test_a_store_of_a_newer_version_is_refused_by_everything_and_no_byte_of_it_changes(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(old_store(store, OLDER[-1])).close()
    with closing(sqlite3.connect(store / "history.db")) as db:
        db.execute("ALTER TABLE runs ADD COLUMN colour TEXT")
        db.execute("INSERT INTO migrations VALUES ('9999_colour', 1)")
        db.commit()
    before = files_of(store)
    for use in (lambda: nb.Session("s", store=store), *(lambda read=read: read(store=store) for read in FRAMES.values())):
        with pytest.raises(StoreTooNew, match="9999_colour.*upgrade agentnb"):
            use()
    monkeypatch.setenv("AGENTNB_HOME", str(store))
    assert cli.main(["runs"]) != 0
    assert "upgrade agentnb" in capsys.readouterr().err
    assert files_of(store) == before
