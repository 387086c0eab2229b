"""Draining pipes: complete and in order on disk, bounded in memory, whatever is written."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb import requests
from agentnb.engine.capture import INLINE_BYTES, TAIL_BYTES, Output, Tail
from tests.engine.driver import Engine, peak_memory, wait_until

MIB = 1 << 20
#: What 100 MB of output may cost the supervisor.
MEMORY = 64 * MIB


def test_100_mb_on_both_streams_at_once_arrive_and_cost_no_memory(engine: Engine) -> None:
    engine.run("echo warm")
    before = peak_memory(engine.pid)
    code = (
        "import os, threading\n"
        "def flood(fd, byte):\n    piece = (byte * 99 + b'\\n') * 10000\n    for _ in range(100):\n        left = memoryview(piece)\n"
        "        while left: left = left[os.write(fd, left):]\n"
        "t = threading.Thread(target=flood, args=(2, b'e')); t.start(); flood(1, b'o'); t.join()"
    )
    run = engine.launch([sys.executable, "-I", "-S", "-c", code])
    end = run.wait()
    assert end.status == "completed"
    for record, byte in ((end.stdout, b"o"), (end.stderr, b"e")):
        assert record is not None
        assert (record["size"], record.get("text")) == (100_000_000, None)
        digest = hashlib.sha256((byte * 99 + b"\n") * 1_000_000).digest()
        assert hashlib.sha256((engine.store / record["path"]).read_bytes()).digest() == digest
    assert peak_memory(engine.pid) - before < MEMORY


@pytest.mark.parametrize("work", [{}, {"secrets": ["xxy", "top secret"]}, {"capture": "structured"}, {"check": {"expected_pattern": "x$"}}])
def test_100_mb_without_a_newline_cost_no_memory(engine: Engine, work: dict[str, object]) -> None:
    engine.run("echo warm")
    before = peak_memory(engine.pid)
    end = engine.run("head -c 100000000 /dev/zero | tr '\\0' x", **work)
    assert (end.status, end.stdout and end.stdout["size"]) == ("completed", 100_000_000)
    assert peak_memory(engine.pid) - before < MEMORY


def test_a_flood_delays_no_other_run(engine: Engine) -> None:
    floods = [engine.launch("yes") for _ in range(2)]
    for run in floods:
        run.started()
    started = time.monotonic()
    for _ in range(5):
        assert engine.run("echo hi").status == "completed"
    assert time.monotonic() - started < 5
    for run in floods:
        run.cancel()
        assert run.wait(10).status == "cancelled"


def test_bytes_that_are_no_utf_8_are_kept_and_fail_nothing(engine: Engine) -> None:
    run = engine.launch(r"printf 'a\377\200b\0c\n'")
    end = run.wait()
    assert end.status == "completed"
    assert end.stdout is not None
    assert end.stdout["text"] == "a\ufffd\ufffdb\0c\n"
    big = engine.launch(r"head -c 100000 /dev/zero | tr '\0' '\377'")
    assert big.stdout() == b"\xff" * 100_000


def test_a_character_split_across_writes_is_whole(engine: Engine) -> None:
    run = engine.launch(r"printf '\303'; sleep 0.1; printf '\274\360\237'; sleep 0.1; printf '\216\210'")
    run.watch()
    record = run.wait().stdout
    assert record is not None
    assert record["text"] == "ü🎈"
    assert run.seen() == "ü🎈"


def test_small_output_stays_in_the_row_and_big_output_goes_to_a_file(engine: Engine) -> None:
    for size, kept in ((0, True), (INLINE_BYTES, True), (INLINE_BYTES + 1, False)):
        record = engine.run(f"head -c {size} /dev/zero | tr '\\0' x").stdout
        assert record is not None
        assert record["size"] == size
        assert (record.get("path") is None, record.get("text") is not None) == (kept, kept)


def test_output_of_a_run_that_lasts_is_on_disk_while_it_lasts(engine: Engine) -> None:
    run = engine.launch("echo early; echo oops >&2; sleep 1000").started()
    folder = engine.store / "runs" / run.id
    wait_until(lambda: (folder / "stdout.log").exists() and (folder / "stderr.log").exists())
    wait_until(lambda: (folder / "stdout.log").read_bytes() == b"early\n")
    assert os.stat(folder / "stdout.log").st_mode & 0o077 == 0
    run.cancel()
    assert run.stdout() == b"early\n"


def test_flushing_puts_the_output_so_far_on_disk(engine: Engine) -> None:
    run = engine.launch("echo early; touch said; sleep 1000").started()
    wait_until(lambda: Path("said").exists())
    reply = wait_until(lambda: found if (found := engine.ask(lambda n: requests.Flush(n, run.id)))["stdout"]["path"] else None)
    assert (engine.store / reply["stdout"]["path"]).read_bytes() == b"early\n"
    assert reply["finished"] is False
    run.cancel()
    run.wait()
    assert engine.ask(lambda n: requests.Flush(n, run.id)) == {"finished": True}


def test_the_pace_of_one_stream_is_kept(engine: Engine) -> None:
    order = engine.run("for i in 1 22 333; do echo $i; sleep 0.3; done").detail["order"]
    assert [(stream, size) for stream, size, _ in order] == [("stdout", 2), ("stdout", 3), ("stdout", 4)]
    assert order[2][2] - order[0][2] >= 500_000


def test_a_long_stream_has_few_moments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 0
    monkeypatch.setattr("agentnb.engine.capture.time.time_ns", lambda: now)
    out = Output(str(tmp_path), 1, secrets=[])
    for _ in range(20_000):
        now += 200_000_000
        out.seen("stdout", b"x")
    order = out.order() or []
    assert sum(size for _, size, _ in order) == 20_000
    assert 100 < len(order) <= 500


def test_the_order_of_the_streams_is_kept(engine: Engine) -> None:
    line = "echo 1; sleep 0.05; echo 22 >&2; sleep 0.05; echo 333; sleep 0.05; echo 4444 >&2"
    order = engine.run(line).detail["order"]
    assert [(stream, size) for stream, size, _ in order] == [("stdout", 2), ("stderr", 3), ("stdout", 4), ("stderr", 5)]
    stamps = [at for _, _, at in order]
    assert stamps == sorted(stamps)
    assert 100_000 < stamps[-1] - stamps[0] < 5_000_000
    assert len(engine.run("echo 1").detail.get("order") or []) <= 1


def test_every_attempt_keeps_its_own_output(engine: Engine) -> None:
    retry = {"max_attempts": 2, "strategy": "constant", "initial_delay": 0.01, "max_delay": 1.0, "jitter": 0.0, "on_exit_codes": [1]}
    run = engine.launch(f"head -c {INLINE_BYTES * 2} /dev/zero | tr '\\0' $AGENTNB_ATTEMPT; exit 1", retry=retry)
    assert run.stdout() == b"2" * INLINE_BYTES * 2
    assert (engine.store / "runs" / run.id / "stdout.log").read_bytes() == b"1" * INLINE_BYTES * 2


@given(
    st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=40).map(str.encode) | st.binary(max_size=20_000)), max_size=30
    )
)
def test_the_tail_is_the_end_of_each_stream_and_bounded(pieces: list[tuple[str, bytes]]) -> None:
    tail = Tail()
    for stream, data in pieces:
        tail.add(stream, data)
    assert sum(len(data) for _, data in tail.pieces()) <= TAIL_BYTES + 1024
    for name in ("stdout", "stderr"):
        whole = b"".join(data for stream, data in pieces if stream == name)
        assert whole.endswith(b"".join(data for stream, data in tail.pieces() if stream == name))


def test_a_tail_does_not_begin_inside_of_a_character() -> None:
    for extra in range(4):
        tail = Tail()
        tail.add("stdout", b"x" * extra + "€".encode() * 10_000)
        assert "\ufffd" not in b"".join(data for _, data in tail.pieces()).decode("utf-8", "replace")


def test_the_bound_on_output_counts_both_streams_and_is_told_once(tmp_path: Path) -> None:
    told: list[int] = []
    out = Output(str(tmp_path), 1, secrets=[], max_bytes=10, on_limit=told.append)
    for stream in ("stdout", "stderr", "stdout", "stdout"):
        out.streams[stream].add(b"12345")
    assert told == [15]


def test_output_that_was_closed_early_is_put_on_disk_and_its_file_is_closed(engine: Engine) -> None:
    runs = [engine.launch("echo done; echo err >&2; exec 1>&- 2>&-; sleep 1.5") for _ in range(4)]
    assert [(run.stdout(), run.stderr()) for run in runs] == [(b"done\n", b"err\n")] * 4
    assert all((run.wait().stdout or {}).get("path") for run in runs)  # they lived long enough for that
    folder = Path(f"/proc/{engine.pid}/fd")
    assert [name for name in folder.iterdir() if os.readlink(name).endswith(".log")] == []


def test_what_the_disk_refused_altogether_goes_to_the_row_if_it_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int, __: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = Output(str(tmp_path), 1, secrets=[])
    small, large = out.streams.values()
    small.add(b"x" * 6000)
    large.add(b"y" * INLINE_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr("agentnb.engine.capture.os.write", full)
        for stream in (small, large):
            with pytest.raises(OSError, match="No space"):
                stream.spill()
        with pytest.raises(OSError, match="No space"):
            large.add(b"y")
        assert small.abandon() == 0
        assert large.abandon() == INLINE_BYTES + 1
    assert small.record(tmp_path) == {"size": 6000, "text": "x" * 6000}
    assert large.record(tmp_path)["path"] == "stderr.log"
