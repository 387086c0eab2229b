"""Specs filled with parameters: what a grid point or a row of a DataFrame makes of a spec."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TypeVar

from agentnb.agents import template
from agentnb.agents.context import takes_context
from agentnb.agents.quoting import POSIX_SHELLS
from agentnb.commands import Command, Python, Shell, Test
from agentnb.errors import TemplateError
from agentnb.execution import AnySpec
from agentnb.prompts import LocalModel

#: Options of a local model that a parameter of the same name sets, unless the spec sets them itself.
_MODEL_OPTIONS = ("system", "temperature", "top_p", "seed", "max_tokens")
_SHOWN = 60

_Filled = TypeVar("_Filled", Shell, Test, Command, LocalModel)


def fill(spec: AnySpec, params: Mapping[str, Any]) -> AnySpec:
    """A copy of `spec` with its templates filled.

    Values are shell-quoted in Shell and Test commands and stay one word in a Command. A parameter sets a LocalModel's option,
    or becomes a keyword argument of a Python function, when it has that name and the spec gives no value. Parameters that
    nothing uses are allowed. Raises TemplateError, and ConfigError for a value that the option does not take.
    """
    match spec:
        case Shell():
            return _shell(spec, params)
        case Test():
            return _test(spec, params)
        case Command():
            argv = [_text(word, params, f"argument {number} of {_short(spec.display)}") for number, word in enumerate(spec.argv)]
            return _again(spec, {"argv": argv})
        case LocalModel():
            return _local_model(spec, params)
        case Python():
            return _python(spec, params)


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def _again(spec: _Filled, changes: dict[str, Any]) -> _Filled:
    """The spec made anew, so that changed fields are validated like given ones."""
    given = {name: getattr(spec, name) for name in spec.model_fields_set}
    return type(spec)(**(given | changes))


def _text(text: str, params: Mapping[str, Any], what: str) -> str:
    filled = template.render(text, params, shell=False, what=what)
    if "\0" in filled:
        raise TemplateError(f"{what}: a value contains a NUL character, which no process can be given")
    return filled


def _line(text: str, params: Mapping[str, Any], what: str) -> str:
    return template.render(text, params, shell=True, what=what)  # noqa: S604 - it makes a shell line, quoted


def _shell(spec: Shell, params: Mapping[str, Any]) -> Shell:
    what = f"shell command {_short(spec.command)}"
    command = _line(spec.command, params, what)
    program = PurePath((spec.shell.split() or [""])[0]).name
    if command != spec.command and program not in POSIX_SHELLS:
        raise TemplateError(f"{what}: values cannot be quoted safely for the shell {program!r}; use sh or bash, or pass them in env")
    return _again(spec, {"command": command})


def _test(spec: Test, params: Mapping[str, Any]) -> Test:
    changes = {"command": _line(spec.command, params, f"test command {_short(spec.command)}")}
    if spec.validation_script is not None:
        changes["validation_script"] = _line(spec.validation_script, params, f"validation script {_short(spec.validation_script)}")
    return _again(spec, changes)


def _local_model(spec: LocalModel, params: Mapping[str, Any]) -> LocalModel:
    changes: dict[str, Any] = {"prompt": _text(spec.prompt, params, f"prompt {_short(spec.prompt)}")}
    if spec.system is not None:
        changes["system"] = _text(spec.system, params, f"system prompt {_short(spec.system)}")
    for name in _MODEL_OPTIONS:
        value = params.get(name)
        if name not in spec.model_fields_set and value is not None and not (isinstance(value, float) and math.isnan(value)):
            changes[name] = value.item() if hasattr(value, "item") else value  # a number of numpy is no int
    return _again(spec, changes)


def _python(spec: Python, params: Mapping[str, Any]) -> Python:
    name = getattr(spec.function, "__qualname__", "python")

    def filled(value: Any, what: str) -> Any:
        return template.render_value(value, params, what=f"{name}(): {what}") if isinstance(value, str) else value

    args = tuple(filled(value, f"argument {number}") for number, value in enumerate(spec.args, start=1))
    kwargs = {key: filled(value, f"argument {key!r}") for key, value in spec.kwargs.items()}
    kwargs |= {key: params[key] for key in _open_parameters(spec) if key in params}
    return spec.model_copy(update={"args": args, "kwargs": kwargs})


def _open_parameters(spec: Python) -> list[str]:
    """Names of the parameters that the call leaves open and that can be given by name."""
    try:
        parameters = list(inspect.signature(spec.function).parameters.values())
    except (TypeError, ValueError):  # a function in C without a signature
        return []
    taken = len(spec.args) + takes_context(spec.function)
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    by_name = [p for p in positional[taken:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    by_name += [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return [p.name for p in by_name if p.name not in spec.kwargs]
