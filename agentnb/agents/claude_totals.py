"""What a process of the claude CLI used so far, and what its result says of it; standard library only."""

from __future__ import annotations

import math
from typing import Any

from agentnb.agents.claude_blocks import mapping
from agentnb.agents.claude_turn import Turn
from agentnb.events import Json

_TOKENS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
}
_OF_MODELS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadInputTokens": "cache_read_tokens",
    "cacheCreationInputTokens": "cache_write_tokens",
}


class Totals:
    """Tokens and dollars of one process. What a result says of the whole conversation is not taken for its own."""

    def __init__(self, *, resumed: bool) -> None:
        """`resumed`: it goes on with an earlier conversation."""
        self._resumed = resumed
        self._sums: dict[str, int] = {}
        self._own: dict[str, dict[str, float]] | None = None

    def count(self, turn: Turn, usage: Json, *, start: bool = False) -> Json | None:
        """The totals after this usage of a turn's message, when they changed; `start`: its tokens written are only a beginning."""
        changed = False
        turn.told = turn.told | usage
        for theirs, name in _TOKENS.items():
            new = usage.get(theirs)
            if type(new) is not int or new < 0 or (start and name == "output_tokens" and name in turn.usage):
                continue
            old = turn.usage.get(name, 0)
            if new != old:
                turn.usage[name] = new
                self._sums[name] = self._sums.get(name, 0) + new - old
                changed = True
        return {"t": "usage", **self._sums} if changed else None

    def models(self, event: Json) -> Json:
        """By model what this process used, after a result: `modelUsage` of one that resumes goes on from the conversation's sums."""
        since = event.get("model_usage_since_last_result")
        if not self._resumed or type(since) is not dict:
            return mapping(event.get("modelUsage"))
        self._own = self._own or {}
        for model, used in since.items():
            sums = self._own.setdefault(model, {})
            for name, n in mapping(used).items():
                if isinstance(n, int | float) and not isinstance(n, bool):
                    sums[name] = sums.get(name, 0) + n
        return {**self._own}

    def report(self, event: Json, models: Json) -> Json:
        """The totals that a result tells; `models`: what `models` made of it."""
        report = dict[str, Any](t="usage", **self._sums)
        told = _of_models(models) or {
            name: n for theirs, name in _TOKENS.items() if type(n := mapping(event.get("usage")).get(theirs)) is int
        }
        silent = bool(self._sums) and not any(told.values())  # some versions say zero of what an interrupted run used
        report |= {} if silent else told
        for theirs, name in (("num_turns", "turns"), ("total_cost_usd", "cost_usd"), ("session_id", "agent_session")):
            if event.get(theirs) is not None and not (silent and name == "cost_usd"):
                report[name] = event[theirs]
        if len(models) == 1:
            report["model"] = next(iter(models))
        took, wrote = event.get("duration_api_ms"), report.get("output_tokens")
        if self._own is not None:
            costs = [used.get("costUSD") for used in self._own.values()]
            report["cost_usd"] = None if None in costs else math.fsum(cost for cost in costs if cost is not None)
            wrote = _of_models(mapping(event.get("modelUsage"))).get("output_tokens")  # the time, too, is the conversation's
        if isinstance(took, int | float) and took > 0 and wrote:
            report["tokens_per_s"] = wrote / took * 1000
        return report


def _of_models(models: Json) -> Json:
    """The tokens of all models together, sub-agents' included."""
    return {
        name: sum(n for used in models.values() if type(n := mapping(used).get(theirs)) is int)
        for theirs, name in _OF_MODELS.items()
        if models
    }
