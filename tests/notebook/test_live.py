"""A run's state, fed with events by hand: first end wins, the tail stays bounded, versions only rise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.events import OutputTail, RunFinished, RunRetrying, RunStarted, UsageReported, UsageSample
from agentnb.notebook import figures
from agentnb.notebook.live import LiveRun, waiting

RUN = {
    "id": "r", "session_id": "s", "name": "job", "created_at": 1_000_000, "params": {"a": 1},
    "target": {"kind": "shell", "display": "true", "spec": {}},
}  # fmt: skip


class Quiet:
    """A client that only remembers."""

    def __init__(self) -> None:
        self.sent: list = []

    def send(self, messages) -> None:
        self.sent += messages


@pytest.fixture
def live(tmp_path: Path) -> LiveRun:
    return LiveRun(Quiet(), tmp_path, RUN, grace_s=1)


def test_a_wait_that_no_calendar_knows_the_end_of_is_still_told() -> None:
    assert waiting(RunRetrying("r", 2, 1e14)) == "for attempt 2 until the end of days"


def test_events_move_the_run_to_its_end(live) -> None:
    seen, called = [live.version], []
    live.when_done(lambda: called.append(live.status))
    for event in (
        RunStarted("r", "pid:1", at=2_000_000),
        UsageReported("r", input_tokens=1, output_tokens=2, cost_usd=0.5),
        RunRetrying("r", 2, 0.1, {"kind": "timeout", "message": "late"}),
    ):
        live.on_event(event)
        seen.append(live.version)
    assert (live.shown_status, live.attempt, live.done) == ("running", 2, False)
    live.note_cancelling()
    assert live.snapshot().status == "cancelling"
    live.on_event(RunFinished("r", "cancelled", error={"kind": "cancelled", "message": "stop"}, attempts=2, run_s=1.5, at=4_000_000))
    seen.append(live.version)
    assert seen == sorted(set(seen))
    assert called == ["cancelled"]
    final = live.snapshot()
    assert (final.status, final.error, final.elapsed_s, final.attempt, final.cost_usd) == ("cancelled", "stop", 1.5, 2, 0.5)
    assert (final.started_at, final.finished_at, final.params) == (2.0, 4.0, {"a": 1})


def test_a_run_that_is_lost_says_whether_it_ran_and_keeps_its_log(live, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("agentnb.notebook.aftermath._DOUBT_S", 0.2)
    live.on_event(RunStarted("r", "pid:1"))
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "stdout.log").write_bytes(b"half a line")
    live.on_lost("the supervisor died")
    live.wait(10)
    assert (live.status, live.final.error["kind"], live.output.read("stdout")) == ("interrupted", "interrupted", b"half a line")
    assert live.output.read("stderr") == b""


def test_a_run_that_is_lost_before_it_started_was_cancelled(live, monkeypatch) -> None:
    monkeypatch.setattr("agentnb.notebook.aftermath._DOUBT_S", 0.2)
    live.on_lost("the supervisor died")
    live.wait(10)
    assert (live.status, live.final.error["message"]) == ("cancelled", "the supervisor died")


PIECES = st.lists(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=3000)).map(list), max_size=6), max_size=30)


@given(batches=PIECES)
def test_the_live_tail_is_bounded_and_a_reader_that_keeps_up_misses_nothing(batches) -> None:
    live, seq = LiveRun(Quiet(), Path("/nowhere"), RUN, grace_s=1), 0
    read: list[tuple[str, str]] = []
    for batch in batches:
        live.on_event(OutputTail("r", batch))
        seq, pieces, gap = live.output_since(seq)
        assert not gap or sum(len(text) for _, text in batch) > 16 * 1024 - 3000
        read = pieces if gap else read + pieces
        kept = live.snapshot().tail
        assert len(kept) <= 400
        assert sum(len(text) for _, text in kept) <= 16 * 1024 or len(kept) == 1
    written = [tuple(piece) for batch in batches for piece in batch]
    assert [tuple(piece) for piece in read] == written[len(written) - len(read) :]
    assert live.output_since(live.tail_seq) == (live.tail_seq, [], False)


def test_what_a_live_run_uses_is_shown_while_it_runs_and_forgotten_at_its_end(live) -> None:
    live.on_event(RunStarted("r"))
    assert figures.load(live.snapshot()) == ""
    for at, cpu_s, memory in ((1.0, 0.0, 1 << 20), (2.0, 0.5, 8 << 20), (3.0, 0.1, 4 << 20), (4.0, 1.1, 4 << 20)):
        live.on_event(UsageSample("r", at, cpu_s, memory))
    shown = live.snapshot()
    assert (list(shown.cpu_percents), figures.load(shown)) == ([50.0, 100.0], "▂█▅▅ 4.0 MiB")
    assert dict(figures.facts(shown)) == {"CPU now": "▅█ 100 %", "memory now": "▂█▅▅ 4.0 MiB"}
    live.on_event(RunFinished("r", "completed", attempts=1))
    assert figures.load(live.snapshot()) == ""
    assert "memory now" not in dict(figures.facts(live.snapshot()))


def test_two_views_watch_one_run_until_both_are_gone_and_the_tail_is_not_doubled(live) -> None:
    live.watch(on=True)
    live.watch(on=True)
    live.on_event(OutputTail("r", [["stdout", "one\n"]]))
    live.watch(on=False)
    assert [message.on for message in live.client.sent] == [True]
    live.watch(on=False)
    live.watch(on=True)
    assert [message.on for message in live.client.sent] == [True, False, True]
    seq, pieces, gap = live.output_since(1)
    assert (pieces, gap) == ([], True)
    live.on_event(OutputTail("r", [["stdout", "one\ntwo\n"]]))
    assert live.output_since(seq) == (3, [("stdout", "one\ntwo\n")], False)
    assert live.snapshot().tail == (("stdout", "one\ntwo\n"),)
