"""Programs that print JSON lines, and adapters of other packages: one protocol."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents import adapters, json_lines
from agentnb.agents.json_lines import stream_work
from agentnb.agents.json_stream import JsonStream, at


def program(tmp_path: Path, *lines: object, code: int = 0) -> list[str]:
    """An argument vector that prints these lines (objects as JSON) and exits."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (tmp_path / "lines.txt").write_text(text, encoding="utf-8")
    return ["sh", "-c", f"cat lines.txt; exit {code}"]


def test_the_usual_keys_mean_what_they_say(session, tmp_path: Path):
    argv = program(
        tmp_path,
        {"type": "start", "model": "m-1", "session_id": "s-1"},
        {"delta": "Hel"},
        {"delta": "lo\n"},
        "plain text",
        {"message": "working", "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
        {"result": {"n": 1}, "total_cost_usd": 0.5},
    )
    run = session.launch(nb.JsonLines(argv))
    result = run.wait()
    assert (result.status, result.output, run.stdout) == ("completed", {"n": 1}, "Hello\nplain text\nworking\n")
    row = session.runs_df().iloc[0]
    assert (row["kind"], row["model"], row["agent_session"], row["input_tokens"], row["output_tokens"], row["cost_usd"]) == (
        "json_lines", "m-1", "s-1", 7, 2, 0.5,
    )  # fmt: skip
    assert run.artifacts[0].name == "stream.jsonl"


def test_the_last_object_is_the_output_when_nothing_else_says_so(session, tmp_path: Path):
    assert session.launch(nb.JsonLines(program(tmp_path, {"a": 1}, {"b": 2}))).wait().output == {"b": 2}


def test_an_error_fails_the_run(session, tmp_path: Path):
    result = session.launch(nb.JsonLines(program(tmp_path, {"error": {"message": "no luck", "code": 7}}))).wait()
    assert (result.status, result.error.message) == ("failed", "no luck")


def test_an_exit_code_fails_the_run_whatever_was_said(session, tmp_path: Path):
    result = session.launch(nb.JsonLines(program(tmp_path, {"result": 1}, code=3))).wait()
    assert (result.status, result.exit_code) == ("failed", 3)


def test_reports_of_agentnbs_own_dialect_are_taken_as_such(session, tmp_path: Path):
    argv = program(
        tmp_path,
        {"t": "step", "id": "a", "kind": "turn", "name": "think", "status": "running"},
        {"t": "step", "id": "b", "kind": "tool", "name": "look", "status": "running", "parent": "a", "input": {"x": 1}},
        {"t": "step", "id": "b", "status": "failed", "error": "not there"},
        {"t": "step", "id": "a", "status": "completed", "output": "hm", "tokens": {"input": 5}},
        {"t": "warning", "text": "careful"},
        {"t": "nonsense"},
        {"t": "step", "id": "a", "status": "completed"},
        {"t": "result", "output": 42},
    )
    run = session.launch(nb.JsonLines(argv))
    result = run.wait()
    assert (result.status, result.output) == ("completed", 42)
    assert [(step.kind, step.name, step.status) for step in run.steps[1:]] == [("turn", "think", "completed"), ("tool", "look", "failed")]
    assert run.steps[2].parent_id == run.steps[1].id
    assert "careful" in result.warnings
    assert any("unknown report" in warning for warning in result.warnings)


def test_a_program_that_goes_on_after_done_gets_its_time_anew(session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_lines, "stream_work", lambda *args, **options: stream_work(*args, **options) | {"linger_s": 1.5})
    code = 'for i in 1 2 3 4 5; do echo \'{"t":"done"}\'; sleep 0.4; done; echo \'{"result": 5}\''
    result = session.launch(nb.JsonLines(["sh", "-c", code])).wait()
    assert (result.output, result.warnings) == (5, ())
    result = session.launch(nb.JsonLines(["sh", "-c", 'echo \'{"result": 1}\'; echo \'{"t":"done"}\'; sleep 60']), grace=0.3).wait("30s")
    assert (result.status, result.output, result.warnings) == ("completed", 1, ("it did not exit after its result; it was ended",))


def test_other_places_are_named_by_dotted_paths(session, tmp_path: Path):
    argv = program(
        tmp_path, {"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"delta": {"content": "b"}}]}, {"final": {"text": "ab"}}
    )
    run = session.launch(nb.JsonLines(argv, text="choices.0.delta.content", output="final.text"))
    assert (run.wait().output, run.stdout) == ("ab", "ab")


def test_templates_fill_words_and_never_make_more_of_them(session):
    code = "import json, sys; print(json.dumps({'result': sys.argv[1:]}))"
    group = session.map(nb.JsonLines([sys.executable, "-c", code, "{{ask}}"]), [{"ask": "a b; c"}, {"ask": "$(d)"}])
    group.wait()
    assert [run.output for run in group] == [["a b; c"], ["$(d)"]]


@pytest.mark.parametrize("argv", [[], "my-agent --json", [""], ["a\0"], None])
def test_bad_argument_vectors_are_refused(argv: object):
    with pytest.raises(nb.ConfigError, match="argv"):
        nb.JsonLines(argv)


def test_a_reply_is_refused_clearly(session, tmp_path: Path):
    run = session.launch(nb.JsonLines(program(tmp_path, {"a": 1})))
    run.wait()
    with pytest.raises(nb.ConfigError, match="no conversation"):
        run.reply("more")


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["a", "text", "usage", "error", "0"]), x, max_size=3),
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["t", "text", "delta", "usage", "error", "result", "model", "x"]), JSON, max_size=4), max_size=5
    ),
    st.sampled_from([None, "a.0", "text", "x.y"]),
)
def test_any_objects_give_reports_that_are_json(events, path):
    parser = JsonStream(text=path, output=path)
    found = [report for event in events for report in parser.feed(event)] + list(parser.end(0, None, ""))
    assert all(isinstance(report["t"], str) for report in json.loads(json.dumps(found)))


def test_paths_lead_into_objects_and_lists_or_nowhere():
    assert at({"a": [{"b": 1}]}, "a.0.b") == 1
    assert at({"a": [{"b": 1}]}, "a.1.b") is None
    assert at({"a": 1}, "a.b") is None


# --- adapters of other packages

ADAPTER = """
    from typing import Any, Literal
    from agentnb.agents.adapters import Features
    from agentnb.agents.json_lines import stream_work
    from agentnb.commands import Spec

    class Quiz(Spec):
        type: Literal["quiz"] = "quiz"
        question: str
        mode: str = "good"
        def __init__(self, question: str, /, **fields: Any) -> None:
            super().__init__(**({"question": question} | fields))
        @property
        def display(self) -> str:
            return self.question

    class QuizAdapter:
        features = Features(steps=True, reply=True)
        def missing(self): return ""
        def fill(self, spec, params): return spec
        def work(self, spec, asked):
            work = stream_work(["printf", '{"word":"%s"}\\\\n', spec.question, "end"], "quiz_stream:QuizStream", mode=spec.mode)
            return work
        def reply(self, spec, text, finished): return Quiz(text + " after " + str(finished.output))
"""
PARSER = """
    import time

    class QuizStream:
        def __init__(self, mode):
            self.mode, self.words = mode, []
            if mode == "bad_start":
                raise RuntimeError("not today")
        def feed(self, event):
            if self.mode == "raise":
                raise KeyError("lost")
            if self.mode == "hang":
                while True:
                    try:
                        time.sleep(0.01)
                    except Exception:
                        pass
            if self.mode == "garbage":
                return [7, {"no": "t"}, {"t": "result", "output": object()}]
            if self.mode == "none":
                return None
            self.words.append(event["word"])
            return [{"t": "log", "text": event["word"]}]
        def end(self, exit_code, signal, stderr):
            if self.mode == "bad_end":
                raise ValueError("the end")
            yield {"t": "result", "output": " ".join(self.words)}
"""


@pytest.fixture
def quiz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., object]]:
    """A package with an entry point, installed into a folder of its own; its spec."""
    site = tmp_path / "site"
    info = site / "quiz-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quiz\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[agentnb.adapters]\nquiz = quiz_adapter:QuizAdapter\n")
    (site / "quiz_adapter.py").write_text(textwrap.dedent(ADAPTER))
    (site / "quiz_stream.py").write_text(textwrap.dedent(PARSER))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(adapters, "_known", {})
    yield import_module("quiz_adapter").Quiz
    for name in ("quiz_adapter", "quiz_stream"):
        sys.modules.pop(name, None)


def test_an_adapter_of_another_package_with_a_parser_of_its_own(session, quiz: Callable[..., object]):
    assert "quiz" in adapters.kinds()
    run = session.launch(quiz("why"))
    result = run.wait()
    assert (result.status, result.output, run.stdout) == ("completed", "why end", "why\nend\n"), result.error
    assert session.runs_df().iloc[0]["kind"] == "other"
    assert run.spec["type"] == "quiz"
    reply = run.reply("so")
    assert reply.wait().output == "so after why end end"


@pytest.mark.parametrize(
    ("mode", "kind", "says"),
    [
        ("bad_start", "invalid_config", "cannot be loaded: RuntimeError: not today"),
        ("bad_end", "runtime_error", "the end"),
        ("hang", "runtime_error", "did not come back"),
    ],
)
def test_a_parser_that_breaks_costs_its_own_run_only(
    session, quiz: Callable[..., object], mode: str, kind: str, says: str, monkeypatch: pytest.MonkeyPatch
):
    other = session.shell("while [ ! -e go ]; do sleep 0.02; done; echo other")
    result = session.launch(quiz("why", mode=mode)).wait("30s")
    assert (result.status, result.error.kind) == ("failed", kind)
    assert says in result.error.message
    Path("go").touch()
    assert other.wait("30s").stdout == "other\n"


@pytest.mark.parametrize(("mode", "says"), [("raise", "KeyError"), ("garbage", "a report must be a mapping"), ("none", "TypeError")])
def test_events_that_a_parser_fails_on_are_left_out_with_a_warning(session, quiz: Callable[..., object], mode: str, says: str):
    result = session.launch(quiz("why", mode=mode)).wait()
    assert (result.status, result.output) == ("completed", "")
    assert re.search(says, result.warnings[0])


def test_a_parser_that_is_not_there_is_a_clear_failure(session, quiz: Callable[..., object], tmp_path: Path):
    (tmp_path / "site" / "quiz_stream.py").write_text("x = 1\n")
    result = session.launch(quiz("why")).wait()
    assert (result.status, result.error.kind) == ("failed", "invalid_config")
    assert "quiz_stream:QuizStream cannot be loaded" in result.error.message
