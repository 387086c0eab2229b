"""What people may look for and this version does not have, and what to do instead. Nothing is imported here."""

from __future__ import annotations

_VERBS = "shell, command, test, python, local, replay, claude, a2a"
_SPECS = "nb.Shell, nb.Command, nb.Test, nb.Python, nb.LocalModel, nb.OpenAICompatible, nb.A2A, nb.Replay, nb.Claude, nb.JsonLines"

_FILE = "write the agent as a Python function and launch it with session.python(...)"
_MACHINE = "every run is a process of this machine; put `docker run ...` or `ssh ...` into the command"

#: Options of a launch or a session -> what to do.
OPTIONS = {
    "runtime": _MACHINE,
    "reuse": "it belongs to a launch: session.shell(..., reuse=True), session.map(..., reuse=True)",
    "detach": "it belongs to a launch: session.shell(..., detach=True)",
    "on_interrupt": "it belongs to wait(): run.wait(on_interrupt='detach')",
    "cwd": "it is called working_dir",
    "check": "runs raise nothing by themselves; call result.raise_for_status()",
    "shell": "only a Shell target has one: session.shell(command, shell='bash')",
    "synchronous": "it belongs to nb.Session(...), or set AGENTNB_SYNCHRONOUS",
    "max_parallel": "it belongs to nb.Session(...) and to session.map(...)",
}

_SESSION = {
    "agent": _FILE,
    "swarm": _FILE,
}
_NAMES = {
    "Agent": _FILE,
    "Swarm": _FILE,
    "Docker": _MACHINE,
}
_COMMANDS = {
    "run": "launch from Python: nb.Session('name').shell(...)",
    "validate": "check a launch from Python: session.validate(nb.Shell(...))",
    "schema": "there are no agent or swarm files yet",
    "inspect": "there are no agent or swarm files yet; `agentnb show RUN` shows a run",
    "serve": "read the history with `agentnb runs` or nb.runs_df()",
}


def of_session(name: str) -> str | None:
    """What to say of ``session.name``; None for a name that means nothing."""
    return _say("Session", name, _SESSION, _VERBS)


def of_package(name: str) -> str | None:
    """What to say of ``agentnb.name``; None for a name that means nothing."""
    return _say("agentnb", name, _NAMES, _SPECS)


def of_command(name: str) -> str | None:
    """What to say of the command ``agentnb name``; None for a name that means nothing."""
    if name not in _COMMANDS:
        return None
    return f"the command {name!r} is not in this version of agentnb: {_COMMANDS[name]} (what is: agentnb --help)"


def _say(where: str, name: str, table: dict[str, str], known: str) -> str | None:
    return f"{where}.{name} is not in this version of agentnb: {table[name]}; what is: {known}" if name in table else None
