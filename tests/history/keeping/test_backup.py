"""A copy of a history that is written meanwhile: whole, at one moment, or not there at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from agentnb.errors import ConfigError, StoreError
from agentnb.events import RunStarted
from agentnb.history.frames import frames
from agentnb.history.keeping.backup import back_up
from agentnb.history.keeping.collected import Asked
from agentnb.history.keeping.collector import collect
from agentnb.history.keeping.integrity import check
from agentnb.history.store import Store
from tests.disks import small_tmpfs
from tests.history.keeping.kept import check_whole, files, ids, kept_run, made, write
from tests.history.making import everything, queued, started_session, table

REPOSITORY = Path(__file__).parents[3]
READS = (frames.runs_df, frames.steps_df, frames.artifacts_df, frames.events_df, frames.sessions_df)


def partial(dest: Path) -> Path:
    return dest.with_name(f".{dest.name}.partial")


def test_a_copy_reads_as_the_history_does(store: Path, tmp_path: Path) -> None:
    made(store, "a b c", params={"x": 1})
    done = back_up(store, tmp_path / "copies" / "first")
    copy = Path(done.path)
    assert (copy, done.runs, done.live, done.artifacts, done.logs, done.missing) == (tmp_path / "copies" / "first", 3, 0, 3, 3, [])
    assert everything(copy) == everything(store)
    before = {path for path in copy.rglob("*") if path.is_file()}
    assert files(copy).items() >= files(store).items() - {(".gitignore", b"*\n")}
    for read in READS:
        pd.testing.assert_frame_equal(read(copy, full=True) if read is not frames.sessions_df else read(copy), read(store, full=True))
    assert check(copy).troubles == []
    assert copy.stat().st_mode & 0o777 == 0o700
    assert not partial(copy).exists()
    assert done.bytes == sum(path.stat().st_size for path in before)


def test_what_is_written_meanwhile_is_in_the_copy_whole_or_not_at_all(store: Path, tmp_path: Path) -> None:
    made(store, "first", session="T")
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            with Store.open(store, owner="writer") as writer:
                writer.be_patient()
                writer.apply([started_session()])
                n = 0
                while not stop.wait(0.005):
                    writer.apply(kept_run(writer, f"r{n}", data=os.urandom(20_000), aged=False))
                    n += 1
        except BaseException as bad:  # noqa: BLE001 - told by the test
            failures.append(bad)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        copies = [Path(back_up(store, tmp_path / f"copy{n}").path) for n in range(4)]
    finally:
        stop.set()
        thread.join()
    assert not failures
    all_rows = everything(store)
    for copy in copies:
        check_whole(copy)
        assert check(copy, deep=True).troubles == []
        for name in ("runs", "steps", "artifacts", "events"):
            rows = everything(copy)[name]
            assert rows == all_rows[name][: len(rows)]
    assert len(ids(copies[-1]).split()) >= len(ids(copies[0]).split()) >= 1


def test_live_runs_of_a_copy_read_interrupted_there_and_live_on_here(store: Path, tmp_path: Path) -> None:
    command = "import sys; sys.stdin.read()"
    with Store.open(store, owner="living") as living:
        living.apply([started_session(), *kept_run(living, "done"), queued("waits"), queued("works"), RunStarted("works")])
        (store / "runs" / "works").mkdir()
        (store / "runs" / "works" / "stdout.log").write_bytes(b"so far")
        environment = dict(os.environ, AGENTNB_RUN_ID="works")
        with subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, env=environment) as child:
            done = back_up(store, tmp_path / "copy")
            assert done.live == 2
            before = everything(store)
            with Store.open(tmp_path / "copy", owner="other") as copy:
                assert sorted(copy.recovered) == ["waits", "works"]
            assert child.poll() is None, "the process belongs to the run of the store that it was copied from"
            child.stdin.close()  # type: ignore[union-attr]
            assert child.wait() == 0
        assert everything(store) == before
    found = frames.runs_df(tmp_path / "copy", full=True).set_index("id")
    assert found["status"].to_dict() == {"done": "completed", "waits": "cancelled", "works": "interrupted"}
    assert found.loc["works", "stdout"] == "so far"


def test_the_processes_of_an_owner_without_a_record_are_left_alone_too(store: Path, tmp_path: Path) -> None:
    with Store.open(store, owner="living") as living:
        living.apply([started_session(), queued("works"), RunStarted("works")])
        write(store, "DELETE FROM owners")
        back_up(store, tmp_path / "copy")
    assert [(row["owner"], row["hostname"]) for row in table(tmp_path / "copy", "owners")] == [("living", f"copied from {store}")]


@pytest.mark.parametrize("where", ["store", "store/blobs/copy", "full", "file", "link"])
def test_a_destination_that_cannot_be_meant_is_refused(store: Path, tmp_path: Path, where: str) -> None:
    made(store, "a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("!")
    (tmp_path / "file").write_text("!")
    (tmp_path / "link").symlink_to(store / "runs")
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="^backup: .* (is inside of the history|is not empty|is a file)"):
        back_up(store, tmp_path / where)
    assert files(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "link", "store"]


def test_an_empty_folder_is_a_destination(store: Path, tmp_path: Path) -> None:
    made(store, "a")
    (tmp_path / "empty").mkdir()
    back_up(store, tmp_path / "empty")
    assert ids(tmp_path / "empty") == "a"


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from agentnb.history.keeping import backup
left = int(sys.argv[4])
for name in ("_file", "database", "_disown", "finish"):
    def dying(self, *args, call=getattr(backup._Copy, name)):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return call(self, *args)
    setattr(backup._Copy, name, dying)
backup.back_up(Path(sys.argv[1]), Path(sys.argv[3]))
"""


def test_killed_anywhere_it_leaves_nothing_that_looks_whole_and_the_next_one_clears_it_away(store: Path, tmp_path: Path) -> None:
    made(store, "a b")
    dest = tmp_path / "copy"
    for point in range(0, 20, 2):
        command = [sys.executable, "-c", KILLED, str(store), str(REPOSITORY), str(dest), str(point)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        if not ended.returncode:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert not dest.exists()
        assert not (partial(dest) / "history.db").exists()
    else:
        pytest.fail("it was killed at every point")
    assert point >= 4
    check_whole(dest)
    assert not partial(dest).exists()
    assert not list((dest / "blobs").glob(".*"))


@pytest.fixture
def small_disk(tmp_path: Path):
    with small_tmpfs(tmp_path / "disk", "1m") as disk:
        yield disk


@pytest.mark.parametrize("large", ["rows", "files"])
def test_a_full_disk_is_told_of_and_nothing_is_left_on_it(store: Path, small_disk: Path, large: str) -> None:
    if large == "rows":
        made(store, "a b", input="x" * 2_000_000)
    else:
        made(store, "a", data=os.urandom(3_000_000))
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(StoreError, match=r"the backup of .* to .*copy failed: .*(full|No space).*nothing of it is left there: make room"):
        back_up(store, small_disk / "copy")
    assert list(small_disk.iterdir()) == []
    assert shutil.disk_usage(small_disk).free == free


def test_what_the_history_itself_has_lost_is_told_of_and_all_else_is_copied(store: Path, tmp_path: Path) -> None:
    made(store, "a b c")
    first, second, _ = sorted(path for path in (store / "blobs").rglob("*") if path.is_file())
    first.unlink()
    second.write_bytes(b"changed!!")
    (store / "runs" / "b" / "stdout.log").unlink()
    done = back_up(store, tmp_path / "copy")
    assert (done.runs, done.artifacts, done.logs) == (3, 1, 2)
    assert [name in told for name, told in zip((str(first), str(second), "runs/b/stdout.log"), sorted(done.missing), strict=False)]
    assert len(done.missing) == 3
    assert "not in the copy: " in str(done)


def test_a_copy_into_a_place_that_cannot_be_written_says_so(store: Path, tmp_path: Path) -> None:
    made(store, "a")
    (tmp_path / "file").write_text("!")
    with pytest.raises(StoreError, match="File exists|Not a directory"):
        back_up(store, tmp_path / "file" / "copy")
    with pytest.raises(StoreError, match="there is no history"):
        back_up(tmp_path / "nothing", tmp_path / "copy")


def test_a_gc_waits_for_a_backup_and_rows_are_never_copied_without_their_files(store: Path, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def clean() -> None:
        try:
            collect(store, Asked(before=1 << 60))
        except BaseException as bad:  # noqa: BLE001
            failures.append(bad)

    for n in range(4):
        made(store, " ".join(f"r{k}" for k in range(10)))
        thread = threading.Thread(target=clean)
        thread.start()
        copy = Path(back_up(store, tmp_path / f"copy{n}").path)
        thread.join()
        check_whole(copy)
    assert not failures
