"""The history of a whole store, and comparing runs, from the top of the package."""

from __future__ import annotations

import pytest

import agentnb as nb


def test_the_tables_cover_all_sessions_of_a_store_and_are_filtered(new_session, store, monkeypatch) -> None:
    for name in ("a", "b"):
        with new_session(name) as session:
            session.shell(f"echo {name}; exit {len(name) - (name == 'a')}", tags={"of": name})
    monkeypatch.setenv("AGENTNB_HOME", str(store))
    assert nb.runs_df().session.tolist() == ["a", "b"]
    assert nb.runs_df(session="b", since="7d").status.tolist() == ["failed"]
    assert nb.runs_df(status="completed")["tag.of"].tolist() == ["a"]
    assert nb.sessions_df().name.tolist() == ["a", "b"]
    assert len(nb.steps_df()) == 2
    assert len(nb.artifacts_df()) == 0
    assert {"run_queued", "run_finished", "session_started"} <= set(nb.events_df().type)
    with pytest.raises(nb.ConfigError, match="sttus"):
        nb.runs_df(sttus="failed")


def test_a_store_that_is_not_there_is_said_to_be_so_and_not_made(store) -> None:
    with pytest.raises(nb.StoreError, match="there is no history"):
        nb.runs_df(store=store)
    assert not store.exists()


def test_compare_passes_its_options_on(session) -> None:
    group = session.map(nb.Shell("exit {{code}}"), nb.grid(code=[0, 1]), repeats=2).wait()
    compared = nb.compare(group.df(), by="param.code", metric="run_s")
    assert compared.failures.tolist() == [0, 2]
    with pytest.raises(nb.ConfigError, match="nope"):
        nb.compare(group.df(), by="nope")
