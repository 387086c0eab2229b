"""A disk that is full: nothing hangs, nothing is lost once there is room again, and the user is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentnb import requests
from tests.disks import small_tmpfs
from tests.engine.driver import Engine, Loop, Watched, running, wait_until
from tests.history.recordings.lines import output, whole, write

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with small_tmpfs(tmp_path / "small", "4m") as folder:
        yield folder


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()
    assert not loop.faults


@pytest.fixture
def engine(small: Path, loop: Loop) -> Iterator[Engine]:
    with running(small / "store", loop) as engine:
        yield engine


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    file = folder / "ballast"
    with file.open("wb", buffering=0) as out:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    out.write(b"x" * size)
            except OSError:
                continue
    return file


def refused(engine: Engine, run: Watched) -> bool:
    """Whether the run's output cannot be put on disk."""
    try:
        engine.ask(lambda number: requests.Flush(number, run.id))
    except RuntimeError as bad:
        return "cannot be written to disk" in str(bad)
    return False


def test_output_waits_for_room_and_nothing_of_it_is_lost(engine: Engine, small: Path) -> None:
    ballast = fill(small)
    run = engine.launch("head -c 2000000 /dev/zero | tr '\\0' x; echo end", cwd="/")
    wait_until(lambda: refused(engine, run))
    assert not run.done.done()
    ballast.unlink()
    assert run.stdout() == b"x" * 2_000_000 + b"end\n"
    assert run.wait().status == "completed"


def test_a_child_waits_while_its_output_cannot_be_written_and_can_be_cancelled(engine: Engine, small: Path) -> None:
    ballast = fill(small)
    run = engine.launch("head -c 3000000 /dev/zero | tr '\\0' x; touch /tmp/none-$$ && rm /tmp/none-$$; echo end", cwd="/")
    wait_until(lambda: refused(engine, run))
    other = engine.launch("echo other")
    assert other.wait().status == "completed"  # the engine goes on
    assert not run.done.done()
    run.cancel()
    end = run.wait(10)
    assert end.status == "cancelled"
    assert any("cannot be written" in warning for warning in end.detail["warnings"])
    ballast.unlink()


def test_runs_end_are_told_and_are_in_the_history_once_there_is_room(engine: Engine, small: Path) -> None:
    assert engine.run("true").status == "completed"
    ballast = fill(small)
    runs = [engine.launch(f"echo {n}; exit {n % 2}") for n in range(20)]
    assert {run.wait().status for run in runs} == {"completed", "failed"}
    trouble = wait_until(lambda: dict(engine.client.trouble))
    assert "the disk is full" in trouble[str(engine.store)]
    ballast.unlink()
    wait_until(lambda: not engine.client.trouble)
    engine.settle()
    assert engine.rows("SELECT status, count(*) FROM runs GROUP BY status") == [("completed", 11), ("failed", 10)]
    assert os.path.exists(engine.store / "history.db")


def test_a_supervisor_that_ends_while_the_disk_is_full_writes_the_rest_alone_and_ends(engine: Engine, small: Path) -> None:
    ballast = fill(small)
    run = engine.launch("yes", cwd="/").started()
    wait_until(lambda: engine.client.trouble)
    process = engine.client.process
    assert process is not None
    with pytest.warns(RuntimeWarning, match="not complete yet .*the disk is full"):
        engine.close()
    assert process.poll() is None
    ballast.unlink()
    (small / "store" / "runs" / run.id / "stdout.log").unlink()
    assert process.wait(30) == 0
    assert engine.rows("SELECT status FROM runs") == [("interrupted",)]


def test_a_supervisor_that_ends_when_its_store_was_deleted_ends(engine: Engine, small: Path) -> None:
    engine.launch("yes >/dev/null", cwd="/").started()
    shutil.rmtree(small / "store")
    process = engine.client.process
    assert process is not None
    engine.close()
    assert process.returncode == 0


@pytest.mark.parametrize("freed", [True, False])
def test_a_replay_waits_for_room_and_may_be_cancelled_meanwhile(engine: Engine, small: Path, freed: bool) -> None:
    recorded = write(whole(*(output(0.1, "x" * 30_000) for _ in range(60))))
    ballast = fill(small)
    run = engine.launch("", kind="replay", argv=[], replay={"path": str(recorded), "speed": None})
    wait_until(lambda: refused(engine, run), "the refusal")
    assert not run.done.done()
    ballast.unlink() if freed else run.cancel()
    end = run.wait()
    assert end.status == ("completed" if freed else "cancelled")
    if freed:
        assert run.stdout() == b"x" * 1_800_000
        assert any("it waits until it can" in warning for warning in end.detail["warnings"])
    ballast.unlink(missing_ok=True)


def test_a_stream_that_a_parser_reads_waits_for_room_and_nothing_of_it_is_lost(engine: Engine, small: Path) -> None:
    ballast = fill(small)
    line = '{"text": "' + "x" * 90 + '"}'
    code = f"yes '{line}' | head -n 10000; echo '{{\"result\": 7}}'"
    run = engine.launch(code, cwd="/", parser="agentnb.agents.json_stream:JsonStream", parser_options={})
    wait_until(lambda: refused(engine, run))
    assert not run.done.done()
    ballast.unlink()
    end = run.wait()
    assert (end.status, end.output) == ("completed", 7)
    assert run.stdout() == (b"x" * 90 + b"\n") * 10_000
    whole_stream = (len(line) + 1) * 10_000 + len('{"result": 7}\n')
    assert engine.rows("SELECT name, size FROM artifacts WHERE source_run = ?", run.id) == [("stream.jsonl", whole_stream)]
