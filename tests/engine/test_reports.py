"""The lines of the report channel, from agents of any quality."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.engine.reports import MAX_DEPTH, MAX_LINE, ReportLines, too_deep

REPORTS = st.lists(st.dictionaries(st.text(), st.integers() | st.text()).map(lambda data: data | {"t": "log"}), max_size=5)


@given(REPORTS, st.data())
def test_reports_arrive_whole_however_they_are_cut(reports: list[dict[str, object]], data: st.DataObject) -> None:
    sent = "".join(json.dumps(report) + "\n" for report in reports).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    lines = ReportLines()
    assert [found for start, end in pairwise([0, *cuts, len(sent)]) for found in lines.feed(sent[start:end])] == reports
    assert lines.bad == 0


@given(st.binary(max_size=80))
def test_garbage_is_counted_and_what_follows_is_read(data: bytes) -> None:
    lines = ReportLines()
    lines.feed(data)
    assert lines.feed(b'\n{"t": "log", "text": "x"}\n')[-1] == {"t": "log", "text": "x"}


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"null", b"{}", b'{"t": 1}', b"\xff\xfe", b"[" * 100_000, b'{"t":"log","x":' + b"[" * 900 + b"]" * 900 + b"}"]
)
def test_a_line_that_is_no_report_is_bad(line: bytes) -> None:
    lines = ReportLines()
    assert lines.feed(line + b'\n{"t": "done"}\n') == [{"t": "done"}]
    assert lines.bad == 1
    assert lines.last_bad


def test_a_huge_line_costs_no_memory_and_counts_once() -> None:
    lines = ReportLines()
    piece = b"x" * (1 << 20)
    for _ in range(40):
        assert lines.feed(piece) == []
        assert len(lines._rest) <= MAX_LINE
    assert lines.feed(b'tail\n{"t": "log"}\n') == [{"t": "log"}]
    assert lines.bad == 1


def test_depth_is_measured_in_dicts_and_lists() -> None:
    deep: object = 1
    for _ in range(MAX_DEPTH - 1):
        deep = {"a": [deep][0]}
    assert not too_deep(deep)
    assert too_deep([deep])
    assert not too_deep([list(range(1000))] * 100)
