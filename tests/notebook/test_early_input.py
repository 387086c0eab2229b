from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import agentnb as nb


def test_what_is_sent_before_a_command_started_reaches_it(store: Path) -> None:
    with nb.Session("early", store=store, max_parallel=1) as session:
        first = session.shell("cat", stdin=True)
        waiting = session.shell("cat", stdin=True)
        first.send("one\n")
        first.send("two\n", eof=True)
        assert first.wait(30).stdout == "one\ntwo\n"
        waiting.send("three\n", eof=True)
        assert waiting.wait(30).stdout == "three\n"


def test_why_a_run_cannot_be_written_to_is_said(store: Path) -> None:
    with nb.Session("refused", store=store) as session:
        closed = session.shell("sleep 600")
        with pytest.raises(RuntimeError, match="stdin=True"):
            closed.send("x")
        closed.cancel()
        over = session.shell("true", stdin=True)
        over.wait(30)
        with pytest.raises(RuntimeError, match="ended"):
            over.send("x")


def test_a_store_that_was_deleted_is_told_of_and_a_new_session_gets_a_new_one(store: Path) -> None:
    old = nb.Session("old", store=store)
    old.shell("true").wait(30)
    shutil.rmtree(store)
    assert old.shell("echo kept").wait(30).stdout == "kept\n"
    with pytest.raises(nb.StoreError, match="deleted"):
        old.end()
    with nb.Session("new", store=store) as new:
        assert new.map(nb.Shell("true"), [{}, {}]).wait(30).df()["status"].tolist() == ["completed", "completed"]
