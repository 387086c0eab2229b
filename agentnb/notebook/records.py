"""Rows of the history as the records of model.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentnb.model import Artifact, Step


def _stamp(value: int | None) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(value / 1e6, UTC)


def _record(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    stamps = ("created_at", "started_at", "finished_at")
    return {name: _stamp(value) if name in stamps else value for name, value in row.items() if name in names and value is not None}


def step_record(row: dict[str, Any]) -> Step:
    """A row of the steps table as a Step."""
    return Step.model_validate(_record(row, set(Step.model_fields)))


def artifact_record(row: dict[str, Any]) -> Artifact:
    """A row of the artifacts table as an Artifact."""
    return Artifact.model_validate(_record(row, set(Artifact.model_fields)))
