"""Options written as text, as a magic's line has them: which there are is told by the fields of specs and configs.

``--max-turns 3``, ``--max_turns=3`` and ``--retry.max_attempts 3`` set fields of those names; flags stand alone (``--detach``); lists
and mappings are given by saying the option again (``--tool Read --tool Grep``, ``--env A=1 --env B=2``), or as JSON. Numbers are
taken as such where a field wants one, and what is wrong is said by the field itself.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from agentnb.absent import OPTIONS as ABSENT
from agentnb.commands import Spec
from agentnb.data import Data
from agentnb.errors import ConfigError

Shape = Literal["text", "flag", "maybe", "list", "mapping", "data"]
_NUMBER = re.compile(r"-?\d+")
_DECIMAL = re.compile(r"-?\d+\.\d+|-?\d+(?:\.\d+)?[eE][+-]?\d+")


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `shape`: how it is given; "maybe" is a flag that may have a text. `choices`: all values it may have, if they are few.

    `number`: whether it takes numbers; `text`: whether a text is one of its values; `models`: the classes of which it makes one.
    """

    name: str
    shape: Shape = "text"
    choices: tuple[str, ...] = ()
    number: bool = False
    text: bool = True
    models: tuple[type[Data], ...] = ()

    @property
    def shown(self) -> str:
        """As people write it: ``--max-turns``."""
        return "--" + self.name.replace("_", "-")

    @property
    def repeats(self) -> bool:
        """Whether it may be given more than once."""
        return self.shape in {"list", "mapping"}


def options_of(cls: type[Data], names: Collection[str] | None = None) -> dict[str, Option]:
    """The options that fields of `cls` are, by name; `names`: only these. Fields that hold data of their own have dotted ones, too."""
    found: dict[str, Option] = {}
    for name, field in cls.model_fields.items():
        if name == "type" or (names is not None and name not in names):
            continue
        option = option_of(name, field.annotation)
        found[name] = option
        for model in option.models:
            found |= {f"{name}.{inner}": _inside(name, part) for inner, part in options_of(model).items() if "." not in inner}
    return found


def option_of(name: str, annotation: Any) -> Option:
    """The option that sets a value of this type."""
    leaves = set(_leaves(annotation)) - {NoneType}
    origins = {get_origin(leaf) or leaf for leaf in leaves}
    models = tuple(leaf for leaf in _leaves(annotation) if isinstance(leaf, type) and issubclass(leaf, Data))
    text = str in origins
    if models and not any(issubclass(model, Spec) for model in models):
        kinds = tuple(str(model.model_fields["type"].default) for model in models if "type" in model.model_fields)
        return Option(name, "data", kinds, models=models, text=False)
    shape: Shape = "text"
    if origins & {tuple, list}:
        shape = "list"
    elif dict in origins:
        shape = "mapping"
    elif bool in origins:
        shape = "maybe" if len(origins) > 1 else "flag"
    items = [item for leaf in leaves if get_origin(leaf) in {tuple, dict} for item in get_args(leaf) if item is not ...]
    number = bool((origins | set(items)) & {int, float, Any}) and not text
    return Option(name, shape, tuple(dict.fromkeys(_choices([*leaves, *items]))), number, text)


def _inside(head: str, part: Option) -> Option:
    return Option(f"{head}.{part.name}", part.shape, part.choices, part.number, part.text)


def _leaves(annotation: Any) -> list[Any]:
    """The types that a union is made of, without their annotations."""
    if get_origin(annotation) is Annotated:
        return _leaves(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [leaf for part in get_args(annotation) for leaf in _leaves(part)]
    return [annotation]


def _choices(leaves: Iterable[Any]) -> Iterable[str]:
    for leaf in leaves:
        if get_origin(leaf) is Literal:
            yield from (str(value) for value in get_args(leaf))
        elif isinstance(leaf, type) and issubclass(leaf, Enum):
            yield from (str(member.value) for member in leaf)


# --- from the line to values ------------------------------------------------------------------------------------------------


def words(line: str) -> list[str]:
    """The words of a line; quotes hold words together as in a shell. Raises ConfigError for a quote that is not closed."""
    try:
        return shlex.split(line)
    except ValueError as bad:
        raise ConfigError(f"{bad} in: {line.strip()}") from None


def parse(given: list[str], options: Mapping[str, Option]) -> tuple[list[str], dict[str, Any]]:
    """The words that are no options, and the values of the options by name. Raises ConfigError for an unknown or unfinished one."""
    rest, found, at = list[str](), dict[str, list[str | bool]](), 0
    while at < len(given):
        word, at = given[at], at + 1
        if not _is_option(word):
            rest.append(word)
            continue
        name, equals, text = word.partition("=")
        option = find(name, options)
        value: str | bool = text
        if not equals:
            follows = at < len(given) and not _is_option(given[at])
            value = option.shape in {"flag", "maybe"} and (option.shape == "flag" or not follows)
            if not value:
                if not follows:
                    raise ConfigError(f"{name} needs a value; one that begins with '-' is given as {name}=VALUE{_among(option)}")
                value, at = given[at], at + 1
        found.setdefault(option.name, []).append(value)
    return rest, _nested({name: _value(options[name], values) for name, values in found.items()}, options)


def _is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and (word[1] == "-" or word == "-p" or word[1].isalpha())


def find(name: str, options: Mapping[str, Option]) -> Option:
    """The option that is written like this. Raises ConfigError for one that is not there, with what was perhaps meant."""
    plain = "params" if name == "-p" else name.lstrip("-").replace("-", "_")
    if plain in options:
        return options[plain]
    if f"{plain}s" in options and options[f"{plain}s"].repeats:
        return options[f"{plain}s"]
    if plain in ABSENT:
        raise ConfigError(f"there is no option {name}: {ABSENT[plain]}")
    heads = [option for option in options.values() if "." not in option.name or plain.partition(".")[0] == option.name.partition(".")[0]]
    near = get_close_matches(plain, [option.name for option in heads], n=1)
    known = ", ".join(option.shown for option in heads)
    raise ConfigError(f"there is no option {name}; {f'did you mean {options[near[0]].shown}?' if near else f'known: {known}'}")


def _among(option: Option) -> str:
    return f" (one of {', '.join(option.choices)})" if option.choices else ""


def _value(option: Option, values: list[str | bool]) -> Any:
    if option.repeats:
        texts = [str(value) for value in values]
        return _mapping(option, texts) if option.shape == "mapping" else _list(option, texts)
    if len(values) > 1:
        raise ConfigError(f"{option.shown} is given {len(values)} times")
    [value] = values
    if isinstance(value, bool) or option.shape == "flag":
        return _flag(option, value)
    if option.shape == "data":
        return _data(option, value)
    return _number(value) if option.number else value


def _flag(option: Option, value: str | bool) -> bool:  # noqa: FBT001 - what the line says
    if isinstance(value, str) and value.lower() not in {"true", "false"}:
        raise ConfigError(f"{option.shown} is a flag and stands alone, without a value; not {value!r}")
    return value is True or str(value).lower() == "true"


def _number(text: str) -> Any:
    if _NUMBER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _json(option: Option, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as bad:
        raise ConfigError(f"{option.shown}: {text!r} is no JSON: {bad}") from None


def _list(option: Option, texts: list[str]) -> Any:
    found: list[Any] = []
    for text in texts:
        try:
            items = json.loads(text) if text.startswith("[") else None
        except ValueError:  # a text that begins like a list, such as a pattern
            items = None
        if isinstance(items, list):
            found += items
        else:
            found.append(_number(text) if option.number else text)
    return found[0] if option.text and len(texts) == 1 and found == texts else found


def _mapping(option: Option, texts: list[str]) -> Any:
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if text.lstrip().startswith("{"):
            part = _json(option, text)
            if not isinstance(part, dict):
                raise ConfigError(f"{option.shown}: {text!r} is no JSON object")
            found |= part
        elif option.text and len(texts) == 1:
            return text
        elif not equals or not name:
            raise ConfigError(f"{option.shown}: {text!r} must be NAME=VALUE, or a JSON object in single quotes")
        else:
            found[name] = exact(value) if option.number else value
    return found


def exact(text: str) -> Any:
    """The number that `text` is, if Python writes it so; else the text itself: ``3`` is a number, ``007`` and ``1.10`` are not."""
    number = _number(text)
    return number if str(number) == text else text


def _data(option: Option, text: str) -> Any:
    if text.lstrip().startswith("{"):
        return _json(option, text)
    if text not in option.choices:
        say = f"it is one of {', '.join(option.choices)}" if option.choices else f"set its parts, such as {option.shown}.{_first(option)}"
        raise ConfigError(f"{option.shown}: {text!r} cannot be used; {say}")
    return {"type": text}


def _first(option: Option) -> str:
    return next(iter(option.models[0].model_fields))


def _nested(values: dict[str, Any], options: Mapping[str, Option]) -> dict[str, Any]:
    """Dotted options gathered into the data that they are parts of."""
    flat = {name: value for name, value in values.items() if "." not in name}
    parts: dict[str, dict[str, Any]] = {name: dict(value) for name, value in flat.items() if options[name].models}
    for name, value in values.items():
        head, dot, inner = name.partition(".")
        if dot:
            parts.setdefault(head, {})[inner] = value
    return flat | {name: _made(options[name], fields) for name, fields in parts.items()}


def _made(option: Option, fields: dict[str, Any]) -> Data:
    kind = fields.pop("type", None)
    if option.choices and kind is None:
        raise ConfigError(f"{option.shown}: say which: {', '.join(f'{option.shown} {choice}' for choice in option.choices)}")
    cls = option.models[option.choices.index(kind)] if kind in option.choices else option.models[0]
    return cls(**fields)
