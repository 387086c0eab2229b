"""The base of validated data: models that refuse what they do not know, durations and sizes as text, secrets, environments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from agentnb import units
from agentnb.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Seconds = Annotated[float, BeforeValidator(units.seconds)]
Bytes = Annotated[int, BeforeValidator(units.bytes_)]

#: What faults that pydantic finds ask for, in a few words.
_WANTED = (
    dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "a mapping")
    | dict.fromkeys(("tuple_type", "list_type"), "a list")
    | dict.fromkeys(("bool_type", "bool_parsing"), "true or false")
    | dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number")
    | dict.fromkeys(("float_type", "float_parsing"), "a number")
    | {"string_type": "text"}
)
#: The longest value that a message shows.
_SHOWN = 80

#: What may be given for a duration and for a size; type checkers read it in the constructors below.
Duration = float | str | timedelta
Size = int | str


@cache
def field_names(cls: type[BaseModel]) -> tuple[str, ...]:
    """The names of a model's fields, looked up once: pydantic makes its mapping anew each time it is asked."""
    return tuple(cls.model_fields)


class Data(BaseModel):
    """Base of the specs and configs: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, /, **fields: Any) -> None:
        """Validate the fields. Raises ConfigError that names each bad one and what would be right."""
        try:
            super().__init__(**fields)
        except ValidationError as bad:
            error = ConfigError(_explain(type(self), bad))
            error.parts = tuple(parts_of(type(self), bad))
            raise error from None


def _explain(cls: type[BaseModel], bad: ValidationError) -> str:
    lines = []
    for fault in bad.errors():
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = get_close_matches(place, cls.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(cls.model_fields))}"
            lines.append(f"{cls.__name__}: there is no option {place!r}; {hint}")
        elif fault["type"] == "value_error":
            message = str(fault["ctx"]["error"])
            lines.append(message if message.startswith(place) else f"{place}: {message}")
        else:
            lines.append(f"{cls.__name__}.{place}: {fault['msg']}, not {fault['input']!r}")
    return "\n".join(lines)


def parts_of(cls: type[BaseModel], bad: ValidationError) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each fault by itself, also those of data inside: where it is (with the names of the alternatives tried), and what is wrong."""
    faults = bad.errors()
    for fault in faults:
        place = fault["loc"]
        if fault["type"] == "too_short" and any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in faults):
            continue  # its items are there, but wrong
        inner = fault["ctx"]["error"] if fault["type"] == "value_error" else None
        if isinstance(inner, ConfigError) and inner.parts:
            yield from ((place + deeper, message) for deeper, message in inner.parts)
        else:
            yield place, _message(cls, fault)


def _message(cls: type[BaseModel], fault: ErrorDetails) -> str:
    """What is wrong, without where."""
    kind, name = fault["type"], str(fault["loc"][-1]) if fault["loc"] else ""
    context = fault.get("ctx", {})
    if kind == "extra_forbidden":
        known = [field.alias or name for name, field in cls.model_fields.items()]
        near = get_close_matches(name, known, n=1)
        return f"there is no {name!r} here; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
    if kind == "missing":
        return "it is missing"
    if kind == "value_error":
        return str(context["error"]).removeprefix(f"{name}: ")
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return _tag(context, found=kind == "union_tag_invalid")
    shown = repr(fault["input"])
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."
    if kind == "string_type" and not isinstance(fault["input"], dict | list):
        return f"it must be text, not {shown}; put it into quotes"
    if kind == "too_short":
        return "it is empty; give at least one"
    if (wanted := _WANTED.get(kind)) is not None:
        return f"it must be {wanted}, not {shown}"
    text = fault["msg"].removeprefix("Input ").removeprefix("Value ")
    return f"{text[:1].lower()}{text[1:]}, not {shown}"


def _tag(context: Mapping[str, Any], *, found: bool) -> str:
    """What is wrong with what tells alternatives apart, such as ``type``."""
    name, tags = str(context["discriminator"]).strip("'"), str(context.get("expected_tags", ""))
    if not found:
        return f"it says no {name}; " + (f"it is one of {tags}" if tags else "give one")
    near = get_close_matches(str(context["tag"]), re.findall(r"'(\w+)'", tags), n=1)
    return f"there is no {name} {context['tag']!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {tags}")


class Secret:
    """A value that must not be seen: ``env={"TOKEN": nb.Secret("...")}``.

    The child gets the value; the store, logs, views and tracebacks never do: where output, names, commands, parameters, tags, results
    or text kept as an artifact contain it, they show ``***``. Files that are kept as artifacts stay as they are.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep the value; an empty one is refused, because it could not be masked."""
        if not isinstance(value, str) or not value:
            raise ConfigError("Secret: the value must be a text of at least one character")
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        """Never the value."""
        return "Secret('***')"

    __str__ = __repr__

    def __reduce__(self) -> tuple[object, ...]:
        """Refuse to be pickled."""
        raise TypeError("a Secret cannot be pickled; pass it through env={...}")


def _env(value: Mapping[str, Any]) -> dict[str, str | Secret]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"env: {value!r} is not a mapping; write env={{'NAME': 'value'}}")
    clean: dict[str, str | Secret] = {}
    for name, item in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigError(f"env: {name!r} is not a usable variable name")
        if isinstance(item, Secret):
            clean[name] = item
        elif isinstance(item, str | int | float | Path) and not isinstance(item, bool):
            clean[name] = str(item)
        else:
            raise ConfigError(f"env[{name!r}]: {item!r} must be text, a number or nb.Secret(...)")
        if isinstance(item, str) and "\0" in item:
            raise ConfigError(f"env[{name!r}]: the value contains a NUL character, which no process can be given")
    return clean


Env = Annotated[dict[str, str | Secret], BeforeValidator(_env)]


def _schema(value: object) -> object:
    if not isinstance(value, dict):
        return value
    from agentnb.json_schemas import faults  # imported late: it costs more than all the rest of this module

    if found := faults(value):
        (place, message), *_ = found
        error = ConfigError(f"json_schema: {message} (at {'.'.join(['$', *map(str, place)])})")
        error.parts = tuple(found)
        raise error
    return value


#: A JSON Schema, checked.
JsonSchema = Annotated[dict[str, Any], BeforeValidator(_schema)]
