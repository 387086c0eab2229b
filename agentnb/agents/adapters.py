"""Adapters: how each kind of target becomes work for the engine, by one protocol for all of them.

Other packages add kinds of agents: a subclass of ``commands.Spec`` whose ``type`` is the adapter's name, and an object with the
attributes of `Adapter`, named by an entry point of the group ``agentnb.adapters`` (or given to `register`). One whose program prints JSON
lines makes its work with ``agents.json_lines.stream_work(argv, "module:Parser")``; the parser's protocol is in engine/parsing.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar, cast

from agentnb.commands import Spec
from agentnb.errors import ConfigError

#: The group of entry points that adapters of other packages stand in; each is named as the `type` of its spec.
GROUP = "agentnb.adapters"

_BUILT_IN = {
    "shell": "agentnb.agents.shell:SHELL",
    "command": "agentnb.agents.shell:COMMAND",
    "test": "agentnb.agents.shell:TEST",
    "python": "agentnb.agents.python:PYTHON",
    "local_model": "agentnb.agents.local:LOCAL_MODEL",
    "claude": "agentnb.agents.claude:CLAUDE",
    "json_lines": "agentnb.agents.json_lines:JSON_LINES",
    "openai_compatible": "agentnb.agents.openai:OPENAI_COMPATIBLE",
    "a2a": "agentnb.agents.a2a:A2A_AGENT",
    "replay": "agentnb.agents.replay:REPLAY",
    "agent": "agentnb.agents.declared_agent:AGENT",
    "swarm": "agentnb.agents.swarm:SWARM",
}

AnySpecT = TypeVar("AnySpecT", bound=Spec)


@dataclass(frozen=True, slots=True)
class Features:
    """What runs of a kind can do, beside printing text.

    `steps`: they tell their turns and tool calls. `tokens`, `cost`: they count them. `reply`: ``run.reply(...)`` goes on where a run
    ended. `agent`: traces call them agents, not tools.
    """

    steps: bool = False
    tokens: bool = False
    cost: bool = False
    reply: bool = False
    agent: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a launch beside its spec. `cwd`: absolute. `env`: the variables given for this run, secrets revealed.

    `defaults`: what the session says of all runs, an ExecutionConfig, where that is known. `grace_s`: between SIGTERM and SIGKILL.
    """

    run_id: str
    params: Mapping[str, Any]
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)
    defaults: Any = None
    grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended that is replied to. `output`: its answer; `agent_session`: what the agent calls the conversation, if it does."""

    output: Any = None
    agent_session: str | None = None


class Adapter(Protocol):
    """One kind of target.

    With ``features.reply`` it has ``reply(spec, text, finished: Finished) -> Spec``, too: the spec of the run that goes on with `text`
    where a run of `spec` ended; it raises ConfigError when there is nothing to go on from.
    """

    @property
    def features(self) -> Features:
        """What its runs can do."""

    def missing(self) -> str:
        """What it lacks on this machine and how to get it; "" when nothing."""

    def fill(self, spec: Any, params: Mapping[str, Any]) -> Any:
        """A copy of `spec` with its templates filled. Raises TemplateError, and ConfigError for a value that does not fit."""

    def work(self, spec: Any, asked: Asked) -> dict[str, Any]:
        """The parts of an engine Work that are its own: argv, payload, channel, parser ... (engine/work.py).

        Raises ConfigError or RuntimeUnavailable for what cannot work.
        """


_known: dict[str, Adapter] = {}


def register(kind: str, adapter: Adapter) -> None:
    """Make an adapter known for specs with ``type`` `kind`. Raises ConfigError when the kind is taken."""
    if kind in _BUILT_IN or _known.get(kind, adapter) is not adapter:
        raise ConfigError(f"there is an adapter for {kind!r} already; give the spec's `type` another name")
    _known[kind] = adapter


def adapter_of(spec: Spec) -> Adapter:
    """The adapter of a spec. Raises ConfigError when there is none, or when it cannot be loaded."""
    return adapter(str(getattr(spec, "type", type(spec).__name__)))


def adapter(kind: str) -> Adapter:
    """The adapter of a kind. Raises ConfigError when there is none, or when it cannot be loaded."""
    if kind not in _known:
        _known[kind] = _load(kind)
    return _known[kind]


def kinds() -> list[str]:
    """Every kind that has an adapter: built-in, registered, and of installed packages."""
    return list(dict.fromkeys([*_BUILT_IN, *_known, *(entry.name for entry in entry_points(group=GROUP))]))


def _load(kind: str) -> Adapter:
    if kind in _BUILT_IN:
        home, _, name = _BUILT_IN[kind].partition(":")
        return cast("Adapter", getattr(import_module(home), name))
    for entry in entry_points(group=GROUP, name=kind):
        try:
            found = entry.load()
        except Exception as bad:
            raise ConfigError(f"the adapter for {kind!r} ({entry.value}) cannot be loaded: {type(bad).__name__}: {bad}") from bad
        return cast("Adapter", found() if isinstance(found, type) else found)
    raise ConfigError(f"there is no adapter for targets of type {kind!r}; known: {', '.join(kinds())}")
