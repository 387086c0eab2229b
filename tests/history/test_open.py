"""Getting to work with a history costs the same however much is in it: counted in steps of SQLite's machine, not in seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentnb.history import reader
from agentnb.history.frames import frames
from agentnb.history.store import Store
from tests.benchmarks import bench_open, big_store
from tests.benchmarks.big_store import key

SMALL, LARGE = 100, 1600


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A small store and one sixteen times as large, in sessions of the same size."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(big_store, "SESSION_RUNS", 50)
        for runs in (SMALL, LARGE):
            found[runs] = big_store.build(tmp_path_factory.mktemp("open") / "store", runs, 5)
            bench_open.add_events(found[runs], runs)
    return found


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """Counts the steps that SQLite's machine makes for a call, on all its connections."""
    count = 0
    connect = sqlite3.connect

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    def counted(*args: Any, **more: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **more)
        db.set_progress_handler(step, 1)
        return db

    def steps_of(call: Callable[[], Any]) -> int:
        nonlocal count
        call()  # what is done once in a process
        count = 0
        monkeypatch.setattr(sqlite3, "connect", counted)
        try:
            call()
        finally:
            monkeypatch.setattr(sqlite3, "connect", connect)
        return count

    return steps_of


def recover(root: Path) -> None:
    with closing(sqlite3.connect(root / "history.db")) as db, db:
        db.execute(f"UPDATE runs SET status = 'running', owner = 'dead' WHERE id = '{key('run', 3)}'")
    with Store.open(root, owner="test") as opened:
        assert opened.recovered == [key("run", 3)]


def spend(root: Path) -> None:
    with Store.open(root) as opened:
        assert opened.spent(key("ses", 0))["tokens"] == 50 * 1540


CASES: dict[str, Callable[[Path], Any]] = {
    "open": lambda root: Store.open(root).close(),
    "open as owner": lambda root: Store.open(root, owner="test").close(),
    "recover what a dead owner left": recover,
    "what a session has spent": spend,
    "the newest runs": lambda root: frames.runs_df(root, limit=10),
    "runs since": lambda root: frames.runs_df(root, since="1s", limit=10),
    "the newest sessions": lambda root: frames.sessions_df(root, limit=2),
    "steps of a run": lambda root: frames.steps_df(root, run=key("run", 7)),
    "events of a run": lambda root: frames.events_df(root, run=key("run", 7)),
    "runs of a session": lambda root: frames.runs_df(root, session=key("ses", 1)),
    "one run": lambda root: reader.read_run(root, key("run", 7)),
    "a run by its name": lambda root: reader.read_run(root, "work-99"),
}


#: A name has no index: it is looked for in the rows of `runs`, which are few beside those of events and steps.
SCANS_RUNS = {"a run by its name"}


@pytest.mark.parametrize("case", CASES)
def test_the_work_does_not_grow_with_the_history(case: str, stores: dict[int, Path], steps: Callable[[Callable[[], Any]], int]) -> None:
    small, large = (steps(lambda root=root: CASES[case](root)) for root in (stores[SMALL], stores[LARGE]))  # type: ignore[misc]
    assert small > 20
    if case in SCANS_RUNS:
        assert large < small + 40 * (LARGE - SMALL)
    else:
        assert large <= 1.3 * small + 300, (small, large)
