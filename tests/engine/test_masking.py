"""Secrets are masked in every form, however the bytes that hold them are cut."""

from __future__ import annotations

import base64
import json
import re
import shlex
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.engine.masking import MASK, Masker

SECRETS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12), min_size=1, max_size=4)
#: Texts in which the secrets overlap, repeat and begin without ending.
TIGHT = st.lists(st.text("ab*", min_size=1, max_size=4), min_size=1, max_size=3)


def masked(secrets: list[str], data: bytes, cuts: list[int]) -> bytes:
    masker = Masker(secrets)
    pieces = [masker.feed(data[start:end]) for start, end in pairwise([0, *sorted(cuts), len(data)])]
    return b"".join(pieces) + masker.feed(b"", last=True)


@given(TIGHT, st.text("ab*", max_size=30), st.lists(st.integers(0, 30), max_size=8))
def test_pieces_are_masked_as_the_whole_is(secrets: list[str], text: str, cuts: list[int]) -> None:
    whole = Masker(secrets).clean(text).encode()
    assert masked(secrets, text.encode(), [min(cut, len(text)) for cut in cuts]) == whole


@given(SECRETS, st.data())
def test_no_form_of_a_secret_survives_any_cut(secrets: list[str], data: st.DataObject) -> None:
    secret = data.draw(st.sampled_from(secrets))
    forms = [secret.encode(), json.dumps(secret)[1:-1].encode(), json.dumps(secret, ensure_ascii=False)[1:-1].encode()]
    form = data.draw(st.sampled_from(forms))
    text = data.draw(st.binary(max_size=10)) + form + data.draw(st.binary(max_size=10))
    shown = masked(secrets, text, data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    if not any(part and part.encode() in MASK for part in secrets):  # "*" is in the mask itself
        assert form not in shown


@given(
    st.binary(max_size=4), st.text(st.characters(exclude_categories=("Cs",)), min_size=12, max_size=30), st.binary(max_size=4), st.data()
)
def test_a_secret_inside_of_base64_is_masked(before: bytes, secret: str, after: bytes, data: st.DataObject) -> None:
    whole = before + secret.encode() + after
    for coded in (base64.b64encode(whole), base64.urlsafe_b64encode(whole)):
        shown = masked([secret], coded, data.draw(st.lists(st.integers(0, len(coded)), max_size=4)))
        assert MASK in shown
        assert len(shown) < len(coded)


def test_nothing_is_held_back_that_cannot_become_a_secret() -> None:
    masker = Masker(["hunter2"])
    assert masker.feed(b"no secret here hunt") == b"no secret here "
    assert masker.feed(b"ing\n") == b"hunting\n"
    assert masker.feed(b"hunter") == b""
    assert masker.feed(b"2 x", last=True) == b"*** x"


def test_a_longer_secret_that_begins_with_a_shorter_one_is_masked_whole() -> None:
    masker = Masker(["abc", "abcdef"])
    assert masker.feed(b"abc") + masker.feed(b"def") + masker.feed(b"", last=True) == MASK


def test_texts_inside_of_data_are_masked_and_the_rest_is_left() -> None:
    data = {"a": ["x hunter2", 1, None, True, 2.5], "hunter2": {"b": "hunter2"}}
    assert Masker(["hunter2"]).clean_data(data) == {"a": ["x ***", 1, None, True, 2.5], "***": {"b": "***"}}


@pytest.mark.parametrize("number", [424242424242, 424242424242.0, -424242424242, 94242424242421, 42424242424.2])
def test_a_secret_that_is_a_number_is_masked_as_one(number: float) -> None:
    shown = Masker(["424242424242", "42424242424.20"]).clean_data({"a": [number]})["a"][0]
    assert isinstance(shown, str)
    assert "4242424242" not in shown


def test_other_numbers_stay_numbers() -> None:
    data = [1, 2.5, True, None, 424242, 10**30, -0.0, float("inf")]
    assert Masker(["424242424242", "nan", "x"]).clean_data(data) == data


@pytest.mark.parametrize("text", ["\udcff hunter2", "x \ud800 hunter2"])
def test_texts_that_are_no_unicode_are_masked_too(text: str) -> None:
    assert "hunter2" not in Masker(["hunter2"]).clean(text)


def test_a_long_secret_costs_no_quadratic_time() -> None:
    masker = Masker(["A" * 5000 + "B"])
    piece = (b"x" * 99 + b"\n") * 2000
    for _ in range(20):
        assert masker.feed(piece) == piece


@pytest.mark.parametrize("secret", ["a'b", 'a"b', "a\\b$c`", "a\nb", "é'\""])
def test_a_secret_is_masked_as_python_and_shells_write_it(secret: str) -> None:
    masker = Masker([secret])
    written = [repr(secret), repr([secret]), shlex.quote(secret), '"' + re.sub(r'([\\"$`])', r"\\\1", secret) + '"']
    assert [masker.clean(text).strip("\"'[]") for text in written] == ["***"] * 4
