"""Session, Run, Step, Artifact: the records of the history, as immutable pydantic models.

Each serialises to JSON and back without loss and carries `schema_version`. A record changes its status only through
`moved`, which holds it to the legal transitions of states.py.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NewType, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from agentnb.ids import new_id
from agentnb.states import (
    ErrorKind,
    RunStatus,
    RuntimeKind,
    SessionStatus,
    StepKind,
    StepStatus,
    TargetKind,
    check_transition,
    is_retryable,
)

RunId = NewType("RunId", str)
StepId = NewType("StepId", str)
SessionId = NewType("SessionId", str)
ArtifactId = NewType("ArtifactId", str)

SCHEMA_VERSION = 1


def _now() -> datetime:
    return datetime.now(UTC)


class Record(BaseModel):
    """What all records share."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants", val_json_bytes="base64", ser_json_bytes="base64")

    schema_version: int = SCHEMA_VERSION


class RunError(Record):
    """Why something did not succeed. `details`: whatever else is known (limit, bound, reading, traceback ...)."""

    kind: ErrorKind
    message: str
    details: dict[str, Any] = Field(default_factory=dict)

    @property
    def retryable(self) -> bool:
        """Whether trying again can help."""
        return is_retryable(self.kind)


class LocalLocation(Record):
    """A file below the store's folder (relative path), or an absolute path outside of it."""

    type: Literal["local"] = "local"
    path: str


class HttpLocation(Record):
    """A document on a server."""

    type: Literal["http"] = "http"
    url: str


class CloudLocation(Record):
    """An object that fsspec can open, such as ``s3://bucket/key``."""

    type: Literal["cloud"] = "cloud"
    uri: str


class InlineLocation(Record):
    """The bytes themselves (base64 in JSON)."""

    type: Literal["inline"] = "inline"
    data: bytes


ArtifactLocation = Annotated[LocalLocation | HttpLocation | CloudLocation | InlineLocation, Field(discriminator="type")]


class Session(Record):
    """A named stretch of work that runs belong to."""

    id: SessionId = Field(default_factory=lambda: SessionId(new_id()))
    status: SessionStatus = SessionStatus.ACTIVE
    name: str
    created_at: AwareDatetime = Field(default_factory=_now)
    ended_at: AwareDatetime | None = None
    tags: dict[str, str] = Field(default_factory=dict)

    def moved(self, status: SessionStatus) -> Self:
        """This session with a new status and its end stamped. Raises IllegalTransition."""
        check_transition(f"session {self.name!r}", self.status, status)
        return self.model_copy(update={"status": status, "ended_at": _now()})


class RunTarget(Record):
    """What a run runs: its kind, a line to show to people, and the spec as data."""

    kind: TargetKind
    display: str
    spec: dict[str, Any] = Field(default_factory=dict)


class Run(Record):
    """One launch of one target."""

    id: RunId = Field(default_factory=lambda: RunId(new_id()))
    session_id: SessionId
    group_id: str | None = None
    name: str
    status: RunStatus = RunStatus.PENDING
    target: RunTarget
    runtime_kind: RuntimeKind = RuntimeKind.LOCAL
    created_at: AwareDatetime = Field(default_factory=_now)
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    timeout_s: float | None = None
    error: RunError | None = None
    input: Any = None
    output: Any = None
    params: dict[str, Any] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    parent_run_id: RunId | None = None
    cache_key: str | None = None
    replay_of: RunId | None = None
    reused_from: RunId | None = None
    resumed_from: RunId | None = None
    detached: bool = False
    trace_id: str | None = None

    def moved(self, status: RunStatus, *, error: RunError | None = None, output: Any = None) -> Self:
        """This run with a new status and the matching stamp set. Raises IllegalTransition."""
        check_transition(f"run {self.name!r}", self.status, status)
        if status is RunStatus.RUNNING:
            return self.model_copy(update={"status": status, "started_at": _now()})
        return self.model_copy(update={"status": status, "finished_at": _now(), "error": error, "output": output})


class Step(Record):
    """One part of a run: an attempt, a turn, a tool call, a handler, a check ..."""

    id: StepId = Field(default_factory=lambda: StepId(new_id()))
    run_id: RunId
    parent_id: StepId | None = None
    kind: StepKind
    name: str
    status: StepStatus = StepStatus.PENDING
    attempt: int = Field(default=1, ge=1)
    created_at: AwareDatetime = Field(default_factory=_now)
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    error: RunError | None = None
    exit_code: int | None = None
    usage: dict[str, Any] | None = None
    tokens: dict[str, int] | None = None
    cost_usd: float | None = None
    input: Any = None
    output: Any = None

    def moved(self, status: StepStatus, *, error: RunError | None = None, output: Any = None) -> Self:
        """This step with a new status and the matching stamp set. Raises IllegalTransition."""
        check_transition(f"step {self.name!r}", self.status, status)
        if status is StepStatus.RUNNING:
            return self.model_copy(update={"status": status, "started_at": _now()})
        return self.model_copy(update={"status": status, "finished_at": _now(), "error": error, "output": output})


class Artifact(Record):
    """Something a run left behind. `size` in bytes; `checksum` is ``sha256:<hex>``, computed on write, verified on read."""

    id: ArtifactId = Field(default_factory=lambda: ArtifactId(new_id()))
    name: str
    content_type: str = "application/octet-stream"
    size: int = Field(ge=0)
    location: ArtifactLocation
    checksum: str
    created_at: AwareDatetime = Field(default_factory=_now)
    source_run: RunId | None = None
    source_step: StepId | None = None


class ExecutionHandle(Record):
    """Where a run lives while it runs. `runtime_handle`: ``pid:123``, ``container:ab12``, ``task:...``."""

    run_id: RunId
    runtime_kind: RuntimeKind
    created_at: AwareDatetime = Field(default_factory=_now)
    runtime_handle: str

    def elapsed(self) -> float:
        """Seconds since the handle was made."""
        return (_now() - self.created_at).total_seconds()
