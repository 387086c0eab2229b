"""What of a launch is put down in its record, so that it can be made again: where and how it was to run, a Python function's call.

Values of variables (``env=``) are never put down, only their names, and nothing that is masked; where that is too little, it says why.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from agentnb.agents.bytecode import shallow
from agentnb.agents.fill import fill
from agentnb.commands import Command, Python, Shell, Spec
from agentnb.data import Data, Secret, field_names
from agentnb.declared import Declared
from agentnb.errors import ConfigError
from agentnb.execution import AnySpec, ExecutionConfig, Handler, Limits, Retry, Validation
from agentnb.workspaces import Shared, TempCopy, Worktree

Json = dict[str, Any]

#: A larger text, or call of a Python function, is not put down.
MOST = 64 * 1024
_SECRET = "***"  # noqa: S105 - what stands for one
_WORKSPACES: dict[str, type[Data]] = {"worktree": Worktree, "temp_copy": TempCopy, "shared": Shared}
_PARTS: dict[str, type[Data]] = {"retry": Retry, "limits": Limits, "validation": Validation}


class Lost(ConfigError):
    """A launch that cannot be made again from its record."""


class NoValues(Lost):
    """Variables whose values are not kept, and were not given; `names`: which."""

    def __init__(self, names: Collection[str]) -> None:
        """With what to do about it."""
        self.names = sorted(names)
        given = ", ".join(f"{name!r}: ..." for name in self.names)
        super().__init__(f"values of variables are not kept; give them: resume(env={{{given}}})")


def check_values(target: Json, again: Json, env: Collection[str]) -> None:
    """Raise NoValues when `env` lacks variables that a launch had, or secrets that its target had."""
    names = {name for part in ("config", "defaults") for name in again.get(part, {}).get("env", ())}
    names |= {name for name, value in ((target.get("spec") or {}).get("env") or {}).items() if value == _SECRET}
    if missing := names - set(env):
        raise NoValues(missing)


def written(config: ExecutionConfig) -> Json:
    """The options that are set, as JSON: of `env` the names. What cannot be put down is under "lost", as why not."""
    found: Json = {}
    for name in field_names(ExecutionConfig):
        value = getattr(config, name) if name in config.model_fields_set else None
        if value in (None, (), {}):
            continue
        if name == "env":
            found[name] = sorted(value)
        elif isinstance(value, str) and len(value) > MOST:
            found.setdefault("lost", []).append(f"its {name} has more than {MOST // 1024} KiB, which are not kept")
        elif _SECRET in str(plain := _plain(value)) and _holds_secret(value):
            found.setdefault("lost", []).append(f"its {name} has a secret, which is not kept")
        else:
            found[name] = plain
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Data):
        return {name: _plain(item) for name in field_names(type(value)) if (item := getattr(value, name)) is not None}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Secret):
        return _SECRET
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _holds_secret(value: Any) -> bool:
    """Whether a command that runs afterwards has one in its environment."""
    command = value.command if isinstance(value, Handler) else value
    return any(isinstance(item, Secret) for item in getattr(command, "env", {}).values())


def config_of(record: Json, env: Mapping[str, str | Secret]) -> ExecutionConfig:
    """The options that `written` put down, with the values of their variables from `env`, which has them all. Raises Lost."""
    if lost := record.get("lost"):
        raise Lost("; ".join(lost))
    options = dict(record)
    if names := options.pop("env", None):
        options["env"] = {name: env[name] for name in names}
    for name, value in options.items():
        if name in _PARTS:
            options[name] = _PARTS[name](**value)
        elif name == "workspace":
            options[name] = _WORKSPACES[value["type"]](**value)
        elif isinstance(value, dict) and name != "env":
            options[name] = _handler(value)
    return ExecutionConfig(**options)


def _handler(record: Json) -> Data:
    if "type" not in record:
        command: Any = _handler(record["command"])
        return Handler(command, **{name: value for name, value in record.items() if name != "command"})
    return (Shell if record["type"] == "shell" else Command)(**record)


# --- targets ----------------------------------------------------------------------------------------------------------------


def call_of(spec: Python) -> Json:
    """A call of a function as JSON: where it is, what its code is, its arguments; under "lost" why that is not enough."""
    function = spec.function
    if not isinstance(function, types.FunctionType):
        return {"lost": [f"a {type(function).__name__} cannot be found again by its name"]}
    found: Json = {"module": function.__module__, "qualname": function.__qualname__, "code": shallow(function)}
    if not _is_json([spec.args and list(spec.args), spec.kwargs]):
        return found | {"lost": [f"its arguments are no plain data of at most {MOST // 1024} KiB, which is all that is kept"]}
    return found | {"args": list(spec.args), "kwargs": spec.kwargs}


def _is_json(value: Any) -> bool:
    """Whether a value comes back from JSON as it is, and is not large."""
    todo, size = [value], 0
    while todo and size <= MOST:
        item = todo.pop()
        size += 8
        if type(item) is list:
            todo += item
        elif type(item) is dict and all(type(key) is str for key in item):
            size += sum(map(len, item))
            todo += item.values()
        elif type(item) is str:
            size += len(item)
        elif item is not None and type(item) not in {bool, int, float} and item != ():
            return False
    return size <= MOST


def target_again(target: Json, again: Json, env: Mapping[str, str | Secret]) -> Spec:
    """The spec that a run was of, as it was filled; `env` has the values of secrets in its environment. Raises Lost, ConfigError."""
    record = dict(target.get("spec") or {})
    if again.get("masked"):
        raise Lost("a secret was in its command or its parameters, where it is masked")
    if record.get("type") == "python":
        return _function_again(again.get("call") or {})
    kind = record.pop("type", "")
    cls = next((cls for cls in get_args(AnySpec) if cls.model_fields["type"].default == kind), None)
    if cls is None:
        raise Lost(f"targets of type {kind!r} are of another package, and cannot be made again from their record")
    if hidden := [name for name, value in (record.get("env") or {}).items() if value == _SECRET]:
        record["env"] = record["env"] | {name: env[name] for name in hidden}
    if record.get("api_key") == _SECRET or _SECRET in (record.get("headers") or {}).values():
        raise Lost("its key or a header is a secret, which is not kept; name the key's variable (api_key='NAME') to have it resumed")
    defaults = {name: _plain(field.get_default(call_default_factory=True)) for name, field in cls.model_fields.items() if name != "type"}
    spec: Spec = cls(**{name: record.get(name) for name, default in defaults.items() if record.get(name) != default})
    if isinstance(spec, Declared):
        return fill(spec, {})  # its input is filled already; its file is read anew, and has to say the same
    return spec  # a record leaves out what is None, which is not always the default


def _function_again(call: Json) -> Python:
    if lost := call.get("lost"):
        raise Lost("; ".join(lost))
    name = f"{call.get('module')}.{call.get('qualname')}"
    found: Any = _module(str(call.get("module")))
    for part in str(call.get("qualname")).split("."):
        found = getattr(found, part, None)
    if not isinstance(found, types.FunctionType):
        raise Lost(f"the function {name} is not there; define it first (one that has no name of its own cannot be found)")
    if shallow(found) != call.get("code"):
        raise Lost(f"the function {name} is not the one that it was launched with: its code has changed; launch it anew")
    return Python(found, *call["args"], **call["kwargs"])


def _module(name: str) -> Any:
    try:
        return sys.modules.get(name) or import_module(name)
    except Exception as bad:  # noqa: BLE001 - importing runs anybody's code
        raise Lost(f"its module {name!r} cannot be imported: {type(bad).__name__}: {bad}") from None
