"""Floods: a GiB on both streams, no newline for 100 MB, zombies, closed streams, a clock that steps back."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import agentnb as nb
from agentnb.engine import client

PYTHON = sys.executable
#: Writes as many bytes as asked to each of stdout and stderr, in turns, and ends with the SHA-256 of what it wrote in a file.
FLOOD = """
import hashlib, os, sys
left, block = int(sys.argv[1]), (b"\\xff\\x00 binary \\xe2\\x82\\xac " * 20000)
hashes = hashlib.sha256(), hashlib.sha256()
while left > 0:
    for fd in (1, 2):
        view = memoryview(block)[:left]
        while view:
            done = os.write(fd, view)
            hashes[fd - 1].update(view[:done])
            view = view[done:]
    left -= len(block)
open("sums", "w").write(" ".join(h.hexdigest() for h in hashes))
"""


@pytest.fixture
def session(store: Path) -> Iterator[nb.Session]:
    with nb.Session("floods", store=store, max_parallel=4, grace=1) as session:
        yield session


def engine() -> list[psutil.Process]:
    return [child for child in psutil.Process(os.getpid()).children() if "engine" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_gibibyte_on_both_streams_is_complete_on_disk_and_costs_no_memory(session: nb.Session, tmp_path: Path) -> None:
    session.shell("true").wait()
    (supervisor,) = engine()
    before = supervisor.memory_info().rss
    run = session.command([PYTHON, "-c", FLOOD, str(2**29)], working_dir=tmp_path)
    highest = before
    while not run.done:
        highest = max(highest, supervisor.memory_info().rss)
        time.sleep(0.02)
    result = run.wait().raise_for_status()
    assert (result.stdout_bytes, result.stderr_bytes) == (2**29, 2**29)
    assert highest - before < 64 * 2**20
    for stream, expected in zip(("stdout", "stderr"), (tmp_path / "sums").read_text().split(), strict=True):
        with (session.store / "runs" / run.id / f"{stream}.log").open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == expected


@pytest.mark.slow
def test_a_hundred_megabytes_without_a_newline_are_no_trouble_to_anyone_who_reads_them(session: nb.Session) -> None:
    run = session.shell("head -c 100000000 /dev/zero | tr '\\0' x")
    result = run.wait(60).raise_for_status()
    assert result.stdout_bytes == 100_000_000
    assert set(run.tail(3)) == {"x"}
    assert len(run.snapshot().tail[0][1]) < 100_000


def test_a_zombie_maker_leaves_none(session: nb.Session) -> None:
    make = "import os, time\nfor _ in range(50):\n    if os.fork() == 0: os._exit(0)\ntime.sleep(0.3)"
    assert session.command([PYTHON, "-c", make]).wait(30).ok
    deadline = time.monotonic() + 5
    while left := [p for e in engine() for p in e.children(recursive=True) if p.status() == psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_a_command_that_closes_its_streams_and_goes_on_is_waited_for(session: nb.Session, tmp_path: Path) -> None:
    run = session.shell("echo bye; exec >&- 2>&- <&-; sleep 0.3; touch done", working_dir=tmp_path)
    assert run.wait(30).raise_for_status().stdout == "bye\n"
    assert (tmp_path / "done").exists()


#: A supervisor whose wall clock steps back by an hour at the second reading.
STEPPING = """
import itertools, runpy, sys, time
real, count = time.time_ns, itertools.count()
time.time_ns = lambda: real() - (3600 * 10**9 if next(count) else 0)
sys.argv[0] = {main!r}
runpy.run_path({main!r}, run_name="__main__")
"""


def test_a_clock_that_steps_back_changes_no_duration(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = tmp_path / "main.py"
    wrapper.write_text(STEPPING.format(main=str(client._MAIN)))
    monkeypatch.setattr(client, "_MAIN", wrapper)
    with nb.Session("clock", store=store) as session:
        result = session.shell("sleep 0.2").wait(30)
        assert result.ok
        assert result.duration is not None
        assert 0.2 <= result.duration < 30
        df = session.runs_df(columns=["run_s", "started_at", "created_at"])
        assert df["run_s"].tolist() == pytest.approx([result.duration])
        assert (df["created_at"] - df["started_at"]).dt.total_seconds().min() > 3000  # the stamps do show the step
