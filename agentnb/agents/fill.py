"""Specs filled with parameters: what a grid point or a row of a DataFrame makes of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentnb.agents.adapters import AnySpecT, adapter_of
from agentnb.declared import Declared


def fill(spec: AnySpecT, params: Mapping[str, Any]) -> AnySpecT:
    """A copy of `spec` with its templates filled.

    Values are shell-quoted in Shell and Test commands and stay one word in a Command. A parameter sets an option of a model,
    or becomes a keyword argument of a Python function, when it has that name and the spec gives no value. Parameters that
    nothing uses are allowed. Raises TemplateError, and ConfigError for a value that the option does not take.
    """
    filled: AnySpecT = adapter_of(spec).fill(spec, params)
    return filled


def named(spec: AnySpecT) -> AnySpecT:
    """The spec; one that a file describes, under the name that the file gives it. Raises SpecError."""
    if not isinstance(spec, Declared):
        return spec
    adapter: Any = adapter_of(spec)
    found: AnySpecT = adapter.named(spec)
    return found
