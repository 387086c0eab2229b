"""Shell lines, argument vectors and tests as targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from agentnb.agents import filling
from agentnb.agents.adapters import Asked, Features
from agentnb.agents.quoting import POSIX_SHELLS
from agentnb.commands import Command, Shell, Test
from agentnb.errors import ConfigError, TemplateError


def shell_argv(shell: str, command: str) -> list[str]:
    """The argument vector that has a shell run a line. Raises ConfigError for an empty shell."""
    words = shell.split()
    if not words:
        raise ConfigError("shell: it is empty; write the shell's program, such as 'bash'")
    return [*words, "-c", command]


class _Plain:
    """What commands have in common."""

    features = Features()

    def missing(self) -> str:
        """Nothing: the command itself may be missing, but that is another matter."""
        return ""


class _ShellAdapter(_Plain):
    def fill(self, spec: Shell, params: Mapping[str, Any]) -> Shell:
        what = f"shell command {filling.short(spec.command)}"
        command = filling.line(spec.command, params, what)
        program = PurePath((spec.shell.split() or [""])[0]).name
        if command != spec.command and program not in POSIX_SHELLS:
            raise TemplateError(f"{what}: values cannot be quoted safely for the shell {program!r}; use sh or bash, or pass them in env")
        return filling.again(spec, {"command": command})

    def work(self, spec: Shell, _: Asked) -> dict[str, Any]:
        return {"argv": shell_argv(spec.shell, spec.command)}


class _CommandAdapter(_Plain):
    def fill(self, spec: Command, params: Mapping[str, Any]) -> Command:
        shown = filling.short(spec.display)
        argv = [filling.text(word, params, f"argument {number} of {shown}") for number, word in enumerate(spec.argv)]
        return filling.again(spec, {"argv": argv})

    def work(self, spec: Command, _: Asked) -> dict[str, Any]:
        return {"argv": list(spec.argv)}


class _TestAdapter(_Plain):
    def fill(self, spec: Test, params: Mapping[str, Any]) -> Test:
        changes = {"command": filling.line(spec.command, params, f"test command {filling.short(spec.command)}")}
        if (script := spec.validation_script) is not None:
            changes["validation_script"] = filling.line(script, params, f"validation script {filling.short(script)}")
        return filling.again(spec, changes)

    def work(self, spec: Test, _: Asked) -> dict[str, Any]:
        script = {} if spec.validation_script is None else {"check": {"script": shell_argv("sh", spec.validation_script)}}
        return {"argv": shell_argv("sh", spec.command), "expected_exit_code": spec.expected_exit_code} | script


SHELL, COMMAND, TEST = _ShellAdapter(), _CommandAdapter(), _TestAdapter()
