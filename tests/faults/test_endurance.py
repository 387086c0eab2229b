"""Ten thousand runs in one process: nothing grows but the records."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

import agentnb as nb
from agentnb.history.store import DATABASE
from tests.engine.driver import wait_until

RUNS, WAVE = 10_000, 1000
#: What one run may add to this process for its handle, in bytes; and to the engine's processes (allocators keep some).
HANDLE_BYTES, ENGINE_BYTES = 12_000, 600


def state(process: psutil.Process) -> tuple[int, int, int]:
    """(descriptors, threads, memory in bytes) of a process."""
    return process.num_fds(), process.num_threads(), process.memory_info().rss


def zombies(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if child.status() == psutil.STATUS_ZOMBIE]


def wave(session: nb.Session) -> None:
    runs = [session.command(["/bin/true"]) for _ in range(WAVE)]
    session.wait()
    assert {run.status for run in runs} == {nb.RunStatus.COMPLETED}


def is_copied(store: Path) -> bool:
    """Whether the database has the runs of a wave without its log."""
    with closing(sqlite3.connect(f"{(store / DATABASE).as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        try:
            return bool(db.execute("SELECT count(*) >= ? FROM runs", (WAVE,)).fetchone()[0])
        except sqlite3.Error:  # it was read while it was written
            return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_runs_leave_nothing_but_their_records(store: Path) -> None:
    with nb.Session("endurance", store=store, max_parallel=8) as session:
        wave(session)  # waiting runs have records too: their memory is used again by the waves that follow
        wait_until(lambda: is_copied(store))  # SQLite keeps a descriptor of the connection that did it for the next one
        here = psutil.Process(os.getpid())
        (supervisor,) = [child for child in here.children() if "engine" in " ".join(child.cmdline())]
        engine = [supervisor, *supervisor.children()]  # with its spawners: the first wave brought the second one
        before = [state(process) for process in (here, *engine)]
        for _ in range(RUNS // WAVE):
            wave(session)
        wait_until(lambda: not zombies(supervisor))

        def has_settled() -> bool:  # a copy of the log may be under way, and a spawner may not know yet that the last runs are over
            now = [state(process) for process in (here, *engine)]
            return all(new[0] <= old[0] and new[1] <= old[1] for old, new in zip(before, now, strict=True))

        wait_until(has_settled, "the end of what the last runs need")
        after = [state(process) for process in (here, *engine)]
        most = (HANDLE_BYTES, *(ENGINE_BYTES for _ in engine))
        for (_, _, memory), (_, _, memory_now), each in zip(before, after, most, strict=True):
            assert memory_now - memory <= each * RUNS
        assert len(session.runs_df(columns=["id"])) == RUNS + WAVE


@pytest.mark.slow
def test_cancelling_a_group_of_ten_thousand_is_prompt_and_exact(store: Path) -> None:
    with nb.Session("many", store=store, max_parallel=4) as session:
        group = session.map(nb.Shell("sleep 600"), [{"n": n} for n in range(RUNS)], name="sleepers")
        while not any(run.status is nb.RunStatus.RUNNING for run in group):
            time.sleep(0.01)
        start = time.monotonic()
        group.cancel("enough")
        group.wait(60)
        took = time.monotonic() - start
        assert {run.status for run in group} == {nb.RunStatus.CANCELLED}
        assert took < 30  # seconds for all of them; the fair figure is in the benchmarks
        statuses = session.runs_df(columns=["status"])["status"].value_counts()
        assert statuses["cancelled"] == RUNS
