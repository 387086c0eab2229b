"""The claude command line as a target: a prompt on its stdin, its stream of events read by claude_stream."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentnb.agents import claude_cli, filling
from agentnb.agents.adapters import Asked, Features, Finished
from agentnb.agents.json_lines import stream_work
from agentnb.engine.attempt import LINGER_S
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.programs import Claude

#: Options that a parameter of the same name sets, unless the spec sets them itself.
_OPTIONS = ("model", "permission_mode", "max_turns", "tools", "system_prompt", "append_system_prompt")
#: Interrupted, the CLI tells what it cost: at once, or in 1.5 s where it has a tool to end; by SIGTERM it just ends.
INTERRUPT_S = 4.0
_PARSER = "agentnb.agents.claude_stream:ClaudeStream"


class _ClaudeAdapter:
    features = Features(steps=True, tokens=True, cost=True, reply=True, agent=True)

    def missing(self) -> str:
        try:
            claude_cli.find()
        except RuntimeUnavailable as bad:
            return str(bad)
        return ""

    def fill(self, spec: Claude, params: Mapping[str, Any]) -> Claude:
        changes: dict[str, Any] = {"command": filling.text(spec.command, params, f"prompt {filling.short(spec.command)}")}
        for name in ("system_prompt", "append_system_prompt"):
            if (text := getattr(spec, name)) is not None:
                changes[name] = filling.text(text, params, f"{name} {filling.short(text)}")
        if isinstance(spec.context, str):
            changes["context"] = filling.text(spec.context, params, f"context {filling.short(spec.context)}")
        elif spec.context is not None:
            changes["context"] = [filling.text(path, params, f"context {filling.short(path)}") for path in spec.context]
        return filling.again(spec, changes | filling.options(spec, params, _OPTIONS))

    def work(self, spec: Claude, asked: Asked) -> dict[str, Any]:
        wants = "schema" if spec.json_schema is not None else spec.output_format
        argv = [claude_cli.find(asked.env), "-p", *_options(spec, asked.cwd), "--output-format", "stream-json"]
        argv += ["--include-partial-messages", "--verbose"]
        work = stream_work(argv, _PARSER, wants=wants, max_turns=spec.max_turns, resume=spec.resume)
        env = {"CLAUDE_CODE_MAX_RETRIES": "0"}  # a run's own `retry` decides, not the CLI's 90 s of attempts
        if spec.permission_mode == "bypassPermissions" and os.geteuid() == 0:
            env["IS_SANDBOX"] = "1"  # else the CLI refuses that mode to root
        work |= {"linger_s": LINGER_S, "interrupt_s": INTERRUPT_S, "budget_option": "--max-budget-usd"}
        return work | {"stdin": _prompt(spec, asked.cwd), "env": env}

    def reply(self, spec: Claude, text: str, finished: Finished) -> Claude:
        if finished.agent_session is None:
            raise ConfigError("reply: claude did not come so far as to begin a conversation; launch it again")
        given = {name: getattr(spec, name) for name in spec.model_fields_set if name not in {"type", "context"}}
        return Claude(**(given | {"command": text, "resume": finished.agent_session}))


CLAUDE = _ClaudeAdapter()


def _options(spec: Claude, cwd: str) -> list[str]:
    """The CLI's options; those that take several values are followed by another option."""
    words: list[str] = []
    if spec.tools is not None:
        words += ["--allowedTools", *spec.tools] if spec.tools else ["--tools", ""]
    named = {
        "--model": spec.model,
        "--system-prompt": spec.system_prompt,
        "--append-system-prompt": spec.append_system_prompt,
        "--permission-mode": spec.permission_mode,
        "--max-turns": None if spec.max_turns is None else str(spec.max_turns),
        "--resume": spec.resume,
        "--json-schema": None if spec.json_schema is None else json.dumps(spec.json_schema),
        "--mcp-config": _servers(spec, cwd),
    }
    return words + [word for name, value in named.items() if value is not None for word in (name, value)]


def _servers(spec: Claude, cwd: str) -> str | None:
    if spec.mcp_config is None or isinstance(spec.mcp_config, dict):
        return None if spec.mcp_config is None else json.dumps(spec.mcp_config)
    path = Path(cwd, Path(spec.mcp_config).expanduser())
    if not path.is_file():
        raise ConfigError(f"mcp_config: there is no file {path}; give the path of a JSON file, or the configuration as a mapping")
    return str(path)


def _prompt(spec: Claude, cwd: str) -> str:
    """What is written to the CLI's stdin, where its length is of no matter."""
    if spec.context is None:
        return spec.command
    if isinstance(spec.context, str):
        return f"{spec.context}\n\n{spec.command}"
    for name in spec.context:
        if not Path(cwd, Path(name).expanduser()).exists():
            raise ConfigError(
                f"context: there is no file {name!r} in {cwd}; give paths relative to the working directory, or absolute ones"
            )
    paths = [os.path.expanduser(name) for name in spec.context]  # noqa: PTH111 - text, as it is written
    references = [f'@"{path}"' if any(char.isspace() for char in path) else f"@{path}" for path in paths]
    return "\n".join(references) + f"\n\n{spec.command}"
