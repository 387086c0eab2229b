"""Ten thousand runs in one process: nothing grows but the records."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

import agentnb as nb

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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_runs_leave_nothing_but_their_records(store: Path) -> None:
    with nb.Session("endurance", store=store, max_parallel=8) as session:
        wave(session)  # waiting runs have records too: their memory is used again by the waves that follow
        here = psutil.Process(os.getpid())
        (supervisor,) = [child for child in here.children() if "engine" in " ".join(child.cmdline())]
        engine = [supervisor, *supervisor.children()]  # with its spawners: the first wave brought the second one
        before = [state(process) for process in (here, *engine)]
        for _ in range(RUNS // WAVE):
            wave(session)
        deadline = time.monotonic() + 5
        while zombies(supervisor) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not zombies(supervisor)
        after = [state(process) for process in (here, *engine)]
        most = (HANDLE_BYTES, *(ENGINE_BYTES for _ in engine))
        for (fds, threads, memory), (fds_now, threads_now, memory_now), each in zip(before, after, most, strict=True):
            assert fds_now <= fds
            assert threads_now <= threads
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
