"""Statuses, legal transitions and error kinds: the state model, as plain data.

Only the standard library is imported here, because the supervisor lives by these tables too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

from agentnb.errors import IllegalTransition


class SessionStatus(StrEnum):
    """Where a session stands."""

    ACTIVE = "active"
    ENDED = "ended"
    CANCELLED = "cancelled"


class RunStatus(StrEnum):
    """Where a run stands; `interrupted` means that its supervisor died under it."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class StepKind(StrEnum):
    """What a step is."""

    ATTEMPT = "attempt"
    WORKER = "worker"
    BRANCH = "branch"
    TURN = "turn"
    TOOL = "tool"
    HANDLER = "handler"
    CHECK = "check"


class RuntimeKind(StrEnum):
    """Where a run's processes live."""

    LOCAL = "local"
    DOCKER = "docker"
    HTTP = "http"
    CLOUD = "cloud"


class TargetKind(StrEnum):
    """What was launched; `other`: a target of another package's adapter, whose own `type` is in the run's target."""

    COMMAND = "command"
    SHELL = "shell"
    TEST = "test"
    PYTHON = "python"
    LOCAL_MODEL = "local_model"
    CLAUDE = "claude"
    OPENAI_COMPATIBLE = "openai_compatible"
    JSON_LINES = "json_lines"
    A2A = "a2a"
    REPLAY = "replay"
    AGENT = "agent"
    SWARM = "swarm"
    OTHER = "other"


class ErrorKind(StrEnum):
    """Why something did not succeed."""

    STARTUP_FAILED = "startup_failed"
    EXECUTION_FAILED = "execution_failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    WORKER_TIMEOUT = "worker_timeout"
    INVALID_CONFIG = "invalid_config"
    RUNTIME_ERROR = "runtime_error"
    ARTIFACT_ERROR = "artifact_error"
    NOT_FOUND = "not_found"
    PATTERN_ERROR = "pattern_error"
    VALIDATION_ERROR = "validation_error"
    RESOURCE_LIMIT_EXCEEDED = "resource_limit_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    RATE_LIMITED = "rate_limited"


#: Whether trying again can help. A pattern error is never retried itself: its cause decides.
RETRYABLE: dict[ErrorKind, bool] = {
    ErrorKind.STARTUP_FAILED: False,
    ErrorKind.EXECUTION_FAILED: False,
    ErrorKind.CANCELLED: False,
    ErrorKind.INTERRUPTED: True,
    ErrorKind.TIMEOUT: True,
    ErrorKind.WORKER_TIMEOUT: True,
    ErrorKind.INVALID_CONFIG: False,
    ErrorKind.RUNTIME_ERROR: True,
    ErrorKind.ARTIFACT_ERROR: False,
    ErrorKind.NOT_FOUND: False,
    ErrorKind.PATTERN_ERROR: False,
    ErrorKind.VALIDATION_ERROR: False,
    ErrorKind.RESOURCE_LIMIT_EXCEEDED: True,
    ErrorKind.BUDGET_EXCEEDED: False,
    ErrorKind.RATE_LIMITED: True,
}

_S = TypeVar("_S", SessionStatus, RunStatus, StepStatus)

_RUN_ENDS = frozenset(RunStatus) - {RunStatus.PENDING, RunStatus.RUNNING}
_STEP_ENDS = frozenset(StepStatus) - {StepStatus.PENDING, StepStatus.RUNNING}

#: Legal moves; a status that is no key here is terminal.
TRANSITIONS: dict[StrEnum, frozenset[StrEnum]] = {
    SessionStatus.ACTIVE: frozenset({SessionStatus.ENDED, SessionStatus.CANCELLED}),
    RunStatus.PENDING: frozenset({RunStatus.RUNNING, RunStatus.CANCELLED, RunStatus.FAILED}),
    RunStatus.RUNNING: _RUN_ENDS,
}
STEP_TRANSITIONS: dict[StepStatus, frozenset[StepStatus]] = {
    StepStatus.PENDING: frozenset({StepStatus.RUNNING, StepStatus.CANCELLED, StepStatus.FAILED, StepStatus.SKIPPED}),
    StepStatus.RUNNING: _STEP_ENDS,
}


def legal(old: _S, new: _S) -> bool:
    """Whether the state model allows `old` -> `new`."""
    if isinstance(old, StepStatus):
        return new in STEP_TRANSITIONS.get(old, frozenset())
    return new in TRANSITIONS.get(old, frozenset())


def check_transition(what: str, old: _S, new: _S) -> None:
    """Raise IllegalTransition, naming `what` and both states, unless `old` -> `new` is legal."""
    if not legal(old, new):
        raise IllegalTransition(what, old.value, new.value)


def is_terminal(status: SessionStatus | RunStatus | StepStatus) -> bool:
    """Whether nothing can follow `status`."""
    return not (STEP_TRANSITIONS.get(status) if isinstance(status, StepStatus) else TRANSITIONS.get(status))


def is_retryable(kind: ErrorKind) -> bool:
    """Whether a failure of this kind may be tried again."""
    return RETRYABLE[kind]


def worth_retrying(error: Mapping[str, Any]) -> bool:
    """Whether what ended with this error (its JSON form) may be tried again. Of a pattern_error its causes decide."""
    if error["kind"] == ErrorKind.PATTERN_ERROR:
        return (error.get("details") or {}).get("retryable") is True
    return RETRYABLE[ErrorKind(error["kind"])]


def is_cancellation(kind: ErrorKind) -> bool:
    """Whether this kind means that somebody asked for the end."""
    return kind is ErrorKind.CANCELLED


def is_config_error(kind: ErrorKind) -> bool:
    """Whether this kind is the caller's mistake, to be mended before another launch."""
    return kind in {ErrorKind.INVALID_CONFIG, ErrorKind.NOT_FOUND}
