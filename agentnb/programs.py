"""Agents that are programs of their own and tell what they do as lines of JSON: their specs, as validated data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from agentnb.commands import Argv, Folder, Spec
from agentnb.data import Env, JsonSchema, Secret
from agentnb.errors import ConfigError
from agentnb.prompts import OPEN_PROMPT, PromptText

PermissionMode = Literal["default", "acceptEdits", "plan", "dontAsk", "auto", "bypassPermissions"]


def _names(what: str, value: object, advice: str) -> object:
    """A sequence of texts; one text alone would be taken apart into letters."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{what}: {value!r} is no list; {advice}")
    for item in value:
        if not isinstance(item, str | Path) or not str(item).strip() or "\0" in str(item):
            raise ConfigError(f"{what}: {item!r} is no usable text; {advice}")
    return tuple(str(item) for item in value)


def _tools(value: object) -> object:
    if value is None:
        return None
    found = _names("tools", value, "write tools=['Read', 'Bash(git log:*)']; [] for none at all")
    for name in found if isinstance(found, tuple) else ():
        if name.startswith("-"):
            raise ConfigError(f"tools: {name!r} is no tool; write tools=['Read', 'Bash(git log:*)']")
    return found


def _context(value: object) -> object:
    return value if value is None or isinstance(value, str) else _names("context", value, "give text, or a list of paths")


def _format(value: object) -> object:
    if value == "stream-json":
        raise ConfigError(
            "output_format: the stream is always read, and kept as the artifact stream.jsonl; 'text' or 'json' say what the output is"
        )
    return value


def _servers(value: object) -> object:
    if value is None or isinstance(value, str | Path):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("mcpServers"), Mapping):
        raise ConfigError(
            f"mcp_config: {value!r} is no MCP configuration; give the path of a file, or {{'mcpServers': {{'name': {{'command': ...}}}}}}"
        )
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False, default=_plain))
    except ConfigError:
        raise
    except (TypeError, ValueError, RecursionError) as bad:
        raise ConfigError(f"mcp_config: it is no JSON data: {bad}") from None
    return found


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Secret):
        raise ConfigError("mcp_config: a secret there would be seen by `ps`; write '${NAME}', and give env={'NAME': nb.Secret(...)}")
    raise TypeError(f"{type(value).__name__} in it cannot be written as JSON")


class Claude(Spec):
    """A prompt for the claude command line: ``nb.Claude("Summarise README.md", model="sonnet", tools=["Read"])``.

    `command`: the prompt; templates in it (and in `context` and the system prompts) are filled as plain text. `context`: text that goes
    before the prompt, or a list of paths of files that go with it (relative to the working directory). `tools`: what it may use
    without asking, such as "Read" or "Bash(git log:*)" (nobody is there to be asked, so the rest is denied where it needs permission);
    [] takes all tools away. `output_format`: "text", the output is what it says last; "json", the JSON in that; `json_schema`: the
    output is data that fits it. `model`: an alias or a full name; default the CLI's. `system_prompt` replaces the CLI's own,
    `append_system_prompt` adds to it. `permission_mode`: as the CLI has them; "bypassPermissions" asks for nothing and denies nothing: only
    in a sandbox. `max_turns`: it is ended, as a failure, after so many. `resume`: the `agent_session` of an earlier run in the same
    directory, whose conversation goes on (see also ``run.reply``). `mcp_config`: a file's path, or the configuration as a mapping;
    it is kept in the history and seen by `ps`: for a key write "${NAME}" in it, and give ``env={"NAME": nb.Secret(...)}``.
    """

    type: Literal["claude"] = "claude"
    command: PromptText = OPEN_PROMPT
    context: Annotated[str | tuple[str, ...] | None, BeforeValidator(_context)] = None
    tools: Annotated[tuple[str, ...] | None, BeforeValidator(_tools)] = None
    output_format: Annotated[Literal["text", "json"], BeforeValidator(_format)] = "text"
    model: str | None = Field(default=None, min_length=1)
    system_prompt: str | None = None
    append_system_prompt: str | None = None
    permission_mode: PermissionMode | None = None
    max_turns: int | None = Field(default=None, ge=1)
    resume: str | None = Field(default=None, min_length=1)
    mcp_config: Annotated[str | Path | dict[str, Any] | None, BeforeValidator(_servers)] = None
    json_schema: JsonSchema | None = None
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)

    def __init__(self, command: str = OPEN_PROMPT, /, **fields: Any) -> None:
        """Take the prompt positionally; without one, a mapped run takes it from its parameter ``prompt``."""
        super().__init__(**({"command": command} | fields))
        if self.json_schema is not None and self.output_format == "json":
            raise ConfigError("output_format='json' and json_schema are both given; json_schema alone gives data that fits it")

    @field_validator("model", "resume")
    @classmethod
    def _no_option(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("-"):
            raise ConfigError(f"{value!r} begins with '-' and would be taken for an option of the command line")
        return value

    @field_validator("system_prompt", "append_system_prompt")
    @classmethod
    def _no_nul(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ConfigError("it contains a NUL character, which no process can be given")
        return value

    @property
    def asks(self) -> bool:
        """Whether its prompt is the parameter ``prompt``."""
        return self.command == OPEN_PROMPT


class JsonLines(Spec):
    """Any program that prints JSON lines on stdout: ``nb.JsonLines(["my-agent", "--json", "{{prompt}}"])``.

    A line that is a report of agentnb's own dialect (an object with "t": see engine/reports.py) is one. Of any other object these keys
    mean something: ``text``, ``content``, ``message`` (printed as a line), ``delta`` (printed as it is), ``result``, ``output``,
    ``answer`` (the run's output; the last one counts, else it is the last object), ``error`` (the run fails with it), ``usage`` (tokens
    and cost so far), ``model``, ``session_id``. The rest is kept in the artifact stream.jsonl, and lines that are no objects are printed.
    `text`, `output`: other places for those two, as dotted paths such as "choices.0.delta.content".
    """

    type: Literal["json_lines"] = "json_lines"
    argv: Argv
    text: str | None = Field(default=None, min_length=1)
    output: str | None = Field(default=None, min_length=1)
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)

    def __init__(self, argv: Sequence[str | Path] = (), /, **fields: Any) -> None:
        """Take the argument vector positionally."""
        super().__init__(**({"argv": argv} | fields))

    @property
    def display(self) -> str:
        """The argument vector, quoted as a shell would need it."""
        return shlex.join(self.argv)
