"""What Python functions are made of: what wraps them, what their bytecode takes from outside, and a quick digest of it."""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

_BY_NAME = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})


def made_of(value: object) -> tuple[object, ...] | None:
    """What wraps functions, and says all that it is by these; None for any other value."""
    match value:
        case types.MethodType():
            return value.__func__, value.__self__
        case staticmethod() | classmethod():
            return (value.__func__,)
        case property():
            return value.fget, value.fset, value.fdel
        case functools.cached_property():
            return (value.func,)
        case types.MappingProxyType():
            return (dict(value),)
        case _ if hasattr(value, "__wrapped__") and type(value).__module__ == "functools":
            return (value.__wrapped__,)
    return None


def found_at(value: Any) -> bool:
    """Whether it is what its module has under its name."""
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def values_of(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """Defaults, closure and attributes of a function."""
    yield "defaults", function.__defaults__
    yield "defaults", function.__kwdefaults__ and dict(sorted(function.__kwdefaults__.items()))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # empty: the function will fail, or is just being defined
            yield f"variable {name!r}", cell.cell_contents
    yield "attributes", {name: value for name, value in vars(function).items() if name != "__wrapped__"}


def names_in(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """Names of globals that the code reads, modules that it imports, and attributes that it may ask for."""
    names, imported, attributes = set[str](), set[str](), set(code.co_names)
    for instruction in dis.get_instructions(code):
        if instruction.opname in _BY_NAME:
            names.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME" and instruction.argval:
            imported.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = names_in(constant)
            names, imported, attributes = names | inner[0], imported | inner[1], attributes | inner[2]
    return names, imported, attributes


def shallow(function: Callable[..., Any]) -> str | None:
    """A digest of a function's own code, quickly made, without what it calls; None for one that has no code in Python."""
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    code = getattr(inner, "__code__", None)
    return _shallow(code) if isinstance(code, types.CodeType) else None


@functools.lru_cache(maxsize=1024)
def _shallow(code: types.CodeType) -> str:
    digest = hashlib.sha256(repr((code.co_varnames, code.co_names)).encode("utf-8", "surrogatepass") + code.co_code)
    for constant in code.co_consts:
        text = _shallow(constant) if isinstance(constant, types.CodeType) else _stable(constant)
        digest.update(text.encode("utf-8", "surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


def _stable(constant: object) -> str:
    return repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)
