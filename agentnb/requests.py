"""What the client asks of the supervisor, as data (see events.py for the other direction and the conventions)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentnb.events import Json, Message, message

#: Raised whenever a message changes its meaning; client and supervisor must agree on it.
PROTOCOL_VERSION = 3


@dataclass(slots=True)
class Hello(Message):
    """The first message of a client."""

    type = "hello"
    version: int
    pid: int


@dataclass(slots=True)
class OpenSession(Message):
    """Start a session. `session`: the fields of model.Session; `store`: the absolute path of the store's folder.

    `budget`: what it may spend (engine/budget.py), or None; its `spent`: what the client knows to be spent.
    `synchronous`: "full" when commits shall be on the disk before anybody hears of them; it then holds for all sessions of the store here.
    """

    type = "open_session"
    session: Json
    store: str
    max_parallel: int
    budget: Json | None = None
    synchronous: str = "normal"


@dataclass(slots=True)
class EndSession(Message):
    """End a session: refuse new runs; `cancel` ends its live runs with `reason`. Reply: when all its runs are terminal."""

    type = "end_session"
    request_id: int
    session_id: str
    cancel: bool = False
    reason: str = ""


@dataclass(slots=True)
class SetEnv(Message):
    """Keep an environment under a number that later launches name."""

    type = "set_env"
    env_id: int
    env: dict[str, str]


@dataclass(slots=True)
class Launch(Message):
    """Queue a run. `run`: the fields of model.Run, and in `again` what launches it again (agents/again.py); `work`: see engine/work.py."""

    type = "launch"
    run: Json
    work: Json


@dataclass(slots=True)
class Cancel(Message):
    """Cancel these runs, whatever they are doing; finished ones are left as they are."""

    type = "cancel"
    run_ids: list[str]
    reason: str


@dataclass(slots=True)
class Attach(Message):
    """Ask for a run that is not over. Reply: {"status", "started_at" (us or None), "attempt", "grace_s"}, or an error."""

    type = "attach"
    request_id: int
    run_id: str


@dataclass(slots=True)
class SendInput(Message):
    """Write to a run's stdin; `eof` closes it after that. Reply: when it is written, or an error."""

    type = "send_input"
    request_id: int
    run_id: str
    text: str
    eof: bool = False


@dataclass(slots=True)
class Watch(Message):
    """Send OutputTail events for these runs (`on`), or stop that. Watching starts with the tail so far."""

    type = "watch"
    run_ids: list[str]
    on: bool = True


@dataclass(slots=True)
class Flush(Message):
    """Put a run's output so far on disk. Reply: {"stdout": {"size", "path"}, "stderr": {...}, "finished": bool}."""

    type = "flush"
    request_id: int
    run_id: str


@dataclass(slots=True)
class Report(Message):
    """A hosted run's coroutine says something. `data`: one report, as in engine/reports.py."""

    type = "report"
    run_id: str
    data: Json


@dataclass(slots=True)
class Ping(Message):
    """Answer with a Reply when everything sent before has been handled and recorded."""

    type = "ping"
    request_id: int
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Shutdown(Message):
    """End every run that is not finished, write the last rows, and exit."""

    type = "shutdown"
    reason: str = "the notebook's process ended"


for _cls in (Hello, OpenSession, EndSession, SetEnv, Launch, Cancel, Attach, SendInput, Watch, Flush, Report, Ping, Shutdown):
    message(_cls)
