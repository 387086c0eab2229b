"""What the engine is asked to do for one run, as plain JSON data: the `work` of requests.Launch.

The client makes it from a validated CommandRequest, so the engine need not validate (nor import pydantic) again.
Durations are seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class RetryPlan(TypedDict):
    """execution.Retry, as data."""

    max_attempts: int
    strategy: Literal["constant", "linear", "exponential"]
    initial_delay: float
    max_delay: float
    jitter: float
    on_exit_codes: list[int]


class CheckPlan(TypedDict, total=False):
    """execution.Validation, as data; `script` is an argument vector that gets stdout on stdin."""

    expected_pattern: str | None
    forbidden_patterns: list[str]
    json_schema: dict[str, Any] | None
    script: list[str] | None
    streams: list[str]


class HandlerPlan(TypedDict):
    """A command that runs after the last attempt, for at most `timeout_s` (default 60). `condition`: see engine/condition.py."""

    when: Literal["on_success", "on_failure", "rollback", "cleanup"]
    argv: list[str]
    display: str
    cwd: str
    env: dict[str, str]
    condition: NotRequired[str]
    timeout_s: NotRequired[float]


class Work(TypedDict):
    """One run's work.

    `kind`: "process" (spawn `argv`), or "hosted" (a coroutine in the client's process does it and sends reports).
    `env`: laid over environment number `env_id`. `secrets`: values to mask in the output.
    `stdin`: text, None (empty) or True (open until told otherwise).
    `payload`: base64 of bytes that the child finds on the descriptor named by AGENTNB_PAYLOAD_FD.
    `channel`: the child gets a descriptor, AGENTNB_CHANNEL_FD, to write reports to, one JSON object a line (engine/reports.py).
    `traceparent`: W3C trace context for the run's processes. `pid`: of the process that a hosted coroutine lives in.
    `group`: at most `group_parallel` runs of that group at once.
    `capture`: execution.Capture. `artifacts`: glob patterns below `cwd`.
    """

    kind: Literal["process", "hosted"]
    argv: list[str]
    cwd: str
    env_id: int
    env: dict[str, str]
    secrets: list[str]
    stdin: str | bool | None
    capture: str
    timeout_s: float | None
    grace_s: float
    expected_exit_code: int
    payload: NotRequired[str]
    channel: NotRequired[bool]
    parser: NotRequired[str]
    retry: NotRequired[RetryPlan]
    limits: NotRequired[dict[str, Any]]
    check: NotRequired[CheckPlan]
    handlers: NotRequired[list[HandlerPlan]]
    artifacts: NotRequired[list[str]]
    traceparent: NotRequired[str]
    pid: NotRequired[int]
    group: NotRequired[str]
    group_parallel: NotRequired[int]
