"""Exceptions as data: frames, causes, bounds."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import agentnb as nb
from agentnb.agents.tracebacks import failure, frames, text


def caught(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as bad:  # noqa: BLE001
        return bad
    raise AssertionError("nothing was raised")


def low(depth: int = 0) -> None:
    if depth:
        low(depth - 1)
    raise KeyError("missing")


def high() -> None:
    try:
        low(2)
    except KeyError as bad:
        raise ValueError("no such thing") from bad


def test_frames_name_file_line_function_and_code() -> None:
    details = failure(caught(high))["details"]
    last = details["frames"][-1]
    assert (last["file"], last["function"], last["code"]) == (__file__, "high", 'raise ValueError("no such thing") from bad')
    assert isinstance(last["line"], int)
    assert details["type"] == "ValueError"
    assert "raise ValueError" in details["traceback"]


def test_causes_are_told_nearest_first_with_frames_of_their_own() -> None:
    (cause,) = failure(caught(high))["details"]["causes"]
    assert (cause["relation"], cause["type"], cause["message"]) == ("cause", "KeyError", "KeyError: 'missing'")
    assert [frame["function"] for frame in cause["frames"]] == ["high", "low", "low", "low"]


def test_a_context_is_told_apart_from_a_cause_and_a_suppressed_one_is_left_out() -> None:
    def handling() -> None:
        try:
            low()
        except KeyError:
            raise ValueError("while handling")  # noqa: B904 - what is tested

    def suppressing() -> None:
        try:
            low()
        except KeyError:
            raise ValueError("clean") from None

    assert failure(caught(handling))["details"]["causes"][0]["relation"] == "context"
    assert "causes" not in failure(caught(suppressing))["details"]


def test_the_parts_of_a_group_are_told() -> None:
    group = ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    causes = failure(group)["details"]["causes"]
    assert [(cause["relation"], cause["type"]) for cause in causes] == [("part", "ValueError"), ("part", "KeyError")]


def test_a_recursion_of_thousands_of_frames_is_bounded() -> None:
    bad = caught(lambda: low(sys.getrecursionlimit() * 2))
    found = frames(bad)
    assert len(found) == 41
    assert found[20]["omitted"] > 100
    assert len(json.dumps(failure(bad))) < 60_000


def test_a_ring_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert len(failure(one)["details"]["causes"]) == 1


def test_a_long_chain_is_bounded() -> None:
    last: BaseException = ValueError("0")
    for number in range(1, 50):
        after = ValueError(str(number))
        after.__cause__ = last
        last = after
    assert len(failure(last)["details"]["causes"]) == 5


def test_a_long_message_is_bounded() -> None:
    assert len(text(ValueError("x" * 10_000_000))) < 21_000


class Unpicklable(Exception):
    """One that no process could be sent, and that cannot be shown either."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")
        self.numbers, self.lock = (one, two), threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no words")


def unpicklable() -> None:
    raise Unpicklable(1, 2)


async def async_unpicklable() -> None:
    raise Unpicklable(1, 2)


@pytest.mark.parametrize("agent", [unpicklable, async_unpicklable])
def test_an_exception_that_cannot_be_pickled_or_shown_is_told_all_the_same(agent: Any, tmp_path: Any) -> None:
    with nb.Session("t", store=tmp_path / "s") as session:
        error: Any = session.python(agent).wait(60).error
    assert error.message == "Unpicklable: (its text cannot be shown)"
    assert error.details["type"] == "Unpicklable"
    assert error.details["frames"][-1]["code"] == "raise Unpicklable(1, 2)"


def test_secrets_are_masked_in_every_part_of_it(tmp_path: Any) -> None:
    def agent() -> None:
        import os

        try:
            raise KeyError(os.environ["KEY"])  # noqa: TRY301 - what is tested
        except KeyError as bad:
            raise ValueError(f"with {os.environ['KEY']}") from bad

    with nb.Session("t", store=tmp_path / "s") as session:
        error: Any = session.python(agent, env={"KEY": nb.Secret("open-sesame")}).wait(60).error
    assert "open-sesame" not in json.dumps(error.details)
    assert "***" in error.details["causes"][0]["message"]
