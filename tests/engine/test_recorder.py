"""First into the store, then to whoever listens; a store that refuses loses nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentnb.engine import recorder
from agentnb.engine.recorder import PIECE, TURNS, Recorder
from agentnb.errors import StoreError
from agentnb.events import Message, RunFinished, RunQueued, RunStarted, StoreTrouble
from agentnb.history.store import Store

LOCKED = sqlite3.OperationalError("database is locked")
LOCKED.sqlite_errorcode = sqlite3.SQLITE_BUSY


class Moody:
    """A store that notes what it is given, and refuses when told to."""

    def __init__(self) -> None:
        self.root = Path("store")
        self.rows: list[str] = []
        self.calls = 0
        self.sizes: list[int] = []
        self.refuse = self.locked = False
        self.poison = ""
        self.copying = False
        self.behind: list[bool] = []

    def tell_behind(self, behind: bool) -> None:
        self.behind.append(behind)

    def apply(self, events: Sequence[Message]) -> None:
        self.calls += 1
        if self.refuse:
            raise StoreError("the disk is full")
        if self.locked:
            raise StoreError("another process keeps it locked") from LOCKED
        names = [getattr(event, "run_id", "") for event in events]
        if self.poison in names:
            raise TypeError("what is that?")
        self.rows += names
        self.sizes.append(len(names))

    def close(self) -> None:
        self.calls += 1

    def gone(self) -> bool:
        return False

    def be_patient(self) -> None:
        pass

    def checkpoint(self) -> None:
        pass


def end(name: str) -> RunFinished:
    return RunFinished(name, "completed")


def drive(scene: Callable[[Recorder, Moody, list[Message], list[Any]], Any]) -> None:
    async def play() -> None:
        told: list[Message] = []
        faults: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        store = Moody()
        await scene(Recorder(loop, store, told.extend), store, told, faults)

    asyncio.run(play())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_RETRY_S", 0.01)
    monkeypatch.setattr(recorder, "_LONGEST_RETRY_S", 0.01)


def names(told: list[Message]) -> list[str]:
    return [event.run_id for event in told if isinstance(event, RunFinished)]


def test_events_of_one_turn_are_one_batch_and_are_told_after_they_are_written() -> None:
    async def scene(recorder: Recorder, store: Moody, told: list[Message], _: Any) -> None:
        for n in range(50):
            recorder.emit(end(f"r{n}"))
        assert (store.rows, told) == ([], [])
        await until(lambda: told)
        assert store.calls == 1
        assert store.rows == names(told) == [f"r{n}" for n in range(50)]

    drive(scene)


@pytest.mark.parametrize("goes_wrong", ["nothing", "refuse", "locked"])
def test_a_flood_is_written_in_pieces_before_it_is_told_and_told_in_order_whatever_comes_between(
    goes_wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GATHER_S", "GATHER_MANY_S"):  # so that the clock has no part in it
        monkeypatch.setattr(recorder, name, 60.0)

    async def scene(recorder: Recorder, store: Moody, told: list[Message], _: Any) -> None:
        recorder.emit(end("first"))
        await until(lambda: told)
        sent = ["first"]
        for turn in range(6):
            for n in range(PIECE // 2):
                sent.append(f"{turn}.{n}")
                recorder.emit(end(sent[-1]))
            for _ in range(TURNS + 2):
                await asyncio.sleep(0)
            if turn == 3:
                assert store.rows == sent
                assert names(told) == ["first"]
                assert store.calls == 3
                if goes_wrong != "nothing":
                    setattr(store, goes_wrong, True)
        if goes_wrong != "nothing":
            recorder.flush()
            calls = store.calls
            await until(lambda: store.calls > calls)
            setattr(store, goes_wrong, False)
        else:
            recorder.flush()
        await until(lambda: len(names(told)) == len(sent) == len(store.rows))
        assert names(told) == store.rows == sent
        if goes_wrong == "refuse":  # who hears of the trouble has heard of all that was written before
            place = next(n for n, event in enumerate(told) if isinstance(event, StoreTrouble))
            assert place >= 1 + 2 * PIECE

    drive(scene)


def test_what_comes_all_at_once_is_written_in_pieces_too_and_others_have_turns_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "GATHER_S", 60.0)
    monkeypatch.setattr(recorder, "GATHER_MANY_S", 60.0)

    async def scene(recorder: Recorder, store: Moody, told: list[Message], _: Any) -> None:
        recorder.emit(end("first"))
        await until(lambda: told)
        sent = [f"r{n}" for n in range(3 * PIECE + 50)]
        for name in sent:
            recorder.emit(end(name))
        turns = [0]
        while len(store.rows) < 1 + 3 * PIECE:
            await asyncio.sleep(0)
            turns.append(len(store.rows))
        assert store.sizes == [1, PIECE, PIECE, PIECE]
        assert min(turns.count(1 + PIECE), turns.count(1 + 2 * PIECE)) >= TURNS
        assert names(told) == ["first"]
        recorder.flush()
        assert names(told) == store.rows == ["first", *sent]

    drive(scene)


def test_a_store_that_refuses_is_told_of_once_and_gets_everything_in_order_later() -> None:
    async def scene(recorder: Recorder, store: Moody, told: list[Message], _: Any) -> None:
        store.refuse = True
        for n in range(200):
            recorder.emit(end(f"r{n}"))
            recorder.flush()
        assert names(told) == [f"r{n}" for n in range(200)]
        assert store.calls == 1  # only the timer tries again
        await until(lambda: store.calls > 3)
        before = store.calls
        await asyncio.sleep(0.1)
        assert store.calls - before < 20  # one timer, however many batches were refused
        troubles = [event.message for event in told if isinstance(event, StoreTrouble)]
        assert len(troubles) == 1
        assert "full" in str(troubles[0])
        store.refuse = False
        await until(lambda: len(store.rows) == 200)
        assert store.rows == [f"r{n}" for n in range(200)]
        assert store.behind == [True, False]
        recorder.emit(end("last"))
        await until(lambda: "last" in store.rows)
        assert [event.message for event in told if isinstance(event, StoreTrouble)][1:] == [None]
        assert recorder.close() is None

    drive(scene)


def test_an_event_that_the_store_cannot_take_does_not_keep_the_others_out() -> None:
    async def scene(recorder: Recorder, store: Moody, told: list[Message], faults: list[Any]) -> None:
        store.poison = "bad"
        for name in ("one", "bad", "two"):
            recorder.emit(end(name))
        await until(lambda: told)
        assert store.rows == ["one", "two"]
        assert names(told) == ["one", "bad", "two"]
        assert len(faults) == 1

    drive(scene)


def test_a_short_lock_is_no_trouble_and_nobody_hears_of_what_is_not_written() -> None:
    async def scene(recorder: Recorder, store: Moody, told: list[Message], _: Any) -> None:
        store.locked = True
        settled: list[int] = []
        for n in range(5):
            recorder.emit(end(f"r{n}"))
            recorder.flush()
        recorder.when_settled(lambda: settled.append(len(store.rows)))
        await until(lambda: store.calls > 5)
        assert (told, settled, recorder.is_settled) == ([], [], False)
        store.locked = False
        await until(lambda: told)
        assert names(told) == store.rows == [f"r{n}" for n in range(5)]
        assert (settled, len(told)) == ([5], 5)

    drive(scene)


def test_a_lock_that_is_kept_becomes_trouble_and_then_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_LOCKED_S", 0.05)

    async def scene(recorder: Recorder, store: Moody, told: list[Message], _: Any) -> None:
        store.locked = True
        settled: list[int] = []
        recorder.emit(end("r0"))
        recorder.when_settled(lambda: settled.append(1))
        await until(lambda: told)
        assert isinstance(told[0], StoreTrouble)
        assert "locked" in str(told[0].message)
        assert (names(told), settled) == (["r0"], [1])
        recorder.emit(end("r1"))
        recorder.flush()
        assert names(told) == ["r0", "r1"]
        store.locked = False
        await until(lambda: store.rows == ["r0", "r1"])
        assert told[-1] == StoreTrouble("store", None)
        store.locked = True  # the patience is there again
        recorder.emit(end("r2"))
        recorder.flush()
        assert "r2" not in names(told)

    drive(scene)


def test_a_lock_is_no_trouble_while_the_stores_own_log_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_LOCKED_S", 0.0)

    async def scene(recorder: Recorder, store: Moody, told: list[Message], _: Any) -> None:
        store.locked = store.copying = True
        recorder.emit(end("r0"))
        await until(lambda: store.calls > 5)
        assert told == []
        store.locked = False
        await until(lambda: told)
        assert names(told) == store.rows == ["r0"]
        store.locked, store.copying = True, False
        recorder.emit(end("r1"))
        await until(lambda: len(told) > 1)
        assert isinstance(told[1], StoreTrouble)

    drive(scene)


def test_a_locked_store_holds_up_its_writer_for_moments_only(store: Path) -> None:
    with Store.open(store, owner="a") as mine, closing(sqlite3.connect(store / "history.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        with pytest.raises(StoreError, match="keeps it locked"):
            mine.apply([RunStarted("r")])
        assert time.monotonic() - start < 0.5
        other.execute("ROLLBACK")


def test_closing_writes_what_is_left_or_says_why_not() -> None:
    async def scene(recorder: Recorder, store: Moody, _: list[Message], __: Any) -> None:
        store.refuse = True
        recorder.emit(end("r"))
        assert "full" in str(recorder.close())
        await asyncio.sleep(0.05)
        assert store.calls == 3  # tried, tried again, closed

    drive(scene)


def test_events_that_are_recorded_are_in_a_real_store(store: Path) -> None:
    async def play() -> None:
        told: list[Message] = []
        with Store.open(store) as real:
            recorder = Recorder(asyncio.get_running_loop(), real, told.extend)
            run = {"id": "r1", "session_id": "s", "name": "n", "target": {}, "created_at": 1}
            recorder.emit(RunQueued(run))
            recorder.emit(RunStarted("r1"))
            recorder.emit(end("r1"))
            await until(lambda: len(told) == 3)
            assert real._db.execute("SELECT id, status FROM runs").fetchall() == [("r1", "completed")]

    asyncio.run(play())
