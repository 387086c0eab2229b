"""What runs and steps are in traces: their ids, and their names by the semantic conventions for generative AI (standard library only).

Both the live spans (notebook/tracing.py) and the exported ones (history/exporting/spans.py) are made by these rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from agentnb.states import TargetKind

#: Kinds of targets that are agents; all others are tools.
AGENTS = frozenset(
    kind.value
    for kind in (
        TargetKind.PYTHON,
        TargetKind.LOCAL_MODEL,
        TargetKind.CLAUDE,
        TargetKind.OPENAI_COMPATIBLE,
        TargetKind.JSON_LINES,
        TargetKind.A2A,
        TargetKind.AGENT,
        TargetKind.SWARM,
    )
)
#: Who answers the agents of a kind, where the kind says so.
PROVIDERS = {TargetKind.CLAUDE.value: "anthropic", TargetKind.OPENAI_COMPATIBLE.value: "openai", TargetKind.LOCAL_MODEL.value: "llama.cpp"}
#: Options of a model, and what the conventions call them.
REQUEST = {"temperature": "temperature", "top_p": "top_p", "seed": "seed", "max_tokens": "max_tokens"}

_USAGE = {
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "cost_usd": "agentnb.cost_usd",
}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX = re.compile(r"[0-9a-f]{32}")
_NO_TRACE = "0" * 32


def span_id(thing: str, run_id: str = "") -> str:
    """The span of the run with this id, or of the step with this id of that run; 16 hexadecimal digits, always the same."""
    if _UUID.fullmatch(thing):  # the half of it that is random
        return thing[19:23] + thing[24:]
    return blake2b(f"{run_id}/{thing}".encode("utf-8", "backslashreplace"), digest_size=8, person=b"agentnb").hexdigest()


def trace_id(run_id: str, recorded: Any) -> str:
    """The trace of a run: the one that is recorded, else one made of its id, for histories that are older than trace ids."""
    if isinstance(recorded, str) and _HEX.fullmatch(recorded) and recorded != _NO_TRACE:
        return recorded
    return blake2b(run_id.encode("utf-8", "backslashreplace"), digest_size=16, person=b"agentnb").hexdigest()


def named(name: str, *, agent: bool) -> tuple[str, dict[str, Any]]:
    """The name of the span of an agent or a tool, and the attributes that say so."""
    operation, whose = ("invoke_agent", "gen_ai.agent.name") if agent else ("execute_tool", "gen_ai.tool.name")
    return f"{operation} {name}", {"gen_ai.operation.name": operation, whose: name}


def usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of tokens and cost. The conventions count what came from, or went to, a cache among the input; our columns do not."""
    known = {name: count for name, count in counts.items() if isinstance(count, int | float)}
    found = {attribute: known[name] for name, attribute in _USAGE.items() if name in known}
    if parts := [known[name] for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens") if name in known]:
        found["gen_ai.usage.input_tokens"] = sum(parts)
    return found
