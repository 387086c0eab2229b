"""Bytes into JSON objects, however they are cut and whatever they are."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agentnb.engine import event_lines
from agentnb.engine.event_lines import EventLines

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=5), x, max_size=4),
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=8), JSON, max_size=5), max_size=8)


def fed(pieces: list[bytes]) -> list[object]:
    lines = EventLines()
    found: list[object] = [item for piece in pieces for item in lines.feed(piece)]
    return [*found, *lines.feed(b"", last=True)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


@given(OBJECTS, st.lists(st.integers(0, 10**6), max_size=6), st.booleans())
def test_objects_come_out_as_they_went_in_however_the_bytes_are_cut(objects, places, ascii_only):
    data = b"".join(json.dumps(item, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") + b"\n" for item in objects)
    plain = json.dumps(objects)
    if "\\ud" not in plain:  # halves of characters have no bytes of their own
        assert fed(cut(data, places)) == objects


@given(st.binary(max_size=400), st.lists(st.integers(0, 10**6), max_size=6))
def test_any_bytes_at_all_give_objects_and_texts_and_the_same_ones_however_they_are_cut(data, places):
    whole = fed([data])
    assert all(isinstance(item, dict | str) for item in whole)

    def joined(items: list[object]) -> tuple[list[object], str]:
        objects: list[object] = [item for item in items if isinstance(item, dict)]
        text = "".join(item for item in items if isinstance(item, str))
        return objects, "".join(text.split())

    assert joined(fed(cut(data, places))) == joined(whole)


def test_lines_that_are_no_objects_are_text_in_their_place():
    assert fed([b'before\n{"a":1}\r\n[1]\n42\n  {"b":2}  \n{"c":3} x\n\n']) == ["before\n", {"a": 1}, "[1]\n42\n", {"b": 2}, '{"c":3} x\n']


def test_the_last_line_needs_no_line_end():
    assert fed([b'{"a":', b"1}"]) == [{"a": 1}]


def test_bytes_that_are_no_utf8_become_replacement_characters():
    assert fed([b'{"a":"caf\xe9"}\n']) == [{"a": "caf\ufffd"}]


def test_a_line_without_end_costs_no_memory_and_is_left_out(monkeypatch):
    monkeypatch.setattr(event_lines, "MAX_LINE", 1000)
    lines = EventLines()
    for _ in range(50):
        assert lines.feed(b'{"a":"' + b"x" * 100) == []
        assert len(lines._rest) <= 1200
    assert lines.feed(b'"}\n{"b":1}\n') == [{"b": 1}]
    assert lines.overlong == 1


def test_nesting_that_is_too_deep_is_left_out():
    lines = EventLines()
    deep = b'{"a":' * 300 + b"1" + b"}" * 300 + b"\n"
    deeper = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    assert lines.feed(deep + deeper + b'{"b":1}\n') == [{"b": 1}]
    assert lines.overlong == 2
