"""Cache keys: equal for launches of the same work, so that ``reuse=True`` finds the run that did it.

What counts: the target's fields after its templates were filled, the parameters, the folder where it works, the environment, the contents
of the files that ``inputs=`` names, the code of a Python agent (agents/fingerprint.py), and those options that make a difference to the
result (`COUNTED`). The rest of a launch says how it is run, not what comes of it (`LEFT_OUT`).

The environment is all variables of this process but those that tell of a terminal, a login or a Jupyter server (`is_volatile`), with the
ones given for the run laid over them; secrets by their values. Nothing of it can be read from a key: it is a SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentnb.agents.compile import inputs_folder, settled, work_folder
from agentnb.agents.context import takes_context
from agentnb.agents.fingerprint import Fingerprint
from agentnb.agents.input_files import Contents, find_inputs
from agentnb.agents.python import is_async
from agentnb.agents.python_names import function_of
from agentnb.agents.workspaces import Known
from agentnb.commands import Python, Spec
from agentnb.data import Data, Secret, field_names
from agentnb.declared import Agent
from agentnb.engine.circumstances import environment_hash, git_commit
from agentnb.engine.work import WorkspacePlan
from agentnb.errors import ConfigError
from agentnb.execution import ExecutionConfig
from agentnb.swarms import Swarm

#: Raised whenever keys of the same work change.
VERSION = 1

#: Options that make a difference to what comes of a run.
COUNTED = frozenset({"capture", "stdin", "validation", "artifacts"})
#: Options whose meaning counts: the folder, the variables, the state of the workspace, the contents of the files.
RESOLVED = frozenset({"working_dir", "env", "workspace", "inputs"})
#: Options that say how long, how often and how boldly it is tried, or what is done afterwards: a completed run is as good with any.
LEFT_OUT = frozenset({"timeout", "retry", "limits", "grace", "on_success", "on_failure", "rollback", "cleanup"})

#: Fields of specs that make no difference: who pays, and how the same is computed. All others count.
SPEC_LEFT_OUT: dict[str, frozenset[str]] = {
    "local_model": frozenset({"threads", "shared", "keep_alive"}),
    "openai_compatible": frozenset({"api_key"}),
    "a2a": frozenset({"api_key"}),
    "agent": frozenset({"path", "spec", "sha256", "goes_on"}),  # counted is what they come to
    "swarm": frozenset({"path", "spec"}),  # counted is the digest of what they and their workers say
}
#: Fields of specs that name files, whose contents count.
SPEC_FILES: dict[str, frozenset[str]] = {"claude": frozenset({"context", "mcp_config"}), "local_model": frozenset({"model"})}
#: A model's file (GGUF) larger than this counts by its size and time instead of its bytes.
LARGE_MODEL = 16 * 2**20
#: Fields of specs that are options of the launch as well, and are looked at with those.
_AS_OPTIONS = frozenset({"working_dir", "env"})

#: Variables that tell of the terminal, the login or the Jupyter server that the process was started from.
VOLATILE = frozenset({
    "_", "PWD", "OLDPWD", "SHLVL", "HOSTNAME", "TERM", "COLORTERM", "COLUMNS", "LINES", "LS_COLORS", "WINDOWID", "DISPLAY",
    "WAYLAND_DISPLAY", "XAUTHORITY", "STY", "WINDOW", "GPG_AGENT_INFO", "GPG_TTY", "DBUS_SESSION_BUS_ADDRESS", "INVOCATION_ID",
    "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID", "NOTIFY_SOCKET", "SESSION_MANAGER", "DESKTOP_STARTUP_ID", "XDG_ACTIVATION_TOKEN",
    "XDG_VTNR", "WINDOWPATH", "VTE_VERSION", "WT_SESSION", "ITERM_SESSION_ID", "TRACEPARENT", "TRACESTATE",
})  # fmt: skip
VOLATILE_PREFIXES = (
    "AGENTNB_", "ALACRITTY_", "GNOME_TERMINAL_", "JPY_", "JUPYTER_", "JUPYTERHUB_", "KITTY_", "KONSOLE_", "MEMORY_PRESSURE_", "PYDEVD_",
    "SSH_", "TERM_", "TMUX", "VSCODE_", "XDG_SESSION_", "ZELLIJ",
)  # fmt: skip


def is_volatile(name: str) -> bool:
    """Whether a variable of this process is left out of keys."""
    return name in VOLATILE or name.startswith(VOLATILE_PREFIXES)


class CacheKeys:
    """Makes the keys of launches with the same options; what they share is looked at once."""

    def __init__(self, given: ExecutionConfig, defaults: ExecutionConfig) -> None:
        """`given`: at the launch; `defaults`: the session's."""
        self._given, self._defaults = given, defaults
        self._environment = {name: value for name, value in os.environ.items() if not is_volatile(name)}
        self._hashes: dict[tuple[tuple[str, str], ...], str] = {}
        self._contents = Contents()
        self._plans: Known = {}
        self._code: dict[int, tuple[object, str]] = {}

    def key(self, spec: Spec, params: Mapping[str, Any]) -> tuple[str, str | None]:
        """The key of one launch of a filled spec, ``sha256:`` and 64 hex digits; and the folder where its process starts, if it has one.

        Raises ConfigError for what cannot be told from other work, with what to do; and for a folder or file that is not there.
        """
        config = settled(spec, self._given, self._defaults)
        _check(spec, config)
        folder, space = work_folder(config, self._plans)
        parts = {
            "version": VERSION,
            "target": self._target(spec, folder),
            "params": params,
            "folder": folder if space is None else os.path.relpath(folder, space["source"]),
            "workspace": None if space is None else self._workspace(space),
            "environment": self._hash(config.env),
            "inputs": self._inputs(config.inputs, params, folder, space),
            "options": {name: _plain(getattr(config, name), name) for name in sorted(COUNTED)},
        }
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        hosted = isinstance(spec, Python) and is_async(spec.function)
        return f"sha256:{hashlib.sha256(text.encode('ascii')).hexdigest()}", None if hosted else folder

    def _hash(self, env: Mapping[str, str | Secret]) -> str:
        own = {name: value.reveal() if isinstance(value, Secret) else value for name, value in env.items()}
        given = tuple(sorted(own.items()))
        if given not in self._hashes:
            self._hashes[given] = environment_hash(self._environment | own)
        return self._hashes[given]

    def _workspace(self, space: WorkspacePlan) -> dict[str, Any]:
        if space["kind"] == "worktree":
            return {"kind": "worktree", "commit": space["commit"]}
        source = space["source"]
        return {"kind": space["kind"], "content": self._contents.of(source), "commit": git_commit(source)}

    def _inputs(self, patterns: tuple[str, ...], params: Mapping[str, Any], folder: str, space: WorkspacePlan | None) -> dict[str, str]:
        if not patterns:
            return {}
        return {path: self._contents.of(path) for path in find_inputs(patterns, params, inputs_folder(folder, space))}

    def _target(self, spec: Spec, folder: str) -> dict[str, Any]:
        if isinstance(spec, Python):
            return self._python(spec)
        if isinstance(spec, Agent):  # what it comes to, wherever its file is
            command = self._target(spec.bound.command, folder)
            return {"type": "agent", "id": spec.bound.id, "input": spec.input, "output": spec.bound.output, "command": command}
        if isinstance(spec, Swarm):
            return {"type": "swarm", "digest": spec.sha256, "input": spec.input, "workers": self._workers(spec.bound.agents, folder)}
        kind = str(getattr(spec, "type", type(spec).__qualname__))
        files = SPEC_FILES.get(kind, frozenset())
        names = [name for name in field_names(type(spec)) if name not in counted_elsewhere(kind)]
        found = {name: _plain(value, name) for name in names if (value := getattr(spec, name)) is not None}
        for name in files & found.keys():
            found[name] = self._files(name, getattr(spec, name), folder)
        return found | {"type": kind}

    def _workers(self, agents: Mapping[str, Any], folder: str) -> dict[str, Any]:
        """What the digest of a swarm does not say of its workers: where paths lead from, the code of functions, what is in files."""
        found: dict[str, Any] = {}
        for worker, agent in agents.items():
            command, home = agent.command, folder if agent.folder is None else str(agent.folder)
            found[worker] = {"folder": home}
            if command.type == "python":
                function = function_of(f"worker {worker!r}", command.function)
                found[worker]["code"] = Fingerprint().add(function, f"worker {worker!r}").hexdigest()
            for name in SPEC_FILES.get(command.type, frozenset()):
                if (value := getattr(command, name)) is not None:
                    found[worker][name] = self._files(name, value, home)
        return found

    def _files(self, name: str, value: Any, folder: str) -> Any:
        """What a field that may name files says, with what is in these."""
        if isinstance(value, tuple):
            return [self._file(item, folder) for item in value]
        is_path = isinstance(value, Path) or (isinstance(value, str) and name != "context")
        return self._file(value, folder) if is_path else _plain(value, name)

    def _file(self, name: str | Path, folder: str) -> list[Any]:
        path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))  # noqa: PTH111, PTH118
        if not os.path.exists(path):  # noqa: PTH110 - the launch will say so
            return [path]
        state = os.stat(path)  # noqa: PTH116
        if state.st_size > LARGE_MODEL and path.endswith(".gguf"):  # nobody edits one in place
            return [path, state.st_size, state.st_mtime_ns]
        return [path, self._contents.of(path)]

    def _python(self, spec: Python) -> dict[str, Any]:
        known = self._code.get(id(spec.function))
        if known is None:
            known = self._code[id(spec.function)] = (spec.function, Fingerprint().add(spec.function, "the agent").hexdigest())
        call = Fingerprint()
        for number, value in enumerate(spec.args, start=1):
            call.add(value, f"argument {number}")
        for name, value in sorted(spec.kwargs.items()):
            call.add(name, "a name").add(value, f"argument {name!r}")
        version = f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])}"
        context = takes_context(spec.function)
        return {"type": "python", "python": version, "code": known[1], "context": context, "call": call.hexdigest(), "args": len(spec.args)}


def counted_elsewhere(kind: str) -> frozenset[str]:
    """Fields of a spec of this kind that are not put into its key as they are: left out, or looked at with the options."""
    return SPEC_LEFT_OUT.get(kind, frozenset()) | _AS_OPTIONS | {"type"}


def _check(spec: Spec, config: ExecutionConfig) -> None:
    """Raise ConfigError for what is never the same twice, or costs nothing."""
    if getattr(spec, "type", "") == "replay":
        raise ConfigError("reuse: a replay starts nothing and spends nothing; leave reuse out")
    if config.stdin is True:
        raise ConfigError("reuse: what will be sent to an open stdin is not known yet; give the text (stdin='...'), or leave reuse out")
    if config.workspace is not None and config.workspace.type == "shared":
        raise ConfigError(
            "reuse: a run in nb.Shared works on the folder itself, whose state is its input and its result; use nb.Worktree or "
            "nb.TempCopy, or leave workspace out and name the files that it reads in inputs=[...]"
        )


def _plain(value: Any, name: str) -> Any:
    """A value as JSON data; one that has no such form by its fingerprint."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Secret):
        return f"secret:{hashlib.sha256(value.reveal().encode('utf-8', 'surrogatepass')).hexdigest()}"
    if isinstance(value, Data):
        return {name: _plain(getattr(value, name), name) for name in field_names(type(value))}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, name) for key, item in value.items()}
    return Fingerprint().add(value, name).hexdigest()
