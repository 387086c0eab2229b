"""What nothing refers to goes, and never what a living supervisor may be about to refer to."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from agentnb.errors import StoreError
from agentnb.events import Message, RunStarted, now_us
from agentnb.history.artifacts import ASIDE, Blobs, digest_of
from agentnb.history.faults import is_lock
from agentnb.history.keeping.collected import Asked
from agentnb.history.keeping.collector import collect
from agentnb.history.keeping.orphans import MARGIN_S
from agentnb.history.store import Store
from tests.history.keeping.kept import LONG_AGO, check_whole, files, ids, kept_run, made, write
from tests.history.making import everything, queued, started_session, table


def stray(root: Path, data: bytes, *, age_s: float = 1e6) -> Path:
    """A blob that no artifact refers to."""
    blobs = Blobs(root / "blobs")
    path = blobs.locate(blobs.put_bytes(data)[0])
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_without_a_criterion_only_what_nothing_refers_to_goes(store: Path) -> None:
    made(store, "a b")
    before, kept = everything(store), files(store)
    stray(store, b"nobody's")
    (store / "blobs" / ".new-abc").write_bytes(b"half")
    (store / ".locks-abc").write_bytes(b"")
    (store / "runs" / "unknown" / "deep").mkdir(parents=True)
    (store / "runs" / "unknown" / "deep" / "stdout.log").write_text("x" * 500)
    done = collect(store, Asked())
    assert (done.runs, done.artifacts, done.files) == (0, 1, 3)
    assert done.bytes == 512
    assert (everything(store), files(store)) == (before, kept)


def test_rows_without_a_run_go(store: Path) -> None:
    made(store, "a b")
    write(store, "DELETE FROM runs WHERE id = 'a'")
    assert any("rows of runs that are not known" in note for note in collect(store, Asked()).notes)
    check_whole(store)
    assert {row["run_id"] for row in table(store, "steps")} == {"b"}


def test_names_that_are_no_blobs_are_nobodys_either_and_links_are_not_followed(store: Path, tmp_path: Path) -> None:
    made(store, "a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("!")
    (store / "blobs" / "zz").symlink_to(outside)
    (store / "runs" / "link").symlink_to(outside)
    (store / "blobs" / "README").write_text("mine")
    collect(store, Asked())
    assert (outside / "x").read_text() == "!"
    assert (store / "blobs" / "README").exists()
    check_whole(store)


def test_what_a_living_supervisor_may_be_about_to_refer_to_stays(store: Path) -> None:
    with Store.open(store, owner="living") as living:
        now = now_us()
        living.apply([started_session(at=now)])
        old, new = stray(store, b"old", age_s=MARGIN_S + 100), stray(store, b"new", age_s=1)
        (store / "runs" / "just launched").mkdir()
        done = collect(store, Asked())
        assert (old.exists(), new.exists(), done.artifacts) == (False, True, 1)
        assert "files that nothing refers to, kept for now: 2 (3 bytes)" in done.notes[0]
        long = now - 1_000_000_000
        living.apply([queued("long", at=long), RunStarted("long", at=long)])
        during, before = stray(store, b"during", age_s=500), stray(store, b"before", age_s=1000 + MARGIN_S + 100)
        collect(store, Asked())
        assert (during.exists(), before.exists()) == (True, False)
    collect(store, Asked())
    assert files(store / "blobs") == {}
    assert list((store / "runs").iterdir()) == []


def test_while_a_supervisor_has_events_that_the_history_does_not_take_every_blob_stays(store: Path) -> None:
    with Store.open(store, owner="living") as living:
        path = stray(store, b"waits for its row")
        living.tell_behind(True)
        assert collect(store, Asked()).artifacts == 0
        assert path.exists()
        living.tell_behind(False)
        assert collect(store, Asked()).artifacts == 1


def test_bytes_that_are_wanted_at_the_moment_they_are_removed_stay(store: Path) -> None:
    blobs, data = Blobs(store), b"wanted again"
    checksum, _ = blobs.put_bytes(data)
    path = blobs.locate(checksum)
    for _ in range(200):
        os.utime(path, (LONG_AGO, LONG_AGO))
        before, start = time.time() - 1, threading.Barrier(2)

        def remove(before: float = before, start: threading.Barrier = start) -> None:
            start.wait()
            blobs.remove(path, before)

        thread = threading.Thread(target=remove)
        thread.start()
        start.wait()
        blobs.put_bytes(data)
        thread.join()
        assert blobs.read(checksum) == data
        assert not list(store.glob(".*"))


def persist(writer: Store, events: list[Message]) -> None:
    """As a supervisor does: while another process holds the lock, try again."""
    while True:
        try:
            return writer.apply(events)
        except StoreError as bad:
            if not is_lock(bad):
                raise


def test_writers_and_gcs_at_once_lose_no_artifact(store: Path) -> None:
    contents = [b"one", b"two"]
    made(store, "first", data=b"one")
    failures: list[BaseException] = []
    stop = threading.Event()

    def work(name: str) -> None:
        try:
            with Store.open(store, owner=name) as writer:
                for n in range(10):
                    for content in contents:
                        run = f"{name}-{n}-{content.decode()}"
                        persist(writer, kept_run(writer, run, data=content, session_id="T", aged=False))
                        assert writer.blobs.read(digest_of(content)) == content
        except BaseException as bad:  # noqa: BLE001 - told by the test
            failures.append(bad)

    def clean() -> None:
        try:
            while not stop.wait(0.005):
                collect(store, Asked(before=1 << 60))
        except BaseException as bad:  # noqa: BLE001
            failures.append(bad)

    writers, cleaner = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(2)], threading.Thread(target=clean)
    for thread in (*writers, cleaner):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    cleaner.join()
    assert not failures
    check_whole(store)
    collect(store, Asked(before=1 << 60))
    assert (ids(store), files(store / "blobs")) == ("", {})


def test_a_blob_that_a_killed_gc_had_moved_aside_comes_back_if_it_is_referred_to(store: Path) -> None:
    made(store, "a b")
    rows = table(store, "artifacts")
    for row in rows:
        digest = row["checksum"][7:]
        (store / "blobs" / digest[:2] / digest[2:]).rename(store / "blobs" / f"{ASIDE}{digest}")
    write(store, "DELETE FROM artifacts WHERE id = 'a-a'")
    collect(store, Asked())
    check_whole(store)
    assert len(files(store / "blobs")) == 1


@pytest.mark.parametrize("name", ["[a]*", "a?b", "b.1", "-"])
def test_the_workspace_of_a_run_that_is_not_known_stays_with_its_record(store: Path, name: str) -> None:
    made(store, "a")
    (store / "runs" / name / "workspace").mkdir(parents=True)
    (store / "workspaces" / f"{name}.2").mkdir(parents=True)
    done = collect(store, Asked())
    assert (done.files, len(done.notes)) == (0, 1)
    assert (store / "runs" / name / "workspace").exists()
