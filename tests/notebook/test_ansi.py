"""Terminal output becomes lines that are safe to show."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentnb.notebook.ansi import MAX_CHARS, MAX_LINE_CHARS, MAX_LINES, Screen, last_line, plain

SEQUENCES = ["\x1b[31m", "\x1b[0m", "\x1b[38;5;99m", "\x1b[2K", "\x1b]8;;http://x\x1b\\", "\x1b]0;t\x07", "\x9b", "\x1b"]
PIECES = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [
                "\x1b[31m",
                "\x1b[0m",
                "\x1b[38;5;99m",
                "\x1b[2K",
                "\x1b]8;;http://x\x1b\\",
                "\x1b]0;t\x07",
                "\r",
                "\r\n",
                "\n",
                "\x08",
                "\x9b",
                "\x1b",
            ]
        ),
    ),
    max_size=30,
).map("".join)


def lines_of(*pieces: str) -> list[str]:
    screen = Screen()
    screen.feed(("stdout", piece) for piece in pieces)
    return [line.text for line in screen.lines]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10%\r20%\r30%\ndone\n", ["30%", "done"]),
        ("dos\r\nline\r\n", ["dos", "line"]),
        ("a\x1b[31mred\x1b[0m b", ["ared b"]),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", ["link"]),
        ("\x1b]0;a title\x07text", ["text"]),
        ("\x1b[2J\x1b[10;10Htext\x1b[3A", ["text"]),
        ("old\x1b[2Knew", ["new"]),
        ("ab\x08c", ["ac"]),
        ("nul\x00 c1\x85 del\x7f", ["nul c1  del"]),
        ("\u202egnp.exe", ["[U+202E]gnp.exe"]),
        ("half \ud83d", ["half \ufffd"]),
        ("\n\nx", ["", "", "x"]),
        ("\x1bPq#0;dcs\x1b\\after", ["after"]),
        ("\x9b31mc1 csi", ["c1 csi"]),
    ],
)
def test_control_sequences_do_what_they_mean_or_nothing(text: str, shown: list[str]) -> None:
    assert lines_of(text) == shown


@given(PIECES, st.integers(0, 400))
def test_output_cut_anywhere_reads_the_same_as_whole(text: str, cut: int) -> None:
    assert lines_of(text[:cut], text[cut:]) == lines_of(text)


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), PIECES), max_size=8))
def test_no_control_character_is_left_and_the_screen_stays_within_its_bounds(segments: list[tuple[str, str]]) -> None:
    screen = Screen(max_lines=5, max_chars=60)
    screen.feed(segments)
    assert len(screen.lines) <= 5
    assert len(screen.lines) == 1 or sum(line.size for line in screen.lines) <= 60
    for line in screen.lines:
        assert line.size == len(line.text)
        assert not any((char < " " and char != "\t") or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in line.text)
        line.text.encode()


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), PIECES, st.booleans()), max_size=12))
def test_the_changes_put_together_are_the_screen(steps: list[tuple[str, str, bool]]) -> None:
    screen, first = Screen(max_lines=6, max_chars=200), 0
    mirror: list[Any] = []
    for stream, text, gap in steps:
        screen.feed([(stream, text)], gap=gap)
        if (change := screen.take()) is None:
            continue
        base, lines = change
        if base > first + len(mirror):
            mirror, first = [], base
        mirror[max(0, base - first) :] = [(line.stream, list(line.spans)) for line in lines]
        mirror, first = mirror[max(0, screen.first - first) :], max(first, screen.first)
        assert mirror == [(line.stream, line.spans) for line in screen.lines]
    assert screen.take() is None


def test_a_progress_bar_on_stderr_stays_one_line_while_stdout_goes_on() -> None:
    screen = Screen()
    for i in range(5):
        screen.feed([("stderr", f"\r{i * 25}%"), ("stdout", f"step {i}\n")])
    assert [(line.stream, line.text) for line in screen.lines] == [("stderr", "100%")] + [("stdout", f"step {i}") for i in range(5)]


def test_colours_come_from_a_palette_of_16_and_concealed_text_is_shown() -> None:
    screen = Screen()
    screen.feed([("stdout", "\x1b[1;38;2;250;5;5;44mx\x1b[0;8mhidden\x1b[38;5;46my\x1b[39;97mz\x1b[999;38;9m.")])
    assert screen.lines[0].spans == [("f9 g4 b", "x"), ("", "hidden"), ("f10", "y"), ("f15", "z"), ("", ".")]


def test_a_line_without_end_and_a_flood_are_bounded() -> None:
    screen = Screen()
    screen.feed([("stdout", "x" * 1_000_000)])
    assert screen.lines[0].size == MAX_LINE_CHARS
    assert screen.lines[0].text.endswith("…")
    screen.feed([("stdout", "\nline" * 200_000)])
    assert len(screen.lines) <= MAX_LINES
    assert sum(line.size for line in screen.lines) <= MAX_CHARS


@pytest.mark.parametrize("unit", ["\x9d", "\x1b]", "\x1b[", "\x1b[1", "\x9b1;", "\x1b", "\r", "\x08", "\x1bP"])
def test_hostile_repetition_costs_linear_time(unit: str) -> None:
    began = time.process_time()
    lines_of(unit * 200_000)
    assert time.process_time() - began < 2


def test_plain_text_for_names_is_one_line_without_sequences() -> None:
    assert plain("a\x1b[31mb\x1b]8;;x\x07c\nd\u2066e") == "abc d[U+2066]e"
    assert last_line([("stdout", "one\n  two  \n\n")]) == "two"
    assert not last_line([])
    assert last_line([("stdout", "cut \x1b[1mhere"), ("stderr", "x\n"), ("stdout", "and on\n")]) == "x"


FEW_PIECES = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.text("ab \n\r\x08\x1b[K;]\x07\x9d\x9c2m", max_size=30)), max_size=3
)


@given(FEW_PIECES, st.integers(0, 400))
def test_the_last_line_is_that_of_the_whole_screen(pieces: list[tuple[str, str]], blanks: int) -> None:
    pieces = [(stream, "ab\n" * (blanks // 3) + text) for stream, text in pieces]
    screen = Screen()
    screen.feed(pieces)
    assert last_line(pieces) == next((text for line in reversed(screen.lines) if (text := line.text.strip())), "")


@example([("stderr", "1"), ("stdout", "\n\n"), ("stderr", "1")], 1)
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text("ab\t\n\r\x1b[31m", max_size=60)), max_size=12), st.integers(1, 6))
def test_whole_plain_lines_written_at_once_read_as_if_they_came_one_character_at_a_time(pieces: list[tuple[str, str]], most: int) -> None:
    at_once, singly = Screen(max_lines=most), Screen(max_lines=most)
    at_once.feed(pieces)
    singly.feed((stream, character) for stream, text in pieces for character in text)
    assert (at_once.first, list(at_once.lines)) == (singly.first, list(singly.lines))
    assert at_once.take() == singly.take()
