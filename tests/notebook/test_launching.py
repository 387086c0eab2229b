"""Launches in messages of a bounded size, half characters kept out, names cut."""

from __future__ import annotations

import threading
import time

import pytest

import agentnb as nb
from agentnb import requests, wire
from agentnb.notebook import launching
from agentnb.notebook import parcels as parcels_module
from agentnb.notebook.parcels import parcels
from agentnb.notebook.run_record import short


def test_many_or_big_launches_go_in_several_messages_in_order() -> None:
    small = [requests.Launch({"id": str(n)}, {}) for n in range(2500)]
    assert [len(part) for part in parcels(small)] == [1000, 1000, 500]
    big = [requests.Launch({"id": str(n)}, {"payload": "x" * 9_000_000}) for n in range(3)]
    parts = list(parcels(big))
    assert [len(part) for part in parts] == [2, 1]
    assert [launch for part in parts for launch in part] == big
    assert list(parcels([])) == []


def test_whatever_is_large_in_a_launch_counts() -> None:
    large = "x" * 9_000_000
    for run, work in (
        ({"params": {"a": [{"b": large}]}}, {}),
        ({}, {"argv": ["echo", large]}),
        ({}, {"env": {"A": large}}),
        ({}, {"stdin": large}),
        ({}, {"stdin": True, "payload": large}),
    ):
        assert len(list(parcels([requests.Launch(run, work)] * 4))) > 1


def test_a_launch_that_no_message_takes_is_refused_and_the_others_are_withdrawn(session, monkeypatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 100_000)
    monkeypatch.setattr(parcels_module, "_MESSAGE_BYTES", 1000)
    with pytest.raises(nb.ConfigError, match="into a file and pass its path"):
        session.shell("cat", stdin="x" * 200_000)
    with pytest.raises(nb.ConfigError, match="into a file"):
        session.map(nb.Command(["sleep", "{{n}}"]), [{"n": "1000"}, {"n": "1" * 2000}, {"n": "1" * 200_000}])
    session.shell("true").wait(10)
    assert session.runs_df()["status"].isin(["completed", "cancelled"]).all()


def test_names_are_one_line_of_bounded_length() -> None:
    assert short(" a\n\tb ") == "a b"
    assert (len(short("x" * 61)), short("x" * 60)) == (60, "x" * 60)


@pytest.mark.parametrize(
    ("launch", "says"),
    [
        (lambda s: s.shell("echo \ud800"), "the command: it contains"),
        (lambda s: s.command(["echo", "\udfff x \ud800"]), "the command"),
        (lambda s: s.shell("cat", stdin="\ud800"), "stdin"),
        (lambda s: s.shell("env", env={"A": "\ud800"}), r"env\['A'\]"),
    ],
)
def test_half_a_character_is_refused_where_a_process_would_get_it(session, launch, says) -> None:
    with pytest.raises(nb.ConfigError, match=says):
        launch(session)
    assert session.runs == []


def test_half_a_character_in_names_tags_and_parameters_does_not_harm_the_history(session) -> None:
    run = session.shell("true", name="\ud800", tags={"\ud800": "\udfff"}, params={"\ud800": "\ud800"})
    group = session.map(nb.Shell("true"), [{"\ud800": 1}])
    assert run.wait().status == "completed"
    group.wait()
    frame = session.runs_df()
    assert frame["tag.?"].tolist()[0] == "?"
    assert frame["param.?"].tolist() == ["?", "1"]
    with pytest.raises(nb.ConfigError, match="send: it contains"):
        run.send("\ud800")


def test_the_supervisor_is_shared_by_the_sessions_of_a_process_and_replaced_when_it_died(session, new_session) -> None:
    first = launching.connect()
    assert new_session("other")._engine is first is session._engine
    heard = threading.Event()
    first._loop.call_soon_threadsafe(heard.wait, 30)  # until then its end is not heard of by its socket
    first.process.kill()
    first.process.wait()
    first._looked_at = time.monotonic() + 30  # nor looked for
    second = launching.connect()
    heard.set()
    assert second is not first
    assert second is launching.connect()
    assert session.shell("echo on").wait().stdout == "on\n"
    assert session._engine is second
