"""Filling templates of specs with parameters: what adapters share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from agentnb.agents import template
from agentnb.commands import Spec
from agentnb.errors import TemplateError

_SHOWN = 60

_Filled = TypeVar("_Filled", bound=Spec)


def short(text: str) -> str:
    """A text for messages, quoted and cut."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def again(spec: _Filled, changes: dict[str, Any]) -> _Filled:
    """The spec made anew, so that changed fields are validated like given ones."""
    given = {name: getattr(spec, name) for name in spec.model_fields_set}
    return type(spec)(**(given | changes))


def text(given: str, params: Mapping[str, Any], what: str) -> str:
    """A plain text, filled. Raises TemplateError, also for NUL characters."""
    filled = template.render(given, params, shell=False, what=what)
    if "\0" in filled:
        raise TemplateError(f"{what}: a value contains a NUL character, which no process can be given")
    return filled


def line(given: str, params: Mapping[str, Any], what: str) -> str:
    """A line for a shell, filled with quoted values. Raises TemplateError where quoting would not protect a value."""
    return template.render(given, params, shell=True, what=what)  # noqa: S604 - it makes a shell line, quoted


def options(spec: Spec, params: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Values for those fields of `names` that the spec leaves open and a parameter of the same name gives."""
    found: dict[str, Any] = {}
    for name in names:
        value = params.get(name)
        if name not in spec.model_fields_set and value is not None and not (isinstance(value, float) and math.isnan(value)):
            found[name] = value.item() if hasattr(value, "item") else value  # a number of numpy is no int
    return found
