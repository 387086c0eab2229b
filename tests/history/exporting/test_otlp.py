"""Spans of the history as OTLP/JSON, read back with OpenTelemetry's own protobuf definitions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from agentnb._version import __version__
from agentnb.errors import ConfigError, StoreError
from agentnb.events import Message, RunFinished, RunRetrying, RunStarted, StepFinished, StepStarted, UsageReported
from agentnb.history.exporting.otlp import MAX_LINE, write_otlp
from agentnb.history.exporting.spans import MAX_ATTRIBUTES, MAX_TEXT
from agentnb.history.store import Store
from agentnb.ids import new_id
from agentnb.traces import span_id, trace_id
from tests.history.making import SECOND, T0, queued, started_session, whole_run

TRACE = "ab" * 16
CLAUDE = {"kind": "claude", "display": "claude ...", "spec": {"type": "claude", "prompt": "hi", "model": "sonnet"}}
ERROR = {"kind": "execution_failed", "message": "ValueError: no", "details": {"type": "ValueError", "traceback": "Traceback ..."}}


def fill(root: Path, *batches: Iterable[Message]) -> Path:
    with Store.open(root) as store:
        store.apply([started_session()])
        for batch in batches:
            store.apply(list(batch))
    return root


def requests_of(root: Path, *, content: bool = False, service: str = "agentnb", **given: Any) -> list[ExportTraceServiceRequest]:
    """The file's lines, as any OTLP reader takes them: ids are hexadecimal there, where protobuf's JSON has base64."""
    target = root.parent / "spans.jsonl"
    write_otlp(root, target, given, content=content, service=service, overwrite=True)
    found = []
    for line in target.read_bytes().splitlines():
        assert len(line) <= MAX_LINE
        data = json.loads(line)
        for span in data["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            for part in (span, *span.get("links", ())):
                for name in {"traceId", "spanId", "parentSpanId"} & {*part}:
                    part[name] = base64.b64encode(bytes.fromhex(part[name])).decode()
        found.append(json_format.ParseDict(data, ExportTraceServiceRequest()))
    return found


def spans_of(root: Path, **given: Any) -> dict[str, Span]:
    """Spans by the id of their run or step."""
    found = {}
    for request in requests_of(root, **given):
        for span in request.resource_spans[0].scope_spans[0].spans:
            told = attributes(span)
            found[told.get("agentnb.step_id", told["agentnb.run_id"])] = span
    return found


def attributes(thing: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in thing.attributes}


def agent_run(run_id: str, status: str = "completed", **more: Any) -> list[Message]:
    return [
        queued(run_id, target=CLAUDE, params={"lr": 0.5, "n": 3, "on": True, "no": None, "deep": [1]}, tags={"topic": "x"}, **more),
        RunStarted(run_id, at=T0 + SECOND),
        StepStarted(run_id, "a", "attempt", "attempt 1", at=T0 + SECOND),
        StepStarted(run_id, "t", "turn", "turn 1", parent_id="a", at=T0 + 2 * SECOND),
        StepStarted(run_id, "u", "tool", "Read", parent_id="t", input={"path": "x"}, at=T0 + 3 * SECOND),
        StepFinished(run_id, "u", "failed", {"kind": "execution_failed", "message": "denied"}, output="text", at=T0 + 4 * SECOND),
        StepFinished(run_id, "t", "completed", tokens={"input": 1, "output": 2, "cache_read": 10},
                     output={"text": "said", "thinking": "mm"}, at=T0 + 5 * SECOND),
        StepFinished(run_id, "a", status, exit_code=1, at=T0 + 6 * SECOND),
        UsageReported(run_id, input_tokens=1, output_tokens=2, cache_read_tokens=10, cost_usd=0.5, model="claude-x", agent_session="C",
                      at=T0 + 6 * SECOND),
        RunFinished(run_id, status, exit_code=1, error=None if status == "completed" else ERROR, attempts=1, run_s=5.0, output={"x": 1},
                    at=T0 + 7 * SECOND),
    ]  # fmt: skip


def test_a_run_is_a_span_with_its_attempt_its_turns_and_their_tools_below_it(store: Path) -> None:
    spans = spans_of(fill(store, agent_run("r", "failed", trace_id=TRACE)))
    run, attempt, turn, tool = (spans[name] for name in ("r", "a", "t", "u"))
    assert [span.parent_span_id for span in (attempt, turn, tool)] == [run.span_id, attempt.span_id, turn.span_id]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert run.parent_span_id == b""
    assert len({span.span_id for span in spans.values()}) == 4
    assert [span.name for span in (run, attempt, turn, tool)] == ["invoke_agent r", "attempt 1", "chat claude-x", "execute_tool Read"]
    assert [span.kind for span in (run, turn, tool)] == [Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL]
    assert (run.start_time_unix_nano, run.end_time_unix_nano) == (T0 * 1000, (T0 + 7 * SECOND) * 1000)
    assert (tool.start_time_unix_nano, tool.end_time_unix_nano) == ((T0 + 3 * SECOND) * 1000, (T0 + 4 * SECOND) * 1000)


def test_attributes_are_those_of_the_conventions_and_our_own(store: Path) -> None:
    spans = spans_of(fill(store, agent_run("r", trace_id=TRACE)))
    told = attributes(spans["r"])
    expected = {
        "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "r", "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "sonnet",
        "gen_ai.response.model": "claude-x", "gen_ai.conversation.id": "C", "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 10, "agentnb.cost_usd": 0.5, "agentnb.session": "first", "agentnb.status": "completed",
        "agentnb.target_kind": "claude", "agentnb.run_id": "r", "agentnb.run_s": 5.0, "agentnb.param.lr": 0.5, "agentnb.param.n": 3,
        "agentnb.param.on": True, "agentnb.param.deep": "[1]", "agentnb.tag.topic": "x", "process.exit.code": 1,
    }  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected
    assert "agentnb.param.no" not in told
    assert not {name for name in told if "input" in name and "tokens" not in name}
    assert attributes(spans["t"])["gen_ai.operation.name"] == "chat"
    assert attributes(spans["u"])["gen_ai.tool.name"] == "Read"


def test_a_failure_is_an_error_with_its_exception_and_success_is_left_unset(store: Path) -> None:
    spans = spans_of(fill(store, agent_run("r", "failed")))
    run, tool = spans["r"], spans["u"]
    assert (run.status.code, run.status.message) == (2, "ValueError: no")
    assert attributes(run)["error.type"] == "execution_failed"
    assert [event.name for event in run.events] == ["started", "exception"]
    assert attributes(run.events[1]) == {
        "exception.type": "ValueError",
        "exception.message": "ValueError: no",
        "exception.stacktrace": "Traceback ...",
    }
    assert run.events[1].time_unix_nano == run.end_time_unix_nano
    assert (tool.status.code, tool.status.message) == (2, "denied")
    assert spans["t"].status.code == 0
    assert not spans["t"].events


def test_what_went_in_and_came_out_is_there_only_when_it_is_asked_for(store: Path) -> None:
    spans = spans_of(fill(store, agent_run("r")), content=True)
    assert attributes(spans["u"])["gen_ai.tool.call.arguments"] == '{"path":"x"}'
    assert attributes(spans["u"])["gen_ai.tool.call.result"] == '"text"'
    [said] = json.loads(attributes(spans["t"])["gen_ai.output.messages"])
    assert said == {"role": "assistant", "parts": [{"type": "reasoning", "content": "mm"}, {"type": "text", "content": "said"}]}
    assert attributes(spans["r"])["agentnb.output"] == '{"x":1}'


def test_resource_and_scope_say_who_made_it(store: Path) -> None:
    [request] = requests_of(fill(store, agent_run("r")), service="my-grid")
    [resource] = request.resource_spans
    assert attributes(resource.resource) == {"service.name": "my-grid", "service.version": __version__}
    assert (resource.scope_spans[0].scope.name, resource.scope_spans[0].scope.version) == ("agentnb", __version__)


def test_exporting_twice_gives_the_same_bytes(store: Path, tmp_path: Path) -> None:
    fill(store, agent_run("r"), whole_run("other"))
    for name in ("one", "two"):
        write_otlp(store, tmp_path / name, {}, content=True, service="x", overwrite=False)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_child_run_is_below_its_parent_or_linked_with_it_when_it_is_in_another_trace(store: Path) -> None:
    parent, near, far = new_id(), new_id(), new_id()
    fill(
        store,
        whole_run(parent, trace_id=TRACE),
        whole_run(near, trace_id=TRACE, parent_run_id=parent),
        whole_run(far, trace_id="cd" * 16, parent_run_id=parent),
    )
    spans = spans_of(store)
    assert spans[near].parent_span_id == spans[parent].span_id
    assert spans[near].trace_id == spans[parent].trace_id
    assert spans[far].parent_span_id == b""
    assert [(link.trace_id.hex(), link.span_id) for link in spans[far].links] == [(TRACE, spans[parent].span_id)]
    assert spans[parent].span_id.hex() == span_id(parent)


def test_a_history_older_than_trace_ids_has_traces_made_of_its_runs(store: Path) -> None:
    spans = spans_of(fill(store, whole_run("old"), whole_run("child", parent_run_id="old")))
    assert spans["old"].trace_id.hex() == trace_id("old", None) != spans["child"].trace_id.hex()
    assert [link.span_id for link in spans["child"].links] == [spans["old"].span_id]


def test_retries_are_events_and_a_replay_says_of_what(store: Path) -> None:
    fill(
        store,
        [queued("r", replay_of="original"), RunStarted("r", at=T0 + 1), RunRetrying("r", 2, 0.1, at=T0 + 5)],
        [RunFinished("r", "completed", attempts=2, at=T0 + 9)],
    )
    run = spans_of(store)["r"]
    assert [(event.name, event.time_unix_nano) for event in run.events] == [("started", (T0 + 1) * 1000), ("retrying", (T0 + 5) * 1000)]
    assert attributes(run.events[1]) == {"agentnb.attempt": 2}
    assert attributes(run)["agentnb.replay_of"] == "original"


def test_live_runs_are_left_out_and_steps_without_an_end_have_their_runs(store: Path) -> None:
    fill(store, [queued("live"), RunStarted("live", at=T0)], [queued("waits")])
    assert requests_of(store) == []
    fill(store, [queued("r"), RunStarted("r", at=T0), StepStarted("r", "s", "tool", "t", at=T0), RunFinished("r", "timeout", at=T0 + 5)])
    spans = spans_of(store)
    assert {*spans} == {"r", "s"}
    assert spans["s"].end_time_unix_nano == (T0 + 5) * 1000
    assert spans["s"].status.code == 2


def test_a_clock_that_went_back_makes_no_span_end_before_it_starts(store: Path) -> None:
    fill(store, [queued("r", at=T0), RunStarted("r", at=T0 - 5 * SECOND), RunFinished("r", "failed", at=T0 - SECOND)])
    run = spans_of(store)["r"]
    assert run.end_time_unix_nano >= run.start_time_unix_nano


def test_huge_runs_are_several_lines_none_larger_than_collectors_read(store: Path) -> None:
    steps: list[Message] = []
    for number in range(40):
        steps += [
            StepStarted("r", f"s{number}", "tool", "\x00" * 500, input="ü" * 50_000, at=T0),
            StepFinished("r", f"s{number}", "failed", {"kind": "execution_failed", "message": "\x01" * 50_000}, at=T0),
        ]
    params = {f"p{number}": "x" * 20_000 for number in range(300)}
    fill(store, [queued("r", params=params), RunStarted("r", at=T0), *steps, RunFinished("r", "completed", at=T0 + 1)])
    found = requests_of(store, content=True)
    assert len(found) > 5
    spans = [span for request in found for span in request.resource_spans[0].scope_spans[0].spans]
    assert len(spans) == 41
    assert len(spans[0].attributes) <= MAX_ATTRIBUTES
    assert spans[0].dropped_attributes_count > 170
    assert max(len(value) for span in spans for value in attributes(span).values() if isinstance(value, str)) == MAX_TEXT


def test_only_the_runs_that_are_chosen_are_exported(store: Path) -> None:
    fill(store, *(whole_run(f"r{number}", at=T0 + number * SECOND, params={"n": number}) for number in range(5)))
    assert {*spans_of(store, where={"param.n": [1, 2]})} == {"r1", "r2", "r1-1", "r2-1"}
    assert {*spans_of(store, limit=1)} == {"r4", "r4-1"}
    assert [len(requests_of(store, **given)) for given in ({"run": "r0"}, {"status": "failed"}, {"session": "first"})] == [1, 0, 5]
    for given, message in (
        ({"columns": ["id"]}, "an export has the columns"),
        ({"colour": 1}, "has no filter 'colour'"),
        ({"where": "("}, "where"),
    ):
        with pytest.raises(ConfigError, match=message):
            requests_of(store, **given)


def test_a_store_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no history"):
        requests_of(tmp_path / "nothing")
    assert not (tmp_path / "spans.jsonl").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(JSON, st.text(), st.integers(-(2**63), 2**63 - 1))
def test_whatever_agents_say_is_a_request_that_otlp_readers_take(tmp_path_factory: Any, value: Any, text: str, at: int) -> None:
    root = tmp_path_factory.mktemp("case") / "store"
    target = {"kind": text, "display": text, "spec": value}
    fill(
        root,
        [queued("r", at=at, params={text: value}, tags={text: text}, name=text, target=target, trace_id=text, parent_run_id=text)],
        [RunStarted("r", at=at), StepStarted("r", text, text, text, parent_id=text, input=value, at=at)],
        [
            StepFinished(
                "r", text, "failed", {"kind": text, "message": value, "details": value}, tokens={"input": value}, output=value, at=T0
            )
        ],
        [UsageReported("r", model=text, agent_session=text, at=T0)],
        [RunFinished("r", "failed", error={"message": value}, output=value, at=T0)],
    )
    [request] = requests_of(root, content=True)
    for span in request.resource_spans[0].scope_spans[0].spans:
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.end_time_unix_nano >= span.start_time_unix_nano
