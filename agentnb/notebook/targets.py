"""Targets: what may be given to a launch, as specs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from agentnb.commands import Python, Spec
from agentnb.errors import ConfigError
from agentnb.execution import AnySpec, ExecutionConfig

_options: dict[type[Spec], frozenset[str]] = {}


def spec_of(target: AnySpec | Callable[..., Any]) -> AnySpec:
    """The target as a spec; a function as nb.Python. Raises ConfigError for what is none, with what to write instead."""
    if isinstance(target, Spec):
        return target
    if isinstance(target, type) and issubclass(target, Spec):
        raise ConfigError(f"launch: {target.__name__} is a class of targets; write nb.{target.__name__}(...)")
    if callable(target):
        return Python(target)
    hint = "nb.Shell(...)" if isinstance(target, str) else "nb.Command([...])" if isinstance(target, list | tuple) else "a spec"
    if inspect.isawaitable(target):
        raise ConfigError(f"launch: {target!r} is what an async function returned; pass the function itself: session.python(function, ...)")
    raise ConfigError(f"launch: {target!r} is no target; write {hint}, or pass a Python function")


def fields_of(cls: type[Spec]) -> frozenset[str]:
    """Those fields of a spec that are options of its launch; looked up once, for each launch asks."""
    if cls not in _options:
        _options[cls] = frozenset(cls.model_fields) - set(ExecutionConfig.model_fields) - {"type", "command", "argv", "prompt"}
    return _options[cls]
