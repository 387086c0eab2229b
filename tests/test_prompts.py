"""Questions to chat models, as data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents.adapters import Finished
from agentnb.agents.local import LOCAL_MODEL
from agentnb.errors import ConfigError

USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ("hi", "no list of messages"),
        (USER, "no list of messages"),
        (5, "no list of messages"),
        (["hi"], r"messages\[0\]"),
        ([{"role": "user"}], "must have 'role' and 'content'"),
        ([USER | {"name": "x"}], "and nothing else"),
        ([{"role": "tool", "content": "x"}], "none of system, user, assistant"),
        ([{"role": "user", "content": ""}], "is empty"),
        ([{"role": "user", "content": ["x"]}], "not text"),
        ([{"role": "user", "content": "a\0b"}], "NUL"),
        ([ANSWER], "begin with the user's; message 0 is of the assistant"),
        ([SYSTEM, USER, USER, ANSWER], "take turns.*; message 2 is of the user"),
        ([USER, SYSTEM, ANSWER], "only possible as the first one"),
        ([USER, ANSWER, USER], "give it as the prompt"),
    ],
)
def test_messages_that_are_no_conversation_are_refused(messages: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        nb.LocalModel("hi", messages=messages)


def test_what_was_said_comes_between_system_prompt_and_prompt() -> None:
    spec = nb.LocalModel("now", system="s", messages=[USER, ANSWER])
    assert spec.conversation() == [SYSTEM, USER, ANSWER, {"role": "user", "content": "now"}]
    assert nb.LocalModel("now", messages=iter([SYSTEM, USER, ANSWER])).conversation() == spec.conversation()
    with pytest.raises(ConfigError, match="give one of them"):
        nb.LocalModel("now", system="s", messages=[SYSTEM, USER, ANSWER])


@given(st.lists(st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text), min_size=1, max_size=4))
def test_any_conversation_can_go_on_and_says_what_was_said(texts: list[str]) -> None:
    spec = nb.LocalModel(texts[0], system="s")
    for text in texts[1:]:
        spec = LOCAL_MODEL.reply(spec, text, Finished("{{ answer }}"))
    said = [message["content"] for message in spec.conversation()]
    expected = ["s"]
    for text in texts:
        expected += [text, "{{ answer }}"]
    assert said == expected[:-1]


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="json_schema: there is no type 'nonsense'"):
        nb.LocalModel("hi", json_schema={"type": "nonsense"})
    with pytest.raises(ConfigError, match="json_schema"):
        nb.LocalModel("hi", json_schema="object")
