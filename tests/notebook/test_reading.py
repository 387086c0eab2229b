"""Output of runs: complete, in order, live, over many lines, split characters and several attempts."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.engine.capture import Output
from agentnb.events import RunFinished
from agentnb.notebook.reading import OutputReader, kept_bytes, log_record


def touch(name: str) -> None:
    Path(name).touch()


async def collect(run, stream="stdout") -> list[str]:
    return [line async for line in run.lines(stream)]


def test_a_hundred_thousand_lines_come_in_order_while_the_run_goes_on(session) -> None:
    run = session.shell("seq 100000; while [ ! -e go ]; do sleep 0.02; done; printf last")

    async def main() -> list[str]:
        lines = []
        async for line in run.lines():
            lines.append(line)
            if line == "100000":
                assert not run.done
                touch("go")
        return lines

    assert asyncio.run(main()) == [*map(str, range(1, 100_001)), "last"]
    assert asyncio.run(collect(run)) == [*map(str, range(1, 100_001)), "last"]
    assert run.tail(3) == "99999\n100000\nlast"
    assert len(run.tail(20_000).split("\n")) == 20_000


def test_characters_that_were_split_are_whole_and_bad_ones_replaced(session) -> None:
    code = (
        "import sys, time; w = sys.stdout.buffer\n"
        "for byte in 'größe €🎈\\n'.encode() + b'\\xff\\xfe!\\r\\n' + '€'.encode()[:2]:\n"
        "    w.write(bytes([byte])); w.flush(); time.sleep(0.02)"
    )
    run = session.command([sys.executable, "-c", code])
    assert asyncio.run(collect(run)) == ["größe €🎈", "\ufffd\ufffd!", "\ufffd"]
    assert run.stdout == "größe €🎈\n\ufffd\ufffd!\r\n\ufffd"


def test_lines_of_stderr_of_nothing_and_of_a_stream_that_is_none(session) -> None:
    run = session.shell("echo a >&2")
    run.wait()
    assert asyncio.run(collect(run, "stderr")) == ["a"]
    assert asyncio.run(collect(run)) == []
    with pytest.raises(nb.ConfigError, match="no stream 'stdin'"):
        asyncio.run(collect(run, "stdin"))


def test_lines_of_a_run_that_is_tried_again_go_on_with_the_next_attempt(session) -> None:
    command = "echo try $AGENTNB_ATTEMPT; echo more; while [ ! -e go$AGENTNB_ATTEMPT ]; do sleep 0.02; done; exit 9"
    run = session.shell(command, retry=nb.Retry(max_attempts=2, initial_delay=0.2, on_exit_codes=[9]))

    async def main() -> list[str]:
        lines = []
        async for line in run.lines():
            lines.append(line)
            if line == "more":
                touch(f"go{len(lines) // 2}")
        return lines

    assert asyncio.run(main()) == ["try 1", "more", "try 2", "more"]
    assert run.stdout == "try 2\nmore\n"


def test_the_tail_keeps_the_order_of_both_streams_and_shows_what_a_progress_bar_says_last(session) -> None:
    script = "; ".join(f"echo out{n}; sleep 0.02; echo err{n} >&2; sleep 0.02" for n in range(5))
    run = session.shell(script + r"; printf '10%%\r50%%\r100%%\r\n'")
    run.wait()
    wanted = [f"{name}{n}" for n in range(5) for name in ("out", "err")]
    assert run.tail() == "\n".join([*wanted, "100%"])
    assert "".join(text for _, text in run.snapshot().tail).splitlines()[:4] == wanted[:4]
    assert "10%\r50%\r100%\r\n" in run.stdout


@pytest.mark.parametrize("n", [-1, 1.5, "3", True])
def test_a_tail_of_what_is_no_number_of_lines_is_refused(session, n) -> None:
    with pytest.raises(nb.ConfigError, match="no number of lines"):
        session.shell("true").tail(n)


def test_the_tail_of_much_output_is_read_from_its_end(session) -> None:
    run = session.shell("seq 300000; seq 5 >&2")
    run.wait()
    assert run.tail(5) == "1\n2\n3\n4\n5" or run.tail(5).endswith("300000")  # whichever came last
    assert sum(len(text) for _, text in run.snapshot().tail) <= 2 * 16 * 1024


def test_the_log_of_a_lost_run_is_found_by_attempt(tmp_path) -> None:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "r" / "stdout.2.log").write_text("kept")
    assert log_record(tmp_path, "r", "stdout", 1) is None
    record = log_record(tmp_path, "r", "stdout", 2)
    assert record is not None
    assert record["size"] == 4
    assert kept_bytes(tmp_path, record, 1, 2) == b"ep"


class Finished:
    """A run that has ended."""

    def __init__(self, final: RunFinished) -> None:
        self.final = final


PIECES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9))
)


@given(pieces=PIECES, wanted=st.integers(1, 30))
def test_whatever_was_written_the_tail_is_its_end_in_order(pieces, wanted) -> None:
    texts = {name: "".join(text for stream, text in pieces if stream == name) for name in ("stdout", "stderr")}
    records = {name: {"size": len(text.encode()), "text": text, "path": None} for name, text in texts.items()}
    order = [[stream, len(text.encode())] for stream, text in pieces]
    final = RunFinished("r", "completed", stdout=records["stdout"], stderr=records["stderr"], detail={"order": order})
    reader = OutputReader(Path("/nowhere"), Finished(final))
    whole = "".join(text for _, text in pieces)
    assert reader.tail_segments(final) == [(stream, text) for stream, text in pieces]
    lines = whole.removesuffix("\n").split("\n")[-wanted:]
    assert reader.tail(wanted) == "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def test_the_end_of_both_streams_is_in_order_even_when_they_took_turns_too_often_to_remember_all(tmp_path) -> None:
    out = Output(str(tmp_path / "runs"), 1, secrets=[])
    for _ in range(600):
        out.seen("stdout", b"a\n")
        out.seen("stderr", b"b\n")
    out.seen("stdout", b"last\n")
    assert len(out.order() or []) == 1000
    detail = {"order": out.order(), "last_order": out.last_order()}
    final = RunFinished("r", "completed", stdout=kept("a\n" * 600 + "last\n"), stderr=kept("b\n" * 600), detail=detail)
    reader = OutputReader(tmp_path, Finished(final))
    text = "".join(text for _, text in reader.tail_segments(final))
    assert text == "a\nb\n" * 600 + "last\n"
    for wrong in ([["stdout", 10**6]], [["nowhere", 1]], []):
        final.detail["last_order"] = wrong
        assert "".join(text for _, text in reader.tail_segments(final)) == "a\n" * 600 + "last\n" + "b\n" * 600


def kept(text: str) -> dict:
    return {"size": len(text), "text": text, "path": None}
