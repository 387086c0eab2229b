"""Swarms of spec files as targets: the file is read and the input checked; a child process runs the flow, each worker as a child run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentnb.agents.adapters import Asked, Features
from agentnb.agents.declared_agent import check_digest, with_params
from agentnb.agents.launch import child_work
from agentnb.agents.spec_file import load_swarm
from agentnb.agents.swarm_file import SwarmFile
from agentnb.agents.swarm_plan import INHERITED, SwarmPlan
from agentnb.errors import ConfigError, InvalidLimits
from agentnb.execution import ExecutionConfig
from agentnb.swarms import Swarm

#: What a swarm's own process has no use for, and where it belongs.
_REFUSED = {
    "stdin": "its process reads none; give the workers what they need by their input",
    "capture": "what its workers print is kept with their runs; say it in their specs",
}
#: Options of the session that its own process has no use for.
_DROPPED = ("stdin", "limits", "retry", "capture", "validation", "inputs")


def read(target: Swarm) -> SwarmFile:
    """What a swarm is. Raises SpecError; ConfigError when it is not the one that `sha256` means."""
    swarm = load_swarm(target.spec if target.path is None else target.path)  # type: ignore[arg-type]
    check_digest(target, swarm.digest)
    return swarm


def settled(spec: Swarm, given: ExecutionConfig, defaults: ExecutionConfig) -> ExecutionConfig:
    """What holds for the run of a swarm. Raises ConfigError, InvalidLimits for options that belong to its workers."""
    for name, why in _REFUSED.items():
        if name in given.model_fields_set and getattr(given, name) is not None:
            raise ConfigError(f"{name}: a swarm cannot have it: {why}")
    if given.limits is not None:
        raise InvalidLimits("limits: a swarm's work is done by its workers, each in a process of its own; give them limits in their specs")
    plan: SwarmPlan = spec.bound
    dropped: dict[str, Any] = {name: ExecutionConfig.model_fields[name].get_default() for name in _DROPPED}
    return given.over(plan.config.over(defaults.model_copy(update=dropped)))


class _SwarmAdapter:
    features = Features(steps=True, tokens=True, cost=True, agent=True)

    def missing(self) -> str:
        return ""

    def fill(self, spec: Swarm, params: Mapping[str, Any]) -> Swarm:
        swarm = read(spec)
        given = with_params(spec.input, params, swarm.input) if params else spec.input
        plan = SwarmPlan.of(swarm, given, params)
        named = {"path": str(Path(spec.path).expanduser().absolute())} if spec.path is not None else {"spec": spec.spec}
        return Swarm(**named, input=plan.input, sha256=plan.digest).bind(plan)

    def named(self, spec: Swarm) -> Swarm:
        return spec.model_copy().called(read(spec).id)

    def work(self, spec: Swarm, asked: Asked) -> dict[str, Any]:
        plan: SwarmPlan = spec.bound
        inherited = {name: value for name in INHERITED if (value := getattr(asked.defaults, name, None)) is not None}
        plan.defaults = ExecutionConfig(**inherited, grace=asked.grace_s)
        work = child_work("agentnb.agents.swarm_child", pickle.dumps(plan))
        record = {"input": plan.input, "tags": plan.tags}
        return work | {"children": True, "sums": True, "record": record}


SWARM = _SwarmAdapter()
