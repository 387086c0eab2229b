from __future__ import annotations

import io
import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb import printing
from agentnb.errors import ConfigError
from agentnb.printing import TerminalText

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes(timezones=st.just(UTC))
    | st.timedeltas()
    | st.just(pd.NA),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING)
def test_anything_becomes_json_that_reads_back_and_cannot_steer_a_terminal(value: Any) -> None:
    text = printing.json_text(value)
    assert json.loads(text) == printing.plain(value)
    assert text.isascii()
    assert text.replace("\n", "").replace("\x7f", "").isprintable()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (math.inf, None),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Timestamp("2026-01-02T03:04:05.6", tz="UTC"), "2026-01-02T03:04:05.600000Z"),
        (datetime(2026, 1, 2, 4, tzinfo=timezone(timedelta(hours=1))), "2026-01-02T03:00:00.000000Z"),
        (timedelta(milliseconds=1500), 1.5),
        (pd.Timedelta(seconds=2), 2.0),
        (pd.Series([3], dtype="int64")[0], 3),
        (pd.Series([0.5])[0], 0.5),
        (pd.Series([True])[0], True),
        (2**80, 2**80),
        ({1: (None, math.nan)}, {"1": [None, None]}),
        (Path("a/b"), "a/b"),
    ],
)
def test_values_become_the_json_that_is_promised(value: Any, expected: Any) -> None:
    result = printing.plain(value)
    assert result == expected
    assert type(result) is type(expected)


@given(st.text())
def test_clean_text_has_no_control_characters_but_newline_and_tab(text: str) -> None:
    cleaned = printing.clean(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in cleaned)
    assert printing.clean(cleaned) == cleaned or "\x1b" not in cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\rb\x9b2Jc", "ab2Jc"),
        ("left\u202eright", "leftright"),
        ("half \ud83d", "half "),
        ("plain ünïcode 漢\n\t", "plain ünïcode 漢\n\t"),
    ],
)
def test_escape_sequences_are_dropped(text: str, cleaned: str) -> None:
    assert printing.clean(text) == cleaned


@given(st.text(), st.integers(2, 60))
def test_one_line_is_one_line_of_that_width(text: str, width: int) -> None:
    line = printing.one_line(text, width)
    assert len(line) <= width
    assert "\n" not in line


def test_numbers_stand_to_the_right_and_the_rest_to_the_left() -> None:
    assert printing.table([["a", 1], ["bb", None], ["c", 100]], ["x", "count"]) == "x   count\na       1\nbb      -\nc     100\n"


def test_an_empty_table_has_its_header() -> None:
    assert printing.table([], ["a", "b"]) == "a  b\n"


def test_a_frame_is_said_in_rows() -> None:
    out = io.StringIO()
    printing.write_frame(pd.DataFrame({"a": [1.0, math.nan]}), "table", out)
    assert out.getvalue() == "    a\n1.000\n    -\n2 rows\n"


def test_parquet_needs_a_file() -> None:
    with pytest.raises(ConfigError, match="-o FILE"):
        printing.write_frame(pd.DataFrame({"a": [1]}), "parquet", io.StringIO())


def shown(*chunks: bytes) -> str:
    out = io.BytesIO()
    terminal = TerminalText(out)
    for chunk in chunks:
        terminal.write(chunk)
    terminal.end()
    return out.getvalue().decode()


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (b"\x1b]0;pwn\x07title\n", "title\n"),
        (b"\x1b]0;never ended\nnext\n", "\nnext\n"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "link\n"),
        (b"\x1b[2J\x1b[Hcleared\x1b[1A\n", "cleared\n"),
        (b"\x1b[31mred\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[m\n", "\x1b[31mred\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[m\n\x1b[0m"),
        (b"\x1b[31mleft on", "\x1b[31mleft on\x1b[0m"),
        (b"\x1b]0;\x1b[31mhidden in a title\x07", "\x1b[31mhidden in a title\x1b[0m"),
        (b"10 %\r20 %\r\nend\r\r\n", "10 %\n20 %\nend\n"),
        (b"\x08\x7f\x9b31m\xff\tcaf\xc3\xa9\n", "\ufffd31m\ufffd\tcafé\n"),
        ("\u202eturned\u2069\u009b2J\n".encode(), "turned2J\n"),
        (b"cut \xe2\x82", "cut \ufffd"),
        (b"cut \x1b[3", "cut [3"),
        (b"", ""),
    ],
)
def test_on_a_terminal_only_colours_are_left_of_what_steers_it(printed: bytes, text: str) -> None:
    assert shown(printed) == text


@given(st.lists(st.sampled_from([b"\x1b", b"[", b"]", b"31", b";", b"m", b"2J", b"\x07", b"\\", b"\r", b"\n", b"x", b"\xc3", b"\xa9"])))
def test_what_a_terminal_is_shown_does_not_hang_on_how_the_bytes_came(parts: list[bytes]) -> None:
    whole = shown(b"".join(parts))
    assert shown(*parts) == whole
    left = re.sub(r"\x1b\[[0-9;:]*m", "", whole)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", left)


def test_a_sequence_without_end_holds_nothing_back_for_ever() -> None:
    out = io.BytesIO()
    terminal = TerminalText(out)
    terminal.write(b"before\n\x1b]0;" + b"x" * 100)
    assert out.getvalue() == b"before\n"
    terminal.write(b"x" * 5000)
    terminal.write(b"\nafter\n")
    assert out.getvalue().endswith(b"\nafter\n")
