"""The options of a launch: which are about the run's record, which about how it runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from agentnb.absent import OPTIONS
from agentnb.agents.jsonable import clean, jsonable
from agentnb.data import field_names
from agentnb.errors import ConfigError
from agentnb.execution import ExecutionConfig
from agentnb.notebook.budget import OPTIONS as BUDGETS
from agentnb.notebook.budget import bounds_of

#: The options of a launch that are not about how it runs.
RECORD = ("name", "params", "tags", "detach", "reuse", *BUDGETS)
_MAX_NAME = 1000


@dataclass(slots=True)
class LaunchOptions:
    """What is kept with the run, whether it outlives this process or is needed at all, and what it (or its group) may spend."""

    name: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    detach: bool = False
    reuse: bool = False
    budget: dict[str, Any] | None = None


#: What most launches ask for, made once: it cannot be changed.
_PLAIN = ExecutionConfig()


def split(options: Mapping[str, Any], also: Collection[str] = ()) -> tuple[LaunchOptions, ExecutionConfig]:
    """The options of a launch, sorted. Raises ConfigError that names an unknown one and what was perhaps meant.

    `also`: names that the caller takes itself, for its suggestions.
    """
    if not options:
        return LaunchOptions(), _PLAIN
    check_names("launch", options, [*RECORD, *field_names(ExecutionConfig)], also)
    config = {name: value for name, value in options.items() if name not in RECORD}
    given = LaunchOptions(_name(options.get("name")), _params(options.get("params")), clean_tags(options.get("tags")))
    given.detach = _flag("detach", options.get("detach", False))
    given.reuse = _flag("reuse", options.get("reuse", False))
    given.budget = bounds_of(options)
    return given, ExecutionConfig(**config) if config else _PLAIN


def session_defaults(options: Mapping[str, Any]) -> ExecutionConfig:
    """The defaults that a session has for its runs. Raises ConfigError for an unknown option."""
    check_names("Session", options, list(ExecutionConfig.model_fields), ("store", "max_parallel", "tags", "synchronous", *BUDGETS))
    return ExecutionConfig(**options)


def check_names(what: str, options: Collection[str], known: list[str], also: Collection[str] = ()) -> None:
    """Raise ConfigError for the first option that is not known, with what was perhaps meant."""
    for name in options:
        if name in known:
            continue
        if name in OPTIONS:
            raise ConfigError(f"{what}: there is no option {name!r} in this version of agentnb: {OPTIONS[name]}")
        near = get_close_matches(name, [*known, *also], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted([*known, *also]))}"
        call = f" (a keyword argument of a function goes into nb.Python(f, {name}=...))" if what == "launch" else ""
        raise ConfigError(f"{what}: there is no option {name!r}; {hint}{call}")


def _name(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigError(f"name: {value!r} must be a text with something in it")
    if value is not None and len(value) > _MAX_NAME:
        raise ConfigError(f"name: it has {len(value)} characters, more than {_MAX_NAME}; keep long texts in params or tags")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: {value!r} must be True or False")
    return value


def _params(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"params: {value!r} is no mapping; write params={{'name': value}}")
    return {clean(str(name)): jsonable(item, f"params[{name!r}]") for name, item in value.items()}


def clean_tags(value: Any) -> dict[str, str]:
    """Tags as texts. Raises ConfigError for what is no mapping, and for None in it."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"tags: {value!r} is no mapping; write tags={{'topic': 'builds'}}")
    for name, item in value.items():
        if item is None or name is None:
            raise ConfigError(f"tags: {name!r}: {item!r} holds None; give a text, or leave the tag out")
    return {clean(str(name)): clean(str(item)) for name, item in value.items()}


def synchronous(value: Any) -> str:
    """When commits are on the disk: "normal" or "full"; None stands for AGENTNB_SYNCHRONOUS. Raises ConfigError for what is neither."""
    what, found = (
        ("synchronous=", value) if value is not None else ("AGENTNB_SYNCHRONOUS=", os.environ.get("AGENTNB_SYNCHRONOUS") or "normal")
    )
    if found not in ("normal", "full"):
        raise ConfigError(f"{what}{found!r} must be 'normal' or 'full' (on the disk before a run reads started or finished)")
    return str(found)


def parallel(what: str, value: int | None) -> int | None:
    """A bound on how many run at once. Raises ConfigError for what is none."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"{what}={value!r} must be a whole number, 1 or more")
    return value
