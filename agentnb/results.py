"""What became of a run: result, usage, circumstances, findings and estimates, as data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from agentnb.data import Data
from agentnb.errors import BudgetExceeded, LimitExceeded, RunCancelled, RunFailed, RunTimedOut
from agentnb.states import ErrorKind, RunStatus

#: How the usage of a process tree is measured, where its record says nothing else.
MEASURED_BY = {
    "cpu_time": "wait4",
    "peak_memory_bytes": "wait4, largest process",
    "disk": "wait4, in blocks",
    "processes": "seen in samples or reaped",
}


class ResourceUsage(Data):
    """What a run used, its whole process tree counted. None: not known here. `measured_by` says how each figure was read.

    `peak_memory_is_bound`: the real peak is at most `peak_memory_bytes` (it was below what the launcher itself uses).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cpu_time: float | None = None
    wall_time: float | None = None
    peak_memory_bytes: int | None = None
    peak_memory_is_bound: bool = False
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    network_bytes: int | None = None
    processes: int | None = None
    measured_by: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _say_how(cls, given: Any) -> Any:
        """A record names only what was measured in another way than is usual."""
        if not isinstance(given, dict) or given.get("cpu_time") is None:
            return given
        return given | {"measured_by": MEASURED_BY | (given.get("measured_by") or {})}


class ExecutionMetadata(Data):
    """The circumstances of a run. None: not known.

    `pid`: of its last process, or of the process that an ``async def`` agent lives in. `environment_hash`: SHA-256 of names and
    values. `git_commit` is that of the checkout around the working directory; `git_dirty`: whether files that git tracks differed from
    it when the run began. `trace_id`: its W3C trace id.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    started_at: datetime | None = None
    completed_at: datetime | None = None
    hostname: str | None = None
    pid: int | None = None
    parent_pid: int | None = None
    working_directory: str | None = None
    environment_hash: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    trace_id: str | None = None
    python_version: str | None = None
    agentnb_version: str | None = None


class Issue(Data):
    """One finding of a check."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    severity: Literal["error", "warning", "info"]
    check: str
    message: str


class Estimate(Data):
    """What a command will probably need: seconds, bytes, percent of one processor; None where nobody can say.

    From the `history` of the same command: the median, and the value that nine runs in ten stay below (`..._p90`), of its latest
    `n` completed runs; `confidence` is n / (n + 4). Else a built-in `default`, without p90 and with confidence 0. `basis` says which.
    """

    source: Literal["history", "default"]
    basis: str
    n: int = 0
    confidence: float = 0.0
    duration: float | None = None
    duration_p90: float | None = None
    peak_memory_bytes: int | None = None
    peak_memory_p90_bytes: int | None = None
    cpu_percent: float | None = None
    cpu_percent_p90: float | None = None


class CommandStatus(StrEnum):
    """How a command ended, seen by the executor."""

    SUCCESS = "success"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    RESOURCE_LIMIT_EXCEEDED = "resource_limit_exceeded"


class FailureReason(StrEnum):
    """Why a command failed."""

    NON_ZERO_EXIT = "non_zero_exit"
    SIGNALLED = "signalled"
    STARTUP = "startup"
    VALIDATION_FAILED = "validation_failed"
    SECURITY_VIOLATION = "security_violation"
    RESOURCE_EXHAUSTION = "resource_exhaustion"
    INTERNAL_ERROR = "internal_error"


class CommandError(Data):
    """Why it did not succeed. `kind` is a states.ErrorKind."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: ErrorKind
    message: str
    details: dict[str, Any] = Field(default_factory=dict)


class CommandResult(Data):
    """The outcome of a run; durations in seconds. `status` reads as the run's status does in the history.

    `command_status` is the executor's word for it, `reason` says why it failed. `output` is the structured output, and
    `output_source` where it was found (json, last_line, fenced_block, returned). `stdout_bytes` and `stderr_bytes` are sizes.
    """

    command_id: str
    name: str = ""
    spec: dict[str, Any] = Field(default_factory=dict)
    status: RunStatus
    command_status: CommandStatus
    reason: FailureReason | None = None
    retryable: bool = False
    output: Any = None
    output_source: str | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    duration: float | None = None
    usage: ResourceUsage = Field(default_factory=ResourceUsage)
    exit_code: int | None = None
    signal: int | None = None
    error: CommandError | None = None
    validation: tuple[Issue, ...] = ()
    metadata: ExecutionMetadata = Field(default_factory=ExecutionMetadata)
    warnings: tuple[str, ...] = ()
    attempts: int = 0

    _reader: Callable[[str], bytes] | None = PrivateAttr(default=None)

    def reading(self, read: Callable[[str], bytes]) -> CommandResult:
        """This result, which gets its output from ``read("stdout")`` and ``read("stderr")`` when it is asked for."""
        self._reader = read
        return self

    def _read(self, stream: str) -> bytes:
        return self._reader(stream) if self._reader is not None else b""

    @property
    def stdout(self) -> str:
        """All of stdout as text (UTF-8, what is not is replaced). Read from the history at each access."""
        return self._read("stdout").decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """All of stderr, as `stdout`."""
        return self._read("stderr").decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        """Whether it completed."""
        return self.status is RunStatus.COMPLETED

    def raise_for_status(self) -> CommandResult:
        """Return this result if it completed; else raise RunFailed, or the kind of it that fits, with the end of stderr in its message."""
        if self.ok:
            return self
        why = self.error.message if self.error else "no reason is known"
        message = f"run {self.name or self.command_id!r} {_STATUS_WORDS.get(self.status, self.status.value)}: {why}"
        if tail := self._read("stderr")[-_TAIL_BYTES:].decode("utf-8", "replace").strip():
            message += f"\nthe end of its stderr:\n{tail}"
        raise _failure(self)(message, self)

    def __repr__(self) -> str:
        """One line: the status and what matters most."""
        shown = [f"status={self.status.value!r}", f"exit_code={self.exit_code}"]
        shown += [f"duration={self.duration:.3f}"] if self.duration is not None else []
        shown += [f"error={self.error.message!r}"] if self.error else []
        return f"CommandResult({', '.join(shown)})"

    __str__ = __repr__


_TAIL_BYTES = 2000
_STATUS_WORDS = {
    RunStatus.FAILED: "failed",
    RunStatus.TIMEOUT: "timed out",
    RunStatus.CANCELLED: "was cancelled",
    RunStatus.INTERRUPTED: "was interrupted",
}


def _failure(result: CommandResult) -> type[RunFailed]:
    kind = result.error.kind if result.error else None
    by_kind = {ErrorKind.RESOURCE_LIMIT_EXCEEDED: LimitExceeded, ErrorKind.BUDGET_EXCEEDED: BudgetExceeded}
    by_status = {RunStatus.TIMEOUT: RunTimedOut, RunStatus.CANCELLED: RunCancelled}
    return (by_kind.get(kind) if kind else None) or by_status.get(result.status, RunFailed)
