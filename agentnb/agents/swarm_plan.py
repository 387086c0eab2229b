"""A swarm that was read, with its input: all that its process needs to run it, as data that can be pickled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentnb.agents import filling
from agentnb.agents.crew import Target
from agentnb.agents.declared_agent import bound_agent, checked
from agentnb.agents.flow import Item, Json
from agentnb.agents.scope import Scope
from agentnb.agents.spec import AgentSpec
from agentnb.agents.swarm_file import SwarmFile, Worker
from agentnb.data import Secret
from agentnb.execution import ExecutionConfig
from agentnb.swarms import Swarm

#: Options of the session that hold for the workers as well as for runs that are launched from a cell.
INHERITED = ("timeout", "retry", "limits", "capture")


@dataclass(frozen=True, slots=True)
class Member:
    """One worker. `agent`: what it is; `config`: what the swarm says of how it runs; `inline`: it is a command of the swarm's own file."""

    agent: AgentSpec | SwarmFile
    config: ExecutionConfig
    inline: bool


@dataclass(slots=True)
class SwarmPlan:
    """One swarm with its input.

    `inputs`: of each worker that says so, what it is given, as templates. `defaults`: what the session says of its workers' runs.
    """

    id: str
    flow: Item
    on_failure: str
    output: Any
    members: dict[str, Member]
    inputs: dict[str, Any]
    input: Json
    digest: str
    config: ExecutionConfig
    tags: dict[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    defaults: ExecutionConfig = field(default_factory=ExecutionConfig)

    @classmethod
    def of(cls, swarm: SwarmFile, given: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> SwarmPlan:
        """What `swarm` is with the input `given`. Raises ConfigError that names what of the input does not fit."""
        flow = swarm.order
        return cls(
            id=swarm.id,
            flow=flow if isinstance(flow, str) else flow.model_dump(mode="json", by_alias=True, exclude_none=True),
            on_failure=swarm.on_failure,
            output=swarm.output,
            members={
                worker.name: Member(swarm.agents[worker.name], _own(worker, swarm.folder), worker.spec is None) for worker in swarm.workers
            },
            inputs={worker.name: worker.input for worker in swarm.workers if worker.input is not None},
            input=checked(f"swarm {swarm.id!r}", swarm.input, given),
            digest=swarm.digest,
            config=ExecutionConfig(timeout=swarm.timeout) if swarm.timeout is not None else ExecutionConfig(),
            tags=dict(swarm.tags),
            params=dict(params or {}),
        )

    @property
    def secrets(self) -> list[Secret]:
        """Of its workers, what must not be seen."""
        return [secret for agent in self.agents.values() for secret in getattr(agent.command, "secrets", ())]

    @property
    def agents(self) -> dict[str, AgentSpec]:
        """What its workers are, and those of the swarms in it, by name."""
        return dict(_agents("", {name: member.agent for name, member in self.members.items()}))

    def target(self, worker: str, given: Any, scope: Scope) -> Target:
        """What a worker is to do. Raises ConfigError for an input that does not fit, TemplateError, RuntimeUnavailable."""
        member = self.members[worker]
        if isinstance(member.agent, SwarmFile):
            plan = SwarmPlan.of(member.agent, given, self.params)
            swarm = Swarm(spec={"id": plan.id}, input=plan.input, sha256=plan.digest).bind(plan)
            return Target(swarm, _filled(member.config, scope.values()), self.defaults)
        seen = {name: value for name, value in scope.values().items() if name != "input"}
        agent, config = bound_agent(member.agent, given, seen), _filled(member.config, {**seen, "input": given})
        if member.inline:  # there is no agent that anybody could find again: it is the command that is run
            return Target(agent.bound.command, config.over(agent.bound.config), self.defaults)
        return Target(agent, config, self.defaults)


def _own(worker: Worker, folder: Path | None) -> ExecutionConfig:
    """What the swarm says of how a worker runs; its folder is relative to that of the file."""
    config = worker.config()
    if worker.working_dir is None or folder is None:
        return config
    return config.model_copy(update={"working_dir": str(folder / Path(worker.working_dir).expanduser())})


def _agents(before: str, found: Mapping[str, AgentSpec | SwarmFile]) -> Iterator[tuple[str, AgentSpec]]:
    for name, agent in found.items():
        if isinstance(agent, SwarmFile):
            yield from _agents(f"{before}{name}.", agent.agents)
        else:
            yield before + name, agent


def _filled(config: ExecutionConfig, values: Mapping[str, Any]) -> ExecutionConfig:
    """What the swarm says of a worker's variables and folder, with its templates filled."""
    changes: Json = {}
    if config.env:
        changes["env"] = {name: filling.text(str(text), values, f"env[{name!r}]") for name, text in config.env.items()}
    if config.working_dir is not None:
        changes["working_dir"] = filling.text(str(config.working_dir), values, "working_dir")
    return config.model_copy(update=changes) if changes else config
