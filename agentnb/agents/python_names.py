"""Functions by their names, ``package.module:function``, as targets."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agentnb.agents.python import check_call, is_async
from agentnb.commands import Python
from agentnb.errors import ConfigError


def call_of(who: str, name: str, kwargs: Mapping[str, Any]) -> Python:
    """A call of the function. `who`: whose it is, for messages. Raises ConfigError when it cannot be found, or not called so."""
    call = Python(function_of(who, name), **kwargs)
    check_call(call)
    return call


def function_of(who: str, name: str) -> Any:
    """The function. `who`: whose it is, for messages. Raises ConfigError when it cannot be found, or is an `async def`."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
    except Exception as bad:  # noqa: BLE001 - importing runs anybody's code
        raise ConfigError(f"{who}: the module {module!r} cannot be imported: {type(bad).__name__}: {bad}") from None
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigError(f"{who}: there is no function {path!r} in the module {module!r}")
    if is_async(found):
        raise ConfigError(f"{who}: {name} is an `async def`, which lives in the notebook's process; write it as `def`")
    return found
