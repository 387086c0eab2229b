"""Fingerprints of Python functions and values: equal in every process where they are made of the same code and data.

Pickles will not do: they differ by the order of sets, by which texts happen to be the same object, by the lines that code stands on.
So values are walked here. A function is its bytecode, constants, defaults, closure and whatever its code names: functions and classes of
the notebook or script likewise, modules of the user's own by their source (and that of all they import), installed packages by their
versions. An object is what its pickle would be made of. What cannot be told apart by all that is refused, never taken for equal.
"""

from __future__ import annotations

import builtins
import contextlib
import copyreg
import enum
import hashlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentnb.agents.bytecode import found_at, made_of, names_in, values_of
from agentnb.agents.own_code import is_own_file, library, sources
from agentnb.data import Secret
from agentnb.errors import ConfigError

#: More parts than this are no code and data that a person meant to be compared.
MAX_PARTS = 1_000_000
#: What every class has, and what other things of it already say.
_NO_PART = frozenset({
    "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__firstlineno__", "__static_attributes__",
    "_abc_impl", "__abstractmethods__", "__dataclass_fields__", "__dataclass_params__", "__orig_bases__", "__parameters__",
})  # fmt: skip
_MUTED = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
_FEW = 80


class Unkeyable(ConfigError):
    """A value that cannot be told from another one."""


class Fingerprint:
    """One digest, fed with values. What is defined (functions, classes, modules, objects) is walked once and numbered after that."""

    def __init__(self) -> None:
        """Nothing is in it yet."""
        self._digest = hashlib.sha256()
        self._numbers: dict[int, tuple[int, object]] = {}  # the objects are kept, so that none gets another one's id
        self._inside: dict[int, int] = {}
        self._place: list[str] = []
        self._parts = 0

    def hexdigest(self) -> str:
        """Of all so far."""
        return self._digest.hexdigest()

    def add(self, value: object, what: str) -> Fingerprint:
        """Take a value; `what` names it in messages. Raises ConfigError for one that cannot be told from another one."""
        with self._at(what):
            try:
                self._walk(value)
            except RecursionError:
                raise Unkeyable(f"reuse: {' of '.join(self._place[:1])}: it is nested too deeply to be compared") from None
        return self

    @contextlib.contextmanager
    def _at(self, what: str) -> Iterator[None]:
        self._place.append(what)
        yield
        self._place.pop()  # not when it raises: the message says where

    def _refuse(self, value: object, why: object) -> Unkeyable:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        place = " of ".join(reversed(self._place))
        return Unkeyable(
            f"reuse: {place} is a {kind}, of which nobody can tell whether it is the same ({str(why)[:200]}); "
            "make it inside of the function, pass plain data, or leave reuse out"
        )

    def _feed(self, tag: str, data: bytes = b"") -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Unkeyable(f"reuse: {self._place[0]} has more than {MAX_PARTS:,} parts; write the data to a file and name it in inputs=")
        self._digest.update(f"{tag}:{len(data)}:".encode())
        self._digest.update(data)

    def _text(self, tag: str, text: str) -> None:
        self._feed(tag, text.encode("utf-8", "surrogatepass"))

    # --- values

    def _walk(self, value: object) -> None:
        if isinstance(value, _MUTED) and type(value) in _MUTED:
            self._plain(value)
        elif type(value) in {list, tuple, dict, set, frozenset}:
            self._container(value)
        elif isinstance(value, Secret):
            self._text("secret", value.reveal())
        elif type(value).__module__ == "numpy" and type(value).__name__ == "ndarray":
            self._array(value)
        elif id(value) in self._numbers:
            self._feed("again", str(self._numbers[id(value)][0]).encode())
        else:
            self._numbers[id(value)] = (len(self._numbers), value)
            self._defined(value)

    def _plain(self, value: Any) -> None:
        if isinstance(value, bytes):
            self._feed("bytes", value)
        elif isinstance(value, str):
            self._text("str", value)
        elif type(value) is int:  # of any size: decimal digits are limited
            self._feed("int", hex(value).encode())
        else:
            self._feed(type(value).__name__, repr(value).encode())

    def _container(self, value: Any) -> None:
        if id(value) in self._inside:  # it is in itself
            self._feed("around", str(len(self._inside) - self._inside[id(value)]).encode())
            return
        self._inside[id(value)] = len(self._inside)
        self._feed(type(value).__name__, str(len(value)).encode())
        if isinstance(value, dict):
            for key, item in value.items():
                self._walk(key)
                with self._at(f"item {str(key)[:_FEW]!r}"):
                    self._walk(item)
        elif isinstance(value, set | frozenset):
            for part in sorted(self._apart(item) for item in value):
                self._text("item", part)
        else:
            for item in value:
                self._walk(item)
        del self._inside[id(value)]

    def _apart(self, value: object) -> str:
        """A fingerprint of its own: what a set holds comes in any order."""
        return Fingerprint().add(value, " of ".join(reversed(self._place))).hexdigest()

    def _array(self, value: Any) -> None:
        self._text("array", f"{value.dtype.str} {value.dtype.descr} {value.shape}")
        if value.dtype.hasobject:
            self._walk(value.tolist())
        else:
            self._feed("data", value.tobytes())

    def _defined(self, value: object) -> None:
        match value:
            case types.FunctionType():
                self._function(value)
            case types.ModuleType():
                self._module(value.__name__)
            case type():
                self._class(value)
            case types.BuiltinFunctionType():
                self._text("builtin", f"{value.__module__}.{value.__qualname__}")
                if value.__self__ is not None and not isinstance(value.__self__, types.ModuleType):
                    self._walk(value.__self__)
            case _ if (parts := made_of(value)) is not None:
                self._text("made of", type(value).__qualname__)
                for part in parts:
                    self._walk(part)
            case _:
                self._object(value)

    # --- code

    def _function(self, function: types.FunctionType) -> None:
        package = library(function.__module__)
        if package is not None and found_at(function):
            self._text("library", f"{package} {function.__module__}.{function.__qualname__}")
            return
        with self._at(f"{function.__qualname__}()"):
            self._feed("function")
            if is_own_file(function.__module__):
                self._sources(function.__module__)
            self._code(function.__code__)
            for what, value in values_of(function):
                with self._at(what):
                    self._walk(value)
            self._named(function)

    def _code(self, code: types.CodeType) -> None:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        self._text("code", f"{counts} {names}")
        self._feed("bytecode", code.co_code + getattr(code, "co_exceptiontable", b""))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            else:
                self._walk(constant)

    def _named(self, function: types.FunctionType) -> None:
        """What the code takes by name from outside of it."""
        names, imported, attributes = names_in(function.__code__)
        for name in sorted(names):
            if name in function.__globals__:
                value = function.__globals__[name]
                with self._at(f"global {name!r}"):
                    self._text("global", name)
                    self._walk(value)
                    if isinstance(value, types.ModuleType) and library(value.__name__) is None:
                        self._live(value, attributes)
            else:
                self._text("builtin" if hasattr(builtins, name) else "missing", name)
        for name in sorted(imported):
            with self._at(f"import of {name}"):
                self._module(name)

    def _live(self, module: types.ModuleType, attributes: Iterable[str]) -> None:
        """What an own module holds now under the names that the code may ask it for: somebody may have set it since."""
        for name in sorted(set(attributes) & vars(module).keys()):
            with self._at(f"{module.__name__}.{name}"):
                self._text("attribute", name)
                self._walk(vars(module)[name])

    def _module(self, name: str) -> None:
        package = library(name)
        if package is None:
            self._sources(name)
        else:
            self._text("library", f"{package} {name}")

    def _sources(self, name: str) -> None:
        for line in sources(name):
            self._text("source", line)

    def _class(self, cls: type) -> None:
        package = library(cls.__module__)
        self._text("class", f"{package} {cls.__module__}.{cls.__qualname__}")
        if package is not None and (found_at(cls) or cls.__module__ == "builtins"):
            return
        if is_own_file(cls.__module__):
            self._sources(cls.__module__)
        for base in (*cls.__bases__, type(cls)):
            self._walk(base)
        with self._at(cls.__qualname__):
            if issubclass(cls, enum.Enum):
                self._container({name: member.value for name, member in cls.__members__.items()})
            for name, value in sorted(vars(cls).items()):
                if name not in _NO_PART and not _is_generated(cls, name, value):
                    self._member(name, value)

    def _member(self, name: str, value: object) -> None:
        self._text("member", name)
        if not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType):
            with self._at(f"attribute {name!r}"):
                self._walk(value)

    # --- other objects

    def _object(self, value: Any) -> None:
        if self._of_ours(value):
            return
        if isinstance(value, enum.Enum):
            self._walk(type(value))
            self._text("member", value.name)
            return
        reduced = self._reduced(value)
        if isinstance(reduced, str):
            self._text("name", f"{type(value).__module__}.{type(value).__qualname__} {reduced}")
            return
        function, args, *rest = reduced
        state, items, pairs = (*rest, None, None, None)[:3]
        self._feed("object")
        for part in (function, args, state):
            self._walk(part)
        self._walk(list(items) if items is not None else None)
        self._walk(dict(pairs) if pairs is not None else None)

    def _reduced(self, value: Any) -> Any:
        try:
            special = copyreg.dispatch_table.get(type(value))
            return special(value) if special is not None else value.__reduce_ex__(4)
        except Exception as bad:  # noqa: BLE001 - each type has its own way to refuse
            raise self._refuse(value, bad) from None

    def _of_ours(self, value: Any) -> bool:
        """Sessions are means, not data; a run that ended is what it is for ever."""
        home = type(value).__module__
        if home == "agentnb.notebook.session":
            self._feed("session")
        elif home == "agentnb.notebook.handles":
            self._text("run", value.id)
        elif home.startswith("agentnb.notebook."):
            raise self._refuse(value, "it lives")
        else:
            return False
        return True


def _is_generated(cls: type, name: str, value: object) -> bool:
    """What enum, pydantic and the like put into a class by what is in it, or while it is used."""
    if issubclass(cls, enum.Enum):
        return name.startswith("_") or isinstance(value, enum.Enum)
    return name.startswith("__pydantic_") or (hasattr(cls, "__pydantic_fields__") and name.startswith("model_"))


def fingerprint(values: Mapping[str, object]) -> str:
    """The fingerprint of named values. Raises ConfigError for one that cannot be told from another one."""
    made = Fingerprint()
    for name, value in values.items():
        made.add(value, name)
    return made.hexdigest()
