"""How to run: execution config and request, as validated data.

Text is accepted where people write text (``timeout="10m"``, ``max_memory_bytes="2GiB"``) and kept as seconds and bytes.
An option that is not known, or that cannot work, raises ConfigError before anything starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from agentnb.a2a import A2A
from agentnb.commands import Command, CommandText, Folder, Python, Shell, Test
from agentnb.data import Bytes, Data, Duration, Env, JsonSchema, Seconds, Secret, Size
from agentnb.declared import Agent
from agentnb.errors import ConfigError
from agentnb.programs import Claude, JsonLines
from agentnb.prompts import LocalModel, OpenAICompatible
from agentnb.replay import Replay
from agentnb.swarms import Swarm
from agentnb.workspaces import AnyWorkspace, Workspace

AnySpec = Shell | Command | Test | Python | LocalModel | OpenAICompatible | A2A | Replay | Claude | JsonLines | Agent | Swarm


class Capture(StrEnum):
    """Which output is kept. `structured`: both, and JSON is looked for in stdout."""

    NONE = "none"
    STDOUT = "stdout"
    STDERR = "stderr"
    BOTH = "both"
    STRUCTURED = "structured"


class Retry(Data):
    """When and how often to try again; only failures of a retryable kind are (see states.RETRYABLE), and what `on_exit_codes` names.

    The delay before attempt n + 1 is `initial_delay` (constant), n x `initial_delay` (linear) or `initial_delay` x 2^(n-1)
    (exponential), at most `max_delay`, then moved by up to +-`jitter` of itself. Delays in seconds.
    """

    max_attempts: int = Field(default=3, ge=1, le=1000)
    strategy: Literal["constant", "linear", "exponential"] = "exponential"
    initial_delay: Seconds = 1.0
    max_delay: Seconds = 60.0
    jitter: float = Field(default=0.25, ge=0, le=1)
    on_exit_codes: tuple[int, ...] = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            max_attempts: int = 3,
            strategy: Literal["constant", "linear", "exponential"] = "exponential",
            initial_delay: Duration = 1.0,
            max_delay: Duration = 60.0,
            jitter: float = 0.25,
            on_exit_codes: Sequence[int] = (),
        ) -> None:
            """Durations as seconds or text."""


class Limits(Data):
    """Bounds for the whole process tree of a run; crossing one fails it with kind resource_limit_exceeded."""

    max_memory_bytes: Bytes | None = None
    max_cpu_percent: float | None = Field(default=None, gt=0)
    max_cpu_time_s: Seconds | None = None
    max_disk_io_bytes: Bytes | None = None
    max_file_descriptors: int | None = Field(default=None, ge=3)
    max_processes: int | None = Field(default=None, ge=1)
    max_output_bytes: Bytes | None = None
    max_network_bytes: Bytes | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            max_memory_bytes: Size | None = None,
            max_cpu_percent: float | None = None,
            max_cpu_time_s: Duration | None = None,
            max_disk_io_bytes: Size | None = None,
            max_file_descriptors: int | None = None,
            max_processes: int | None = None,
            max_output_bytes: Size | None = None,
            max_network_bytes: Size | None = None,
        ) -> None:
            """Sizes as bytes or text, durations as seconds or text."""


def _pattern(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{value!r} is of type {type(value).__name__}; write the regular expression as text")
    try:
        re.compile(value)
    except re.error as bad:
        raise ConfigError(f"{value!r} is not a regular expression: {bad}") from None
    return value


Pattern = Annotated[str, BeforeValidator(_pattern)]


class Validation(Data):
    """Checks of a run's output, made after it exits with the expected code.

    `streams`: where patterns are searched; `json_schema` is held against the structured output; `script` is a shell line that
    gets stdout on stdin and must exit with 0.
    """

    expected_pattern: Pattern | None = None
    forbidden_patterns: tuple[Pattern, ...] = ()
    json_schema: JsonSchema | None = None
    script: CommandText | None = None
    streams: tuple[Literal["stdout", "stderr"], ...] = ("stdout",)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            expected_pattern: str | None = None,
            forbidden_patterns: Sequence[str] = (),
            json_schema: dict[str, Any] | None = None,
            script: str | None = None,
            streams: Sequence[Literal["stdout", "stderr"]] = ("stdout",),
        ) -> None:
            """Patterns as text."""


class Handler(Data):
    """A command for `on_success`, `on_failure`, `rollback` or `cleanup` that runs only when `condition` holds; else it is skipped.

    `condition` compares `status`, `exit_code`, `error` (its message, "" when there is none) and `attempts`, with ``== != < <= > >=
    in``, ``and``, ``or`` and ``not``: ``nb.Handler("make clean", condition="status == 'timeout' or 'disk' in error")``.
    The command finds the same in AGENTNB_STATUS, AGENTNB_EXIT_CODE, AGENTNB_ERROR and AGENTNB_ATTEMPTS. `timeout`: seconds or text,
    default 60 s; it is ended then.
    """

    command: Shell | Command
    condition: str | None = None
    timeout: Seconds | None = None

    if TYPE_CHECKING:

        def __init__(self, command: str | Shell | Command, /, *, condition: str | None = None, timeout: Duration | None = None) -> None:
            """The command positionally; the timeout as seconds or text."""
    else:

        def __init__(self, command: Any = "", /, **fields: Any) -> None:
            """Take the command positionally; a text is a shell line."""
            super().__init__(**({"command": command} | fields))

    @field_validator("timeout")
    @classmethod
    def _some_time(cls, value: float | None) -> float | None:
        return _more_than_zero(value)

    @field_validator("command", mode="before")
    @classmethod
    def _line(cls, value: object) -> object:
        return _handler_command(value)

    @property
    def display(self) -> str:
        """The command, as a line for people."""
        return self.command.display


def _handler_command(value: object) -> object:
    if isinstance(value, str):
        return Shell(value)
    if not isinstance(value, Shell | Command | Mapping):
        raise ConfigError(f"{value!r} is no command; write a shell line as text, nb.Shell(...) or nb.Command([...])")
    return value


def _more_than_zero(value: float | None, advice: str = "") -> float | None:
    if value is not None and value <= 0:
        raise ConfigError(f"timeout: {value!r} must be more than zero{advice}")
    return value


def _inputs(value: object) -> object:
    given = (value,) if isinstance(value, str | Path) else value
    if not isinstance(given, Sequence):
        raise ConfigError(f"inputs: {value!r} is no list of files; write inputs=['data/*.csv', 'script.py']")
    for item in given:
        if not isinstance(item, str | Path) or not str(item).strip() or "\0" in str(item):
            raise ConfigError(f"inputs: {item!r} names no file; write inputs=['data/*.csv', 'script.py']")
    return tuple(map(str, given))


def _handler(value: object) -> object:
    return value if isinstance(value, Handler) else _handler_command(value)


HandlerSpec = Annotated[Shell | Command | Handler, BeforeValidator(_handler)]


class ExecutionConfig(Data):
    """How to run. Unset fields (None) fall back to the session's, then to the defaults named here.

    `timeout`: seconds or text; default none. `capture`: default both. `grace`: seconds between SIGTERM and SIGKILL; default 5.
    `working_dir`: default the notebook's current directory. `stdin`: text for the child; default none (an empty stdin);
    ``stdin=True`` keeps it open for ``run.send(...)``. `workspace`: nb.Worktree, nb.TempCopy or nb.Shared, where the run works,
    with `working_dir` relative to its top; default none, and then nobody looks at what changed. `artifacts`: glob patterns of files to
    keep, relative to the working directory. `inputs`: files, folders or globs that the run reads, relative to the working directory;
    templates in them are filled with the run's parameters. They have to be there when it is launched, and with ``reuse=True`` their content
    counts (of a folder all that is below it, but for .git, __pycache__ and .ipynb_checkpoints). Commands that run after the last attempt,
    in this order: `on_success`; `on_failure`, then
    `rollback`, when the run failed, timed out or was cancelled; `cleanup` always. Each is a shell line, nb.Shell, nb.Command or
    nb.Handler, and has 60 s; an nb.Handler can have more, or less.
    """

    timeout: Seconds | None = None
    capture: Capture | None = None
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)
    stdin: str | bool | None = None
    workspace: Workspace = None
    retry: Retry | None = None
    limits: Limits | None = None
    validation: Validation | None = None
    grace: Seconds | None = None
    artifacts: tuple[str, ...] = ()
    inputs: Annotated[tuple[str, ...], BeforeValidator(_inputs)] = ()
    on_success: HandlerSpec | None = None
    on_failure: HandlerSpec | None = None
    rollback: HandlerSpec | None = None
    cleanup: HandlerSpec | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            timeout: Duration | None = None,
            capture: Capture | Literal["none", "stdout", "stderr", "both", "structured"] | None = None,
            working_dir: str | Path | None = None,
            env: Mapping[str, str | float | Path | Secret] | None = None,
            stdin: str | bool | None = None,
            workspace: AnyWorkspace | None = None,
            retry: Retry | None = None,
            limits: Limits | None = None,
            validation: Validation | None = None,
            grace: Duration | None = None,
            artifacts: str | Sequence[str] = (),
            inputs: str | Path | Sequence[str | Path] = (),
            on_success: str | Shell | Command | Handler | None = None,
            on_failure: str | Shell | Command | Handler | None = None,
            rollback: str | Shell | Command | Handler | None = None,
            cleanup: str | Shell | Command | Handler | None = None,
        ) -> None:
            """Durations as seconds or text."""

    @field_validator("timeout")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        return _more_than_zero(value, "; leave it out for no timeout")

    @field_validator("artifacts", mode="before")
    @classmethod
    def _globs(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("stdin", mode="before")
    @classmethod
    def _stdin(cls, value: Any) -> Any:
        if isinstance(value, bytes | bytearray):
            raise ConfigError("stdin: it is bytes; decode them to text, or let the command read a file")
        if not isinstance(value, str | bool | None):
            raise ConfigError(f"stdin: {value!r} is of type {type(value).__name__}; give text, or True to keep it open for run.send(...)")
        return None if value is False else value

    def over(self, base: ExecutionConfig) -> ExecutionConfig:
        """This config laid over `base`: what is set here wins, environments are merged."""
        if not self.model_fields_set:
            return base
        mine = {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}
        return base.model_copy(update=mine | {"env": base.env | self.env})


class CommandRequest(Data):
    """One request to run a spec under a config; `command_id` stays the same from here to the last event."""

    command_id: str
    spec: AnySpec = Field(discriminator="type")
    config: ExecutionConfig = Field(default_factory=ExecutionConfig)
