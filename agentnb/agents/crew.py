"""The workers of a swarm as child runs: launched, cancelled and heard of over the channel of the swarm's process."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from agentnb import events
from agentnb.agents.compile import compile_work, target_of
from agentnb.agents.failures import Failure, FlowFailed
from agentnb.agents.flow import Json, Result
from agentnb.agents.scope import Scope
from agentnb.commands import Spec
from agentnb.declared import Agent
from agentnb.engine.reports import MAX_LINE, too_deep
from agentnb.errors import AgentnbError
from agentnb.execution import ExecutionConfig
from agentnb.ids import new_id
from agentnb.states import worth_retrying

#: So many runs of a swarm are under way at most; the engine allows a few more.
MOST_LIVE = 900
#: Of what a worker printed templates see this much: of stdout the beginning, of stderr the end, in bytes.
MAX_STDOUT, MAX_STDERR = 1024 * 1024, 64 * 1024
#: What records show of what a worker was given, and steps of what it gave, in characters of JSON.
MAX_SHOWN = 64 * 1024
_LONGEST = MAX_LINE - 64 * 1024
_MAX_NAME = 200
#: Whose stdout is their output when they give no other.
_PRINTING = frozenset({"shell", "command", "test"})


class Target(NamedTuple):
    """What one worker is to do, filled: the target of its run, its options, and those that hold where neither says otherwise."""

    spec: Spec
    config: ExecutionConfig
    defaults: ExecutionConfig

    @property
    def prints(self) -> bool:
        """Whether its stdout is what it gives when it gives nothing else."""
        spec = self.spec.bound.command if isinstance(self.spec, Agent) else self.spec
        return getattr(spec, "type", "") in _PRINTING


#: What a worker is to do: (its name, what it is given, what templates see) -> target. Raises AgentnbError, FlowFailed.
Aim = Callable[[str, Any, Scope], Target]


class ChildRun:
    """The run of one worker, waiting or under way. `done` is resolved with its end."""

    def __init__(self, crew: RunningCrew, run_id: str, report: Json, *, printing: bool, told: Any) -> None:
        """`report`: what launches it. `printing`: its stdout is its output."""
        self.run_id, self.report, self.printing, self.told = run_id, report, printing, told
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._crew = crew

    def cancel(self, reason: str) -> None:
        """Have it ended."""
        if not self.done.done():
            self._crew.cancel(self, reason)

    def settle(self, result: Result) -> None:
        """It has ended; the first end counts."""
        if not self.done.done():
            self.done.set_result(result)


class RunningCrew:
    """All runs of one swarm. `inputs`: of each worker, what it is given, as templates; None: what the swarm is given."""

    def __init__(self, send: Callable[[Json], None], store: Path, inputs: Mapping[str, Any], aim: Aim, warn: Callable[[str], None]) -> None:
        """`send` writes a report; `store`: the folder of the history, where long output is."""
        self._send, self._store, self._inputs, self._aim, self._warn = send, store, inputs, aim, warn
        self._live: dict[str, ChildRun] = {}
        self._waiting: deque[ChildRun] = deque()
        self._rest = b""
        self._lost = False

    def given(self, worker: str, scope: Scope) -> Any:
        """What a worker is given."""
        asked = self._inputs.get(worker)
        return scope.input if asked is None else scope.fill(asked, f"worker {worker!r}: input")

    def start(self, worker: str, title: str, given: Any, scope: Scope) -> ChildRun:
        """Launch the run of a worker, or have it wait for a place."""
        where, run_id = f"worker {title!r}", new_id()
        try:
            target = self._aim(worker, given, scope)
            report = _launch(target, title, given, run_id)
        except AgentnbError as bad:
            raise FlowFailed([Failure(where, _kind_of(bad), str(bad))]) from None
        size = len(json.dumps(report))
        if size > _LONGEST:
            raise FlowFailed(
                [Failure(where, "invalid_config", f"what it is given has {size} bytes; write the data to a file and pass its path")]
            )
        told = given if worker in self._inputs else scope.item
        child = ChildRun(self, run_id, report, printing=target.prints, told=told)
        if self._lost:
            child.settle(_lost())
        else:
            self._waiting.append(child)
            self._fill()
        return child

    def cancel(self, child: ChildRun, reason: str) -> None:
        """Have a run ended."""
        if child in self._waiting:
            self._waiting.remove(child)
            child.settle(Result("cancelled", error={"kind": "cancelled", "message": reason}, run_id=child.run_id))
        else:
            self._send({"t": "cancel", "run_id": child.run_id, "reason": reason})

    def _fill(self) -> None:
        while self._waiting and len(self._live) < MOST_LIVE:
            child = self._waiting.popleft()
            self._live[child.run_id] = child
            self._send(child.report)
            child.report = {}

    def feed(self, data: bytes) -> None:
        """Take what the engine answers; b"": nothing more will come."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        if not data:
            self._lost = True
            for child in [*self._live.values(), *self._waiting]:
                child.settle(_lost())
            self._live.clear()
            self._waiting.clear()

    def _take(self, answer: Json) -> None:
        child = self._live.pop(answer["run_id"], None)
        if child is not None:
            child.settle(self._result(child, answer))
        self._fill()

    def _result(self, child: ChildRun, answer: Json) -> Result:
        event = events.from_wire(answer["event"]) if "event" in answer else None
        if not isinstance(event, events.RunFinished):
            why = {"kind": "startup_failed", "message": str(answer.get("error", "the supervisor gave no reason"))}
            return Result("failed", error=why, run_id=child.run_id)
        error = event.error
        if error is not None and event.status == "timeout" and error["kind"] == "timeout":
            error = error | {"kind": "worker_timeout"}
        printed = self._read(event.stdout, MAX_STDOUT, last=False)
        seen: Json = {"stdout": printed, "stderr": self._read(event.stderr, MAX_STDERR, last=True)}
        seen |= {"exit_code": event.exit_code, "run_id": child.run_id}
        output = event.output
        if output is None and child.printing and event.status == "completed":
            output = _output(printed)
            if (size := (event.stdout or {}).get("size", 0)) > MAX_STDOUT:
                self._warn(f"run {child.run_id} printed {size} bytes; its output in templates is the first {MAX_STDOUT} of them")
        again, used = error is not None and worth_retrying(error), answer.get("used") or {}
        return Result(event.status, output, error, retryable=again, run_id=child.run_id, seen=seen, used=used)

    def _read(self, record: Json | None, most: int, *, last: bool) -> str:
        """A part of a finished stream; "" where there is none any more."""
        if record is None:
            return ""
        if record.get("text") is not None:
            data = str(record["text"]).encode("utf-8", "replace")
            return (data[-most:] if last else data[:most]).decode("utf-8", "replace")
        if not record.get("path"):
            return ""
        try:
            with (self._store / record["path"]).open("rb") as file:
                if last:
                    file.seek(max(record["size"] - most, 0))
                found: bytes = file.read(most)
                return found.decode("utf-8", "replace")
        except OSError as bad:
            self._warn(f"output of a worker cannot be read: {bad.strerror}: {record['path']}")
            return ""


def _launch(target: Target, title: str, given: Any, run_id: str) -> Json:
    """The report that launches a run. Raises AgentnbError for what cannot work."""
    spec = target.spec
    work = compile_work(spec, target.config, defaults=target.defaults, env_id=0, params={}, run_id=run_id)
    kind, record = target_of(spec), work.pop("record", {})
    run = {
        "id": run_id,
        "name": title[:_MAX_NAME],
        "target": {"kind": kind.kind.value, "display": spec.display, "spec": kind.spec},
        "runtime_kind": "local",
        "created_at": events.now_us(),
        "timeout_s": work.get("timeout_s"),
        "input": bounded(record.get("input", given)),
        "params": {},
        "tags": record.get("tags", {}),
    }
    return {"t": "launch", "run": run, "work": work}


def _kind_of(bad: AgentnbError) -> str:
    return "invalid_config" if isinstance(bad, ValueError) else "startup_failed"


def _lost() -> Result:
    return Result("interrupted", error={"kind": "interrupted", "message": "the supervisor process ended"})


def _output(printed: str) -> Any:
    """What a program that prints gives: the JSON value that its stdout is, else its text without the newline at the end."""
    text = printed.strip()
    if text[:1] in {"{", "[", '"'} or text in {"true", "false", "null"} or text[:1].isdigit() or text[:1] == "-":
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass
    return printed.removesuffix("\n")


def _refuse(name: str) -> Any:
    raise ValueError(name)


def bounded(value: Any) -> Any:
    """JSON data as it is, or the beginning of its text when it is large or nested deeply."""
    text = ""
    with suppress(RecursionError):
        text = json.dumps(value, ensure_ascii=False)
    if text and len(text) <= MAX_SHOWN and not too_deep(value):
        return value
    return f"{text[:MAX_SHOWN]}…"
