"""AgentSpec: an agent described by a YAML file, as validated data (spec_file.py reads it)."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, StringConstraints

from agentnb.a2a import A2A
from agentnb.commands import Command, Shell, Test
from agentnb.data import Data, JsonSchema
from agentnb.errors import ConfigError
from agentnb.execution import ExecutionConfig
from agentnb.programs import Claude, JsonLines
from agentnb.prompts import LocalModel, OpenAICompatible

#: The only version of these files so far.
API_VERSION = "v1"
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def _function(value: object) -> object:
    if not isinstance(value, str) or not _FUNCTION.fullmatch(value):
        raise ConfigError(f"{value!r} names no function; write 'package.module:function'")
    return value


def _tags(value: object) -> object:
    if not isinstance(value, dict) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise ConfigError(f"{value!r} is no mapping of texts; write tags: {{topic: builds}}")
    return value


FunctionName = Annotated[str, BeforeValidator(_function)]
Tags = Annotated[dict[str, str], BeforeValidator(_tags)]
#: The name of an agent or a swarm; runs are named by it.
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=100)]


def digest_of(model: Data, *more: str) -> str:
    """SHA-256 of what a model was given, whatever the order of its keys, and of `more`."""
    said = json.dumps(model.model_dump(mode="json", by_alias=True, exclude_unset=True), sort_keys=True)
    return hashlib.sha256("\n".join([said, *more]).encode()).hexdigest()


class PythonFunction(Data):
    """A function by its name, ``package.module:function``, called with the input as keyword arguments in a process of its own."""

    type: Literal["python"] = "python"
    function: FunctionName
    kwargs: dict[str, Any] = Field(default_factory=dict)


class LocalRuntime(Data):
    """This machine."""

    kind: Literal["local"] = "local"


class DockerRuntime(Data):
    """A container. `image`: its image; `mounts`: ``host:container[:ro]``; `network`: the name of one, or "none"."""

    kind: Literal["docker"] = "docker"
    image: Annotated[str, StringConstraints(min_length=1)]
    mounts: tuple[str, ...] = ()
    network: str | None = None


class HttpRuntime(Data):
    """Another machine's agentnb. `url`: its address; `token`: the environment variable that holds the token."""

    kind: Literal["http"] = "http"
    url: Annotated[str, StringConstraints(min_length=1)]
    token: str | None = None


class CloudRuntime(Data):
    """A cluster. `scheduler`: the address of its scheduler; `resources`: what a run takes of the workers' resources."""

    kind: Literal["cloud"] = "cloud"
    scheduler: str | None = None
    resources: dict[str, float] = Field(default_factory=dict)


Runtime = Annotated[LocalRuntime | DockerRuntime | HttpRuntime | CloudRuntime, Field(discriminator="kind")]
#: What an agent of a file can be; `type` says which.
AnyCommand = Shell | Command | Test | Claude | LocalModel | OpenAICompatible | JsonLines | A2A | PythonFunction
AgentCommand = Annotated[AnyCommand, Field(discriminator="type")]


class AgentSpec(ExecutionConfig):
    """An agent as a file describes it: what it is given, what it is, what it gives, and how it runs (the options of ExecutionConfig).

    `id`: its name, which its runs get. `input`: a JSON Schema of what it is given, checked before the run; templates in `command` (and in
    `env`, `stdin`, `working_dir`, `inputs`, `artifacts` and handlers) read it as ``{{input.x}}``. `output`: a JSON Schema of what it
    gives, checked after the run. `working_dir` and the folder of a `workspace` are relative to the file.
    """

    api_version: Literal["v1"] = Field(alias="apiVersion")
    kind: Literal["Agent"]
    id: Id
    description: str | None = None
    tags: Tags = Field(default_factory=dict)
    input: JsonSchema | None = None
    output: JsonSchema | None = None
    command: AgentCommand
    runtime: Runtime = LocalRuntime()
    #: The file that it was read from; None for one that was written elsewhere.
    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """The file that it was read from, absolute; None when it is of no file."""
        return self._file

    @property
    def folder(self) -> Path | None:
        """What paths in it are relative to; None for the current directory."""
        return None if self._file is None else self._file.parent

    @property
    def digest(self) -> str:
        """SHA-256 of all that it says, as 64 hex digits."""
        return digest_of(self)

    def config(self) -> ExecutionConfig:
        """How it runs: what it says of the options of a launch."""
        return ExecutionConfig(**{name: getattr(self, name) for name in self.model_fields_set & ExecutionConfig.model_fields.keys()})
