from __future__ import annotations

import inspect
import pickle
import re

import pytest

from agentnb import errors

TREE = [cls for cls in vars(errors).values() if inspect.isclass(cls) and issubclass(cls, Exception)]


def test_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str | None] = {}
    path: list[str] = []
    for line in re.findall(r"^    .*$", errors.__doc__ or "", re.MULTILINE):
        match = re.search(r"[A-Z]\w+", line)
        assert match
        depth = (match.start() - 4) // 4
        path[depth:] = [match[0]]
        drawn[match[0]] = path[depth - 1] if depth else None
    real = {cls.__name__: next((base.__name__ for base in cls.__bases__ if base in TREE), None) for cls in TREE}
    assert drawn == real


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.SpecError, ValueError),
        (errors.StoreError, OSError),
        (errors.RuntimeUnavailable, RuntimeError),
        (errors.IllegalTransition, RuntimeError),
    ],
)
def test_errors_are_also_the_builtin_that_people_catch(cls: type, builtin: type) -> None:
    assert issubclass(cls, builtin)


@pytest.mark.parametrize("cls", TREE)
def test_every_error_is_an_agentnb_error_with_a_docstring(cls: type) -> None:
    assert issubclass(cls, errors.AgentnbError)
    assert cls.__doc__


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({"file": "a.yaml", "line": 3, "column": 7}, "a.yaml:3:7: bad key"),
        ({"file": "a.yaml"}, "a.yaml: bad key"),
        ({}, "bad key"),
    ],
)
def test_a_spec_error_says_where(place: dict, text: str) -> None:
    error = errors.SpecError("bad key", **place)
    assert str(error) == text
    assert (error.file, error.line, error.column) == (place.get("file"), place.get("line"), place.get("column"))


def test_an_illegal_transition_names_both_states() -> None:
    error = errors.IllegalTransition("run 'x'", "completed", "running")
    assert str(error) == "run 'x' cannot go from 'completed' to 'running'"
    assert (error.old, error.new) == ("completed", "running")


def test_run_failed_carries_its_result() -> None:
    result = object()
    assert errors.RunTimedOut("took too long", result).result is result


@pytest.mark.parametrize("cls", [errors.ConfigError, errors.StoreTooNew, errors.RuntimeUnavailable, errors.RunFailed])
def test_errors_with_a_message_cross_a_process_border(cls: type[Exception]) -> None:
    again = pickle.loads(pickle.dumps(cls("what, where, what to do")))
    assert type(again) is cls
    assert str(again) == "what, where, what to do"
