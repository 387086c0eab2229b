"""What happens, as data: the one stream that views, history and traces are made of.

Every record here is plain JSON data (stamps are whole microseconds since the epoch, UTC; durations are seconds).
*Recorded* events are what the tables of the history add up to: the store applies them, then they go to the client.
*Signals* only cross the wire. Only the standard library is imported, because the supervisor lives by this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, Protocol

Json = dict[str, Any]


def now_us() -> int:
    """The time now, in whole microseconds since the epoch, UTC."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class Message:
    """Base of all that crosses the wire; `type` names the class there."""

    type: ClassVar[str] = ""

    def to_wire(self) -> Json:
        """The message as a JSON object with its `type`; a field that is None, as it is when nothing is said of it, is left out."""
        cls = type(self)
        names, get, needed = _forms.get(cls) or _form(cls)
        data = {name: value for name, value in zip(names, get(self), strict=True) if value is not None or name in needed}
        data["type"] = self.type
        return data


_registry: dict[str, type[Message]] = {}
#: Names of the fields, what gets their values, and the fields whose None has to be said.
_Form = tuple[tuple[str, ...], Callable[[Message], tuple[Any, ...]], frozenset[str]]
_forms: dict[type[Message], _Form] = {}


def _form(cls: type[Message]) -> _Form:
    names = tuple(f.name for f in fields(cls))
    get: Any = attrgetter(*names) if len(names) > 1 else lambda message: tuple(getattr(message, name) for name in names)
    form = _forms[cls] = (names, get, frozenset(f.name for f in fields(cls) if f.default is not None))
    return form


def message(cls: type[Message]) -> None:
    """Make `cls` known to `from_wire` under its `type`."""
    _registry[cls.type] = cls


def from_wire(data: Json) -> Message | None:
    """The message that `data` stands for; None for a type that this version does not know.

    Unknown fields are dropped, so that a peer of the same protocol version may add some.
    """
    cls = _registry.get(data.get("type", ""))
    if cls is None:
        return None
    fields_only = data.copy()
    del fields_only["type"]
    try:
        return cls(**fields_only)
    except TypeError:  # a field too many, or too few
        return cls(**{name: data[name] for name in (_forms.get(cls) or _form(cls))[0] if name in data})


class EventSink(Protocol):
    """Whatever takes events: the recorder of the supervisor, a test's list, another host's stream."""

    def emit(self, event: Message) -> None:
        """Take one event; never blocks, never raises."""


# --- recorded events ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SessionStarted(Message):
    """A session began. `session`: the fields of model.Session."""

    type = "session_started"
    session: Json
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class SessionEnded(Message):
    """A session ended; `status` is ended or cancelled."""

    type = "session_ended"
    session_id: str
    status: str
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class RunQueued(Message):
    """A run was accepted. `run`: the fields of model.Run (id, session_id, name, target, params, tags, ...)."""

    type = "run_queued"
    run: Json
    at: int = field(default_factory=now_us)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self.run.get("id"))


@dataclass(slots=True)
class RunStarted(Message):
    """A run's first attempt started. `handle`: where it lives, such as ``pid:123``."""

    type = "run_started"
    run_id: str
    handle: str = ""
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class RunRetrying(Message):
    """An attempt failed; attempt number `attempt` (from 1) follows after `delay_s`."""

    type = "run_retrying"
    run_id: str
    attempt: int
    delay_s: float
    error: Json | None = None
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class StepStarted(Message):
    """A step of a run began. `kind` is a states.StepKind."""

    type = "step_started"
    run_id: str
    step_id: str
    kind: str
    name: str
    attempt: int = 1
    parent_id: str | None = None
    input: Any = None
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class StepFinished(Message):
    """A step ended. `tokens`: {"input": n, "output": n, ...}; `usage`: the fields of results.ResourceUsage.

    `run_s`: how long it took, where the stamps do not say so: in a replay, as recorded.
    """

    type = "step_finished"
    run_id: str
    step_id: str
    status: str
    error: Json | None = None
    exit_code: int | None = None
    usage: Json | None = None
    tokens: Json | None = None
    cost_usd: float | None = None
    output: Any = None
    run_s: float | None = None
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class StepUsed(Message):
    """What a step that has ended used, where that is known only later; laid over what its end said. None: nothing new."""

    type = "step_used"
    run_id: str
    step_id: str
    tokens: Json | None = None
    cost_usd: float | None = None
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class ArtifactSaved(Message):
    """An artifact is on disk. `artifact`: the fields of model.Artifact (source_run, source_step, checksum, ...)."""

    type = "artifact_saved"
    run_id: str
    artifact: Json
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class UsageReported(Message):
    """An agent's running totals so far (not increments). None: not known.

    `input_tokens` leaves out what was read from, or written to, the model's cache. `turns`: answers of the model. `agent_session`: under
    which the agent keeps the conversation.
    """

    type = "usage_reported"
    run_id: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    tokens_per_s: float | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    turns: int | None = None
    model: str | None = None
    agent_session: str | None = None
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class BudgetCrossed(Message):
    """More was spent than a budget allows. `scope`: run, group or session; `budget`: the option's name; `spent`: in its unit."""

    type = "budget_crossed"
    session_id: str
    scope: str
    scope_id: str
    budget: str
    bound: float
    spent: float
    run_id: str | None = None
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class WorkspaceChanged(Message):
    """A run's workspace was made, read or removed.

    `workspace`: {"kind", "path", "source", "kept", "state", and where they are known "branch", "commit" (at the start), "commits" (how
    many), "complete" (all changes are artifacts), "masked"}. The counts are known from the run's end on.
    """

    type = "workspace_changed"
    run_id: str
    workspace: Json
    files_changed: int | None = None
    insertions: int | None = None
    deletions: int | None = None
    at: int = field(default_factory=now_us)


@dataclass(slots=True)
class RunFinished(Message):
    """A run reached its one terminal status.

    `stdout`, `stderr`: {"size": bytes, "text": str} when all of the stream is small enough to live in the row, else {"size", "path"}:
    the log file below the store.
    `error`: {"kind": states.ErrorKind, "message": str, ...}. `usage`: the fields of results.ResourceUsage.
    `detail`: {"reason", "validation", "metadata", "warnings", "output_source"}.
    """

    type = "run_finished"
    run_id: str
    status: str
    exit_code: int | None = None
    signal: int | None = None
    error: Json | None = None
    output: Any = None
    stdout: Json | None = None
    stderr: Json | None = None
    usage: Json | None = None
    attempts: int = 0
    run_s: float | None = None
    detail: Json = field(default_factory=dict)
    at: int = field(default_factory=now_us)


RECORDED: tuple[type[Message], ...] = (
    SessionStarted,
    SessionEnded,
    RunQueued,
    RunStarted,
    RunRetrying,
    StepStarted,
    StepFinished,
    StepUsed,
    ArtifactSaved,
    UsageReported,
    BudgetCrossed,
    WorkspaceChanged,
    RunFinished,
)

# --- signals: supervisor to client ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Ready(Message):
    """The supervisor is up, or has other spawners. When it dies, all is over once those (their pids) have ended, too."""

    type = "ready"
    version: int
    pid: int
    spawners: list[int] = field(default_factory=list)


@dataclass(slots=True)
class OutputTail(Message):
    """New output of a watched run. `segments`: [["stdout" | "stderr", text], ...]; `skipped`: bytes left out before them."""

    type = "output_tail"
    run_id: str
    segments: list[list[str]]
    skipped: int = 0


@dataclass(slots=True)
class UsageSample(Message):
    """What a watched run with limits, whose tree is read for them, uses: CPU seconds so far, memory now. `at`: monotonic seconds."""

    type = "usage_sample"
    run_id: str
    at: float
    cpu_s: float
    memory_bytes: int


@dataclass(slots=True)
class BudgetSpent(Message):
    """What was spent of a budget so far. `began`: the first start, us; `crossed`: the option whose bound was crossed, or ""."""

    type = "budget_spent"
    scope_id: str
    cost_usd: float
    tokens: int
    began: int | None
    crossed: str = ""


@dataclass(slots=True)
class HostStart(Message):
    """Run the coroutine of this hosted run now (it lives in the client's process)."""

    type = "host_start"
    run_id: str
    attempt: int = 1


@dataclass(slots=True)
class HostCancel(Message):
    """Cancel the coroutine of this hosted run."""

    type = "host_cancel"
    run_id: str
    reason: str


@dataclass(slots=True)
class Reply(Message):
    """The answer to the request with the same `request_id`."""

    type = "reply"
    request_id: int
    data: Json = field(default_factory=dict)
    error: str | None = None


@dataclass(slots=True)
class StoreTrouble(Message):
    """The history cannot be written just now (`message` says why), or can be again (`message` is None)."""

    type = "store_trouble"
    store: str
    message: str | None


for _cls in (*RECORDED, Ready, OutputTail, UsageSample, BudgetSpent, HostStart, HostCancel, Reply, StoreTrouble):
    message(_cls)
