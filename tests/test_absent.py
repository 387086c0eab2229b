"""Names that people look for and that are not in: they are told what to do, and which names are."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import agentnb as nb
from agentnb import absent, cli
from agentnb.execution import AnySpec, ExecutionConfig
from agentnb.notebook.session import Session


@pytest.mark.parametrize("name", ["Docker"])
def test_a_name_of_the_package_that_is_not_in_is_said_to_be_so(name: str) -> None:
    assert not hasattr(nb, name)
    with pytest.raises(AttributeError, match=rf"agentnb\.{name} is not in this version of agentnb: .*; what is: nb\.Shell, "):
        getattr(nb, name)


def test_other_names_are_unknown_as_ever() -> None:
    session = Session.__new__(Session)
    with pytest.raises(AttributeError, match="'Session' object has no attribute 'shel'"):
        getattr(session, "shel")  # noqa: B009 - type checkers know that it is wrong
    with pytest.raises(AttributeError, match="module 'agentnb' has no attribute 'Shel'"):
        getattr(nb, "Shel")  # noqa: B009
    assert not hasattr(session, "_repr_html_")
    assert copy.copy(session) is not session


@pytest.mark.parametrize("name", ["serve"])
def test_a_command_that_is_not_in_is_bad_usage_and_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "file", "--x", "y"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"agentnb: the command '{name}' is not in this version of agentnb: ")
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_nothing_that_is_there_is_called_absent(tmp_path: Path) -> None:
    assert not [name for name in nb.__all__ if absent.of_package(name)]
    assert not {*absent.OPTIONS} & {*ExecutionConfig.model_fields}
    assert not [
        name
        for name in ("runs", "steps", "show", "logs", "export", "to", "cancel", "gc", "backup", "doctor", "demo", "lab", "model")
        if absent.of_command(name)
    ]


def test_the_names_that_are_named_are_there() -> None:
    shown = str(absent.of_package("Docker")).rpartition("what is: ")[2].split(", ")
    assert {getattr(nb, name.removeprefix("nb.")) for name in shown} == set(AnySpec.__args__)
