"""What people may look for and this version does not have, and what to do instead. Nothing is imported here."""

from __future__ import annotations

_SPECS = (
    "nb.Shell, nb.Command, nb.Test, nb.Python, nb.LocalModel, nb.OpenAICompatible, nb.A2A, nb.Replay, nb.Claude, nb.JsonLines, nb.Agent, "
    "nb.Swarm"
)

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

_NAMES = {
    "Docker": _MACHINE,
}
_COMMANDS = {
    "serve": "read the history with `agentnb runs` or nb.runs_df()",
}


def of_package(name: str) -> str | None:
    """What to say of ``agentnb.name``; None for a name that means nothing."""
    return f"agentnb.{name} is not in this version of agentnb: {_NAMES[name]}; what is: {_SPECS}" if name in _NAMES else None


def of_command(name: str) -> str | None:
    """What to say of the command ``agentnb name``; None for a name that means nothing."""
    if name not in _COMMANDS:
        return None
    return f"the command {name!r} is not in this version of agentnb: {_COMMANDS[name]} (what is: agentnb --help)"
