"""Trace ids on every run, and OpenTelemetry spans where the user has set up a tracer provider."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.model import Run as RunRecord

SETUP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("test")

def spans():
    import json
    return json.dumps([dict(name=s.name, attributes=dict(s.attributes), status=s.status.status_code.name, why=s.status.description,
        start=s.start_time, end=s.end_time, events=[(e.name, e.timestamp) for e in s.events], trace=f"{s.context.trace_id:032x}",
        id=f"{s.context.span_id:016x}", parent=s.parent and f"{s.parent.span_id:016x}") for s in exporter.get_finished_spans()])
"""


def test_a_run_has_one_trace_id_from_its_request_to_its_last_event(session: nb.Session) -> None:
    run = session.shell("echo $TRACEPARENT", cleanup="echo $TRACEPARENT")
    result = run.wait()
    assert re.fullmatch("[0-9a-f]{32}", run.trace_id or "")
    version, trace, parent, flags = result.stdout.strip().split("-")
    assert (version, trace, flags) == ("00", run.trace_id, "01")
    assert re.fullmatch("[0-9a-f]{16}", parent)
    assert result.metadata.trace_id == run.trace_id
    assert run.steps[-1].output["stdout"]["text"] == result.stdout
    events = session.events_df(full=True, run=run.id)
    assert events.data.iloc[0]["run"]["trace_id"] == events.data.iloc[-1]["detail"]["metadata"]["trace_id"] == run.trace_id
    frame = session.runs_df()
    assert frame.trace_id.tolist() == [run.trace_id]
    assert str(frame.trace_id.dtype).startswith("str")
    assert RunRecord.model_fields["trace_id"].default is None


def test_each_run_has_a_trace_of_its_own_and_the_environment_hash_is_the_same_for_all(session: nb.Session) -> None:
    group = session.map(nb.Shell("true"), nb.grid(n=range(20))).wait()
    assert len({run.trace_id for run in group}) == 20
    assert len({run.wait().metadata.environment_hash for run in group}) == 1


def test_a_traceparent_that_is_given_is_left_to_the_child(session: nb.Session) -> None:
    assert session.shell("echo $TRACEPARENT", env={"TRACEPARENT": "mine"}).wait().stdout == "mine\n"


def test_a_run_that_never_started_has_its_trace_too(new_session: Callable[..., nb.Session]) -> None:
    session = new_session(max_parallel=1)
    first, second = session.shell("sleep 1000"), session.shell("true")
    second.cancel()
    assert second.wait().metadata.trace_id == second.trace_id
    first.cancel()
    assert first.wait().metadata.trace_id == first.trace_id


def test_an_agent_of_this_process_has_its_pid_and_a_command_its_own(session: nb.Session) -> None:
    import os

    async def agent() -> int:
        return os.getpid()

    run = session.python(agent)
    assert run.wait().metadata.pid == run.output == os.getpid()
    run = session.shell("echo $$")
    assert run.wait().metadata.pid == int(run.stdout)


def test_launching_does_not_import_opentelemetry(run_script: Callable[[str], str]) -> None:
    out = run_script("import sys; session.shell('true').wait(); print([name for name in sys.modules if name.startswith('opentelemetry')])")
    assert out == "[]\n"


def test_the_api_alone_gives_no_spans_but_the_trace_of_an_active_one(run_script: Callable[[str], str]) -> None:
    out = run_script("""
        from opentelemetry import trace
        assert len(session.shell("true").wait().metadata.trace_id) == 32
        place = trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(0))
        with trace.use_span(trace.NonRecordingSpan(place)):
            run = session.shell("echo $TRACEPARENT")
        print(run.trace_id, run.wait().stdout)
    """)
    assert out.split() == [f"{0xABC:032x}", f"00-{0xABC:032x}-{0xDEF:016x}-00"]


def test_each_run_is_a_span_below_the_one_of_its_cell(run_script: Callable[[str], str]) -> None:
    out = run_script(
        SETUP
        + """
with tracer.start_as_current_span("cell"):
    runs = [session.shell("echo $TRACEPARENT", name="good"), session.command(["sh", "-c", "exit 3"], name="bad")]
    runs.append(session.shell("sleep 1000", timeout=0.2, name="slow"))
outside = session.test("true", name="alone")
for run in [*runs, outside]:
    run.wait()
import json
facts = [dict(id=r.id, trace=r.trace_id, out=r.stdout, started=r.result.metadata.started_at.timestamp(), run_s=r.result.duration)
    for r in [*runs, outside]]
print(json.dumps([facts, json.loads(spans())]))
"""
    )
    facts, found = json.loads(out)
    spans = {span["attributes"].get("agentnb.run_id", "cell"): span for span in found}
    assert len(spans) == len(found) == 5
    cell = spans["cell"]
    good, bad, slow, alone = (spans[fact["id"]] for fact in facts)
    assert [span["name"] for span in (good, bad, slow, alone)] == [f"execute_tool {name}" for name in ("good", "bad", "slow", "alone")]
    assert [span["parent"] for span in (good, bad, slow, alone)] == [cell["id"]] * 3 + [None]
    assert {span["trace"] for span in (good, bad, slow)} == {cell["trace"]} == {fact["trace"] for fact in facts[:3]}
    assert alone["trace"] == facts[3]["trace"] != cell["trace"]
    assert facts[0]["out"].startswith(f"00-{good['trace']}-{good['id']}-")
    assert int(facts[0]["out"][-3:], 16) & 1  # sampled
    assert [(span["status"], span["why"]) for span in (good, bad)] == [("UNSET", None), ("ERROR", "it exited with code 3")]
    assert slow["status"] == "ERROR"
    attributes = bad["attributes"]
    assert attributes["gen_ai.operation.name"] == "execute_tool"
    assert attributes["gen_ai.tool.name"] == "bad"
    assert (attributes["process.exit.code"], attributes["error.type"], attributes["agentnb.status"]) == (3, "execution_failed", "failed")
    assert (slow["attributes"]["error.type"], slow["attributes"]["agentnb.status"]) == ("timeout", "timeout")
    for fact, span in zip(facts, (good, bad, slow, alone), strict=True):
        [(name, at)] = span["events"]
        assert name == "started"
        assert abs(at / 1e9 - fact["started"]) < 1e-5
        assert span["start"] <= at <= span["end"]
        assert (span["end"] - at) / 1e9 >= fact["run_s"] - 0.01


def test_an_agent_is_a_span_with_its_tokens_and_what_it_does_is_below_it(run_script: Callable[[str], str]) -> None:
    out = run_script(
        SETUP
        + """
async def agent(ctx: nb.RunContext):
    ctx.usage(input_tokens=5, output_tokens=7, cost_usd=0.5)
    with tracer.start_as_current_span("inner"):
        return (await session.shell("true", name="nested")).metadata.trace_id
def child(ctx: nb.RunContext):
    ctx.usage(input_tokens=1, output_tokens=2)
    raise ValueError("no")
run = session.python(agent, name="thinker")
assert run.wait().ok, run.error
session.python(child, name="child").wait()
print(spans())
"""
    )
    spans = {span["name"]: span for span in json.loads(out)}
    thinker, inner, nested, child = (spans[name] for name in ("invoke_agent thinker", "inner", "execute_tool nested", "invoke_agent child"))
    assert (inner["parent"], nested["parent"]) == (thinker["id"], inner["id"])
    attributes = thinker["attributes"]
    assert (attributes["gen_ai.agent.name"], attributes["gen_ai.operation.name"]) == ("thinker", "invoke_agent")
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"], attributes["agentnb.cost_usd"]) == (
        5,
        7,
        0.5,
    )
    assert (child["status"], child["attributes"]["error.type"]) == ("ERROR", "execution_failed")
    assert child["attributes"]["gen_ai.usage.output_tokens"] == 2


@pytest.mark.model
def test_a_question_to_the_local_model_names_the_model_and_its_options(run_script: Callable[[str], str]) -> None:
    code = 'session.local("Say hi", name="asker", max_tokens=4, seed=1, temperature=0).wait()\nprint(spans())'
    [span] = json.loads(run_script(SETUP + code))
    attributes = span["attributes"]
    assert (span["name"], span["status"]) == ("invoke_agent asker", "UNSET")
    assert attributes["gen_ai.request.model"].endswith(".gguf")
    assert (attributes["gen_ai.request.max_tokens"], attributes["gen_ai.request.seed"], attributes["gen_ai.request.temperature"]) == (
        4,
        1,
        0,
    )
    assert 0 < attributes["gen_ai.usage.output_tokens"] <= 4
    assert attributes["gen_ai.usage.input_tokens"] > 0


def test_a_span_processor_that_fails_holds_up_no_run(run_script: Callable[[str], str]) -> None:
    out = run_script(
        SETUP
        + """
import logging
logging.disable()
class Bad:
    def on_start(self, span, parent_context=None): pass
    def on_end(self, span): raise RuntimeError("broken")
    def _on_ending(self, span): pass
    def shutdown(self): pass
    def force_flush(self, timeout_millis=0): return True
provider.add_span_processor(Bad())
print(session.shell("true").wait(20).status)
"""
    )
    assert out == "completed\n"


def test_the_spans_of_runs_whose_supervisor_dies_end_with_an_error(run_script: Callable[[str], str]) -> None:
    out = run_script(
        SETUP
        + """
import os, signal
run = session.shell("sleep 1000")
while run.status is not nb.RunStatus.RUNNING:
    import time; time.sleep(0.01)
os.kill(session._engine.process.pid, signal.SIGKILL)
print(run.wait().status, "|", run.result.metadata.trace_id == run.trace_id, "|", spans())
"""
    )
    status, same, spans = out.split("|", 2)
    assert (status.strip(), same.strip()) == ("interrupted", "True")
    [span] = json.loads(spans)
    assert (span["status"], span["attributes"]["error.type"]) == ("ERROR", "interrupted")


def test_the_package_itself_does_not_import_opentelemetry(tmp_path: Path) -> None:
    code = "import sys, agentnb.notebook.tracing, agentnb.notebook.session; print(any(n.startswith('opentelemetry') for n in sys.modules))"
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_program_that_is_an_agent_is_called_one(run_script: Callable[[str], str]) -> None:
    code = """session.launch(nb.JsonLines(["sh", "-c", 'echo "{}"']), name="program").wait()\nprint(spans())"""
    [span] = json.loads(run_script(SETUP + code))
    assert (span["name"], span["attributes"]["gen_ai.agent.name"]) == ("invoke_agent program", "program")
