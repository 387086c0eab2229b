"""synchronous="full": on the disk before anybody hears of it. The disk is a mount of our own, which syncs when the test lets it."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.errors import ConfigError
from agentnb.history.store import Store
from tests.engine.driver import children, wait_until
from tests.history.making import whole_run
from tests.history.mounts import Mount, mounted


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path / "disk") as mount:
        yield mount


def statuses(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT id, status FROM runs"))


def test_a_synced_store_calls_the_disk_for_each_batch_and_another_for_none(disk: Mount) -> None:
    with Store.open(disk.point / "store") as opened:
        before = disk.syncs
        opened.apply(whole_run("a"))
        assert disk.syncs == before
        opened.sync()
        for name in "bcd":
            opened.apply(whole_run(name))
        assert disk.syncs == before + 3


def test_nobody_hears_of_a_start_or_an_end_before_it_is_on_the_disk(disk: Mount) -> None:
    with nb.Session("s", store=disk.point / "store", synchronous="full") as session:
        session.shell("true").wait()
        # One connection for all, that has read: FUSE lets no file be opened by root, or closed, while it syncs.
        with closing(sqlite3.connect(disk.point / "store" / "history.db")) as db:
            assert len(statuses(db)) == 1
            with disk.held():
                run = session.shell("until test -e go; do sleep 0.01; done; exit 3")
                wait_until(lambda: disk.waiting, "a commit that waits for the disk")
                assert (run.status, run.id in statuses(db)) == (nb.RunStatus.PENDING, False)
            wait_until(lambda: run.status is nb.RunStatus.RUNNING)
            assert statuses(db)[run.id] == "running"
            with disk.held():
                Path("go").touch()
                wait_until(lambda: disk.waiting, "a commit that waits for the disk")
                assert (run.status, run.done, statuses(db)[run.id]) == (nb.RunStatus.RUNNING, False, "running")
            assert run.wait().exit_code == 3
            assert statuses(db)[run.id] == "failed"


def test_without_it_no_run_waits_for_the_disk(disk: Mount) -> None:
    with nb.Session("s", store=disk.point / "store") as session:
        session.shell("true").wait()
        before = disk.syncs
        with disk.held():
            assert {session.shell("true").wait().status for _ in range(3)} == {nb.RunStatus.COMPLETED}
            assert (disk.syncs, disk.waiting) == (before, 0)


def test_full_of_one_session_holds_for_all_that_share_its_writer_and_for_its_successor(disk: Mount) -> None:
    first = nb.Session("first", store=disk.point / "store", synchronous="normal")
    first.shell("true").wait()
    before = disk.syncs
    first.shell("true").wait()
    assert disk.syncs == before
    second = nb.Session("second", store=disk.point / "store", synchronous="full")
    first.shell("true").wait()
    assert (after := disk.syncs) > before
    (supervisor,) = [pid for pid in children(os.getpid()) if b"agentnb/engine/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(supervisor, signal.SIGKILL)
    second.shell("true").wait()
    assert second.shell("true").wait().status is nb.RunStatus.COMPLETED
    assert disk.syncs > after + 1
    first.end()
    second.end()


def test_the_environment_says_it_for_sessions_that_do_not(disk: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTNB_SYNCHRONOUS", "full")
    with nb.Session("s", store=disk.point / "store") as session:
        session.shell("true").wait()
        before = disk.syncs
        session.shell("true").wait()
        assert disk.syncs > before


def test_what_is_neither_is_refused_where_it_is_said(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="synchronous='always' must be 'normal' or 'full'"):
        nb.Session("s", store=store, synchronous="always")
    monkeypatch.setenv("AGENTNB_SYNCHRONOUS", "off")
    with pytest.raises(ConfigError, match="AGENTNB_SYNCHRONOUS='off' must be"):
        nb.Session("s", store=store)
    assert not store.exists()
    monkeypatch.setenv("AGENTNB_SYNCHRONOUS", "")
    with nb.Session("s", store=store) as session, pytest.raises(ConfigError, match=r"it belongs to nb\.Session"):
        session.shell("true", synchronous="full")
