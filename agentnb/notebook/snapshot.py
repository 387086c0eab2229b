"""What a view shows: the state of runs at one moment, as plain data (pure; no front end, no engine)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentnb.notebook.budget import Budget

#: A piece of output: ("stdout" | "stderr", text). Text may hold ANSI sequences, carriage returns, anything.
Segment = tuple[str, str]


@dataclass(slots=True, frozen=True)
class StepSnapshot:
    """One step of a run at one moment. `kind`: a states.StepKind; `status`: a states.StepStatus.

    `input`, `output`, `error`: text, cut; it may hold anything. Stamps and durations as in RunSnapshot.
    """

    id: str
    kind: str
    name: str
    status: str = "running"
    parent_id: str | None = None
    started_at: float | None = None
    elapsed_s: float | None = None
    input: str = ""
    output: str = ""
    error: str = ""
    exit_code: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None

    @property
    def done(self) -> bool:
        """Whether nothing of it will change."""
        return self.status not in {"pending", "running"}


@dataclass(slots=True, frozen=True)
class RunSnapshot:
    """One run at one moment. Stamps are seconds since the epoch, durations seconds, sizes bytes; None: not known (yet).

    `status`: a states.RunStatus value, or ``cancelling`` from the click until the run has ended. `replay_of`: the recorded run's id, of
    a replay. `reused_from`: the id of the run that was returned instead of running it again. `note`: what it waits for between two
    attempts. `turns`: answers of its model. `steps`: those that are known, in the order in which they began, with `steps_cut` more before
    them; only where one run is looked at. `cpu_percents` (100: one core), `memories` (bytes): the latest samples, about one a second,
    while it runs and where its tree is read for its limits.
    """

    id: str
    name: str
    kind: str
    command: str
    status: str
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    elapsed_s: float | None = None
    attempt: int = 0
    exit_code: int | None = None
    error: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    tokens_per_s: float | None = None
    cost_usd: float | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    tail: Sequence[Segment] = ()
    tail_seq: int = 0
    warnings: Sequence[str] = ()
    budget: Budget | None = None
    replay_of: str | None = None
    reused_from: str | None = None
    note: str = ""
    turns: int | None = None
    model: str | None = None
    steps: Sequence[StepSnapshot] = ()
    steps_cut: int = 0
    cpu_percents: Sequence[float] = ()
    memories: Sequence[int] = ()

    @property
    def done(self) -> bool:
        """Whether nothing of it will change."""
        return self.status not in {"pending", "running", "cancelling"}


@dataclass(slots=True, frozen=True)
class GroupSnapshot:
    """Several runs at one moment: a group (`kind` "group") or a session ("session"). `counts`: status -> number of runs."""

    id: str
    name: str
    kind: str
    runs: Sequence[RunSnapshot]
    status: str = ""
    budget: Budget | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many runs have each status."""
        counts: dict[str, int] = {}
        for run in self.runs:
            counts[run.status] = counts.get(run.status, 0) + 1
        return counts

    @property
    def done(self) -> bool:
        """Whether nothing of it will change."""
        return all(run.done for run in self.runs) and (self.kind != "session" or self.status not in {"active", "cancelling"})


Snapshot = RunSnapshot | GroupSnapshot
