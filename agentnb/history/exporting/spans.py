"""Runs and steps of the history as spans, in the JSON encoding of OTLP; names by the semantic conventions for generative AI."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentnb.states import StepKind
from agentnb.traces import AGENTS, PROVIDERS, REQUEST, named, span_id, trace_id, usage

Json = dict[str, Any]

#: Longer texts are cut, and end in "…"; of more attributes the last are dropped, and counted: collectors refuse spans that are too large.
MAX_TEXT, MAX_ATTRIBUTES = 16_384, 128
_MAX_BYTES = 500_000
_INTERNAL, _CLIENT, _ERROR = 1, 3, 2
_GOOD = frozenset({"completed", "skipped"})
_LARGEST = 2**63


def span_of_run(run: Mapping[str, Any], retries: Iterable[tuple[int, int]] = (), *, content: bool = False) -> Json:
    """The span of a run that has ended. `run`: its row, with `session`, its session's name, and `parent_trace`, its parent's trace id.

    `retries`: (stamp, attempt) of each further attempt. `content`: also what went in and came out.
    """
    kind, trace = run["target_kind"], trace_id(run["id"], run["trace_id"])
    agent = kind in AGENTS or (kind == "other" and (run["model"] or run["output_tokens"]) is not None)
    name, attributes = named(run["name"] or kind or "run", agent=agent)
    attributes |= _run_attributes(run) | usage(run)
    if content:
        attributes |= {"agentnb.input": run["input"], "agentnb.output": run["output"]}
    events = [_event(run["started_at"], "started")] if run["started_at"] is not None else []
    events += [_event(at, "retrying", {"agentnb.attempt": attempt}) for at, attempt in retries]
    span: Json = {"traceId": trace, "spanId": span_id(run["id"])}
    if run["parent_run_id"]:
        span |= _below(run["parent_run_id"], run["parent_trace"], trace)
    kind_of_span = _CLIENT if kind in {"openai_compatible", "a2a"} else _INTERNAL
    return span | _body(run, name, kind_of_span, attributes, events, start=run["created_at"])


def span_of_step(run: Mapping[str, Any], step: Mapping[str, Any], *, content: bool = False) -> Json:
    """The span of a step of a run that has ended; both as their rows."""
    name, kind, attributes = _named_step(run, step)
    tokens = _object(step["tokens"])
    attributes |= {"agentnb.run_id": run["id"], "agentnb.step_id": step["id"], "agentnb.step_kind": step["kind"]}
    attributes |= {"agentnb.attempt": step["attempt"], "agentnb.status": step["status"], "agentnb.cpu_s": step["cpu_s"]}
    attributes |= {"agentnb.run_s": step["run_s"], "process.exit.code": step["exit_code"]}
    attributes |= usage({f"{name}_tokens": count for name, count in tokens.items()} | {"cost_usd": step["cost_usd"]})
    if content:
        attributes |= _content(step)
    parent = span_id(step["parent_id"], run["id"]) if step["parent_id"] else span_id(run["id"])
    trace = trace_id(run["id"], run["trace_id"])
    span: Json = {"traceId": trace, "spanId": span_id(step["id"], run["id"]), "parentSpanId": parent}
    start = step["started_at"] if step["started_at"] is not None else step["created_at"]
    ended = step if step["finished_at"] is not None else {**step, "finished_at": run["finished_at"]}
    return span | _body(ended, name, kind, attributes, [], start=start)


def attributes_of(values: Mapping[str, Any]) -> Json:
    """The attributes, and how many were dropped, as fields of OTLP's JSON; None, and what is no finite number, are left out."""
    found: list[Json] = [{"key": clean(key)[:255], "value": value} for key, one in values.items() if (value := _value(one)) is not None]
    size, kept = 0, 0
    for attribute in found[:MAX_ATTRIBUTES]:
        text = str(attribute["value"].get("stringValue", ""))
        size += len(json.dumps(text)) if len(text) > 100 else 1000
        if size > _MAX_BYTES:
            break
        kept += 1
    return {"attributes": found[:kept]} | ({"droppedAttributesCount": len(found) - kept} if kept < len(found) else {})


def clean(text: str) -> str:
    """`text` as UTF-8 can hold it, not too long."""
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _run_attributes(run: Mapping[str, Any]) -> Json:
    kind, found = run["target_kind"], {f"agentnb.{name}": run[name] for name in _FACTS}
    found |= {"agentnb.run_id": run["id"], "agentnb.target_kind": kind, "process.exit.code": run["exit_code"]}
    found |= {"gen_ai.conversation.id": run["agent_session"], "gen_ai.response.model": run["model"]}
    found["gen_ai.provider.name"] = PROVIDERS.get(kind)
    spec = _object(_object(run["target"]).get("spec"))
    if kind in AGENTS:
        found["gen_ai.request.model"] = spec["model"] if isinstance(spec.get("model"), str) else None
        found |= {f"gen_ai.request.{word}": spec[field] for field, word in REQUEST.items() if isinstance(spec.get(field), int | float)}
    found |= {f"agentnb.param.{name}": value for name, value in _object(run["params"]).items()}
    return found | {f"agentnb.tag.{name}": value for name, value in _object(run["tags"]).items()}


_FACTS = (
    "session_id", "session", "group_id", "status", "attempts", "run_s", "cpu_s", "peak_memory_bytes", "turns", "tokens_per_s",
    "parent_run_id", "replay_of", "reused_from", "resumed_from",
)  # fmt: skip


def _named_step(run: Mapping[str, Any], step: Mapping[str, Any]) -> tuple[str, int, Json]:
    kind, name = step["kind"], step["name"] or step["kind"] or "step"
    if kind == StepKind.TURN:
        model = run["model"]
        about = {"gen_ai.operation.name": "chat", "gen_ai.response.model": model, "gen_ai.provider.name": PROVIDERS.get(run["target_kind"])}
        return f"chat {model or name}", _CLIENT, about
    if kind in {StepKind.TOOL, StepKind.WORKER}:
        title, about = named(name, agent=kind == StepKind.WORKER)
        return title, _INTERNAL, about
    return name, _INTERNAL, {}


def _content(step: Mapping[str, Any]) -> Json:
    """What went into a step and came out of it, as the conventions have it."""
    if step["kind"] == StepKind.TOOL:
        return {"gen_ai.tool.call.arguments": step["input"], "gen_ai.tool.call.result": step["output"]}
    said = _object(step["output"])
    if step["kind"] == StepKind.TURN and isinstance(said.get("text"), str):
        parts = [{"type": "reasoning", "content": said["thinking"]}] if said.get("thinking") else []
        message = {"role": "assistant", "parts": [*parts, {"type": "text", "content": said["text"]}]}
        return {"gen_ai.output.messages": json.dumps([message])}
    return {"agentnb.input": step["input"], "agentnb.output": step["output"]}


def _below(parent: str, parent_trace: str | None, trace: str) -> Json:
    """Below its parent's span, or linked with it when that is in another trace."""
    there = trace_id(parent, parent_trace)
    return {"parentSpanId": span_id(parent)} if there == trace else {"links": [{"traceId": there, "spanId": span_id(parent)}]}


def _body(row: Mapping[str, Any], name: str, kind: int, attributes: Json, events: list[Json], *, start: int | None) -> Json:
    error = _object(row["error"])
    begin = start or 0
    end = max(row["finished_at"] or 0, begin)  # a clock that was set back must not turn time around
    if row["status"] not in _GOOD:
        attributes = attributes | {"error.type": row["error_kind"] or row["status"]}
        events = [*events, *_exception(error, end)]
    span: Json = {"name": clean(name), "kind": kind, "startTimeUnixNano": _nano(begin), "endTimeUnixNano": _nano(end)}
    span |= attributes_of(attributes)
    if events:
        span["events"] = events
    if row["status"] not in _GOOD:
        span["status"] = {"code": _ERROR, "message": clean(str(error.get("message") or row["status"]))}
    return span


def _exception(error: Json, at: int) -> Iterator[Json]:
    if error:
        details = _object(error.get("details"))
        found = {"type": details.get("type") or error.get("kind"), "message": error.get("message"), "stacktrace": details.get("traceback")}
        yield _event(at, "exception", {f"exception.{name}": value for name, value in found.items()})


def _event(at: int, name: str, attributes: Json | None = None) -> Json:
    event: Json = {"timeUnixNano": _nano(at), "name": name}
    return event | attributes_of(attributes) if attributes else event


def _nano(at: int) -> str:
    """Microseconds as nanoseconds, which OTLP has 64 bits for."""
    return str(min(max(at, 0) * 1000, 2**64 - 1))


def _object(value: Any) -> Json:
    """A JSON object, or the text of one; {} for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _value(value: Any) -> Json | None:
    match value:
        case None:
            return None
        case bool():
            return {"boolValue": value}
        case int() if -_LARGEST <= value < _LARGEST:
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value} if math.isfinite(value) else None
        case str():
            return {"stringValue": clean(value)}
    return {"stringValue": clean(json.dumps(value))}
