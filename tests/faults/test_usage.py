"""Usage of whole process trees against what the processes say of themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentnb as nb

PYTHON = sys.executable
#: Burns CPU for a time and says how much it used, itself and its children.
BURN = """
import json, os, resource, sys, time
while time.process_time() < float(sys.argv[1]): pass
use = resource.getrusage(resource.RUSAGE_SELF)
line = json.dumps({"cpu": use.ru_utime + use.ru_stime, "rss": use.ru_maxrss * 1024})
os.write(1, line.encode() + b"\\n")  # whole, whoever else writes at the same time
"""


@pytest.fixture
def session(store: Path) -> Iterator[nb.Session]:
    with nb.Session("usage", store=store, max_parallel=4, grace=1) as session:
        yield session


def said(run: nb.RunHandle) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("seconds", [0.015, 0.5])
def test_cpu_time_is_what_the_process_says(session: nb.Session, seconds: float) -> None:
    run = session.command([PYTHON, "-c", BURN, str(seconds)])
    usage = run.wait().raise_for_status().usage
    assert usage.cpu_time is not None
    # What it used after it said so (its exit) comes on top.
    assert said(run)[0]["cpu"] <= usage.cpu_time + 0.001
    assert usage.cpu_time <= said(run)[0]["cpu"] * 1.01 + 0.02


def test_daemonised_children_are_counted(session: nb.Session) -> None:
    five = f'for i in 1 2 3 4 5; do setsid {PYTHON} -c "$BURN" 0.2 & done; wait'
    run = session.shell(five, env={"BURN": BURN})
    usage = run.wait(60).raise_for_status().usage
    assert len(said(run)) == 5
    assert usage.cpu_time is not None
    assert usage.cpu_time >= sum(line["cpu"] for line in said(run)) - 0.005
    assert usage.processes is not None
    assert usage.processes >= 5


def test_orphans_that_were_adopted_are_counted(session: nb.Session, tmp_path: Path) -> None:
    leave = f"(setsid sh -c '{PYTHON} -c \"$BURN\" 0.2; touch done' &); while [ ! -e done ]; do sleep 0.05; done"
    run = session.shell(leave, env={"BURN": BURN}, working_dir=tmp_path)
    usage = run.wait(60).raise_for_status().usage
    assert usage.cpu_time is not None
    assert usage.cpu_time >= said(run)[0]["cpu"] - 0.005


def test_peak_memory_is_exact_above_the_floor(session: nb.Session) -> None:
    hold = "import resource; x = bytearray(b'1') * (200 * 2**20); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    run = session.command([PYTHON, "-c", hold])
    usage = run.wait().raise_for_status().usage
    assert usage.peak_memory_bytes == pytest.approx(int(run.stdout), rel=0.01)
    assert not usage.peak_memory_is_bound


def test_peak_memory_of_a_small_child_does_not_show_the_memory_of_this_process(session: nb.Session) -> None:
    ballast = bytearray(b"1") * (64 * 2**20)
    usage = session.command(["/bin/true"]).wait().usage
    assert len(ballast) == 64 * 2**20
    assert usage.peak_memory_bytes is not None
    assert usage.peak_memory_bytes < 16 * 2**20
    assert usage.peak_memory_is_bound


def test_peak_memory_of_a_tree_is_its_sum(session: nb.Session) -> None:
    one = f"{PYTHON} -c 'import time; x = bytearray(b\"1\") * (50 * 2**20); time.sleep(0.6)' &"
    usage = session.shell(f"{one} {one} {one} wait").wait().usage
    assert usage.peak_memory_bytes is not None
    assert usage.peak_memory_bytes > 150 * 2**20
    assert usage.measured_by["peak_memory_bytes"] == "sum of the tree, sampled"


def test_disk_writes_are_exact(session: nb.Session, tmp_path: Path) -> None:
    run = session.shell("dd if=/dev/zero of=file bs=1000000 count=5 conv=fsync 2>/dev/null", working_dir=tmp_path)
    usage = run.wait().raise_for_status().usage
    assert usage.disk_write_bytes is not None
    assert 5_000_000 <= usage.disk_write_bytes <= 5_000_000 + 2**20


def test_each_figure_says_how_it_was_measured(session: nb.Session) -> None:
    assert set(session.shell("true").wait().usage.measured_by) >= {"cpu_time", "peak_memory_bytes", "disk", "processes"}
