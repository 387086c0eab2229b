"""Checks of a run's output: patterns, JSON Schema, and where structured output is found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentnb.engine.reports import too_deep
from agentnb.engine.work import CheckPlan
from agentnb.events import Json

_FENCE = re.compile(r"```(?:json)?[ \t]*\r?\n(.*?)\r?\n[ \t]*```", re.DOTALL)


def structured(text: str) -> tuple[Any, str] | None:
    """JSON found in `text`, and where.

    The whole text ("json"), else its last line ("last_line"), else its last fenced block ("fenced_block"); None when there is none.
    """
    stripped = text.strip()
    candidates = [(stripped, "json"), (stripped.rpartition("\n")[2], "last_line")]
    candidates += [(block, "fenced_block") for block in _FENCE.findall(text)[-1:]]
    for candidate, source in candidates:
        if candidate:
            try:
                found = json.loads(candidate)
            except (ValueError, RecursionError):
                continue
            if not too_deep(found):
                return found, source
    return None


def issue(check: str, message: str, severity: str = "error") -> Json:
    """One finding, as the fields of commands.Issue."""
    return {"severity": severity, "check": check, "message": message}


def patterns(plan: CheckPlan, texts: Mapping[str, str | None]) -> list[Json]:
    """Findings of the pattern checks over the streams that the plan names; a stream that was not captured is a failure."""
    expected = plan.get("expected_pattern")
    forbidden = plan.get("forbidden_patterns") or []
    if not expected and not forbidden:
        return []
    names = plan.get("streams") or ["stdout"]
    found = [issue("streams", f"{name} was not captured, so it cannot be searched") for name in names if texts.get(name) is None]
    present = {name: text for name in names if (text := texts.get(name)) is not None}
    if expected and present and not any(re.search(expected, text) for text in present.values()):
        found.append(issue("expected_pattern", f"{expected!r} was not found in {' or '.join(present)}"))
    for pattern in forbidden:
        for name, text in present.items():
            if match := re.search(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(issue("forbidden_patterns", f"{pattern!r} was found in {name}, line {line}"))
    return found


def schema(plan: CheckPlan, output: Any, source: str | None) -> list[Json]:
    """Findings of holding the structured output against the JSON Schema."""
    wanted = plan.get("json_schema")
    if wanted is None:
        return []
    if source is None:
        return [issue("json_schema", "no JSON was found in stdout: neither the whole, nor its last line, nor a fenced block")]
    from jsonschema.validators import validator_for  # imported late: most runs need none of it

    faults = sorted(validator_for(wanted)(wanted).iter_errors(output), key=lambda fault: fault.json_path)
    return [issue("json_schema", f"{fault.json_path}: {fault.message}") for fault in faults[:20]]
