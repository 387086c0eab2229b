"""Static forms of a snapshot: nothing from a process becomes markup, and everything is readable without styles."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.notebook import figures
from agentnb.notebook.render import MAX_ROWS, TEXT_WIDTH, columns, to_bundle, to_html, to_text
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot, StepSnapshot
from tests.notebook.fake_source import a_run

TAGS = {"style", "div", "p", "span", "strong", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "ul", "li"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg/onload=alert(1)>",
    "</pre></div><iframe src=javascript:alert(1)>",
    "</style><style>*{display:none}",
    "\x1b]8;;javascript:alert(1)\x1b\\click\x1b]8;;\x1b\\",
    "\x1b]0;title\x07\x1b[2J\x1b[31m<b>\x1b[0m",
    "\u202egnp.exe\u2066",
    "&lt;script&gt; &#x3c;b&#x3e;",
    "javascript:alert(1)' style='position:fixed",
    "\x00\x9b31m\x85\ud800",
    "{{7*7}} ${7*7} $(id) `id`",
]
TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40), st.builds("".join, st.lists(st.sampled_from(HOSTILE), max_size=3)))
NO_MATHS = {"mathjax_ignore", "tex2jax_ignore"}
STATUS = st.one_of(st.sampled_from(sorted(figures.SHAPES)), TEXT)
STEPS = st.builds(
    StepSnapshot,
    id=st.sampled_from("abcd"),
    kind=st.one_of(st.sampled_from(["attempt", "turn", "tool"]), TEXT),
    name=TEXT,
    status=STATUS,
    parent_id=st.one_of(st.none(), st.sampled_from("abcd")),
    elapsed_s=st.one_of(st.none(), st.floats()),
    input=TEXT,
    error=TEXT,
    cost_usd=st.one_of(st.none(), st.floats()),
)
RUNS = st.builds(
    RunSnapshot,
    id=TEXT,
    name=TEXT,
    kind=TEXT,
    command=TEXT,
    status=STATUS,
    created_at=st.just(0.0),
    elapsed_s=st.one_of(st.none(), st.floats()),
    exit_code=st.one_of(st.none(), st.integers()),
    error=st.one_of(st.none(), TEXT),
    params=st.dictionaries(TEXT, st.one_of(TEXT, st.floats(), st.none(), st.lists(TEXT, max_size=2)), max_size=3),
    cost_usd=st.one_of(st.none(), st.floats()),
    peak_memory_bytes=st.one_of(st.none(), st.integers(0, 2**70)),
    tail=st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), TEXT), max_size=4),
    warnings=st.lists(TEXT, max_size=2),
    steps=st.lists(STEPS, max_size=6),
)


class Whitelist(HTMLParser):
    """Fails at a tag or an attribute that the renderer never writes."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        self.open.append(tag)
        for name, value in attrs:
            assert (
                (name == "dir" and value == "auto")
                or (tag, name, value) == ("details", "open", None)
                or (name == "class" and value and all(word.startswith("anb-") or word in NO_MATHS for word in value.split()))
            )

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)


def parsed(html: str) -> str:
    parser = Whitelist()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return "".join(parser.text)


def harmless(text: str) -> None:
    text.encode()
    assert not any((char < " " and char not in "\n\t") or "\x7f" <= char <= "\x9f" or "\u202a" <= char <= "\u202e" for char in text)


@settings(max_examples=80, deadline=None)
@given(st.lists(RUNS, max_size=3), TEXT, STATUS)
def test_no_text_of_a_process_becomes_markup_or_a_control_sequence(runs: list[RunSnapshot], name: str, status: str) -> None:
    snapshots: list[Any] = [GroupSnapshot(name, name, name, runs, status), *runs]
    for snapshot in snapshots:
        harmless(parsed(to_html(snapshot)))
        text = to_text(snapshot)
        harmless(text)
        assert all(columns(line) <= TEXT_WIDTH for line in text.split("\n"))


def failed(number: int = 0, **changes: Any) -> RunSnapshot:
    return a_run(number, **{"status": "failed", "error": "exit code 2", "exit_code": 2, "elapsed_s": 184.2, **changes})


def test_a_run_tells_status_by_word_and_shape_and_everything_that_is_known() -> None:
    run = failed(
        name="build",
        attempt=2,
        cpu_s=1.24,
        peak_memory_bytes=13 * 2**20,
        input_tokens=12345,
        output_tokens=20,
        tokens_per_s=12.34,
        cost_usd=0.0042,
        params={"seed": 1, "word": "b c"},
        tail=[("stdout", "hi\n"), ("stderr", "\x1b[31mouch\x1b[0m\n")],
        stdout_bytes=3,
        stderr_bytes=14,
        warnings=["sampled"],
    )
    told = ["✗ failed", "build", "exit code 2", "3 m 04 s", "1.2 s", "13.0 MiB", "12\u202f345 / 20", "12.3", "$0.0042", "ouch", "sampled"]
    for text in (parsed(to_html(run)), to_text(run)):
        for word in told:
            assert word in text
    assert '<span class="anb-err"><span class="anb-a-f1">ouch</span></span>' in to_html(run)
    assert "seed=1 word=b c" in to_text(run)


def test_without_styles_the_html_still_is_a_table_and_preformatted_text() -> None:
    html = to_html(GroupSnapshot("g", "grid", "group", [failed(), a_run(1, status="completed")]))
    assert html.count("<tr>") == 3
    assert "<th>Status</th>" in html
    assert "<pre>" in to_html(failed(tail=[("stdout", "x")]))


def test_a_long_group_shows_its_failed_runs_first_and_how_many_are_left_out() -> None:
    runs = [a_run(i, status="completed") for i in range(70)]
    runs[65] = failed(65)
    html = to_html(GroupSnapshot("g", "grid", "group", runs))
    assert html.count("<tr>") == 1 + MAX_ROWS
    assert "… and 20 more" in html
    assert html.index("job-65") < html.index("job-0<")
    assert len(to_text(GroupSnapshot("g", "grid", "group", runs)).split("\n")) == MAX_ROWS + 2


def a_tree() -> list[StepSnapshot]:
    return [
        StepSnapshot("a", "attempt", "attempt 1", "completed", elapsed_s=3.0),
        StepSnapshot("t", "turn", "turn 1", "completed", "a", elapsed_s=2.0, input_tokens=1200, output_tokens=30),
        StepSnapshot("b", "tool", "Bash", "failed", "t", elapsed_s=0.3, input="pytest -q", error="exit code 1"),
        StepSnapshot("u", "turn", "turn 2", "completed", "a", cost_usd=0.5),
    ]


def test_steps_are_a_tree_in_html_and_indented_in_text() -> None:
    run = a_run(status="completed", steps=a_tree(), steps_cut=7)
    html, text = to_html(run), to_text(run)
    parsed(html)
    assert "<details open><summary>" in html
    for shown in (parsed(html), text):
        for told in ("3 steps, 1 failed; 7 earlier ones", "turn 1", "1\u202f200 / 30 tokens", "✗ failed", "Bash", "pytest -q", "$0.50"):
            assert told in shown
        assert "attempt 1" not in shown
    assert "\n    ✗ failed  tool  Bash  pytest -q  0.30 s  error: exit code 1" in text


def test_a_run_with_nothing_but_its_attempt_shows_no_steps() -> None:
    run = a_run(status="completed", steps=[StepSnapshot("a", "attempt", "attempt 1", "completed")])
    assert "attempt" not in to_html(run) + to_text(run)


def test_hundreds_of_steps_make_a_bounded_page_that_says_how_many_there_are() -> None:
    steps = [StepSnapshot(f"s{i}", "tool", "Bash", "completed", input="x" * 600, output="y" * 600, error="e" * 600) for i in range(500)]
    run = a_run(status="completed", steps=steps)
    assert len(to_html(run)) < 150_000
    assert "500 steps; the last 200 are shown" in to_html(run)
    assert "the last 40 are shown" in to_text(run)


def test_a_long_name_is_cut_before_the_number_that_tells_runs_apart() -> None:
    run = failed(name="the whole grid of all parameters " * 9 + "[1234]", params={"prompt": "word " * 400})
    assert figures.title(run, 30) == "the whole grid of all … [1234]"
    group = GroupSnapshot("g", "grid", "group", [run])
    assert "… [1234]" in to_html(group)
    assert "… [1234]" in to_text(group)
    assert "word word" in to_html(group)
    assert len(to_html(group)) - len(to_html(GroupSnapshot("g", "grid", "group", [failed(name="a")]))) < 400


def test_the_rest_of_a_group_is_estimated_from_what_ended() -> None:
    ended = [a_run(i, status="completed", elapsed_s=10.0) for i in range(4)]
    going = [a_run(i, started_at=100.0) for i in (4, 5)]
    waiting = [a_run(i, status="pending", started_at=None) for i in range(6, 10)]
    until = figures.ends_at([*ended, *going, *waiting], now=105.0)
    assert until is not None
    assert 128 <= until <= 133
    assert figures.ends_at([*ended[:1], *going], now=105.0) is None
    assert figures.ends_at([*ended, *waiting], now=105.0) is None
    assert figures.ends_at([], now=105.0) is None


def test_an_empty_session_says_so() -> None:
    session = GroupSnapshot("s", "first-look", "session", [], "active")
    assert "No runs yet" in to_html(session)
    assert "no runs yet" in to_text(session)


def test_a_huge_output_makes_a_bounded_page() -> None:
    run = failed(tail=[("stdout", "x" * 50 + "\n")] * 20_000, error="e" * 10**6, command="c" * 10**6, name="n" * 10**6)
    assert len(to_html(run)) < 60_000
    assert len(to_text(run)) < 4_000
    assert set(to_bundle(run)) == {"text/html", "text/plain"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.994, "0.99 s"),
        (0.996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 m 00 s"),
        (184.2, "3 m 04 s"),
        (3599.6, "1 h 00 m"),
        (7500, "2 h 05 m"),
        (273_600, "3 d 04 h"),
        (-1, "0.00 s"),
        (None, ""),
        (math.nan, ""),
        (math.inf, ""),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, text: str) -> None:
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (12_900_000, "12.3 MiB"), (2**20 - 1, "1.0 MiB"), (None, "")],
)
def test_sizes_read_as_people_say_them(count: int | None, text: str) -> None:
    assert figures.size(count) == text
