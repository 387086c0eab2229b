"""Checks of a run's output: patterns, JSON Schema, and where structured output is found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from agentnb.engine.reports import MAX_LINE, too_deep
from agentnb.engine.work import CheckPlan
from agentnb.events import Json

_FENCE = re.compile(r"```(?:json)?[ \t]*\r?\n(.*?)\r?\n[ \t]*```", re.DOTALL)


#: Text up to this size is searched for JSON at once, in the supervisor.
QUICK_BYTES = 64 * 1024
#: A stream larger than this is not searched: that fails.
MAX_SEARCHED = 256 * 1024 * 1024


class Job(TypedDict):
    """What is to be found out. `streams`: {"text": ...} or {"path": ...} for each, None when it was not captured.

    `wants_json`: look for structured output in stdout; else `output` and `source` are what the agent returned.
    """

    plan: CheckPlan
    streams: dict[str, Json | None]
    wants_json: bool
    output: Any
    source: str | None


def nothing_to_do(job: Job) -> bool:
    """Whether neither patterns nor a schema nor JSON are asked for."""
    plan = job["plan"]
    return not (job["wants_json"] or plan.get("expected_pattern") or plan.get("forbidden_patterns") or plan.get("json_schema") is not None)


def is_quick(job: Job) -> bool:
    """Whether `examine` takes no time to speak of."""
    stdout = job["streams"]["stdout"]
    return not job["plan"] and (stdout is None or len(stdout.get("text", " " * (QUICK_BYTES + 1))) <= QUICK_BYTES)


def examine(job: Job) -> Json:
    """Look for JSON, patterns and faults: {"issues", "output", "source"}."""
    texts: dict[str, str | None] = {}
    issues: list[Json] = []
    for name, record in job["streams"].items():
        texts[name] = _text(name, record, issues) if record is not None else None
    if issues:
        return {"issues": issues, "output": None, "source": None}
    output, source = job["output"], job["source"]
    if job["wants_json"] and (found := structured(texts["stdout"] or "")) is not None:
        output, source = found
    issues = patterns(job["plan"], texts) + schema(job["plan"], output, source)
    return {"issues": issues, "output": output, "source": source}


def report(job: Job) -> str:
    """What `examine` finds, as a report line; output too big for one is left out, with a warning."""
    found = examine(job) | {"t": "checks"}
    line = json.dumps(found)
    if len(line) >= MAX_LINE:
        message = f"the JSON in stdout is larger than {MAX_LINE} bytes, so it is not kept as the run's output; read it from the log file"
        found |= {"output": None, "source": None, "issues": [*found["issues"], issue("output", message, "warning")]}
        line = json.dumps(found)
    return line


def _text(name: str, record: Json, issues: list[Json]) -> str:
    if "text" in record:
        return str(record["text"])
    path = Path(record["path"])
    if (size := path.stat().st_size) > MAX_SEARCHED:
        issues.append(issue("streams", f"{name} has {size} bytes; more than {MAX_SEARCHED} are not searched"))
        return ""
    return path.read_bytes().decode("utf-8", "replace")


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
    """One finding, as the fields of results.Issue."""
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
