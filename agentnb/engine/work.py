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


class ReplayPlan(TypedDict):
    """A recording: its absolute path, and how many times faster than it was recorded (None: without any waiting)."""

    path: str
    speed: float | None


class WorkspacePlan(TypedDict):
    """workspaces.Worktree, TempCopy or Shared, as data. `source`: the top of the checkout, or the folder; a real, absolute path.

    A worktree has also `common`, the repository's git directory, and the `commit` it starts from. What of `cwd` lies below `source` is
    meant below the workspace.
    """

    kind: Literal["worktree", "temp_copy", "shared"]
    source: str
    cleanup: Literal["keep", "on_success", "always"]
    common: NotRequired[str]
    commit: NotRequired[str]


class ServicePlan(TypedDict):
    """A process that runs with the same `key` use at once (engine/services.py). `name`: for people; `keep_s`: after its last use."""

    key: str
    name: str
    argv: list[str]
    payload: str
    keep_s: float


class Work(TypedDict):
    """One run's work.

    `kind`: "process" (spawn `argv`), or "hosted" (a coroutine in the client's process does it and sends reports), or
    "replay" (nothing is run: the recording of `replay` is played; `record`: what it says of the run, for the client only), or
    "reused" (nothing is run: what the run's `reused_from` came to is told again).
    `env`: laid over environment number `env_id`. `secrets`: values to mask in the output.
    `stdin`: text, True (open until told otherwise), or nothing: empty.
    `payload`: base64 of bytes that the child finds on the descriptor named by AGENTNB_PAYLOAD_FD.
    `channel`: the child gets a descriptor, AGENTNB_CHANNEL_FD, to write reports to, one JSON object a line (engine/reports.py).
    `parser`: ``module:attribute`` of what reads stdout as JSON lines (engine/parsing.py), called with `parser_options`; `parser_path`: the
    folder where its module may lie. `linger_s`: how long the process may stay after its result (default attempt.LINGER_S).
    `interrupt_s`: a process with a parser gets SIGINT before anything else ends it, and so long to tell what it used.
    `service`: a process that has to be ready first, and that the run's process finds by AGENTNB_SERVICE.
    `traceparent`: W3C trace context for the run's processes. `pid`: of the process that a hosted coroutine lives in.
    `group`: at most `group_parallel` runs of that group at once.
    `children`: the channel goes both ways, and the agent may launch child runs (engine/children.py). `bound`: it ends with its parent.
    `sums`: the tokens and cost of its child runs are shown as its own; they count for budgets, and in sums, with the child runs only.
    `budget_option`: an option of the program that bounds what it spends; it is given the dollars that remain when the program starts.
    `budget`, `group_budget`: what the run, or its group, may spend (engine/budget.py).
    `capture`: execution.Capture. `artifacts`: glob patterns below `cwd`. `workspace`: where it works instead (engine/workspace.py).
    `notes`: warnings that the run begins with.
    """

    kind: Literal["process", "hosted", "replay", "reused"]
    argv: list[str]
    cwd: str
    env_id: int
    env: dict[str, str]
    secrets: list[str]
    capture: str
    grace_s: float
    expected_exit_code: int
    stdin: NotRequired[str | bool | None]
    timeout_s: NotRequired[float | None]
    payload: NotRequired[str]
    channel: NotRequired[bool]
    parser: NotRequired[str]
    parser_options: NotRequired[dict[str, Any]]
    parser_path: NotRequired[str | None]
    linger_s: NotRequired[float]
    interrupt_s: NotRequired[float]
    retry: NotRequired[RetryPlan]
    limits: NotRequired[dict[str, Any]]
    check: NotRequired[CheckPlan]
    handlers: NotRequired[list[HandlerPlan]]
    artifacts: NotRequired[list[str]]
    traceparent: NotRequired[str]
    replay: NotRequired[ReplayPlan]
    record: NotRequired[dict[str, Any]]
    pid: NotRequired[int]
    group: NotRequired[str]
    group_parallel: NotRequired[int]
    budget: NotRequired[dict[str, Any]]
    budget_option: NotRequired[str]
    children: NotRequired[bool]
    bound: NotRequired[bool]
    sums: NotRequired[bool]
    group_budget: NotRequired[dict[str, Any]]
    workspace: NotRequired[WorkspacePlan]
    service: NotRequired[ServicePlan]
    notes: NotRequired[list[str]]


def no_work() -> Work:
    """The work of a run that is reused."""
    return {
        "kind": "reused", "argv": [], "cwd": "", "env_id": 0, "env": {}, "secrets": [], "capture": "both", "grace_s": 0.0,
        "expected_exit_code": 0,
    }  # fmt: skip


_KINDS: dict[str, tuple[type, ...]] = {
    "kind": (str,), "argv": (list,), "cwd": (str,), "env_id": (int,), "env": (dict,), "secrets": (list,),
    "stdin": (str, bool, type(None)), "capture": (str,), "timeout_s": (int, float, type(None)), "grace_s": (int, float),
    "expected_exit_code": (int,),
}  # fmt: skip


#: A longer time is a mistake, and what is no number at all is not shorter.
_MOST_SECONDS = 1e10


def check_work(work: Any) -> None:
    """Raise TypeError or ValueError for what is no work for a process: it comes from an agent's process, which may send anything."""
    if not isinstance(work, dict):
        raise TypeError("its work is no object")
    for name, types in _KINDS.items():
        if not isinstance(work.get(name), types):
            raise TypeError(f"its work has {name}={work.get(name)!r}")
    for name in ("timeout_s", "grace_s"):
        if work.get(name) is not None and not 0 <= work[name] < _MOST_SECONDS:
            raise ValueError(f"its work has {name}={work[name]!r:.100}")
    if work["kind"] == "hosted":
        raise ValueError("an `async def` agent lives in the notebook's process; write it as `def`")
    texts = [*work["argv"], *work["secrets"], *work["env"], *work["env"].values()]
    if (not work["argv"] and work["kind"] == "process") or not all(isinstance(text, str) and "\0" not in text for text in texts):
        raise TypeError("its argv, env or secrets are no texts")
