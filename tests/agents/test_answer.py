"""A model's answer as it comes: whatever a server sends, it is text, figures, or a reason."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentnb.agents.answer import Answer, Asked, NoAnswer

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_CHOICE = st.fixed_dictionaries({}, optional={"delta": _JSON | st.fixed_dictionaries({"content": _JSON}), "finish_reason": _JSON})
_COUNTS = st.fixed_dictionaries(
    {},
    optional={"prompt_tokens": _JSON, "completion_tokens": _JSON, "prompt_n": _JSON, "predicted_n": _JSON, "predicted_per_second": _JSON},
)
_CHUNK = _JSON | st.fixed_dictionaries(
    {}, optional={"choices": _JSON | st.lists(_CHOICE, max_size=2), "usage": _JSON | _COUNTS, "timings": _JSON | _COUNTS, "error": _JSON}
)


class Channel:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def send(self, report: dict[str, Any]) -> None:
        self.reports.append(report)


@given(st.lists(_CHUNK, max_size=5), st.booleans())
def test_any_chunks_end_in_one_result_or_one_error(chunks: list[Any], schema: bool) -> None:
    channel, null = Channel(), os.open(os.devnull, os.O_WRONLY)
    try:
        answer = Answer(channel, Asked("m", {}, {} if schema else None, prices=(1.0, 2.0)), null, null)
        answer.open()
        try:
            for chunk in chunks:
                answer.take(chunk)
            code = answer.close()
        except NoAnswer as bad:
            code = answer.fail(bad)
    finally:
        os.close(null)
    kinds = [report["t"] for report in channel.reports]
    assert kinds.count("result") + kinds.count("error") == 1
    assert code == kinds.count("error")
    steps = [report["status"] for report in channel.reports if report["t"] == "step"]
    assert steps == ["running", "failed" if code else "completed"]
    for report in channel.reports:
        if report["t"] == "usage":
            assert 0 <= report["output_tokens"] < 10**12
            assert 0 <= report["cost_usd"] < 10**7
