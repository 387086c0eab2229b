"""The pipeline of one run: attempts (validate, run, check), retries, handlers, artifacts, and the one terminal event."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any, Protocol

from agentnb.engine import retry
from agentnb.engine.agent_log import AgentLog
from agentnb.engine.attempt import Attempt, EarlyInput, Ended, Plan
from agentnb.engine.capture import Output
from agentnb.engine.checking import Checking
from agentnb.engine.checkout import TIMEOUT_S as GIT_TIMEOUT_S
from agentnb.engine.circumstances import metadata
from agentnb.engine.handlers import Handlers
from agentnb.engine.hosted import Hosted
from agentnb.engine.limits import LimitWatch
from agentnb.engine.masking import Masker
from agentnb.engine.outcome import Outcome, judge
from agentnb.engine.process import Spawner, SpawnerDied
from agentnb.engine.stop import Stop
from agentnb.engine.work import Work
from agentnb.errors import StoreError
from agentnb.events import Json, Message, RunFinished, RunRetrying, RunStarted, StepFinished, StepStarted
from agentnb.history.store import Store
from agentnb.ids import new_id

#: At most this many files are kept as artifacts of one run.
MAX_ARTIFACTS = 1000
#: At most this many different warnings are kept of one run: an agent can cause any number.
MAX_WARNINGS = 100


class Host(Protocol):
    """What an execution needs from the supervisor."""

    store: Store

    def emit(self, event: Message) -> None:
        """Record an event and pass it on."""

    def tell(self, message: Message) -> None:
        """Send a signal to the client."""

    def spawner(self) -> Spawner:
        """The live spawner."""

    def environment(self, env_id: int) -> dict[str, str]:
        """The environment that the client sent under this number."""

    def output(self, run_id: str, stream: str, data: bytes) -> None:
        """A watched run printed something."""

    def git_dirty(self, work: Work) -> asyncio.Future[bool | None]:
        """Begin to find out whether the checkout that the work is done in differs from its commit."""


class Execution:
    """One run on its way to its terminal status."""

    def __init__(self, host: Host, run: Json, work: Work) -> None:
        """Prepare; nothing happens before `go`."""
        self.run = run
        self.work = work
        self.run_id: str = run["id"]
        self._host = host
        self.folder = host.store.run_dir(self.run_id)
        self._stop: Stop | None = None
        self._current: Attempt | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self.early: list[EarlyInput] = []
        self._hosted = Hosted(self)
        self.out: Output | None = None
        self.agent = AgentLog(self)
        self._warnings: list[str] = []
        self._started_at: int | None = None
        self._pid: int | None = work.get("pid")
        self._dirty: asyncio.Future[bool | None] | None = None
        self.attempt = 0
        self.secrets = [secret for secret in work["secrets"] if secret]
        self._masker = Masker(self.secrets) if self.secrets else None
        self._ending = False
        self.abandoned = False
        self.watched = False

    @property
    def stopping(self) -> Stop | None:
        """Why it is being ended from outside, if it is."""
        return self._stop

    # --- what may happen to it from outside

    def stop(self, why: Stop) -> None:
        """End it for this reason; the first reason stays. Once its handlers run, only those are ended."""
        if self._stop is None and not self._ending:
            self._stop = why
        self.abandoned = self.abandoned or why.status == "interrupted"
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
        self._hosted.wake()
        if self._current is not None:
            self._current.stop(why)

    def spawner_died(self, why: Stop) -> None:
        """Nobody is left to end the current process, and it is ended already."""
        if self._current is not None:
            self._current.lost(why)

    def report(self, data: Json) -> None:
        """The run's agent says something about itself."""
        kind = data.get("t")
        if kind in ("done", "cancelled"):
            self._hosted.wake()
        self.agent.take(data)

    def send(self, given: EarlyInput) -> None:
        """Write to its stdin, now or as soon as there is one."""
        attempt = self._current
        if attempt is not None and attempt.stdin is not None:
            given.give(attempt.stdin)
        elif self._ending:
            given.settle("it is not running; it has ended")
        else:
            self.early.append(given)

    def tell(self, message: Message) -> None:
        """Send a signal to the client that launched it."""
        self._host.tell(message)

    def emit(self, event: Message) -> None:
        """Record an event of this run."""
        self._host.emit(event)

    def masked(self, data: Any) -> Any:
        """JSON data, or None, without this run's secrets."""
        return data if self._masker is None else self._masker.clean_data(data)

    def masked_bytes(self, data: bytes) -> bytes:
        """Bytes without this run's secrets."""
        return data if self._masker is None else self._masker.clean_bytes(data)

    def _masked_error(self, error: Json | None) -> Json | None:
        return error and error | {"message": self.masked(error["message"])}

    @property
    def started_at(self) -> int | None:
        """When its first attempt began, in microseconds UTC; None before that."""
        return self._started_at

    @property
    def store(self) -> Store:
        """Where its artifacts go."""
        return self._host.store

    def add_output(self, stream: str, data: bytes) -> None:
        """Output that comes in reports instead of a pipe."""
        if self.out is not None:
            try:
                self.out.streams[stream].add(data)
            except OSError as bad:
                self.warn(f"output of the agent could not be written yet: {bad.strerror}")

    def warn(self, text: str) -> None:
        """Add a warning to the result, once; after MAX_WARNINGS no more."""
        if (text := self.masked(text)) not in self._warnings and len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(text)

    # --- the pipeline

    async def go(self) -> None:
        """Run it to its end and emit RunFinished; never raises."""
        try:
            outcome, attempts = await self._attempts()
        except Exception as bad:  # noqa: BLE001 - a fault of ours must end the run, not the supervisor
            outcome, attempts = Outcome(), 1
            outcome.fail("runtime_error", f"agentnb failed: {type(bad).__name__}: {bad}", "internal_error")
        self._ending = True
        for given in self.early:
            given.settle("it ended before it could read that")
        try:
            await self._keep_artifacts(outcome)
            await Handlers(self, outcome, attempts).run()
            await self._wait_for_git()
        except Exception as bad:  # noqa: BLE001
            self.warn(f"agentnb failed after the run: {type(bad).__name__}: {bad}")
        if outcome.status == "interrupted" and self._started_at is None:
            outcome.status = "cancelled"  # there is no way from pending to interrupted; the error says by what
        try:
            finished = self._finished(outcome, attempts)
        except Exception as bad:  # noqa: BLE001
            self.warn(f"agentnb failed to describe the run: {type(bad).__name__}: {bad}")
            error = self._masked_error(outcome.error)
            finished = RunFinished(self.run_id, outcome.status, error=error, attempts=attempts, detail={"warnings": self._warnings})
        self.emit(finished)

    async def _attempts(self) -> tuple[Outcome, int]:
        number = 0
        while True:
            number += 1
            self.attempt = number
            step = self.begin_step("attempt", f"attempt {number}", number)
            self.agent.begin(step)
            self.out = self._new_output(number)
            outcome = await (self._hosted.attempt(number) if self.work["kind"] == "hosted" else self._process_attempt(number))
            await self.agent.end(outcome)
            if outcome.ok:
                await Checking(self, self.out).check(outcome, step, number)
            plan = self.work.get("retry")
            again = outcome.error is not None and self._stop is None and retry.again(plan, number, outcome.error, outcome.exit_code)
            self.end_step(step, outcome, self._output_record() if again else None)
            if not again or plan is None or outcome.error is None:
                return outcome, number
            delay = retry.delay_s(plan, number)
            self.emit(RunRetrying(self.run_id, number + 1, delay, self._masked_error(outcome.error)))
            await self._sleep(delay)
            if self._stop is not None:
                outcome.stop(self._stop)
                return outcome, number

    async def _sleep(self, delay: float) -> None:
        if self._stop is None:
            self._sleeper = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._sleeper], timeout=delay)
            self._sleeper = None

    def _new_output(self, attempt: int) -> Output:
        limit = (self.work.get("limits") or {}).get("max_output_bytes")
        return Output(
            self.folder,
            attempt,
            secrets=self.secrets,
            max_bytes=limit,
            on_data=lambda stream, data: self._host.output(self.run_id, stream, data) if self.watched else None,
            on_limit=self._too_much_output,
        )

    def _too_much_output(self, size: int) -> None:
        bound = (self.work.get("limits") or {}).get("max_output_bytes")
        message = f"it crossed the limit max_output_bytes={bound}: {size} bytes of output"
        why = Stop("failed", "resource_limit_exceeded", message, {"limit": "max_output_bytes", "bound": bound, "reading": size})
        if self._current is not None:
            self._current.stop(why)  # this attempt; another one may follow
        else:
            self.stop(why)

    def _on_start(self, pid: int) -> None:
        self._pid = pid
        self.begin(f"pid:{pid}")

    def begin(self, handle: str) -> None:
        """It has started, if this is its first attempt: say so, then ask git about its folder, which delays nothing any more."""
        if self._started_at is None:
            event = RunStarted(self.run_id, handle)
            self._started_at = event.at
            self.emit(event)
            self._dirty = self._host.git_dirty(self.work)

    async def _wait_for_git(self) -> None:
        """Wait for git's answer, unless the client is gone or somebody wants the run to end."""
        if self._dirty is not None and not self._dirty.done() and not self.abandoned and self._stop is None:
            self._sleeper = asyncio.get_running_loop().create_future()
            either: list[asyncio.Future[Any]] = [self._dirty, self._sleeper]
            await asyncio.wait(either, timeout=GIT_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            self._sleeper = None

    def own_env(self, env: dict[str, str]) -> dict[str, str]:
        """`env` with what every process of the run finds in its environment; a TRACEPARENT that was given stays."""
        trace = {"TRACEPARENT": self.work["traceparent"]} if "traceparent" in self.work else {}
        return trace | env | {"AGENTNB_RUN_ID": self.run_id}

    # --- one attempt

    async def _process_attempt(self, number: int) -> Outcome:
        work = self.work
        plan = Plan(
            argv=work["argv"],
            cwd=work["cwd"],
            env_id=work["env_id"],
            env=self.own_env(work["env"]) | {"AGENTNB_ATTEMPT": str(number)},
            capture=work["capture"],
            stdin=work["stdin"],
            early=self.early,
            timeout_s=work["timeout_s"],
            grace_s=work["grace_s"],
            payload=base64.b64decode(work["payload"]) if "payload" in work else None,
            on_report=self.report if work.get("channel") else None,
            limits=LimitWatch.of(f"{self.run_id}-{number}", bounds) if (bounds := work.get("limits")) else None,
        )
        try:
            ended = await self.process(plan, self.out)
        finally:
            if plan.limits is not None:
                plan.limits.close()
        outcome = judge(ended, work["expected_exit_code"])
        if ended.bad_reports:
            self.warn(f"{ended.bad_reports} reports of the agent were not understood")
        return outcome

    async def process(self, plan: Plan, out: Output | None, on_start: Callable[[int], None] | None = None) -> Ended:
        """Run one process to its end; a spawner that dies under it is a stop with kind runtime_error."""
        assert out is not None  # noqa: S101 - set before every attempt
        attempt = Attempt(self._host.spawner(), plan, out, self._trouble, on_start or self._on_start)
        self._current = attempt
        if self._stop is not None and not self._ending:
            attempt.stop(self._stop)
        try:
            ended = await attempt.run()
        except SpawnerDied:
            ended = Ended(stop=self._stop or Stop("failed", "runtime_error", "the process that starts commands was killed; it starts anew"))
        finally:
            self._current = None
        for warning in ended.warnings:
            self.warn(warning)
        return ended

    def _trouble(self, message: str | None) -> None:
        if message is not None:
            self.warn(message)

    # --- after an attempt

    async def _keep_artifacts(self, outcome: Outcome) -> None:
        patterns = self.work.get("artifacts") or []
        cwd = Path(self.work["cwd"])
        for pattern in patterns:
            names = await asyncio.to_thread(_matching, pattern, cwd)
            if not names and outcome.ok:
                self.warn(f"artifacts: nothing matches {pattern!r} in {cwd}")
            if len(names) > MAX_ARTIFACTS:
                self.warn(f"artifacts: {len(names)} files match {pattern!r}; the first {MAX_ARTIFACTS} were kept")
            for name in names[:MAX_ARTIFACTS]:
                try:
                    await self.agent.keep_file(self.masked(name), cwd / name, None)
                except StoreError as bad:
                    outcome.fail("artifact_error", str(bad))

    # --- records

    def begin_step(self, kind: str, name: str, attempt: int, *, parent: str | None = None, given: Any = None) -> str:
        """Record that a step begins; returns its id."""
        step = new_id()
        self.emit(StepStarted(self.run_id, step, kind, name, attempt, parent, given))
        return step

    def end_step(self, step: str, outcome: Outcome, output: Any) -> None:
        """Record how a step ended."""
        self.emit(
            StepFinished(
                self.run_id,
                step,
                outcome.status,
                error=self._masked_error(outcome.error),
                exit_code=outcome.exit_code,
                usage=outcome.usage,
                tokens=self.agent.tokens(step),
                cost_usd=self.agent.cost(step),
                output=output,
            )
        )

    def _circumstances(self) -> Json:
        """What only the run itself knows of its circumstances."""
        dirty = self._dirty.result() if self._dirty is not None and self._dirty.done() else None
        return {"pid": self._pid, "trace_id": self.run.get("trace_id"), "git_dirty": dirty}

    def _output_record(self) -> Json:
        assert self.out is not None  # noqa: S101
        return {name: stream.record(self._host.store.root) for name, stream in self.out.streams.items()}

    def _finished(self, outcome: Outcome, attempts: int) -> RunFinished:
        streams = self._output_record() if self.out is not None else {"stdout": None, "stderr": None}
        environment = self._host.environment(self.work["env_id"])
        found = metadata(self.work, environment, self._started_at, time.time_ns() // 1000) | self._circumstances()
        found["working_directory"] = self.masked(found["working_directory"])
        detail: Json = {
            "reason": outcome.reason,
            "validation": outcome.issues,
            "warnings": self._warnings,
            "output_source": outcome.output_source,
            "metadata": found,
        }
        if self.out is not None and (order := self.out.order()) is not None:
            detail["order"] = order
        return RunFinished(
            self.run_id,
            outcome.status,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            error=self._masked_error(outcome.error),
            output=outcome.output,
            usage=outcome.usage,
            attempts=attempts,
            run_s=outcome.run_s,
            detail=detail,
            **streams,
        )


def _matching(pattern: str, cwd: Path) -> list[str]:
    """Files that match, relative to `cwd` unless the pattern is absolute."""
    names = glob(pattern, root_dir=cwd, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(name for name in names if (cwd / name).is_file())
