"""Specs filled with parameters."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import agentnb.agents.context as nb
from agentnb.agents.fill import fill
from agentnb.commands import Command, Python, Shell, Test
from agentnb.errors import ConfigError, TemplateError
from agentnb.prompts import LocalModel


def test_shell_lines_and_tests_get_quoted_values() -> None:
    assert fill(Shell("wc -l {{path}}", env={"A": "1"}), {"path": "a b", "unused": 1}) == Shell("wc -l 'a b'", env={"A": "1"})
    spec = Test("pytest {{path}}", expected_exit_code=1, validation_script="grep {{word}}")
    assert fill(spec, {"path": "a;b", "word": "$x"}) == Test("pytest 'a;b'", expected_exit_code=1, validation_script="grep '$x'")


@pytest.mark.parametrize("shell", ["fish", "/usr/bin/fish", "tcsh", "python3"])
def test_values_are_refused_for_shells_that_quote_otherwise(shell: str) -> None:
    with pytest.raises(TemplateError, match="cannot be quoted safely"):
        fill(Shell("echo {{x}}", shell=shell), {"x": "a"})
    assert fill(Shell("echo x", shell=shell), {"x": "a"}) == Shell("echo x", shell=shell)


def test_each_word_of_a_command_stays_one_word() -> None:
    filled = fill(Command(["grep", "-e", "{{word}}", "{{dir}}/{{name}}.txt"]), {"word": "a b; $c", "dir": "d e", "name": 1})
    assert isinstance(filled, Command)
    assert filled.argv == ("grep", "-e", "a b; $c", "d e/1.txt")


def test_nul_in_a_value_is_named() -> None:
    for spec in (Shell("echo {{x}}"), Command(["echo", "{{x}}"])):
        with pytest.raises(TemplateError, match="NUL"):
            fill(spec, {"x": "a\0b"})


def test_messages_name_the_template() -> None:
    with pytest.raises(TemplateError, match=r"shell command 'echo \{\{wrd\}\}'.*did you mean 'word'"):
        fill(Shell("echo {{wrd}}"), {"word": 1})
    with pytest.raises(TemplateError, match="argument 1 of"):
        fill(Command(["echo", "{{wrd}}"]), {"word": 1})


def test_a_local_model_takes_options_that_it_does_not_set_itself_from_parameters() -> None:
    row = (
        pd.DataFrame({"prompt": ["Say hi"], "temperature": [0.9], "seed": [7], "max_tokens": [5.0], "top_p": [float("nan")]})
        .iloc[0]
        .to_dict()
    )
    filled = fill(LocalModel(temperature=0.1), row)
    assert isinstance(filled, LocalModel)
    assert (filled.prompt, filled.temperature, filled.seed, filled.max_tokens, filled.top_p) == ("Say hi", 0.1, 7, 5, 0.95)
    assert fill(LocalModel("About {{x}}", system="Be {{y}}"), {"x": "a", "y": "b"}) == LocalModel("About a", system="Be b")


def test_a_parameter_that_the_option_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        fill(LocalModel("x"), {"temperature": 9})


def agent(ctx: nb.RunContext, prompt: str, depth: int = 1, *, tone: str = "", **rest: Any) -> object:
    return ctx, prompt, depth, tone, rest


def test_python_arguments_are_filled_and_open_parameters_given_by_name() -> None:
    filled = fill(Python(agent, "About {{topic}}"), {"topic": "x", "depth": 3, "tone": "dry", "prompt": "no", "ctx": "no"})
    assert isinstance(filled, Python)
    assert filled.args == ("About x",)
    assert filled.kwargs == {"depth": 3, "tone": "dry"}


def test_python_arguments_keep_their_type() -> None:
    items = [1, {"a": 2}]
    filled = fill(Python(agent, "{{items}}", depth="{{n}}", tone=None), {"items": items, "n": 2})
    assert isinstance(filled, Python)
    assert filled.args[0] is items
    assert filled.kwargs == {"depth": 2, "tone": None}


def test_functions_without_a_signature_are_left_alone() -> None:
    assert fill(Python(max, 1, 2), {"x": 1}) == Python(max, 1, 2)
