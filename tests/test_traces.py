from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from agentnb.agents.adapters import _BUILT_IN, adapter
from agentnb.ids import new_id
from agentnb.states import TargetKind
from agentnb.traces import AGENTS, named, span_id, trace_id, usage


def test_a_span_has_the_random_half_of_its_runs_id() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len({span_id(one) for one in ids}) == 1000
    assert all(one.replace("-", "").endswith(span_id(one)) for one in ids)


@given(st.text(), st.text())
def test_anything_else_has_a_span_and_a_trace_of_its_own_always_the_same(one: str, other: str) -> None:
    assert re.fullmatch("[0-9a-f]{16}", span_id(one))
    assert re.fullmatch("[0-9a-f]{32}", trace_id(one, None))
    assert (span_id(one) == span_id(other)) == (trace_id(one, None) == trace_id(other, "none")) == (one == other)
    assert span_id(one) == span_id(one) != span_id(one, "of a run")


def test_a_recorded_trace_is_kept_unless_it_is_none() -> None:
    assert trace_id("r", "ab" * 16) == "ab" * 16
    for bad in (None, "", "0" * 32, "AB" * 16, "ab", 7):
        assert trace_id("r", bad) == trace_id("r", None)


def test_the_kinds_that_adapters_call_agents_are_agents_in_traces() -> None:
    assert {kind for kind in _BUILT_IN if adapter(kind).features.agent} == AGENTS
    assert {*TargetKind} >= AGENTS


def test_names_follow_the_conventions() -> None:
    assert named("reviewer", agent=True) == (
        "invoke_agent reviewer",
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "reviewer"},
    )
    assert named("ls", agent=False) == ("execute_tool ls", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "ls"})


def test_input_tokens_include_those_of_the_cache_as_the_conventions_say() -> None:
    counts = {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 100, "cache_write_tokens": 7, "cost_usd": 0.5}
    assert usage(counts) == {
        "gen_ai.usage.input_tokens": 117,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.cache_creation.input_tokens": 7,
        "agentnb.cost_usd": 0.5,
    }
    assert usage({"output_tokens": 0}) == {"gen_ai.usage.output_tokens": 0}
    assert usage({}) == {}


def test_every_name_of_the_conventions_is_in_their_registry() -> None:
    from opentelemetry.semconv._incubating.attributes import error_attributes, exception_attributes, gen_ai_attributes, process_attributes

    modules = (error_attributes, exception_attributes, gen_ai_attributes, process_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    import agentnb.history.exporting.spans
    import agentnb.notebook.tracing
    import agentnb.traces

    used = set()
    for module in (agentnb.traces, agentnb.history.exporting.spans, agentnb.notebook.tracing):
        with open(str(module.__file__), encoding="utf-8") as file:
            used |= set(re.findall(r'"((?:gen_ai|error|exception|process)\.[a-z_.]+)"', file.read()))
    assert len(used) > 10
    assert used - known == set()
