"""The trace that a run belongs to; and a span for it, when the user has set up OpenTelemetry in this process.

OpenTelemetry is never imported here: without it, or without a tracer provider, a launch costs 24 random bytes.
Spans follow the semantic conventions for generative AI; they begin with the launch and end with the run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb._version import __version__
from agentnb.events import Json, Message, RunFinished, RunRetrying, RunStarted, UsageReported
from agentnb.ids import random_bytes
from agentnb.states import TargetKind

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

_SAMPLED = 1
_AGENTS = frozenset({TargetKind.PYTHON.value, TargetKind.LOCAL_MODEL.value})
#: Options of a model, and what the conventions call them.
_REQUEST = {"temperature": "temperature", "top_p": "top_p", "seed": "seed", "max_tokens": "max_tokens"}


@dataclass(slots=True, frozen=True)
class Trace:
    """A run's place in a trace. `parent`: as in W3C's traceparent header, for its processes. `span`: takes the run's events."""

    trace_id: str
    parent: str
    span: RunSpan | None = None


def trace_of(run: Json) -> Trace:
    """The trace of a run that is launched now, from here: that of the active span, else a new one.

    `run`: as in requests.Launch. With a tracer provider there is a span for the run, a child of the active one.
    """
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is None:
        return _new()
    if not isinstance(api.get_tracer_provider(), (api.ProxyTracerProvider, api.NoOpTracerProvider)):
        span = RunSpan(api, run)
        if span.context.is_valid:
            return _at(span.context, span)
    active = api.get_current_span().get_span_context()
    return _at(active) if active.is_valid else _new()


def _new() -> Trace:
    ids = random_bytes(24).hex()
    return Trace(ids[:32], f"00-{ids[:32]}-{ids[32:]}-{_SAMPLED:02x}")


def _at(place: SpanContext, span: RunSpan | None = None) -> Trace:
    trace_id = f"{place.trace_id:032x}"
    return Trace(trace_id, f"00-{trace_id}-{place.span_id:016x}-{place.trace_flags:02x}", span)


class RunSpan:
    """The span of one run: hears its events, and ends with it."""

    __slots__ = ("_api", "_span", "_usage")

    def __init__(self, api: Any, run: Json) -> None:
        """Start it. `api`: the module opentelemetry.trace."""
        is_agent = run["target"]["kind"] in _AGENTS
        operation = "invoke_agent" if is_agent else "execute_tool"
        self._api = api
        self._usage: UsageReported | None = None
        self._span: Span = api.get_tracer("agentnb", __version__).start_span(
            f"{operation} {run['name']}",
            attributes=_attributes(run, operation, "gen_ai.agent.name" if is_agent else "gen_ai.tool.name"),
            start_time=run["created_at"] * 1000,
        )

    @property
    def context(self) -> SpanContext:
        """Its ids."""
        return self._span.get_span_context()

    def activate(self) -> None:
        """Make it the active span of the caller's context, so that what a coroutine does becomes part of it."""
        sys.modules["opentelemetry.context"].attach(self._api.set_span_in_context(self._span))

    def __call__(self, event: Message) -> None:
        """Take the next event of the run."""
        match event:
            case RunStarted():
                self._span.add_event("started", timestamp=event.at * 1000)
            case RunRetrying():
                self._span.add_event("retrying", {"agentnb.attempt": event.attempt}, timestamp=event.at * 1000)
            case UsageReported():
                self._usage = event
            case RunFinished():
                self._finish(event)

    def _finish(self, event: RunFinished) -> None:
        self._span.set_attributes(_outcome(event, self._usage))
        if event.status != "completed":
            self._span.set_status(self._api.StatusCode.ERROR, (event.error or {}).get("message"))
        self._span.end(event.at * 1000)


def _attributes(run: Json, operation: str, name: str) -> dict[str, Any]:
    target, spec = run["target"], run["target"]["spec"]
    found = {"gen_ai.operation.name": operation, name: run["name"], "agentnb.run_id": run["id"], "agentnb.session_id": run["session_id"]}
    found["agentnb.target_kind"] = target["kind"]
    if target["kind"] == TargetKind.LOCAL_MODEL:
        found["gen_ai.request.model"] = Path(spec["model"]).name if spec.get("model") else _default_model()
        found |= {f"gen_ai.request.{word}": spec[field] for field, word in _REQUEST.items() if spec.get(field) is not None}
    return found


def _default_model() -> str:
    from agentnb.agents.model_file import FILE_NAME

    return FILE_NAME


def _outcome(event: RunFinished, usage: UsageReported | None) -> dict[str, Any]:
    found = {
        "agentnb.status": event.status,
        "agentnb.attempts": event.attempts,
        "agentnb.run_s": event.run_s,
        "process.exit.code": event.exit_code,
        "error.type": (event.error or {}).get("kind"),
    }
    if usage is not None:
        found["gen_ai.usage.input_tokens"] = usage.input_tokens
        found["gen_ai.usage.output_tokens"] = usage.output_tokens
        found["agentnb.cost_usd"] = usage.cost_usd
    return {name: value for name, value in found.items() if value is not None}
