"""One run for people and programs: its record, steps and artifacts (`agentnb show`)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentnb.history.reader import read_artifacts, read_run, read_steps
from agentnb.printing import cell, clean, json_text, table

_TIMES = ("created_at", "started_at", "finished_at")
#: What is shown of a run, in this order, when it is known.
_SHOWN = (
    "id", "name", "status", "target_kind", "command", "session_id", "group_id", "parent_run_id", "replay_of", "reused_from", "resumed_from",
    "trace_id", *_TIMES,
    "run_s", "timeout_s", "attempts", "exit_code", "signal", "reason", "cpu_s", "peak_memory_bytes", "processes", "input_tokens",
    "output_tokens", "cost_usd", "files_changed", "insertions", "deletions", "workspace", "stdout_bytes", "stderr_bytes",
)  # fmt: skip


def record(root: Path, key: str) -> dict[str, Any]:
    """The run that `key` means, with its `steps` and `artifacts`; stamps are aware datetimes.

    Raises ConfigError when no run, or more than one, is meant; StoreError.
    """
    run = _stamped(read_run(root, key))
    run["steps"] = [_stamped(step) for step in read_steps(root, run["id"])]
    run["artifacts"] = [_stamped(artifact) for artifact in read_artifacts(root, run["id"])]
    return run


def _stamped(row: dict[str, Any]) -> dict[str, Any]:
    stamps = {name: datetime.fromtimestamp(row[name] / 1e6, UTC) for name in _TIMES if row.get(name) is not None}
    return row | stamps


def show_text(run: dict[str, Any]) -> str:
    """The record as text for a terminal; text of the run's own cannot steer it."""
    known = [(name, cell(run[name])) for name in _SHOWN if run.get(name) is not None]
    known += [
        (f"{kind}.{name}", cell(value))
        for kind, values in (("param", run["params"]), ("tag", run["tags"]))
        for name, value in (values or {}).items()
    ]
    width = max(len(name) for name, _ in known)
    parts = ["".join(f"{name.ljust(width)}  {text}\n" for name, text in known)]
    if run.get("error"):
        parts.append(f"error: {run['error']['kind']}\n{clean(str(run['error']['message']))}\n")
    if run.get("output") is not None:
        parts.append("output:\n" + clean(json_text(run["output"], ensure_ascii=False)))
    if run["steps"]:
        header = ["name", "kind", "status", "attempt", "started_at", "exit_code"]
        parts.append("steps:\n" + table(([step[name] for name in header] for step in run["steps"]), header))
    if run["artifacts"]:
        header = ["name", "content_type", "size", "checksum"]
        parts.append("artifacts:\n" + table(([artifact[name] for name in header] for artifact in run["artifacts"]), header))
    return "\n".join(parts)
