"""The options of a launch: which are about the run's record, which about how it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from agentnb.agents.jsonable import jsonable
from agentnb.commands import ExecutionConfig, Shell
from agentnb.errors import ConfigError

_RECORD = ("name", "params", "tags")
_HANDLERS = ("on_success", "on_failure", "cleanup")


@dataclass(slots=True)
class LaunchOptions:
    """What is kept with the run."""

    name: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def split(options: Mapping[str, Any]) -> tuple[LaunchOptions, ExecutionConfig]:
    """The options of a launch, sorted. Raises ConfigError that names an unknown one and what was perhaps meant."""
    known = [*_RECORD, *ExecutionConfig.model_fields]
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"launch: there is no option {name!r}; {hint} (a keyword argument of a function goes into nb.Python(f, {name}=...))")
    config = {name: value for name, value in options.items() if name not in _RECORD}
    for name in _HANDLERS:
        if isinstance(config.get(name), str):
            config[name] = Shell(config[name])
    return LaunchOptions(_name(options.get("name")), _params(options.get("params")), clean_tags(options.get("tags"))), ExecutionConfig(**config)


def _name(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigError(f"name: {value!r} must be a text with something in it")
    return value


def _params(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"params: {value!r} is no mapping; write params={{'name': value}}")
    return {str(name): jsonable(item, f"params[{name!r}]") for name, item in value.items()}


def clean_tags(value: Any) -> dict[str, str]:
    """Tags as texts. Raises ConfigError for what is no mapping."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"tags: {value!r} is no mapping; write tags={{'topic': 'builds'}}")
    return {str(name): str(item) for name, item in value.items()}
