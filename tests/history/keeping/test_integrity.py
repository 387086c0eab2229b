"""A history that was damaged: what it is, where it is, and what to do, for every way to damage one."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.errors import StoreError, StoreTooNew
from agentnb.history.keeping import integrity
from agentnb.history.keeping.integrity import check
from agentnb.history.keeping.write_ahead import wal_fault
from agentnb.history.store import Store
from tests.history.keeping.kept import files, made, write
from tests.history.making import everything, table, whole_run

REPOSITORY = Path(__file__).parents[3]
PAGE = 4096


def troubles(root: Path, *, deep: bool = False) -> str:
    """All that is wrong, a line each."""
    return "\n".join(map(str, check(root, deep=deep).troubles))


def blob(root: Path, run_id: str) -> Path:
    [checksum] = [row["checksum"][7:] for row in table(root, "artifacts") if row["source_run"] == run_id]
    return Path(root, "blobs", checksum[:2], checksum[2:])


def test_a_sound_history_has_no_trouble_and_says_what_was_looked_at(store: Path) -> None:
    made(store, "a b c")
    before, kept = everything(store), files(store)
    found = check(store)
    assert found.troubles == []
    assert found.said[0].startswith("integrity_check of ")
    assert found.said[1:] == ["3 artifact contents, the checksums of 3", "3 logs"]
    assert (everything(store), files(store)) == (before, kept)


def test_a_history_that_is_written_just_now_is_sound(store: Path) -> None:
    made(store, "a")
    with Store.open(store, owner="living") as living:
        for n in range(20):
            living.apply(whole_run(f"r{n}"))
            assert troubles(store) == ""


def cut(root: Path) -> None:
    os.truncate(root / "history.db", 5 * PAGE + 100)


def empty_page(root: Path) -> None:
    with (root / "history.db").open("r+b") as file:
        file.seek(5 * PAGE)
        file.write(bytes(PAGE))


def flip(root: Path) -> None:
    """One bit of the number of cells of the root page of a table that is read."""
    with closing(sqlite3.connect(root / "history.db")) as db:
        [(page,)] = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'runs'")
    with (root / "history.db").open("r+b") as file:
        file.seek((page - 1) * PAGE + 3)
        byte = file.read(1)[0]
        file.seek((page - 1) * PAGE + 3)
        file.write(bytes([byte ^ 0x40]))


def index_entry(root: Path) -> None:
    """A row that the index does not lead to any more."""
    with closing(sqlite3.connect(root / "history.db")) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = replace(sql, '(created_at)', '(finished_at)') WHERE name = 'runs_by_creation'")


@pytest.mark.parametrize("damage", [cut, empty_page, flip, index_entry])
def test_a_damaged_database_is_told_of_with_its_place_and_a_way_out(store: Path, damage: Callable[[Path], None]) -> None:
    made(store, " ".join(f"r{n}" for n in range(30)))
    damage(store)
    said = troubles(store)
    assert said.startswith(("the database is damaged: ", "the database cannot be read: "))
    assert str(store / "history.db") in said
    assert "restore a backup" in said
    assert ".recover" in said


def test_what_is_no_database_is_told_of(store: Path) -> None:
    made(store, "a")
    (store / "history.db").write_bytes(b"garbage" * 2000)
    assert "the database cannot be read: " in troubles(store)


def test_missing_and_changed_files_are_each_named(store: Path) -> None:
    made(store, "a b c d e f")
    blob(store, "a").unlink()
    blob(store, "b").write_bytes(b"kept by X")  # of the same size
    blob(store, "c").write_bytes(b"longer than it was")
    (store / "runs" / "d" / "stdout.log").unlink()
    (store / "runs" / "e" / "stdout.log").write_bytes(b"x" * 999)
    found = {trouble.what: trouble for trouble in check(store).troubles}
    assert set(found) == {
        "artifact contents are missing (1)",
        "artifact contents are not what was kept (2)",
        "logs are missing (1)",
        "logs have another size than was recorded (1)",
    }
    assert "artifact a-a, " in found["artifact contents are missing (1)"].where
    assert str(blob(store, "a")) in found["artifact contents are missing (1)"].where
    assert all(f"artifact {run}-a, {blob(store, run)}" in found["artifact contents are not what was kept (2)"].where for run in "bc")
    assert f"run d, {store / 'runs/d/stdout.log'}" in found["logs are missing (1)"].where
    assert "999 bytes, recorded were 1000" in found["logs have another size than was recorded (1)"].where
    assert all("backup" in trouble.advice for trouble in found.values())


def test_rows_of_runs_that_are_not_there_are_told_of_by_table(store: Path) -> None:
    made(store, "a b")
    write(store, "DELETE FROM runs WHERE id = 'a'")
    found = troubles(store).splitlines()
    assert [line.split(",")[0] for line in found] == [f"runs have {name}" for name in ("steps", "artifacts", "events", "logs")]
    assert all("run a;" in line and "`agentnb gc` removes" in line for line in found)


def test_rows_that_do_not_parse_are_told_of(store: Path) -> None:
    made(store, "a")
    write(store, "UPDATE runs SET params = '{\"a\": '")
    write(store, "UPDATE events SET data = 'x' WHERE seq = 3")
    assert "rows hold JSON that does not parse (2): runs, row 1, events, row 3; restore" in troubles(store)


def test_a_log_that_leads_out_of_the_history_counts_as_missing(store: Path, tmp_path: Path) -> None:
    made(store, "a")
    (tmp_path / "secret").write_bytes(b"x" * 1000)
    write(store, "UPDATE logs SET path = '../secret'")
    assert "logs are missing (1): run a" in troubles(store)


def test_leftovers_are_no_trouble_and_named_with_the_way_to_remove_them(store: Path) -> None:
    made(store, "a")
    (store / "runs" / "unknown").mkdir()
    (store / "runs" / "unknown" / "stdout.log").write_bytes(b"x" * 2048)
    found = check(store)
    assert found.troubles == []
    assert found.said[-1] == "files and folders that nothing refers to: 1 (2.0 KiB), `agentnb gc` removes them"


def test_a_large_history_is_checked_in_part_and_all_of_it_on_demand(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(store, " ".join(f"r{n}" for n in range(40)))
    for name, value in (("FULL_BYTES", 4096), ("MOST_ROWS", 10), ("MOST_BYTES", 50)):
        monkeypatch.setattr(integrity, name, value)
    found = check(store)
    assert found.said[0].startswith("quick_check of ")
    assert found.said[0].endswith(", without its indexes")
    assert found.said[1:] == ["10 artifact contents (a sample), the checksums of 4", "10 logs (a sample)"]
    blob(store, "r0").write_bytes(b"kept by xx"[: blob(store, "r0").stat().st_size])
    assert troubles(store, deep=True).startswith("artifact contents are not what was kept (1): artifact r0-a")
    assert check(store, deep=True).said[1:] == ["40 artifact contents, the checksums of 40", "40 logs"]


# --- the write-ahead log

CRASHED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from agentnb.history.store import Store
from tests.history.making import whole_run
store = Store.open(Path(sys.argv[1]))
for n in range(20):
    store.apply(whole_run(f"late{n}"))
os.kill(os.getpid(), 9)
"""


def crashed(root: Path) -> Path:
    """A store whose writer was killed: what it wrote last is in the write-ahead log only."""
    made(root, "early")
    ended = subprocess.run([sys.executable, "-c", CRASHED, str(root), str(REPOSITORY)], check=False)
    assert ended.returncode == -signal.SIGKILL
    wal = root / "history.db-wal"
    assert wal.stat().st_size > 20 * PAGE
    return wal


def test_a_write_ahead_log_that_a_kill_left_is_whole(store: Path) -> None:
    wal = crashed(store)
    assert wal_fault(wal) == ""
    assert troubles(store) == ""
    assert len(table(store, "runs")) == 21


@pytest.mark.parametrize(
    ("at", "says"), [(0, "it is no write-ahead log"), (32 + 24 + 100, "its page 1 is damaged"), (60_000, "is damaged")]
)
def test_garbage_in_the_write_ahead_log_is_told_of_before_it_is_dropped(store: Path, at: int, says: str) -> None:
    wal = crashed(store)
    with wal.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 16)
    assert says in wal_fault(wal)
    said = troubles(store)
    assert said.startswith(f"what was written last is lost: {wal}: ")
    assert "backup" in said


def test_any_byte_that_changed_in_the_write_ahead_log_is_noticed_and_no_bytes_crash_it(store: Path) -> None:
    wal = crashed(store)
    whole, other = wal.read_bytes(), wal.with_name("other")

    @settings(max_examples=40, deadline=None)
    @given(at=st.integers(0, 4 * PAGE), change=st.integers(1, 255))
    def changed(at: int, change: int) -> None:
        data = bytearray(whole)
        data[at] ^= change
        other.write_bytes(data)
        assert wal_fault(other) != ""

    @settings(max_examples=40, deadline=None)
    @given(head=st.integers(0, 200), data=st.binary(max_size=300))
    def garbage(head: int, data: bytes) -> None:
        other.write_bytes(whole[:head] + data)
        assert isinstance(wal_fault(other), str)

    changed()
    garbage()


def test_a_log_that_ends_in_the_middle_of_a_page_lost_nothing_that_was_committed(store: Path) -> None:
    wal = crashed(store)
    whole = wal.stat().st_size
    with wal.open("ab") as file:
        file.write(b"\x00" * 100)
    assert wal_fault(wal) == ""
    os.truncate(wal, whole)
    for data in (b"", b"short"):
        other = wal.with_name("other")
        other.write_bytes(data)
        assert bool(wal_fault(other)) == bool(data)
    assert wal_fault(wal.with_name("not there")) == ""


def test_pages_of_an_earlier_round_are_no_damage(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([event for n in range(50) for event in whole_run(f"r{n}")])
        with closing(sqlite3.connect(store / "history.db")) as db:
            db.execute("PRAGMA wal_checkpoint(RESTART)")
        opened.apply(whole_run("next"))
        copied = shutil.copy(store / "history.db-wal", store / "copied")
    assert wal_fault(Path(copied)) == ""


def test_a_write_ahead_log_that_was_removed_is_suspected_by_what_is_left(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply(whole_run("a"))
        (store / "runs" / "a").mkdir()
        (store / "runs" / "a" / "stdout.log").write_bytes(b"x")
        with closing(sqlite3.connect(store / "history.db")) as db:
            lost = db.execute("SELECT count(*) FROM runs").fetchone()
            assert lost == (1,)
        other = store.with_name("other")  # as it is on disk: the runs are in the log alone
        shutil.copytree(store, other)
    (other / "history.db-wal").unlink()
    (other / "history.db-shm").unlink()
    said = troubles(other)
    assert "the history has no run, but 0 artifact contents and 1 folders are there" in said
    assert "restore a backup" in said


def test_a_history_that_is_newer_or_not_there_is_the_usual_error(store: Path) -> None:
    with pytest.raises(StoreError, match="there is no history"):
        check(store)
    made(store, "a")
    write(store, "INSERT INTO migrations VALUES ('9999_later', 0)")
    with pytest.raises(StoreTooNew):
        check(store)
