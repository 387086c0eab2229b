from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.history.jsontext import bindable, dumps, raw

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner),
    max_leaves=12,
)


@given(VALUES)
def test_json_comes_back_as_it_went_in_and_is_ascii(value: object) -> None:
    text = dumps(value)
    assert text.isascii()
    assert json.loads(text) == value


@given(VALUES)
def test_sqlite_takes_it_as_json(value: object) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        assert db.execute("SELECT json_valid(?)", (dumps(value),)).fetchone() == (1,)


def test_nan_becomes_null_and_infinities_come_back() -> None:
    assert json.loads(dumps({"a": [math.nan, math.inf, -math.inf, 1]})) == {"a": [None, math.inf, -math.inf, 1]}


def test_what_is_no_json_becomes_its_text_and_never_raises() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    loop: list[object] = []
    loop.append(loop)
    assert json.loads(dumps({(1, 2): {3}})) == {"(1, 2)": "{3}"}
    assert json.loads(dumps({"big": 10**5000})).startswith("<not storable")
    for odd in (deep, loop):
        assert json.loads(dumps(odd)).startswith("<not storable")


@pytest.mark.parametrize(
    ("value", "kept"),
    [("a", "a"), ("\ud800", "\\ud800"), (2**70, 2**63 - 1), (-(2**70), -(2**63)), (True, True), (None, None), (b"x", b"x"), ([1], "[1]")],
)
def test_plain_columns_hold_something_that_sqlite_can_bind(value: object, kept: object) -> None:
    assert bindable(value) == kept
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("SELECT ?", (bindable(value),))


@given(st.binary())
def test_output_decoded_with_surrogateescape_keeps_its_bytes(data: bytes) -> None:
    kept = raw(data.decode(errors="surrogateescape"))
    assert (kept.encode() if isinstance(kept, str) else kept) == data


def test_output_with_other_surrogates_stays_visible() -> None:
    assert raw("a\ud800") == "a\\ud800"
