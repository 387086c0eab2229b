"""Who used what of a run's cost: the claude CLI tells it for each model at its end, turns and sub-agents get shares; standard library only.

A turn's share goes by its tokens, weighted as Anthropic's prices relate to each other: one written costs as five read, one written to the
cache as 1.25 (for an hour: 2), one read from it as 0.1 (with some models 0.05). So the shares are an apportionment, and their sum is what
the CLI told. Of a model's calls that the stream does not show, such as the last word of some sub-agents, the share stays with the
attempt, as does the cost of models that no turn was made by.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from agentnb.agents.claude_blocks import mapping
from agentnb.events import Json

#: What is read, by the names of a step's tokens; "hour": of those written to the cache, the ones that stay there for an hour.
READ = {"input": 1.0, "cache_read": 0.1, "cache_write": 1.25, "hour": 0.75}
_WRITTEN = 5.0
_OF_MESSAGE = {"input": "input_tokens", "cache_read": "cache_read_input_tokens", "cache_write": "cache_creation_input_tokens"}
_TOLD = {"input": "inputTokens", "cache_read": "cacheReadInputTokens", "cache_write": "cacheCreationInputTokens"}
_MOST = 1e15


class Call(NamedTuple):
    """One call of a model. `step`: whose it is, a turn's or a tool's; `read`: tokens by READ; `written`: None when nobody told.

    `length`: how many characters it wrote.
    """

    step: str
    model: str
    read: dict[str, int]
    written: int | None
    length: int


class Ledger:
    """The calls of one process of the CLI, and below which tool each was made."""

    def __init__(self) -> None:
        """Nothing was called yet."""
        self._calls: list[Call] = []
        self._above: dict[str, str | None] = {}
        self._agents: dict[str, None] = {}

    def add(self, call: Call, parent: str | None) -> None:
        """A call; `parent`: the tool whose sub-agent made it."""
        self._calls.append(call)
        if call.step != parent:
            self._above[call.step] = parent
        if parent is not None:
            self._agents[parent] = None

    def tool(self, tool: str, parent: str | None) -> None:
        """A tool is called by the sub-agent of `parent`, or by none."""
        self._above[tool] = parent

    def is_agent(self, tool: str) -> bool:
        """Whether calls of a model are known to be a tool's."""
        return tool in self._agents

    def used(self, models: Json) -> list[Json]:
        """The reports of what is known at the end of steps that have ended."""
        costs = shares(self._calls, models)
        found: dict[str, Json] = {step: {"cost_usd": cost} for step, cost in costs.items() if step not in self._agents}
        for tool, calls in self._below().items():
            tokens = {kind: sum(call.read.get(kind, 0) for call in calls) for kind in _TOLD}
            if all(call.written is not None for call in calls):
                tokens["output"] = sum(call.written or 0 for call in calls)
            found[tool] = {"tokens": tokens}
            if (steps := {call.step for call in calls}) <= set(costs):
                found[tool]["cost_usd"] = math.fsum(costs[step] for step in steps)
        return [{"t": "used", "id": step, **told} for step, told in found.items()]

    def _below(self) -> dict[str, list[Call]]:
        """The calls of each tool's sub-agent, and of those that this one started."""
        found: dict[str, list[Call]] = {tool: [] for tool in self._agents}
        for call in self._calls:
            at = call.step if call.step in self._agents else self._above.get(call.step)
            seen: set[str] = set()
            while at is not None and at not in seen:
                seen.add(at)
                found.setdefault(at, []).append(call)
                at = self._above.get(at)
        return found


def call(step: str, model: Any, usage: Json, *, final: bool, length: int = 0) -> Call:
    """A call, from the usage of a message; of one that is not `final` nobody knows how much was written."""
    read = {kind: _count(usage.get(name)) for kind, name in _OF_MESSAGE.items()}
    hour = _count(mapping(usage.get("cache_creation")).get("ephemeral_1h_input_tokens"))
    read["hour"] = min(hour, read["cache_write"])
    return Call(step, model if isinstance(model, str) else "", read, _count(usage.get("output_tokens")) if final else None, length)


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < _MOST else 0


def shares(calls: Iterable[Call], models: Json) -> dict[str, float]:
    """Dollars by step. `models`: the result's `modelUsage`, by name; what it does not tell has no share."""
    made: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        made[_plain(call.model)].append(call)
    told: defaultdict[str, list[Json]] = defaultdict(list)
    for name, used in models.items():
        told[_same(_plain(name), mapping(used), made)].append(mapping(used))
    if len(made) == len(told) == 1:  # a gateway may know the same model by two names
        told = defaultdict(list, {next(iter(made)): next(iter(told.values()))})
    costs: defaultdict[str, float] = defaultdict(float)
    unknown: set[str] = set()
    for model, of_model in made.items():
        found = dict(_of_model(of_model, told[model]))
        for n, call in enumerate(of_model):
            if n in found:
                costs[call.step] += found[n]
            else:
                unknown.add(call.step)
    return {step: cost for step, cost in costs.items() if step not in unknown}


def _same(name: str, used: Json, made: Iterable[str]) -> str:
    """The name that the messages of a model have: clouds have names of their own (``us.anthropic.claude-haiku-4-5-v1:0``)."""
    usual = used.get("canonicalModel")
    if name in made or not isinstance(usual, str) or not usual:
        return name
    fits = [model for model in made if model == usual or model.startswith(f"{usual}-20")]
    return fits[0] if len(fits) == 1 else name


def _plain(model: str) -> str:
    """Without the size of its context: ``claude-opus-4-8[1m]``."""
    return model.partition("[")[0]


def _of_model(calls: list[Call], told: list[Json]) -> Iterator[tuple[int, float]]:
    """The dollars of each call, by its place among them."""
    cost = _sum(told, "costUSD")
    wrote = _sum(told, "outputTokens")
    given = {kind: _sum(told, name) for kind, name in _TOLD.items()}
    if cost is None or wrote is None or not told:
        return
    unseen = sum(READ[kind] * max((n or 0) - sum(call.read.get(kind, 0) for call in calls), 0) for kind, n in given.items())
    left = max(wrote - sum(call.written or 0 for call in calls), 0.0)
    waiting = sum(call.length + 1 for call in calls if call.written is None)
    weights: list[float | None] = []
    for call in calls:
        read = sum(READ[kind] * n for kind, n in call.read.items())
        if call.written is not None:
            weights.append(read + _WRITTEN * call.written)
        else:  # by its length: all that is left was written by such calls, or nobody knows whose it is
            weights.append(None if unseen else read + _WRITTEN * left * (call.length + 1) / waiting)
    yield from _divided(cost, weights, calls, rest=unseen + (_WRITTEN * left if unseen or not waiting else 0.0))


def _divided(cost: float, weights: list[float | None], calls: list[Call], rest: float) -> Iterator[tuple[int, float]]:
    known = {n: weight for n, weight in enumerate(weights) if weight is not None}
    read_only = sum(sum(READ[kind] * n for kind, n in call.read.items()) for call, w in zip(calls, weights, strict=True) if w is None)
    total = math.fsum(known.values()) + rest + read_only
    if not known or (not total and cost):
        return
    found = {n: cost * (weight / total) if total else 0.0 for n, weight in known.items()}
    if not rest and not read_only:  # what rounding left over
        most = max(found, key=lambda n: found[n])
        found[most] = max(found[most] + cost - math.fsum(found.values()), 0.0)
    yield from found.items()


def _sum(told: list[Json], name: str) -> float | None:
    numbers = [used.get(name) for used in told]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < _MOST for n in numbers):
        return None
    return math.fsum(n for n in numbers if n is not None)
