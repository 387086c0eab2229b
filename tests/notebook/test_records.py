"""Rows of the history as records."""

from __future__ import annotations

from datetime import UTC, datetime

from agentnb.notebook.records import artifact_record, step_record
from agentnb.states import StepStatus


def test_a_step_row_becomes_a_step_and_columns_of_no_field_are_left_out() -> None:
    row = {
        "id": "s", "run_id": "r", "parent_id": None, "kind": "turn", "name": "n", "status": "failed", "attempt": 2, "created_at": 1_000_000,
        "started_at": 2_500_000, "finished_at": None, "error": {"kind": "timeout", "message": "late"}, "tokens": {"input": 1}, "cpu_s": 3.0,
    }  # fmt: skip
    step = step_record(row)
    assert (step.status, step.attempt, step.tokens, step.finished_at) == (StepStatus.FAILED, 2, {"input": 1}, None)
    assert step.started_at == datetime.fromtimestamp(2.5, UTC)
    assert step.error is not None
    assert step.error.retryable


def test_an_artifact_row_becomes_an_artifact() -> None:
    row = {
        "id": "a", "name": "x.txt", "content_type": "text/plain", "size": 4, "location": {"type": "local", "path": "blobs/x"},
        "checksum": "sha256:00", "created_at": 1, "source_run": "r", "source_step": None,
    }  # fmt: skip
    artifact = artifact_record(row)
    assert (artifact.size, artifact.location.type, artifact.created_at.tzinfo) == (4, "local", UTC)
