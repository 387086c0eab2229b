"""The trace that a run belongs to; and a span for it, when the user has set up OpenTelemetry in this process.

OpenTelemetry is never imported here: without it, or without a tracer provider, a launch costs 16 random bytes.
Spans follow the semantic conventions for generative AI; they begin with the launch and end with the run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agentnb._version import __version__
from agentnb.events import Json, Message, RunFinished, RunRetrying, RunStarted, UsageReported
from agentnb.ids import random_bytes
from agentnb.states import TargetKind
from agentnb.traces import AGENTS, PROVIDERS, REQUEST, named, span_id, usage

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

_SAMPLED = 1
_COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")


class Trace(NamedTuple):
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
        return _new(run)
    if not isinstance(api.get_tracer_provider(), (api.ProxyTracerProvider, api.NoOpTracerProvider)):
        span = RunSpan(api, run)
        if span.context.is_valid:
            return _at(span.context, span)
    active = api.get_current_span().get_span_context()
    return _at(active) if active.is_valid else _new(run)


def _new(run: Json) -> Trace:
    """A trace of its own. Its processes' spans go below the span that an export makes of the run (history/exporting/otlp.py)."""
    trace_id = random_bytes(16).hex()
    return Trace(trace_id, f"00-{trace_id}-{span_id(run['id'])}-{_SAMPLED:02x}")


def _at(place: SpanContext, span: RunSpan | None = None) -> Trace:
    trace_id = f"{place.trace_id:032x}"
    return Trace(trace_id, f"00-{trace_id}-{place.span_id:016x}-{place.trace_flags:02x}", span)


class RunSpan:
    """The span of one run: hears its events, and ends with it."""

    __slots__ = ("_api", "_span", "_usage")

    def __init__(self, api: Any, run: Json) -> None:
        """Start it. `api`: the module opentelemetry.trace."""
        name, attributes = named(run["name"], agent=run["target"]["kind"] in AGENTS)
        self._api = api
        self._usage: UsageReported | None = None
        self._span: Span = api.get_tracer("agentnb", __version__).start_span(
            name,
            attributes=attributes | _attributes(run),
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


def _attributes(run: Json) -> dict[str, Any]:
    target, spec = run["target"], run["target"]["spec"]
    found = {"agentnb.run_id": run["id"], "agentnb.session_id": run["session_id"], "agentnb.target_kind": target["kind"]}
    if run.get("reused_from") is not None:  # what it tells of its usage was spent by that one
        found["agentnb.reused_from"] = run["reused_from"]
    if target["kind"] in PROVIDERS:
        found["gen_ai.provider.name"] = PROVIDERS[target["kind"]]
    if target["kind"] == TargetKind.LOCAL_MODEL:
        found["gen_ai.request.model"] = Path(spec["model"]).name if spec.get("model") else _default_model()
        found |= {f"gen_ai.request.{word}": spec[field] for field, word in REQUEST.items() if spec.get(field) is not None}
    return found


def _default_model() -> str:
    from agentnb.agents.model_file import FILE_NAME

    return FILE_NAME


def _outcome(event: RunFinished, reported: UsageReported | None) -> dict[str, Any]:
    found = {
        "agentnb.status": event.status,
        "agentnb.attempts": event.attempts,
        "agentnb.run_s": event.run_s,
        "process.exit.code": event.exit_code,
        "error.type": (event.error or {}).get("kind"),
    }
    if reported is not None:
        found |= usage({name: getattr(reported, name) for name in _COUNTS})
    return {name: value for name, value in found.items() if value is not None}
