"""Live output: bounded whatever the rate, whole characters, and what was left out is counted."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from agentnb import requests
from agentnb.engine.watching import MAX_PIECE, _Watched
from agentnb.events import OutputTail
from tests.engine.driver import Engine, wait_until


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=30)), max_size=8), st.data())
def test_characters_are_whole_however_their_bytes_came(pieces: list[tuple[str, str]], data: st.DataObject) -> None:
    watched, seen = _Watched(), {"stdout": "", "stderr": ""}

    def take(message: OutputTail | None) -> None:
        for stream, text in message.segments if message else ():
            seen[stream] += text

    for stream, text in pieces:
        raw = text.encode()
        cut = data.draw(st.integers(0, len(raw)))
        for part in (raw[:cut], raw[cut:]):
            watched.add(stream, part)
            if data.draw(st.booleans()):
                take(watched.message("r"))
    take(watched.message("r", last=True))
    assert seen == {name: "".join(text for stream, text in pieces if stream == name) for name in seen}


@given(st.lists(st.integers(0, 3 * MAX_PIECE), min_size=1, max_size=6))
def test_a_message_is_bounded_and_counts_what_it_leaves_out(sizes: list[int]) -> None:
    watched = _Watched()
    for size in sizes:
        watched.add("stdout", b"x" * size)
    message = watched.message("r")
    shown = sum(len(text) for _, text in message.segments) if message else 0
    assert shown == min(sum(sizes), MAX_PIECE)
    assert shown + (message.skipped if message else 0) == sum(sizes)


def test_watching_starts_with_the_tail_and_follows(engine: Engine) -> None:
    run = engine.launch("echo before; read line; echo got $line; exit 1", stdin=True).started()
    wait_until(lambda: engine.ask(lambda n: requests.Flush(n, run.id))["stdout"]["size"])
    run.watch()
    wait_until(lambda: run.seen() == "before\n")
    run.send("on\n")
    run.wait()
    assert run.seen() == "before\ngot on\n"
    kinds = [event.type for event in run.events]
    assert kinds[-1] == "run_finished"
    assert kinds[-2] == "step_finished"  # a watched run's last step is told, too
    assert kinds.index("output_tail") < kinds.index("run_finished")


def test_nobody_who_does_not_watch_gets_output_or_steps(engine: Engine) -> None:
    run = engine.launch("echo hello")
    run.wait()
    assert {event.type for event in run.events} == {"run_started", "run_finished"}


def test_a_run_is_watched_from_its_first_byte_when_it_was_asked_for_before_it_started(engine: Engine) -> None:
    run, launch = engine.prepare("echo one; sleep 0.3; echo two")

    engine.client.send([launch, requests.Watch([run.id])])
    run.wait()
    assert run.seen() == "one\ntwo\n"
    assert len(run.of("output_tail")) == 2


def test_watching_ends_when_it_is_told_to(engine: Engine) -> None:
    run = engine.launch("echo one; read line; echo two", stdin=True).started()
    run.watch()
    wait_until(lambda: run.seen() == "one\n")
    run.watch(on=False)
    run.send("\n")
    run.wait()
    assert run.seen() == "one\n"


def test_a_flood_is_bounded_and_says_what_it_left_out(engine: Engine) -> None:
    run, launch = engine.prepare("head -c 50000000 /dev/zero | tr '\\0' x; echo; echo the end")
    engine.client.send([launch, requests.Watch([run.id])])
    started = time.monotonic()
    run.wait()
    took = time.monotonic() - started
    tails: list[OutputTail] = run.of("output_tail")
    assert len(tails) <= took / 0.1 + 2
    assert all(sum(len(text) for _, text in tail.segments) <= MAX_PIECE for tail in tails)
    assert run.seen().endswith("\nthe end\n")
    assert sum(tail.skipped for tail in tails) + len(run.seen()) == 50_000_000 + 9


def test_a_run_that_is_over_or_cancelled_before_its_start_is_not_watched_for_ever(engine: Engine) -> None:
    run = engine.launch("true")
    run.wait()
    run.watch()
    blockers = [engine.launch("sleep 1000") for _ in range(4)]
    waiting = engine.launch("true")
    waiting.watch()
    waiting.cancel()
    assert waiting.wait().status == "cancelled"
    for blocker in blockers:
        blocker.cancel()
        blocker.wait()
    engine.settle()
