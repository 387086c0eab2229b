"""The last event of a run as its result."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.events import RunFinished
from agentnb.notebook.outcome import make_result


def result_of(status: str, kind: str | None = None, **fields) -> nb.CommandResult:
    error = {"kind": kind, "message": "why"} if kind else None
    return make_result(RunFinished("r", status, error=error, **fields), name="job", spec={"type": "shell"}, root=Path("/nowhere"))


@pytest.mark.parametrize(
    ("status", "kind", "word", "retryable", "raised"),
    [
        ("completed", None, "success", False, None),
        ("failed", "execution_failed", "failed", False, nb.RunFailed),
        ("timeout", "timeout", "timed_out", True, nb.RunTimedOut),
        ("cancelled", "cancelled", "cancelled", False, nb.RunCancelled),
        ("failed", "resource_limit_exceeded", "resource_limit_exceeded", True, nb.LimitExceeded),
        ("failed", "budget_exceeded", "failed", False, nb.BudgetExceeded),
        ("interrupted", "interrupted", "failed", True, nb.RunFailed),
    ],
)
def test_every_end_has_its_word_and_its_exception(status, kind, word, retryable, raised) -> None:
    result = result_of(status, kind)
    assert (result.status, result.command_status, result.retryable, result.ok) == (status, word, retryable, raised is None)
    if raised is None:
        assert result.raise_for_status() is result
    else:
        with pytest.raises(nb.RunFailed, match="why") as caught:
            result.raise_for_status()
        assert type(caught.value) is raised


def test_details_are_taken_over_and_stamps_are_aware() -> None:
    result = result_of(
        "completed", exit_code=0, output=[1], attempts=2, run_s=0.5, usage={"cpu_time": 0.1, "unheard_of": 1},
        stdout={"size": 3, "text": "abc", "path": None},
        detail={
            "output_source": "json", "warnings": ["careful"], "metadata": {"started_at": 1_500_000, "pid": 3, "unheard_of": 1},
            "validation": [{"severity": "info", "check": "pattern", "message": "fine"}],
        },
    )  # fmt: skip
    assert (result.output, result.output_source, result.attempts, result.duration) == ([1], "json", 2, 0.5)
    assert (result.stdout, result.stdout_bytes, result.stderr, result.usage.cpu_time) == ("abc", 3, "", 0.1)
    assert (result.warnings, result.validation[0].message) == (("careful",), "fine")
    assert result.metadata.started_at == datetime.fromtimestamp(1.5, UTC)
    assert result.metadata.pid == 3
