"""`agentnb gc` on stores of plain rows: what goes, what stays, and what a kill, a full disk or another one at the same time does to it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.errors import StoreError, StoreTooNew
from agentnb.events import RunStarted
from agentnb.history.frames import bulk, frames, snapshots
from agentnb.history.keeping.collected import Asked, size_text
from agentnb.history.keeping.collector import collect
from agentnb.history.keeping.files_lock import files_held
from agentnb.history.keeping.removable import Removable
from agentnb.history.keeping.removal import remove_runs
from agentnb.history.store import Store
from tests.disks import small_tmpfs
from tests.history.keeping.kept import check_whole, files, ids, kept_run, made, write
from tests.history.making import SECOND, T0, everything, queued, started_session, table, whole_run

REPOSITORY = Path(__file__).parents[3]
HOUR = 3600 * SECOND
ALL = Asked(before=T0 + 1_000_000 * HOUR)


def test_runs_that_ended_longer_ago_go_with_all_that_is_theirs_alone(store: Path) -> None:
    made(store, "a b c d")
    done = collect(store, Asked(before=T0 + 2 * HOUR))
    assert (done.runs, done.sessions, done.artifacts, done.kept) == (2, 0, 2, {})
    assert ids(store) == "c d"
    check_whole(store)
    assert sorted(os.listdir(store / "runs")) == ["c", "d"]
    assert len(files(store / "blobs")) == 2
    assert done.bytes > 1900
    assert done.by_session == [{"id": "S", "name": "S", "runs": 2}]
    for read, column in ((frames.runs_df, "id"), (frames.steps_df, "run_id"), (frames.artifacts_df, "run_id")):
        assert set(read(store)[column]) == {"c", "d"}
    assert frames.sessions_df(store)["n_runs"].tolist() == [2]


def test_a_session_goes_when_its_last_run_does(store: Path) -> None:
    made(store, "a b", session="S")
    made(store, "c", session="T")
    assert collect(store, Asked(sessions=("S",))).sessions == 1
    assert ids(store) == "c"
    assert {event["session_id"] for event in table(store, "events")} == {"T"}
    assert [row["id"] for row in table(store, "sessions")] == ["T"]


def test_criteria_are_taken_together(store: Path) -> None:
    made(store, "a b", session="S")
    made(store, "c d", session="T")
    collect(store, Asked(before=T0 + HOUR, sessions=("T",)))
    assert ids(store) == "a b d"


def test_content_that_another_run_keeps_too_stays(store: Path) -> None:
    made(store, "a b", data=b"the same")
    assert collect(store, Asked(before=T0 + HOUR)).artifacts == 0
    check_whole(store)
    assert collect(store, ALL).artifacts == 1
    assert files(store / "blobs") == {}


def test_runs_of_a_group_go_together_and_an_agent_with_what_it_launched(store: Path) -> None:
    made(store, "a b c d")
    write(store, "UPDATE runs SET group_id = 'G' WHERE id IN ('a', 'd')")
    write(store, "UPDATE runs SET parent_run_id = 'c' WHERE id = 'b'")
    done = collect(store, Asked(before=T0 + 2 * HOUR))
    assert (ids(store), done.runs) == ("a b c d", 0)
    assert done.kept == {"one that it goes together with is not old enough": 4}
    collect(store, Asked(before=T0 + 3 * HOUR))
    assert ids(store) == "a d"


@pytest.mark.parametrize("link", ["reused_from", "resumed_from", "replay_of"])
def test_a_run_that_one_that_stays_refers_to_stays_and_goes_with_it(store: Path, link: str) -> None:
    made(store, "a b c d")
    write(store, f"UPDATE runs SET {link} = 'a' WHERE id = 'b'")
    write(store, f"UPDATE runs SET {link} = 'b' WHERE id = 'd'")
    done = collect(store, Asked(before=T0 + 3 * HOUR))
    assert (ids(store), done.runs, done.kept) == ("a b d", 1, {"a run that stays refers to it": 2})
    assert collect(store, ALL).runs == 3
    assert ids(store) == ""


def test_a_reference_to_a_run_that_is_not_here_keeps_nothing(store: Path) -> None:
    made(store, "a b")
    write(store, "UPDATE runs SET replay_of = 'of another store', parent_run_id = 'gone'")
    assert collect(store, ALL).runs == 2


def test_what_is_live_stays_whoever_has_it(store: Path) -> None:
    made(store, "old", session="T")
    with Store.open(store, owner="living") as living:
        living.apply([started_session(), *kept_run(living, "done"), queued("waiting"), queued("works"), RunStarted("works")])
        before = everything(store)["runs"]
        done = collect(store, ALL)
        assert ids(store) == "done waiting works"
        assert done.kept == {"it is live, or goes together with one that is": 2, "its session is live": 1}
        assert [row for row in before if row["id"] != "old"] == everything(store)["runs"]
        assert done.notes == []
    done = collect(store, ALL)  # its owner is gone: they read interrupted, and can go
    assert (ids(store), done.runs) == ("", 3)


def test_the_oldest_runs_go_until_the_store_is_small_enough(store: Path) -> None:
    made(store, " ".join(f"r{n}" for n in range(9)), input="i" * 50_000)
    size = collect(store, Asked()).store_bytes
    wanted = round(size * 0.6)
    dry = collect(store, Asked(max_size=wanted), dry_run=True)
    done = collect(store, Asked(max_size=wanted))
    left = ids(store).split()
    assert left == [f"r{n}" for n in range(9 - len(left), 9)]
    assert 3 <= len(left) <= 6
    assert done.store_bytes <= wanted * 1.1  # so much of the database's file may be free
    assert abs(dry.runs - done.runs) <= 1
    assert collect(store, Asked(max_size=wanted * 2)).runs == 0
    collect(store, Asked(max_size=0))
    assert ids(store) == ""


def test_a_dry_run_changes_nothing_and_says_what_would_go(store: Path) -> None:
    made(store, "a b c d", input="y" * 10_000)
    (store / "runs" / "unknown").mkdir()
    rows, kept = everything(store), files(store)
    dry = collect(store, Asked(before=T0 + 2 * HOUR), dry_run=True)
    assert (everything(store), files(store)) == (rows, kept)
    assert (dry.runs, dry.files, dry.sessions, dry.artifacts) == (2, 1, 0, 2)
    done = collect(store, Asked(before=T0 + 2 * HOUR))
    assert (done.runs, done.files, done.by_session) == (dry.runs, dry.files, dry.by_session)
    assert 0.3 < dry.bytes / done.bytes < 3
    assert str(dry).startswith("2 runs, 0 sessions, 2 artifact contents, 1 leftover file would go: about ")


def test_frames_made_of_snapshots_never_show_what_went(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not bulk.able():
        pytest.skip("what snapshots are made with is not installed")
    monkeypatch.setattr(snapshots, "LEAST", 1)
    monkeypatch.setattr(bulk, "WORTH", 1)
    made(store, "a b c d")
    for _ in range(3):  # what is read again is kept for the next time
        for read in (frames.runs_df, frames.steps_df, frames.artifacts_df):
            assert len(read(store)) == 4
    assert len(list((store / "snapshots").glob("*.arrow"))) == 3
    collect(store, Asked(before=T0 + 2 * HOUR))
    assert not list((store / "snapshots").glob("*.arrow"))
    assert frames.runs_df(store)["id"].tolist() == ["c", "d"]
    assert set(frames.steps_df(store)["run_id"]) == set(frames.artifacts_df(store)["run_id"]) == {"c", "d"}


def test_several_at_once_remove_each_run_once(store: Path) -> None:
    made(store, " ".join(f"r{n}" for n in range(60)))
    start, done = threading.Barrier(4), []

    def gc() -> None:
        start.wait()
        done.append(collect(store, ALL))

    threads = [threading.Thread(target=gc) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.runs for each in done) == 60
    assert sum(each.artifacts for each in done) == 60
    assert (ids(store), files(store / "runs"), files(store / "blobs")) == ("", {}, {})


def test_who_holds_the_files_is_waited_for_and_told_of(store: Path) -> None:
    made(store, "a")
    with files_held(store, alone=False), files_held(store, alone=False), pytest.raises(StoreError, match="another gc, backup or check"):
        collect(store, ALL, patience_s=0.1)
    assert ids(store) == "a"


def test_a_store_of_a_newer_version_is_left_as_it_is(store: Path) -> None:
    made(store, "a")
    write(store, "INSERT INTO migrations VALUES ('9999_later', 0)")
    with pytest.raises(StoreTooNew):
        collect(store, ALL)
    assert ids(store) == "a"
    check_whole(store)


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from agentnb.history import artifacts
from agentnb.history.keeping import collector, removal
left = int(sys.argv[3])
def dying(call):
    def go(*args, **more):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return call(*args, **more)
    return go
removal.remove_tree = dying(removal.remove_tree)
removal.still_removable = dying(removal.still_removable)
removal.delete_rows = dying(removal.delete_rows)
removal._AT_ONCE = 2
Path.unlink = dying(Path.unlink)
artifacts.os.rename = dying(os.rename)
collector.collect(Path(sys.argv[1]), collector.Asked(before=1 << 60))
"""


def test_killed_anywhere_it_leaves_no_row_without_its_files_and_the_next_one_ends_it(store: Path) -> None:
    for point in range(0, 60, 4):
        made(store, "a b c d e")
        for run, other in (("c", "a"), ("d", "c"), ("e", "a")):  # reused: the output is where it was
            write(store, f"UPDATE runs SET reused_from = '{other}' WHERE id = '{run}'")
            write(store, f"UPDATE logs SET path = 'runs/a/stdout.log' WHERE run_id = '{run}'")
        command = [sys.executable, "-c", KILLED, str(store), str(REPOSITORY), str(point)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
        check_whole(store)
        collect(store, ALL)
        assert (ids(store), files(store / "runs"), files(store / "blobs")) == ("", {}, {})
        if not ended.returncode:
            break
    else:
        pytest.fail("it was killed at every point")


def test_the_file_of_the_database_shrinks_unless_runs_are_live(store: Path) -> None:
    made(store, " ".join(f"r{n}" for n in range(20)), input="z" * 200_000)
    file = store / "history.db"
    with Store.open(store, owner="living") as living:
        living.apply([started_session("T"), queued("works", session_id="T"), RunStarted("works")])
        size = file.stat().st_size
        done = collect(store, Asked(sessions=("S",)))
        assert done.runs == 20
        assert "the file did not shrink: runs are live" in done.notes[-1]
        assert done.bytes > 4_000_000
        assert file.stat().st_size >= size
    assert collect(store, Asked()).notes == []
    assert file.stat().st_size < 500_000
    assert [row["id"] for row in table(store, "runs")] == ["works"]


def test_only_what_is_below_the_store_is_removed_whatever_the_rows_say(store: Path, tmp_path: Path) -> None:
    made(store, "a b")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("!")
    (store / "runs" / "b").rename(tmp_path / "moved")
    (store / "runs" / "b").symlink_to(outside)
    write(store, "UPDATE runs SET id = '../../outside' WHERE id = 'a'")
    write(store, "UPDATE logs SET path = '../outside/precious'")
    done = collect(store, ALL)
    assert done.runs == 2
    assert (outside / "precious").read_text() == "!"
    assert not (store / "runs" / "b").is_symlink()


def test_a_run_that_is_referred_to_after_it_was_chosen_stays(store: Path) -> None:
    made(store, "a b")
    with Store.open(store) as opened:
        opened.apply(whole_run("new", at=T0 + 9 * HOUR))
    write(store, "UPDATE runs SET reused_from = 'a' WHERE id = 'new'")
    with closing(sqlite3.connect(store / "history.db", isolation_level=None)) as db:
        assert remove_runs(db, store, ["a", "b"], T0 + 8 * HOUR) == ["b"]
    assert ids(store) == "a new"
    check_whole(store)


@pytest.fixture
def small_disk(tmp_path: Path):
    with small_tmpfs(tmp_path / "disk", "6m") as disk:
        yield disk


def test_it_makes_room_on_a_full_disk(small_disk: Path) -> None:
    root = small_disk / "store"
    made(root, " ".join(f"r{n}" for n in range(30)), input="y" * 20_000)
    with Store.open(root):  # a notebook is open: the log of the database is there
        (small_disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 200 * 1024))
        done = collect(root, Asked(before=T0 + 20 * HOUR))
        assert done.runs == 20
        check_whole(root)
        with Store.open(root) as opened:
            opened.apply(whole_run("more", at=T0 + 99 * HOUR))
        assert len(ids(root).split()) == 11


def test_a_disk_without_any_room_is_told_of_and_nothing_is_lost(small_disk: Path) -> None:
    root = small_disk / "store"
    made(root, " ".join(f"r{n}" for n in range(8)), input="y" * 20_000)
    with Store.open(root):
        (small_disk / "ballast").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
        with pytest.raises(StoreError, match="the disk is full.* gc itself needs some 300 KB"):
            collect(root, ALL)
        (small_disk / "ballast").unlink()
        check_whole(root)
        assert collect(root, ALL).runs == 8


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_goes_is_never_referred_to_by_what_stays_and_the_oldest_goes_first(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    names = [f"r{n}" for n in range(count)]
    other = st.none() | st.sampled_from(names)
    db = sqlite3.connect(":memory:")
    with closing(db):
        db.execute("CREATE TABLE sessions (id, status, owner)")
        db.execute(
            "CREATE TABLE runs (id, group_id, session_id, status, finished_at, created_at, parent_run_id, replay_of, reused_from,"
            " resumed_from, workspace)"
        )
        rows = {}
        for n, name in enumerate(names):
            group = data.draw(st.sampled_from([None, None, "g", "h"]))
            links = [data.draw(other) for _ in range(2)]
            status = data.draw(st.sampled_from(["completed", "completed", "failed", "running"]))
            rows[name] = (group, links[0], links[1], status)
            db.execute("INSERT INTO runs VALUES (?, ?, 'S', ?, ?, ?, ?, NULL, ?, NULL, NULL)", (name, group, status, n, n, *links))
        before = data.draw(st.integers(0, count))
        db.execute("UPDATE runs SET session_id = NULL WHERE status <> 'running'")
        going = set(Removable(db).choose(before).runs)
    for name, (group, parent, reused, status) in rows.items():
        if name in going:
            assert status != "running"
            assert int(name[1:]) < before
            assert parent is None or parent in going
            assert {other for other, row in rows.items() if row[0] == group and group} <= going
        else:
            assert reused not in going
            assert parent not in going


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (1 << 60, "1048576.0 TiB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert size_text(size) == text
