"""The claude CLI's stream as reports: recorded streams, and what could come instead."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.agents.claude_stream import ClaudeStream
from agentnb.engine.event_lines import EventLines
from agentnb.states import RETRYABLE, ErrorKind, StepKind

RECORDED = Path(__file__).parents[1] / "data" / "claude"
NAMES = sorted(path.name for path in RECORDED.glob("*.jsonl"))
EVENTS = {name: [json.loads(line) for line in (RECORDED / name).read_text().splitlines()] for name in NAMES}


def reports(events: list[Any], exit_code: int | None = 0, stderr: str = "", **options: Any) -> list[dict[str, Any]]:
    parser = ClaudeStream(**options)
    found = [report for event in events for report in parser.feed(event)]
    return found + list(parser.end(exit_code, None, stderr))


def of(name: str, **options: Any) -> list[dict[str, Any]]:
    return reports(EVENTS[f"2.1.197_{name}.jsonl"], **options)


def kinds(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [report for report in found if report["t"] == kind]


def printed(found: list[dict[str, Any]]) -> str:
    return "".join(report["text"] for report in kinds(found, "output"))


def check_steps(found: list[dict[str, Any]]) -> None:
    """Every step begins once, below one that is open, and ends at most once."""
    live: set[str] = set()
    seen: set[str] = set()
    for report in kinds(found, "step"):
        if report["status"] == "running":
            assert report["id"] not in seen
            assert report.get("parent") is None or report["parent"] in live
            assert report["kind"] in set(StepKind)
            seen.add(report["id"])
            live.add(report["id"])
        else:
            live.remove(report["id"])


# --- recorded streams


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_stream_has_steps_in_order_totals_and_one_verdict(name):
    found = [report for report in reports(EVENTS[name]) if report["t"] != "used"]
    check_steps(found)
    assert len(kinds(found, "result") + kinds(found, "error")) == 1
    assert kinds(found, "usage")[-1]["agent_session"] == EVENTS[name][0]["session_id"]
    assert found[-2] == {"t": "done"}
    assert found[-1]["t"] in {"result", "error"}


def test_a_text_is_one_turn_its_text_and_its_output():
    found = of("text")
    begin, end = kinds(found, "step")
    assert (begin["kind"], begin["name"], end["status"]) == ("turn", "turn 1", "completed")
    assert end["output"] == {"text": "Hello from the fake model. All done."}
    assert kinds(found, "result") == [{"t": "result", "output": "Hello from the fake model. All done."}]
    assert printed(found) == "Hello from the fake model. All done.\n"


def test_totals_come_from_the_result_not_from_the_start_values_of_the_messages():
    last = kinds(of("tool"), "usage")[-1]
    wanted = {
        "input_tokens": 200, "output_tokens": 50, "cache_read_tokens": 60, "cache_write_tokens": 40, "turns": 2, "cost_usd": 0.00253,
    }  # fmt: skip
    assert {name: last[name] for name in wanted} == wanted
    assert last["model"] == "claude-opus-4-8[1m]"
    assert last["tokens_per_s"] == pytest.approx(250)


def test_a_tool_is_a_step_of_its_turn_with_input_and_output():
    steps = kinds(of("tool"), "step")
    assert [(s["id"][:5], s["status"]) for s in steps] == [
        ("turn ", "running"), ("toolu", "running"), ("toolu", "completed"), ("turn ", "completed"), ("turn ", "running"),
        ("turn ", "completed"),
    ]  # fmt: skip
    assert steps[1] | {"id": ""} == {
        "t": "step", "id": "", "kind": "tool", "name": "Bash", "status": "running", "parent": "turn 1",
        "input": {"command": "echo hi", "description": "Print hi"},
    }  # fmt: skip
    assert steps[2]["output"] == "hi"
    assert printed(of("tool")) == "I will run a command.\n→ Bash: echo hi\nHello from the fake model. All done.\n"


def test_a_denied_tool_is_a_failed_step_and_a_warning_that_says_what_to_allow():
    found = of("two")
    failed = [s for s in kinds(found, "step") if s["status"] == "failed"]
    assert len(failed) == 1
    assert "requires approval" in failed[0]["error"]
    (warning,) = kinds(found, "warning")
    assert "the tool Bash was denied" in warning["text"]
    assert "tools=['Bash', ...]" in warning["text"]
    assert kinds(found, "result")


def test_thinking_is_kept_in_the_turn_and_not_printed():
    found = of("think")
    assert kinds(found, "step")[-1]["output"] == {"text": "Thought done.", "thinking": "Let me think about it."}
    assert printed(found) == "Thought done.\n"


def test_pieces_of_text_are_printed_as_they_come_and_once():
    found = of("partial")
    assert printed(found) == "I will run a command.\n→ Bash: echo hi\nHello from the fake model. All done.\n"
    assert [r["text"] for r in kinds(found, "output")][:3] == ["I ", "will ", "run "]
    ends = [s for s in kinds(found, "step") if s["id"].startswith("turn") and s["status"] == "completed"]
    assert [s["tokens"] for s in ends] == [{"input": 100, "output": 25, "cache_read": 30, "cache_write": 20}] * 2


def test_without_pieces_the_written_tokens_of_a_turn_are_not_claimed_to_be_known():
    assert kinds(of("text"), "step")[-1]["tokens"] == {"input": 100, "cache_read": 30, "cache_write": 20}


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("err401_r1", "invalid_config", "ANTHROPIC_API_KEY"),
        ("nokey", "invalid_config", "/login"),
        ("err529_r1", "runtime_error", "overloaded"),
        ("max_turns_1", "execution_failed", "max_turns=1"),
        ("sigint", "cancelled", "interrupted"),
    ],
)
def test_each_failure_has_its_kind_and_says_what_to_do(name, kind, says):
    (error,) = kinds(of(name, max_turns=1), "error")
    assert error["kind"] == kind
    assert says in error["message"]


def test_a_login_is_not_tried_again_and_an_overloaded_api_is():
    assert not RETRYABLE[ErrorKind(kinds(of("nokey"), "error")[0]["kind"])]
    assert RETRYABLE[ErrorKind(kinds(of("err529_r1"), "error")[0]["kind"])]


def test_what_an_interrupted_run_used_is_not_forgotten_although_its_result_says_zero():
    last = kinds(of("sigint"), "usage")[-1]
    assert last["input_tokens"] == 100
    assert "cost_usd" not in last  # it says 0 dollars, too


# --- what could come instead


def result(**changes: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": False, "result": "yes", "session_id": "s"} | changes


def test_is_error_is_a_failure_whatever_the_subtype_and_the_exit_code():
    (error,) = kinds(reports([result(is_error=True)]), "error")
    assert error["kind"] == "execution_failed"
    assert "yes" in error["message"]


def test_a_rate_limit_tells_when_it_is_over():
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1795347165, "rateLimitType": "five_hour"}}
    (error,) = kinds(reports([limit, result(is_error=True, api_error_status=429, result="limit")]), "error")
    assert error["kind"] == "rate_limited"
    assert error["details"]["resets_at"] == 1795347165


def test_a_rate_limit_of_older_versions_tells_it_in_its_text():
    (error,) = kinds(reports([result(is_error=True, api_error_status=429, result="usage limit reached|1795347165")]), "error")
    assert error["details"]["resets_at"] == 1795347165


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "execution_failed"), (401, "invalid_config"), (403, "invalid_config"), (404, "invalid_config"), (413, "execution_failed"),
     (429, "rate_limited"), (500, "runtime_error"), (503, "runtime_error"), (529, "runtime_error")],
)  # fmt: skip
def test_each_status_of_the_api_has_its_kind(status, kind):
    (error,) = kinds(reports([result(is_error=True, api_error_status=status)]), "error")
    assert error["kind"] == kind


def test_a_stream_that_ends_without_a_result_is_a_failure_and_says_what_stderr_said():
    (error,) = kinds(reports(EVENTS["2.1.197_text.jsonl"][:-1], stderr="oh no\n"), "error")
    assert "ended without a result (exit code 0): oh no" in error["message"]
    assert "stream.jsonl" in kinds(reports([]), "error")[0]["message"]


def test_a_conversation_that_is_not_there_says_where_it_could_be():
    said = "No conversation found with session ID: x"
    event = result(subtype="error_during_execution", is_error=True, result=None, errors=[said])
    (error,) = kinds(reports([event], resume="x"), "error")
    assert (error["kind"], "working_dir" in error["message"]) == ("not_found", True)
    (error,) = kinds(reports([], exit_code=1, stderr=said, resume="x"), "error")
    assert (error["kind"], "working_dir" in error["message"]) == ("not_found", True)


def test_structured_output_is_the_output_and_its_lack_a_failure():
    assert kinds(reports([result(structured_output={"n": 3})], wants="schema"), "result")[0]["output"] == {"n": 3}
    assert kinds(reports([result()], wants="schema"), "error")[0]["kind"] == "validation_error"


def test_json_is_found_in_the_text_and_its_lack_a_failure():
    fenced = 'Here:\n```json\n{"n": 3}\n```'
    assert kinds(reports([result(result=fenced)], wants="json"), "result")[0]["output"] == {"n": 3}
    assert kinds(reports([result()], wants="json"), "error")[0]["kind"] == "validation_error"


def test_a_sub_agents_turns_are_below_the_tool_that_started_it_and_are_not_printed():
    def said(number: str, parent: str | None, *content: Any) -> dict[str, Any]:
        return {
            "type": "assistant",
            "parent_tool_use_id": parent,
            "message": {"id": number, "content": list(content), "usage": {"input_tokens": 1}},
        }

    def answered(tool: str, parent: str | None) -> dict[str, Any]:
        return {
            "type": "user",
            "parent_tool_use_id": parent,
            "message": {"content": [{"type": "tool_result", "tool_use_id": tool, "content": "ok"}]},
        }

    use = {"type": "tool_use", "id": "A", "name": "Agent", "input": {"prompt": "look"}}
    inner = {"type": "tool_use", "id": "B", "name": "Read", "input": {"file_path": "x"}}
    events = [
        said("m1", None, use), said("m2", "A", {"type": "text", "text": "hush"}), said("m2", "A", inner), answered("B", "A"),
        said("m3", "A", {"type": "text", "text": "hush"}), answered("A", None), said("m4", None, {"type": "text", "text": "done"}),
        result(),
    ]  # fmt: skip
    found = reports(events)
    check_steps(found)
    parents = {s["id"]: s.get("parent") for s in kinds(found, "step") if s["status"] == "running"}
    assert parents == {"turn 1": None, "A": "turn 1", "turn 2": "A", "B": "turn 2", "turn 3": "A", "turn 4": None}
    assert printed(found) == "→ Agent: look\ndone\n"
    assert kinds(found, "usage")[-1]["input_tokens"] == 4


def test_a_server_that_is_not_there_is_a_warning_once():
    servers = [{"name": "x", "status": "failed"}, {"name": "y", "status": "connected"}, {"name": "z", "status": "pending"}, 5]
    init = {"type": "system", "subtype": "init", "mcp_servers": servers, "mcp_server_errors": [{"name": "q", "error": "no command"}]}
    warnings = [report["text"] for report in kinds(reports([init, init, result()]), "warning")]
    assert warnings[0] == "the MCP server x is not there (failed): claude goes on without its tools; check mcp_config"
    assert "no command" in warnings[1]
    assert len(warnings) == 2


def test_images_stay_in_the_raw_stream():
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 5000}}
    use = {"type": "assistant", "message": {"id": "m", "content": [{"type": "tool_use", "id": "A", "name": "Read", "input": {}}]}}
    back = {"type": "user", "message": {"content": [{"type": "tool_result", "tool_use_id": "A", "content": [image]}]}}
    found = reports([use, back, result()])
    assert "5000 characters of base64" in json.dumps(found)
    assert "AAAA" not in json.dumps(found)


def test_what_comes_after_a_result_gives_the_process_time_anew():
    parser = ClaudeStream()
    list(parser.feed(result()))
    assert {"t": "done"} in list(parser.feed({"type": "assistant", "message": {"id": "m", "content": []}}))
    assert list(parser.end(143, None, "")) == [{"t": "result", "output": "yes"}]


def test_of_several_results_the_last_one_counts():
    assert kinds(reports([result(is_error=True), result(result="after all")]), "result")[0]["output"] == "after all"
    assert kinds(reports([result(), result(is_error=True)]), "error")


@pytest.mark.parametrize("odd", [[], {}, [1], {"a": 1}, True, -1, 1.5, ""])
@pytest.mark.parametrize(
    "field", ["subtype", "is_error", "api_error_status", "result", "errors", "usage", "modelUsage", "permission_denials"]
)
def test_a_result_with_a_field_of_another_type_still_gives_a_verdict(field, odd):
    for event in (result(**{field: odd}), result(is_error=True) | {field: odd}):
        found = reports([event])
        assert len(kinds(found, "result") + kinds(found, "error")) == 1


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *(place for key, value in inner for place in places(value, (*at, key)))]


@settings(max_examples=300)
@given(st.data())
def test_streams_with_anything_in_any_place_give_reports_that_are_in_order(data):
    events = copy.deepcopy(EVENTS[data.draw(st.sampled_from(NAMES))])
    for _ in range(data.draw(st.integers(1, 4))):
        what = data.draw(st.sampled_from(["replace", "drop", "repeat", "swap", "add"]))
        number = data.draw(st.integers(0, len(events) - 1)) if events else 0
        if not events:
            break
        if what == "drop":
            del events[number]
        elif what == "repeat":
            events.insert(number, copy.deepcopy(events[number]))
        elif what == "swap":
            other = data.draw(st.integers(0, len(events) - 1))
            events[number], events[other] = events[other], events[number]
        else:
            place = data.draw(st.sampled_from(places(events[number])[1:]))
            target = events[number]
            for key in place[:-1]:
                target = target[key]
            if what == "add" and isinstance(target, dict):
                target[data.draw(st.text(max_size=6))] = data.draw(ANYTHING)
            else:
                target[place[-1]] = data.draw(ANYTHING)
    found = reports(events)
    check_steps(found)
    json.dumps(found)
    assert kinds(found, "result") or kinds(found, "error")


@given(
    st.dictionaries(st.text(max_size=8), ANYTHING, max_size=6),
    st.sampled_from(["assistant", "user", "system", "result", "stream_event", "rate_limit_event", "x"]),
)
def test_any_object_of_any_type_is_taken(event, kind):
    found = reports([event | {"type": kind}])
    check_steps(found)
    json.dumps(found)


@settings(max_examples=60)
@given(
    st.sampled_from(NAMES),
    st.lists(st.tuples(st.integers(0, 20_000), st.sampled_from([b"warning: x\n", b"\xff\n", b"\n", b"{", b"}"])), max_size=4),
)
def test_a_stream_with_rubbish_in_it_still_comes_to_a_verdict(name, rubbish):
    data = (RECORDED / name).read_bytes()
    for place, what in rubbish:
        at = place % len(data)
        data = data[:at] + what + data[at:]
    found = reports([event for event in EventLines().feed(data, last=True) if isinstance(event, dict)])
    check_steps(found)
    assert len(kinds(found, "result") + kinds(found, "error")) >= 1
