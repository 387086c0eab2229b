"""What views look at: one run, or several."""

from __future__ import annotations

from agentnb.notebook.handles import live_runs
from agentnb.notebook.snapshot import GroupSnapshot
from agentnb.notebook.sources import RunSource, RunsSource
from agentnb.notebook.waiting import call_after_all, cancel_all
from tests.notebook.polling import until


def test_a_run_is_watched_live_and_cancelled_from_its_view(session) -> None:
    handle = session.shell("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done")
    (run,) = live_runs([handle])
    source, ended = RunSource(run), []
    source.call_when_done(lambda: ended.append(1))
    source.watch([run.id], True)
    seq, text = 0, ""

    def more() -> bool:
        nonlocal seq, text
        seq, pieces, gap = source.output_since(run.id, seq)
        assert not gap
        text += "".join(piece for _, piece in pieces)
        return "line 3" in text

    until(more)
    assert text.startswith("line 0\nline 1\n")
    before = source.version()
    assert source.output_since("another", 3) == (3, [], False)
    source.request_cancel(["another"])
    assert handle.snapshot().status == "running"
    source.request_cancel([run.id])
    assert source.version() > before
    assert handle.wait().error.message == "cancelled in its view"
    until(lambda: ended)
    assert source.snapshot().done


def test_a_reader_that_is_far_behind_gets_the_whole_tail(session) -> None:
    handle = session.shell("while :; do head -c 9000 /dev/zero | tr '\\0' x; echo; sleep 0.02; done")
    (run,) = live_runs([handle])
    run.watch(on=True)
    until(lambda: run.tail_seq > 20)
    run.watch(on=False)
    seq, pieces, gap = run.output_since(0)
    assert gap
    assert seq >= 20
    assert 0 < sum(len(text) for _, text in pieces) < 40_000
    handle.cancel()
    handle.wait()


def test_several_runs_are_one_source_that_may_grow(session) -> None:
    handles = [session.shell("sleep 60") for _ in range(2)]
    source = RunsSource(
        lambda: live_runs(handles),
        session.snapshot,
        lambda reason: cancel_all(live_runs(handles), reason),
        lambda callback: call_after_all(live_runs(handles), callback),
        lambda: session.budget,
    )
    before = source.version()
    handles.append(session.shell("sleep 60"))
    assert source.version() > before
    snapshot = source.snapshot()
    assert isinstance(snapshot, GroupSnapshot)
    assert [run.id for run in snapshot.runs] == [handle.id for handle in handles]
    source.request_cancel([handles[0].id])
    handles[0].wait()
    assert not handles[1].done
    source.request_cancel(None)
    session.wait()
    assert session.snapshot().counts == {"cancelled": 3}


def test_a_watched_run_with_limits_tells_what_it_uses_now(session) -> None:
    handle = session.shell("sleep 60", limits={"max_memory_bytes": "1GiB"})
    (run,) = live_runs([handle])
    source = RunSource(run)
    source.watch([run.id], True)
    until(lambda: len(source.snapshot().memories) >= 2)
    assert all(0 < memory < 1 << 30 for memory in source.snapshot().memories)
    assert all(0 <= percent < 400 for percent in source.snapshot().cpu_percents)
    handle.cancel()
    handle.wait()
