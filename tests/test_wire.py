"""Frames: whatever is cut in whatever way arrives whole, and what is no frame is refused."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb import events, requests, wire
from agentnb.events import Message

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)
MESSAGES = st.one_of(
    st.builds(requests.Launch, run=st.dictionaries(TEXT, JSON), work=st.dictionaries(TEXT, JSON)),
    st.builds(requests.Cancel, run_ids=st.lists(TEXT), reason=TEXT),
    st.builds(events.OutputTail, run_id=TEXT, segments=st.lists(st.lists(TEXT, min_size=2, max_size=2)), skipped=st.integers(0)),
    st.builds(events.Reply, request_id=st.integers(), data=st.dictionaries(TEXT, JSON), error=st.none() | TEXT),
)


@given(st.lists(st.lists(MESSAGES, max_size=3), max_size=4), st.data())
def test_messages_arrive_whole_however_their_bytes_are_cut(batches: list[list[Message]], data: st.DataObject) -> None:
    sent = b"".join(wire.encode(batch) for batch in batches)
    cuts = data.draw(st.lists(st.integers(0, len(sent)), max_size=10).map(sorted))
    decoder = wire.Decoder()
    found = [item for start, end in pairwise([0, *cuts, len(sent)]) for item in decoder.feed(sent[start:end])]
    assert [wire.parse(item) for item in found] == [message for batch in batches for message in batch]


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_waited_on_but_nothing_else_happens(data: bytes) -> None:
    decoder = wire.Decoder()
    try:
        for n in range(len(data)):
            assert all(isinstance(item, dict) for item in decoder.feed(data[n : n + 1]))
    except wire.ProtocolError:
        pass


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"nonsense", b'"text"', b"[[]]", b"\xff\xfe", b"[" * 100_000])
def test_a_frame_that_holds_no_array_of_objects_is_refused(body: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_a_frame_that_is_too_big_is_refused_when_it_is_announced() -> None:
    with pytest.raises(wire.ProtocolError, match="announced"):
        wire.Decoder().feed(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("bad", [float, object(), {1}, b"bytes", datetime.now(UTC), events.Reply(1)])
def test_what_is_no_json_is_not_encoded(bad: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        wire.encode([requests.Ping(1, {"x": bad})])


@pytest.mark.parametrize("item", [{"type": "launch"}, {"type": []}, {"type": {}}, {"type": "cancel", "run_ids": []}])
def test_a_malformed_message_is_told_from_an_unknown_one(item: events.Json) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.parse(item)
    assert wire.parse({"type": "of the future", "x": 1}) is None
    assert wire.parse({}) is None
    assert wire.parse({"type": "ping", "request_id": 1, "added": 2}) == requests.Ping(1)


def test_what_the_other_end_would_refuse_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(wire.encode([events.Reply(1, {"a": "x"})])) - 4
    monkeypatch.setattr(wire, "MAX_FRAME", size)
    decoder = wire.Decoder()
    assert len(decoder.feed(wire.encode([events.Reply(1, {"a": "x"})]))) == 1
    with pytest.raises(wire.TooLarge, match=f"takes {size + 1} bytes"):
        wire.encode([events.Reply(1, {"a": "xx"})])


@given(st.lists(MESSAGES, max_size=3))
def test_a_peer_without_the_fast_encoder_says_and_hears_the_same(messages: list[Message]) -> None:
    frame = wire.encode(messages)
    plain = b" " + json.dumps([message.to_wire() for message in messages]).encode()
    assert json.loads(frame[4:]) == json.loads(plain)
    assert [wire.parse(item) for item in wire.Decoder().feed(len(plain).to_bytes(4, "big") + plain)] == messages


@pytest.mark.parametrize("value", [2**70, -(2**63) - 1, math.inf, "\ud800", "\u2028 é", None, [None, "null"], {"a": (1, 2)}, 1e308, True])
def test_numbers_and_texts_that_fast_encoders_change_arrive_as_they_are(value: object) -> None:
    (found,) = wire.Decoder().feed(wire.encode([events.Reply(1, {"value": value})]))
    assert found["data"]["value"] == json.loads(json.dumps(value))


def test_nan_arrives_as_nan() -> None:
    (found,) = wire.Decoder().feed(wire.encode([events.Reply(1, {"value": math.nan})]))
    assert math.isnan(found["data"]["value"])
