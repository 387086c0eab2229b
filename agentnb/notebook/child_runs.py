"""Child runs of an agent in a child process: launched over its channel, by the supervisor, which answers with their end.

This is the only module of the room that such a process imports, and only when its agent calls ``ctx.run``.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentnb import events, requests
from agentnb.agents.channel import Channel
from agentnb.agents.fill import fill
from agentnb.agents.python import is_async
from agentnb.commands import Python
from agentnb.engine.reports import MAX_LINE
from agentnb.errors import ConfigError
from agentnb.events import Json, Message, RunFinished
from agentnb.execution import ExecutionConfig
from agentnb.notebook.launching import Batch
from agentnb.notebook.live import LiveRun
from agentnb.notebook.options import split
from agentnb.notebook.targets import spec_of
from agentnb.results import CommandResult

_LONGEST = MAX_LINE - 64 * 1024


class Launcher:
    """Launches child runs of the run that this process is; safe to use from several threads."""

    def __init__(self, channel: Channel, env: Mapping[str, str]) -> None:
        """`env`: the environment that this process began with."""
        self._store = Path(env["AGENTNB_STORE"])
        self._session = env["AGENTNB_SESSION_ID"]
        self._env = dict(env)
        self._line = _Line(channel)

    def run(self, target: Any, options: Mapping[str, Any]) -> CommandResult:
        """Launch a child run and block until it has ended."""
        given, config = split(options)
        if given.detach:
            raise ConfigError("detach: a child run ends with the run that launched it; launch it from the notebook")
        spec = spec_of(target)
        if given.params or spec.asks:
            spec = fill(spec, given.params)
        if isinstance(spec, Python) and is_async(spec.function):
            raise ConfigError(
                "ctx.run: an `async def` agent lives in the notebook's process; write it as `def`, or its parent as `async def`"
            )
        changed = {name: text for name, text in os.environ.items() if self._env.get(name) != text}
        batch = Batch(
            self._line,  # type: ignore[arg-type]
            self._store,
            self._session,
            config=config,
            defaults=ExecutionConfig(env=changed),
            tags=given.tags,
            group={"budget": given.budget} if given.budget else None,
            reuse=given.reuse,
        )
        batch.add(spec, given.params, given.name)
        return batch.send()[0].wait()


class _Line:
    """The channel, as a client of the supervisor: launches go out, ends come in."""

    alive = True

    def __init__(self, channel: Channel) -> None:
        self.owner_pid = os.getpid()
        self.budgets: dict[str, events.BudgetSpent] = {}
        self._channel = channel
        self._listeners: dict[str, LiveRun] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def environment(self, _: Mapping[str, str]) -> int:
        """The supervisor knows: that of this process."""
        return 0

    def listen(self, run_id: str, listener: LiveRun) -> None:
        self._listeners[run_id] = listener

    def ignore(self, run_id: str) -> None:
        self._listeners.pop(run_id, None)

    def send(self, messages: Sequence[Message]) -> None:
        if os.getpid() != self.owner_pid:
            raise RuntimeError("ctx.run: this is a forked copy of the agent's process; call it in the process that was started")
        with self._lock:
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, name="agentnb-answers", daemon=True)
                self._reader.start()
        for message in messages:
            if not isinstance(message, requests.Launch):
                continue
            report = {"t": "launch", "run": message.run, "work": message.work}
            if len(json.dumps(report)) > _LONGEST:
                raise ConfigError(
                    "ctx.run: the target and its arguments are too large to be sent; write the data to a file and pass its path"
                )
            self._channel.send(report)

    def _read(self) -> None:
        rest = b""
        while data := self._channel.receive():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        for listener in list(self._listeners.values()):
            listener.on_lost("the supervisor process ended")

    def _take(self, answer: Json) -> None:
        run_id = answer["run_id"]
        event = events.from_wire(answer["event"]) if "event" in answer else None
        if event is None:
            error = {"kind": "startup_failed", "message": answer.get("error", "the supervisor gave no reason")}
            event = RunFinished(run_id, "failed", error=error)
        if (listener := self._listeners.pop(run_id, None)) is not None:
            listener.on_event(event)


def launcher(channel: Channel, env: Mapping[str, str]) -> Callable[..., CommandResult]:
    """What ``ctx.run`` calls in a child process: (target, options) -> the result."""
    return Launcher(channel, env).run
