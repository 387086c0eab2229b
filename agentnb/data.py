"""The base of validated data: models that refuse what they do not know, durations and sizes as text, secrets, environments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from agentnb import units
from agentnb.errors import ConfigError

Seconds = Annotated[float, BeforeValidator(units.seconds)]
Bytes = Annotated[int, BeforeValidator(units.bytes_)]

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
            raise ConfigError(_explain(type(self), bad)) from None


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
    from jsonschema.exceptions import SchemaError  # imported late: it costs more than all the rest of this module
    from jsonschema.validators import validator_for

    try:
        validator_for(value).check_schema(value)
    except SchemaError as bad:
        raise ConfigError(f"json_schema: {bad.message} (at {bad.json_path})") from None
    return value


#: A JSON Schema, checked.
JsonSchema = Annotated[dict[str, Any], BeforeValidator(_schema)]
