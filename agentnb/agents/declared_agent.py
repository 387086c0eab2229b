"""Agents of spec files as targets: the file is read and the input checked, and then its command is run as any other would be."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from agentnb.a2a import A2A
from agentnb.agents import adapters, filling
from agentnb.agents.adapters import Asked, Features, Finished
from agentnb.agents.compile import target_of
from agentnb.agents.spec import AgentCommand, AgentSpec, PythonFunction
from agentnb.agents.spec_texts import HANDLERS
from agentnb.agents.template import render_value
from agentnb.agents.template_reads import is_template
from agentnb.commands import Spec
from agentnb.declared import Agent, Bound, Declared
from agentnb.errors import ConfigError, RuntimeUnavailable, TemplateError
from agentnb.execution import ExecutionConfig, Handler

Json = dict[str, Any]
_COMMAND: TypeAdapter[Any] = TypeAdapter(AgentCommand)
#: Specs that were read, by what was looked at: a map reads its file once.
_READ: dict[tuple[Any, ...], AgentSpec] = {}
_MOST_READ = 32
_SHOWN = 300


# --- from a target to what is run -----------------------------------------------------------------------------------


def bind(agent: Agent, params: Mapping[str, Any]) -> Agent:
    """The agent with its file read, its input filled with `params` and checked, and its command filled with the input.

    Raises SpecError, ConfigError that names what of the input does not fit, TemplateError, RuntimeUnavailable.
    """
    spec = read(agent)
    given = with_params(agent.input, params, spec.input) if params else agent.input
    return bound_agent(spec, given, source=agent)


def bound_agent(
    spec: AgentSpec, given: Mapping[str, Any], values: Mapping[str, Any] | None = None, *, source: Agent | None = None
) -> Agent:
    """A target that is `spec` with the input `given`; templates see `values` beside ``input``. `source`: what named the spec.

    Raises ConfigError that names what of the input does not fit, TemplateError, RuntimeUnavailable.
    """
    if spec.runtime.kind != "local":
        raise RuntimeUnavailable(
            f"agent {spec.id!r}: the runtime {spec.runtime.kind!r} is not in this version of agentnb; 'local' is: every run is a process "
            "of this machine (put `docker run ...` or `ssh ...` into the command)"
        )
    whole = checked(f"agent {spec.id!r}", spec.input, given)
    seen = {**(values or {}), "input": whole}
    going_on = None if source is None else source.goes_on
    command = _command(spec, seen) if going_on is None else _COMMAND.validate_python(going_on)
    target = Agent(**_named(spec, source), input=whole, sha256=spec.digest, goes_on=going_on)
    return target.bind(Bound(spec.id, command, _config(spec, seen), spec.output, dict(spec.tags)))


def _named(spec: AgentSpec, source: Agent | None) -> Json:
    """How the record names a spec: by its file, or by all that it says."""
    if source is not None and source.path is not None:
        return {"path": str(Path(source.path).expanduser().absolute())}
    if source is not None:
        return {"spec": source.spec}
    return {"spec": json.loads(spec.model_dump_json(by_alias=True, exclude_unset=True))}


def read(agent: Agent) -> AgentSpec:
    """The spec of an agent. Raises SpecError; ConfigError when it is not the one that `sha256` means."""
    key = _key(agent)
    spec = None if key is None else _READ.get(key)
    if spec is None:
        from agentnb.agents.spec_file import load  # reading YAML is for processes that have files to read

        found = load(agent.spec if agent.path is None else agent.path, "Agent")  # type: ignore[arg-type]
        assert isinstance(found, AgentSpec)  # noqa: S101 - what was asked for
        spec = found
        if key is not None:
            if len(_READ) >= _MOST_READ:
                _READ.clear()
            _READ[key] = spec
    check_digest(agent, spec.digest)
    return spec


def check_digest(target: Declared, digest: str) -> None:
    """Raise ConfigError when a spec is not the one that is meant."""
    if target.sha256 is not None and target.sha256 != digest:
        what = f"the file {target.path}" if target.path is not None else "the spec"
        raise ConfigError(f"{target.title}: {what} is not the one that was meant: its content has changed; launch it anew")


def _key(agent: Agent) -> tuple[Any, ...] | None:
    if agent.path is None:
        return ("data", json.dumps(agent.spec, sort_keys=True))
    path = Path(agent.path).expanduser().absolute()
    try:
        state = path.stat()
    except OSError:
        return None
    return (str(path), agent.path, state.st_ino, state.st_size, state.st_mtime_ns)


# --- the input ------------------------------------------------------------------------------------------------------


def with_params(given: Mapping[str, Any], params: Mapping[str, Any], schema: Mapping[str, Any] | None) -> Json:
    """An input with its texts filled by `params`, and those of `params` that its schema names and it does not give."""
    found = {name: _filled(value, params, f"input.{name}") for name, value in given.items()}
    properties = (schema or {}).get("properties")
    wanted = properties if isinstance(properties, dict) else {}
    return {name: value for name, value in params.items() if name in wanted} | found


def _filled(value: Any, values: Mapping[str, Any], what: str) -> Any:
    if isinstance(value, dict):
        return {name: _filled(item, values, f"{what}.{name}") for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values, f"{what}[{number}]") for number, item in enumerate(value)]
    return render_value(value, values, what=what) if isinstance(value, str) else value


def checked(who: str, schema: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Json:
    """The input, with the defaults of its schema's properties. Raises ConfigError that names each part that does not fit, and its value."""
    whole = copy.deepcopy(dict(given))
    if schema is None:
        return whole
    properties = schema.get("properties")
    for name, part in properties.items() if isinstance(properties, dict) else ():
        if isinstance(part, dict) and "default" in part:
            whole.setdefault(name, copy.deepcopy(part["default"]))
    from agentnb.json_schemas import misfits  # imported late: it costs more than all the rest of this module

    if faults := misfits(dict(schema), whole):
        raise ConfigError("\n".join(f"{who}: {place_of(place)}: {_short(message)}" for place, message in faults[:20]))
    return whole


def place_of(place: tuple[str | int, ...]) -> str:
    """A place in the input as text: ``input.paths[0]``."""
    return "input" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"


# --- the command and how it runs ------------------------------------------------------------------------------------


def _command(spec: AgentSpec, values: Mapping[str, Any]) -> Spec:
    """What is run: the command with its templates filled."""
    command = spec.command
    if isinstance(command, PythonFunction):
        return _function(spec, command, values)
    given = values["input"].get("prompt")
    if command.asks and isinstance(command, A2A) and not isinstance(given, str):
        return filling.again(command, {"message": None, "data": values["input"]})
    if command.asks:
        if not isinstance(given, str):
            raise ConfigError(f"agent {spec.id!r}: its command says no prompt, and the input has no text 'prompt'; give one of them")
        values = {**values, "prompt": given}
    filled: Spec = adapters.adapter_of(command).fill(command, values)
    return filling.again(filled, _places(filled, values, spec.folder) | _answer(spec, filled))


def _places(command: Any, values: Mapping[str, Any], folder: Path | None) -> Json:
    """Environment and folder of a command, filled, if it has any."""
    changes: Json = {}
    if getattr(command, "env", None):
        changes["env"] = {name: filling.text(str(text), values, f"env[{name!r}]") for name, text in command.env.items()}
    if getattr(command, "working_dir", None) is not None:
        changes["working_dir"] = _folder(command.working_dir, values, folder)
    return changes


def _answer(spec: AgentSpec, command: Any) -> Json:
    """An output that is to be data is asked for as data."""
    kind = (spec.output or {}).get("type")
    if spec.output is None or kind == "string" or (isinstance(kind, list) and "string" in kind):
        return {}
    fields, given = type(command).model_fields, command.model_fields_set
    if "json_schema" not in fields or given & {"json_schema", "output_format"}:
        return {}
    return {"output_format": "json"} if "output_format" in fields else {"json_schema": spec.output}


def _function(spec: AgentSpec, command: PythonFunction, values: Mapping[str, Any]) -> Spec:
    from agentnb.agents.python_names import call_of

    kwargs = {name: _filled(value, values, f"kwargs.{name}") for name, value in command.kwargs.items()}
    return call_of(f"agent {spec.id!r}", command.function, values["input"] | kwargs)


def _folder(given: str | Path, values: Mapping[str, Any], base: Path | None) -> str:
    text = filling.text(str(given), values, f"working_dir {filling.short(str(given))}")
    path = Path(text).expanduser()
    return str(path if base is None else base / path)


def _config(spec: AgentSpec, values: Mapping[str, Any]) -> ExecutionConfig:
    """How it runs, with templates filled and paths made those of the file's folder."""
    config, changes = spec.config(), dict[str, Any]()
    if config.env:
        changes["env"] = {name: filling.text(str(text), values, f"env[{name!r}]") for name, text in config.env.items()}
    if isinstance(config.stdin, str):
        changes["stdin"] = filling.text(config.stdin, values, "stdin")
    if config.working_dir is not None:
        in_workspace = config.workspace is not None  # then it is relative to that
        changes["working_dir"] = _folder(config.working_dir, values, None if in_workspace else spec.folder)
    if config.workspace is not None and spec.folder is not None:
        name = "repo" if "repo" in type(config.workspace).model_fields else "folder"
        folder = spec.folder / Path(getattr(config.workspace, name)).expanduser()
        changes["workspace"] = config.workspace.model_copy(update={name: folder})
    for name in ("inputs", "artifacts"):
        if patterns := getattr(config, name):
            changes[name] = tuple(_patterns(patterns, values, name))
    for when in HANDLERS:
        if (handler := getattr(config, when)) is not None:
            changes[when] = _handler(handler, values, when)
    return ExecutionConfig(**{name: getattr(config, name) for name in config.model_fields_set} | changes) if changes else config


def _patterns(patterns: tuple[str, ...], values: Mapping[str, Any], what: str) -> Iterator[str]:
    for pattern in patterns:
        filled = filling.text(pattern, values, f"{what} {filling.short(pattern)}")
        if is_template(filled):
            raise TemplateError(f"{what}: {filled!r} cannot be used as the name of a file, since it would be read as a template")
        yield filled


def _handler(given: Any, values: Mapping[str, Any], when: str) -> Any:
    if isinstance(given, Handler):
        return given.model_copy(update={"command": _handler(given.command, values, when)})
    filled: Any = adapters.adapter_of(given).fill(given, values)
    return filling.again(filled, _places(filled, values, None))


# --- the adapter ----------------------------------------------------------------------------------------------------


class _AgentAdapter:
    features = Features(steps=True, tokens=True, cost=True, reply=True, agent=True)

    def missing(self) -> str:
        return ""

    def fill(self, spec: Agent, params: Mapping[str, Any]) -> Agent:
        return bind(spec, params)

    def named(self, spec: Agent) -> Agent:
        return spec.model_copy().called(read(spec).id)

    def work(self, spec: Agent, asked: Asked) -> Json:
        bound = spec.bound
        work = adapters.adapter_of(bound.command).work(bound.command, asked)
        if bound.output is not None:
            work["check"] = work.get("check", {}) | {"json_schema": bound.output}
        return work | {"record": {"input": spec.input, "tags": bound.tags}}

    def reply(self, spec: Agent, text: str, finished: Finished) -> Agent:
        adapter: Any = adapters.adapter_of(spec.bound.command)
        if not adapter.features.reply:
            raise ConfigError(f"reply: agent {spec.bound.id!r} has no conversation that could go on; launch it again")
        command = adapter.reply(spec.bound.command, text, finished)
        bound = spec.bound
        again = filling.again(spec, {"goes_on": target_of(command).spec})
        return again.bind(Bound(bound.id, command, bound.config, bound.output, bound.tags))


AGENT = _AgentAdapter()
