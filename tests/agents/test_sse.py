"""Server-sent events, whatever pieces they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.agents import sse
from agentnb.agents.sse import Events, TooLarge

_LINES = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), min_size=1, max_size=20)


def whole(data: bytes) -> list[str]:
    events = Events()
    return events.feed(data) + events.end()


@given(st.lists(st.lists(_LINES, min_size=1, max_size=3), max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_events_are_the_same_however_the_stream_is_cut(wanted: list[list[str]], end: str, draw: st.DataObject) -> None:
    data = "".join("".join(f"data: {line}{end}" for line in lines) + f": a comment{end}event: x{end}{end}" for lines in wanted).encode()
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    events, found = Events(), []
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += events.feed(data[start:stop])
    assert found + events.end() == ["\n".join(lines) for lines in wanted] == whole(data)


@given(st.binary(max_size=300))
def test_garbage_is_no_fault(data: bytes) -> None:
    assert all(isinstance(event, str) for event in whole(data))


def test_what_is_no_utf8_is_replaced() -> None:
    assert whole(b"data: \xff\xfe!\n\n") == ["\ufffd\ufffd!"]


def test_the_end_of_the_stream_ends_the_last_event() -> None:
    events = Events()
    assert events.feed(b"data: x\ndata: y") == []
    assert events.end() == ["x\ny"]


@pytest.mark.parametrize("piece", [b"x", b"data: x\n"])
def test_an_event_without_end_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    events = Events()
    with pytest.raises(TooLarge, match="more than 1000 bytes"):
        [events.feed(piece) for _ in range(2000)]
