"""Runs whose supervisor was killed: what their handles say is what the history says, and nothing of them lives on."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import agentnb as nb
from agentnb.history.store import Store
from agentnb.notebook.live import LiveRun
from tests.engine.driver import children
from tests.history.making import started_session, whole_run
from tests.notebook.polling import lives, until

if TYPE_CHECKING:
    import pytest


class Gone:
    """A client whose supervisor has ended."""

    class process:  # noqa: N801 - as the client's
        pid = 0

        @staticmethod
        def poll() -> int:
            return -9


def supervisor_of(session: nb.Session) -> int:
    assert session._engine is not None
    assert session._engine.process is not None
    return session._engine.process.pid


def lost(root: Path, run_id: str) -> LiveRun:
    target = {"kind": "shell", "display": "", "spec": {}}
    run = {"id": run_id, "session_id": "s", "name": "job", "created_at": 1, "params": {}, "target": target}
    return LiveRun(Gone(), root, run, grace_s=1)


def test_a_run_whose_end_was_written_but_not_told_ended_as_written(store: Path) -> None:
    with Store.open(store, owner="dead") as dead:
        dead.apply([started_session(), *whole_run("done"), *whole_run("cut")[:2]])
    runs = [lost(store, name) for name in ("done", "cut", "unheard")]
    for run in runs:
        run.on_lost("the supervisor process 1 ended (killed?)")
    for run in runs:
        run.wait(10)
    assert [run.status for run in runs] == ["completed", "interrupted", "cancelled"]
    assert runs[1].final is not None
    assert runs[1].final.error == {"kind": "interrupted", "message": "the supervisor process 1 ended (killed?)"}
    with closing(sqlite3.connect(store / "history.db")) as db:
        assert dict(db.execute("SELECT id, status FROM runs")) == {"done": "completed", "cut": "interrupted"}


def test_a_history_that_is_locked_is_waited_for_but_not_for_ever(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentnb.notebook.aftermath._DOUBT_S", 0.2)
    monkeypatch.setattr("agentnb.notebook.aftermath._LOCK_MS", 50)
    with Store.open(store, owner="dead") as dead:
        dead.apply([started_session(), *whole_run("cut")[:2]])
    run = lost(store, "cut")
    with closing(sqlite3.connect(store / "history.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        run.on_lost("the supervisor process 1 ended")
        assert time.monotonic() - start < 0.2
        run.wait(10)
    assert run.status == "cancelled"


def test_no_process_of_a_run_is_left_when_supervisor_and_spawner_are_killed_together(store: Path) -> None:
    with nb.Session("t", store=store) as session:
        plain = session.shell("echo $$ > plain; exec sleep 1000")
        bare = session.shell("echo $$ > bare; exec env -i sleep 1000")
        until(lambda: Path("plain").exists() and Path("bare").exists() and Path("bare").read_text() and Path("plain").read_text())
        pids = [int(Path(name).read_text()) for name in ("plain", "bare")]
        until(lambda: {run.status for run in (plain, bare)} == {"running"})
        until(lambda: all(b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids))
        supervisor = supervisor_of(session)
        (spawner,) = children(supervisor)
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(spawner, signal.SIGKILL)
        os.kill(supervisor, signal.SIGKILL)
        for run in (plain, bare):
            run.wait(10)
            assert run.status is nb.RunStatus.INTERRUPTED
        assert not [pid for pid in pids if lives(pid)]


def test_a_spawner_that_is_stopped_ends_what_its_dead_supervisor_left(store: Path) -> None:
    with nb.Session("t", store=store) as session:
        run = session.shell("echo $$ > pid; exec sleep 1000")
        until(lambda: Path("pid").exists() and Path("pid").read_text() and run.status == "running")
        supervisor = supervisor_of(session)
        (spawner,) = children(supervisor)
        os.kill(spawner, signal.SIGSTOP)
        os.kill(supervisor, signal.SIGKILL)
        run.wait(10)
        assert not lives(int(Path("pid").read_text()))
        until(lambda: not lives(spawner))
