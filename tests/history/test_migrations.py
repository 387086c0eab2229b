from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentnb.errors import StoreError, StoreTooNew
from agentnb.history import migrations
from agentnb.history.reader import reading
from agentnb.history.store import Store
from tests.history.making import table, whole_run


def test_each_migration_is_recorded_once(store: Path) -> None:
    for _ in range(3):
        Store.open(store).close()
    assert [row["name"] for row in table(store, "migrations")] == [name for name, _ in migrations.MIGRATIONS]


def test_a_store_of_a_newer_version_is_refused_and_left_untouched(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply(whole_run("R"))
    with closing(sqlite3.connect(store / "history.db")) as db:
        db.execute("INSERT INTO migrations VALUES ('0099_future', 1)")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (store / "history.db").read_bytes()
    for way in (lambda: Store.open(store, owner="a"), lambda: reading(store).__enter__()):
        with pytest.raises(StoreTooNew) as caught:
            way()
        text = str(caught.value)
        assert str(store / "history.db") in text
        assert "0099_future" in text
        assert "upgrade agentnb or point AGENTNB_HOME/store= elsewhere" in text
    assert (store / "history.db").read_bytes() == before


def test_a_database_of_something_else_is_refused_and_left_untouched(store: Path) -> None:
    store.mkdir()
    with closing(sqlite3.connect(store / "history.db")) as db:
        db.execute("CREATE TABLE bookmarks (url)")
        db.commit()
    before = (store / "history.db").read_bytes()
    with pytest.raises(StoreError, match="bookmarks"):
        Store.open(store)
    assert (store / "history.db").read_bytes() == before


def test_a_migration_that_fails_leaves_nothing_of_itself(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(store).close()
    broken = ("0099_broken", ("CREATE TABLE half (x)", "THIS IS NO SQL"))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, broken))
    with pytest.raises(StoreError, match="THIS"):
        Store.open(store)
    monkeypatch.undo()
    Store.open(store).close()
    with closing(sqlite3.connect(store / "history.db")) as db:
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'half'").fetchone()


def test_a_reader_brings_an_older_store_up_to_date(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(store) as opened:
        opened.apply(whole_run("R"))
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, ("0099_more", ("ALTER TABLE runs ADD COLUMN more TEXT",))))
    with reading(store) as db:
        assert db.execute("SELECT id, more FROM runs").fetchall() == [("R", None)]
    assert [row["name"] for row in table(store, "migrations")] == [name for name, _ in migrations.MIGRATIONS]


def test_an_empty_database_file_is_taken_as_a_new_store(store: Path) -> None:
    store.mkdir()
    (store / "history.db").touch()
    with Store.open(store) as opened:
        opened.apply(whole_run("R"))
    assert len(table(store, "runs")) == 1
