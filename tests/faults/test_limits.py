"""Limits of whole process trees, on real processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.engine.cgroups import LEAST_MEMORY, ROOT, backend
from agentnb.engine.limits import means

PYTHON = sys.executable


@pytest.fixture
def session(store: Path) -> Iterator[nb.Session]:
    with nb.Session("limits", store=store, max_parallel=8, grace=1) as session:
        yield session


def crossed(run: nb.RunHandle, limit: str, bound: float) -> None:
    """The run failed because of that limit, and its error names limit, bound and reading."""
    result = run.wait(60)
    assert result.status is nb.RunStatus.FAILED
    assert result.error is not None
    assert result.error.kind is nb.ErrorKind.RESOURCE_LIMIT_EXCEEDED
    assert result.error.details["limit"] == limit
    assert result.error.details["bound"] == bound
    assert result.error.details["reading"] >= bound
    assert limit in result.error.message
    assert result.retryable
    with pytest.raises(nb.LimitExceeded):
        result.raise_for_status()


def test_a_memory_hog_is_ended_and_the_error_names_the_limit(session: nb.Session) -> None:
    run = session.command([PYTHON, "-c", "x = bytearray(300 * 2**20); input()"], limits=nb.Limits(max_memory_bytes="100MiB"), stdin=True)
    crossed(run, "max_memory_bytes", 100 * 2**20)


@pytest.mark.parametrize("bound", [1, 4096, LEAST_MEMORY - 1])
def test_a_bound_that_no_program_runs_in_is_refused(session: nb.Session, bound: int) -> None:
    with pytest.raises(nb.InvalidLimits, match=f"max_memory_bytes={bound} .* 262144"):
        session.shell("true", limits=nb.Limits(max_memory_bytes=bound))
    session.shell("true", limits=nb.Limits(max_memory_bytes=LEAST_MEMORY)).wait(60)  # it may be enough for that
    assert session.shell("echo said").wait(60).stdout == "said\n"


def test_the_memory_of_a_tree_is_added_up(session: nb.Session) -> None:
    one = f"{PYTHON} -c 'import time; x = bytearray(60 * 2**20); time.sleep(60)' &"
    run = session.shell(f"{one} {one} {one} wait", limits=nb.Limits(max_memory_bytes="120MiB"))
    crossed(run, "max_memory_bytes", 120 * 2**20)


def test_a_fork_bomb_stays_inside_its_limit(session: nb.Session) -> None:
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 60"
    run = session.shell(bomb, shell="bash", limits=nb.Limits(max_processes=20))
    crossed(run, "max_processes", 20)


def test_cpu_time_counts_the_tree(session: nb.Session) -> None:
    burn = f"{PYTHON} -c 'while True: pass' &"
    crossed(session.shell(f"{burn} {burn} wait", limits=nb.Limits(max_cpu_time_s=0.4)), "max_cpu_time_s", 0.4)


def test_cpu_percent_is_a_mean_over_a_second(session: nb.Session) -> None:
    crossed(session.command([PYTHON, "-c", "while True: pass"], limits=nb.Limits(max_cpu_percent=5)), "max_cpu_percent", 5)
    quiet = session.shell("sleep 1.5", limits=nb.Limits(max_cpu_percent=50)).wait()
    assert quiet.ok


def test_a_leak_of_descriptors_is_seen(session: nb.Session) -> None:
    leak = "import os, time\nwhile True: os.open('/dev/null', 0); time.sleep(0.002)"
    crossed(session.command([PYTHON, "-c", leak], limits=nb.Limits(max_file_descriptors=60)), "max_file_descriptors", 60)


def test_disk_writes_are_counted(session: nb.Session, tmp_path: Path) -> None:
    write = "dd if=/dev/zero of=big bs=1M count=64 conv=fsync 2>/dev/null; sleep 60"
    run = session.shell(write, working_dir=tmp_path, limits=nb.Limits(max_disk_io_bytes="8MiB"))
    if means()["max_disk_io_bytes"].by and tmp_path.stat().st_dev != Path("/dev/shm").stat().st_dev:
        crossed(run, "max_disk_io_bytes", 8 * 2**20)
    run.cancel()


def test_output_beyond_its_bound_ends_the_run(session: nb.Session) -> None:
    run = session.shell("yes", limits=nb.Limits(max_output_bytes="1MiB"))
    crossed(run, "max_output_bytes", 2**20)
    assert run.result is not None
    assert run.result.stdout_bytes >= 2**20


def test_a_run_inside_its_limits_is_left_alone(session: nb.Session) -> None:
    limits = nb.Limits(
        max_memory_bytes="1GiB", max_processes=50, max_cpu_time_s=60, max_cpu_percent=900, max_file_descriptors=500,
        max_disk_io_bytes="1GiB", max_output_bytes="1MiB",
    )  # fmt: skip
    assert session.shell("echo fine; sleep 0.3", limits=limits).wait().raise_for_status().stdout == "fine\n"


def test_a_limit_crossed_between_two_samples_is_found_at_the_end(session: nb.Session) -> None:
    burn = "import time\nwhile time.process_time() < 0.09: pass"
    result = session.command([PYTHON, "-c", burn], limits=nb.Limits(max_cpu_time_s=0.05)).wait()
    assert result.error is not None
    assert result.error.kind is nb.ErrorKind.RESOURCE_LIMIT_EXCEEDED


def test_a_limit_that_cannot_be_kept_is_refused_before_anything_starts(session: nb.Session) -> None:
    with pytest.raises(nb.InvalidLimits, match="max_network_bytes"):
        session.shell("true", limits=nb.Limits(max_network_bytes=1))
    with pytest.raises(nb.InvalidLimits, match="no limit"):
        session.shell("true", limits=nb.Limits())
    assert session.runs == []


def test_no_control_group_is_left(session: nb.Session) -> None:
    runs = [session.shell("true", limits=nb.Limits(max_memory_bytes="1GiB", max_processes=9)) for _ in range(5)]
    session.wait()
    assert all(run.result is not None and run.result.ok for run in runs)
    if backend().version:
        assert not list(ROOT.glob(f"**/agentnb-{runs[0].id}*"))


def test_a_retry_after_a_limit_is_another_attempt(session: nb.Session) -> None:
    run = session.shell("yes", limits=nb.Limits(max_output_bytes=1000), retry=nb.Retry(max_attempts=2, initial_delay=0.01))
    crossed(run, "max_output_bytes", 1000)
    assert run.result is not None
    assert run.result.attempts == 2
    assert [step.attempt for step in run.steps] == [1, 2]
