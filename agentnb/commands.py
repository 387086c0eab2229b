"""What to run: the specs of commands and Python functions, as validated data (prompts.py has those of models and agents).

An option that is not known, or that cannot work, raises ConfigError before anything starts.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agentnb.data import Data, Env, Secret
from agentnb.errors import ConfigError


def _command_text(value: str) -> str:
    return some_text("command", value, "write the command line as text, such as 'ls -l'")


def some_text(what: str, value: str, advice: str) -> str:
    """`value`, if it is text with something in it. Raises ConfigError with the advice."""
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
    if "\0" in str(value):
        raise ConfigError(f"working_dir: {value!r} contains a NUL character, which no path has")
    return value


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        raise ConfigError(f"argv: {value!r} is one text; write a list, {shlex.split(value)!r}, or use nb.Shell for a shell line")
    if not isinstance(value, Sequence) or not value:
        raise ConfigError(f"argv: {value!r} is empty; write the program and its arguments as a list, such as ['ls', '-l']")
    words = tuple([str(word) if isinstance(word, str | Path | int | float) and not isinstance(word, bool) else word for word in value])
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise ConfigError(f"argv: {word!r} is no usable argument; each must be text without NUL characters")
    if not words[0]:
        raise ConfigError("argv: the program's name is empty")
    return words


Argv = Annotated[tuple[str, ...], BeforeValidator(_words)]
CommandText = Annotated[str, BeforeValidator(_command_text)]
Folder = Annotated[str | Path | None, BeforeValidator(_folder)]


class Spec(Data):
    """Base of everything that can be launched."""

    @property
    def display(self) -> str:
        """The spec as one line for people."""
        return str(getattr(self, "command", self.__class__.__name__))

    @property
    def asks(self) -> bool:
        """Whether it has to be filled with parameters even when none are given, so that what is missing is named."""
        return False

    @property
    def secrets(self) -> Sequence[Secret]:
        """What of it must not be seen, beside secrets in `env`."""
        return ()

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
    argv: Argv
    working_dir: Folder = None
    env: Env = Field(default_factory=dict)

    def __init__(self, argv: Sequence[str | Path] = (), /, **fields: Any) -> None:
        """Take the argument vector positionally."""
        super().__init__(**({"argv": argv} | fields))

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
