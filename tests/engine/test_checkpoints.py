"""The write-ahead log goes into the database beside the work, whatever becomes of either."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from agentnb.engine import checkpoints
from agentnb.engine.checkpoints import Checkpoints
from agentnb.events import RunQueued
from agentnb.history.store import DATABASE, Store
from tests.engine.driver import wait_until

if TYPE_CHECKING:
    import pytest


class Copied:
    """A store that notes when it is copied, and waits for `go`."""

    def __init__(self) -> None:
        self.times = 0
        self.go = threading.Event()
        self.go.set()

    def checkpoint(self) -> None:
        self.times += 1
        self.go.wait(30)


def drive(scene: Callable[[Checkpoints, Copied], Awaitable[None]]) -> None:
    async def play() -> None:
        store = Copied()
        copying = Checkpoints(asyncio.get_running_loop(), store)
        await scene(copying, store)
        copying.close()
        store.go.set()

    asyncio.run(play())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


def test_it_is_copied_once_when_no_more_comes_and_not_for_a_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "QUIET_S", 0.02)

    async def scene(copying: Checkpoints, store: Copied) -> None:
        copying.wrote(checkpoints.ENOUGH - 1)
        await asyncio.sleep(0.06)
        assert store.times == 0
        copying.wrote(1)
        await until(lambda: store.times == 1)
        await asyncio.sleep(0.06)
        assert store.times == 1

    drive(scene)


def test_it_is_copied_while_much_is_written_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "QUIET_S", 60.0)

    async def scene(copying: Checkpoints, store: Copied) -> None:
        store.go.clear()
        for _ in range(100):
            copying.wrote(checkpoints.MANY)
        await until(lambda: store.times == 1)
        store.go.set()

        async def more() -> bool:
            copying.wrote(checkpoints.MANY)
            await asyncio.sleep(0.005)
            return store.times > 1

        async with asyncio.timeout(30):
            while not await more():
                pass

    drive(scene)


def test_what_comes_last_is_copied_too_when_another_copy_was_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "QUIET_S", 0.02)

    async def scene(copying: Checkpoints, store: Copied) -> None:
        for burst in (checkpoints.MANY, checkpoints.ENOUGH):
            store.go.clear()
            before = store.times
            copying.wrote(checkpoints.MANY)
            await until(lambda: store.times == before + 1)  # noqa: B023 - called before it changes
            copying.wrote(burst)
            await asyncio.sleep(0.05)
            assert store.times == before + 1
            store.go.set()
            await until(lambda: store.times == before + 2)  # noqa: B023

    drive(scene)


def test_where_there_is_no_room_for_a_thread_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def scene(copying: Checkpoints, store: Copied) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", full)
            copying.wrote(checkpoints.MANY)
        copying.wrote(checkpoints.MANY)
        await until(lambda: store.times == 1)

    drive(scene)


def queued(count: int, start: int = 0) -> list[RunQueued]:
    return [RunQueued({"id": f"r{n}", "session_id": "s", "target": {"kind": "command"}}) for n in range(start, start + count)]


def in_database(root: Path) -> int:
    """How many runs the database has without its log."""
    with closing(sqlite3.connect(f"{(root / DATABASE).as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM runs").fetchone()[0])


def test_a_checkpoint_brings_into_the_database_what_was_in_the_log_while_others_write(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        store.checkpoint()
        store.apply(queued(100))
        assert in_database(store.root) == 0
        store.checkpoint()
        assert in_database(store.root) == 100
        stop = threading.Event()

        def copy() -> None:
            while not stop.is_set():
                store.checkpoint()

        thread = threading.Thread(target=copy)
        thread.start()
        for n in range(100):
            store.apply(queued(10, 100 + 10 * n))
        stop.set()
        thread.join()
    assert in_database(tmp_path / "store") == 1100
    with closing(sqlite3.connect(tmp_path / "store" / DATABASE)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def pages_of_the_log(root: Path) -> int:
    with closing(sqlite3.connect(root / DATABASE)) as db:
        return int(db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])


def test_a_log_that_was_copied_is_begun_anew_so_that_the_next_to_write_need_not_wait_for_the_disk(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        store.apply(queued(100))
        assert pages_of_the_log(store.root) > 5
        store.checkpoint()
        assert pages_of_the_log(store.root) == 1
        store.apply(queued(10, 100))
        assert pages_of_the_log(store.root) > 1
    assert in_database(tmp_path / "store") == 110


def test_a_log_is_not_begun_anew_while_somebody_else_writes(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store, closing(sqlite3.connect(store.root / DATABASE, isolation_level=None)) as writer:
        store.apply(queued(100))
        writer.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        store.checkpoint()
        assert time.monotonic() - start < sqlite_waits_s(writer)
        writer.execute("ROLLBACK")
        assert pages_of_the_log(store.root) > 5
        assert in_database(store.root) == 100


def sqlite_waits_s(db: sqlite3.Connection) -> float:
    """How long a connection of Python waits for a lock if it is not told otherwise."""
    return float(db.execute("PRAGMA busy_timeout").fetchone()[0]) / 1000


def test_a_reader_that_stays_where_it_is_keeps_what_it_reads_and_costs_nothing_else(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store, closing(sqlite3.connect(store.root / DATABASE, isolation_level=None)) as reader:
        store.apply(queued(10))
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (10,)
        store.apply(queued(10, 10))
        store.checkpoint()
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (10,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (20,)


def test_a_store_that_was_deleted_or_closed_is_left_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.apply(queued(10))
    shutil.rmtree(store.root)
    store.checkpoint()
    assert not store.root.exists()
    store.close()
    with Store.open(tmp_path / "other") as other:
        other.apply(queued(10))
    other.checkpoint()
    assert sorted(path.name for path in other.root.glob(f"{DATABASE}*")) == [DATABASE]


def test_closing_waits_for_a_copy_that_is_under_way(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store._copying.acquire()  # as a checkpoint does
    closing_ = threading.Thread(target=store.close)
    closing_.start()
    wait_until(lambda: store._closed)
    assert closing_.is_alive()
    store._copying.release()
    closing_.join(30)
    assert not closing_.is_alive()
