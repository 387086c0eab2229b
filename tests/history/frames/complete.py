"""A store in which every column of every frame has a value, beside rows that have next to none."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agentnb.events import (
    ArtifactSaved,
    Message,
    RunFinished,
    RunRetrying,
    RunStarted,
    SessionEnded,
    StepFinished,
    StepStarted,
    UsageReported,
    WorkspaceChanged,
)
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, finished, queued, started_session, whole_run

DATA = b"\x00bytes"
CHECKSUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
USAGE = {"cpu_time": 0.5, "peak_memory_bytes": 2**40, "disk_read_bytes": 1, "disk_write_bytes": 2, "processes": 3}
FAULT = {"kind": "execution_failed", "message": "exit code 1: \u00e9\u4e16\U0001f600"}


def full_run(run_id: str, at: int = T0, session_id: str = "S") -> list[Message]:
    """One that has all that a run can have."""
    more = {
        "group_id": "G", "timeout_s": 60.0, "parent_run_id": "parent", "cache_key": "key", "trace_id": "0" * 32, "replay_of": "old",
        "reused_from": "older", "resumed_from": "oldest", "input": {"text": "hi"}, "tags": {"team": "a"},
        "params": {"i": 1, "f": 0.5, "s": "x", "b": True, "n": None, "l": [1, "\u00e9"]},
    }  # fmt: skip
    workspace = {"kind": "worktree", "path": "/elsewhere/tree", "kept": True, "branch": "agentnb/x"}
    return [
        queued(run_id, at=at, session_id=session_id, **more),
        RunStarted(run_id, "pid:1", at=at + SECOND),
        UsageReported(
            run_id, input_tokens=2**53 + 1, output_tokens=20, cost_usd=0.25, tokens_per_s=40.0, cache_read_tokens=5, cache_write_tokens=6,
            turns=2, model="m", agent_session="a", at=at + SECOND,
        ),
        StepStarted(run_id, "1", "attempt", "attempt 1", at=at + SECOND),
        StepStarted(run_id, "2", "tool", "look", parent_id="1", input={"path": "."}, at=at + SECOND),
        StepFinished(
            run_id, "2", "failed", error=FAULT, exit_code=1, usage=USAGE, tokens={"input": 7, "output": 8}, cost_usd=0.1, output=["x"],
            run_s=0.5, at=at + 2 * SECOND,
        ),
        StepFinished(run_id, "1", "completed", at=at + 3 * SECOND),
        artifact(run_id, f"{run_id}-a", at=at + SECOND),
        WorkspaceChanged(run_id, workspace, files_changed=1, insertions=2, deletions=3, at=at + 3 * SECOND),
        RunRetrying(run_id, 2, 0.0, at=at + 3 * SECOND),
        RunFinished(
            run_id, "failed", exit_code=1, signal=9, error=FAULT, output={"answer": 42}, attempts=2, run_s=2.5, usage=USAGE,
            stdout={"size": 3, "text": "hi\n", "path": None}, stderr={"size": 5, "text": "oh \u00e9", "path": None},
            detail={"reason": "exit code 1"}, at=at + 4 * SECOND,
        ),
    ]  # fmt: skip


def artifact(run_id: str, artifact_id: str, *, at: int = T0, location: dict[str, str] | None = None) -> ArtifactSaved:
    """One that is kept in the store's file ``blob``, or elsewhere."""
    told = {
        "id": artifact_id, "name": "a.bin", "content_type": "x/y", "size": len(DATA), "checksum": CHECKSUM, "source_step": "2",
        "location": location or {"type": "local", "path": "blob"},
    }  # fmt: skip
    return ArtifactSaved(run_id, told, at=at)


def complete_store(root: Path) -> Path:
    """A new store at `root`: the full run, some of the usual kind, one of each that is live, lost or empty."""
    with Store.open(root) as opened:
        opened.apply([started_session(), started_session("S2", "second", at=T0 + 1), *full_run("full")])
        for number, status in enumerate(["completed", "failed", "timeout", "cancelled"]):
            opened.apply(whole_run(f"r{number}", status, at=T0 + (9 - number) * SECOND, params={"i": number / 2}))
        opened.apply(whole_run("elsewhere", session_id="S2", at=T0))
        opened.apply(whole_run("nowhere", session_id="unknown", at=T0))
        elsewhere = {"type": "http", "url": "http://x/\u00e9\"'"}
        opened.apply([artifact("r0", "C", location=elsewhere), artifact("nobody", "D")])
        opened.apply([queued("paid"), RunStarted("paid", at=T0), UsageReported("paid", cost_usd=0.5, at=T0), finished("paid")])
        opened.apply([queued("waiting"), queued("running"), RunStarted("running", at=T0 + SECOND)])
        opened.apply([StepStarted("running", "1", "turn", "t", at=T0 + SECOND)])
        lost = {"discovered_at": T0 + 900 * SECOND}
        opened.apply([queued("lost"), RunStarted("lost", at=T0 + SECOND), StepStarted("lost", "1", "turn", "t", at=T0 + SECOND)])
        opened.apply([StepFinished("lost", "1", "interrupted", at=T0 + 2 * SECOND), finished("lost", "interrupted", detail=lost)])
        opened.apply([StepStarted("full", "late", "handler", "after the end", at=T0 + 9 * SECOND)])
        opened.apply([SessionEnded("S2", "ended", at=T0 + 60 * SECOND)])
    (root / "blob").write_bytes(DATA)
    return root
