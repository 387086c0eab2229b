"""The pipeline of one run: attempts (validate, run, check), retries, handlers, artifacts, and the one terminal event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentnb.engine import retry
from agentnb.engine.agent_log import AgentLog
from agentnb.engine.attempt import LINGER_S, Attempt, Ended, Plan
from agentnb.engine.capture import Output
from agentnb.engine.checking import Checking
from agentnb.engine.checkout import TIMEOUT_S as GIT_TIMEOUT_S
from agentnb.engine.children import Children
from agentnb.engine.circumstances import metadata
from agentnb.engine.handlers import Handlers
from agentnb.engine.host import Host
from agentnb.engine.hosted import Hosted
from agentnb.engine.keeping import Keeping
from agentnb.engine.masking import Masker
from agentnb.engine.outcome import Outcome
from agentnb.engine.pipes import EarlyInput
from agentnb.engine.process import SpawnerDied
from agentnb.engine.spawned import Spawned
from agentnb.engine.stop import Stop
from agentnb.engine.work import RetryPlan, Work
from agentnb.events import Json, Message, RunFinished, RunRetrying, RunStarted, StepFinished, StepStarted, UsageSample
from agentnb.history.store import Store
from agentnb.ids import new_id

if TYPE_CHECKING:
    from agentnb.engine.limits import Sample
    from agentnb.engine.replay import Replay
    from agentnb.engine.workspace import Place

#: At most this many different warnings are kept of one run: an agent can cause any number.
MAX_WARNINGS = 100
#: So often at most who watches a run hears what it uses.
_SAMPLE_S = 1.0


class Execution:
    """One run on its way to its terminal status."""

    def __init__(self, host: Host, run: Json, work: Work) -> None:
        """Prepare; nothing happens before `go`."""
        self.run = run
        self.work = work
        self.run_id: str = run["id"]
        self.host = host
        self.emit: Callable[[Message], None] = host.emit
        self.folder = host.store.run_path(self.run_id)
        self._stop: Stop | None = None
        self._current: Attempt | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self.early: list[EarlyInput] = []
        self._hosted = Hosted(self) if work["kind"] == "hosted" else None
        self.out: Output | None = None
        self._agent: AgentLog | None = None
        self._step = ""
        self.children: Children | None = None
        self._warnings: list[str] = list(work.get("notes", ()))
        self._started_at: int | None = None
        self._pid: int | None = work.get("pid")
        self._dirty: asyncio.Future[bool | None] | None = None
        self.attempt = 0
        self.secrets = [secret for secret in work["secrets"] if secret]
        self._masker = Masker(self.secrets) if self.secrets else None
        self._ending = False
        self._replay: Replay | None = None
        self.workspace = self._own_workspace() if "workspace" in work else None
        self.kept_files: set[str] = set()
        self._keeping: Keeping | None = None
        self.abandoned = False
        self.watched = False
        self._told_at = 0.0

    @property
    def stopping(self) -> Stop | None:
        """Why it is being ended from outside, if it is."""
        return self._stop

    @property
    def agent(self) -> AgentLog:
        """What its agent reports of itself; made when there is something: most commands report nothing."""
        if self._agent is None:
            self._agent = AgentLog(self)
            self._agent.begin(self._step)
        return self._agent

    @property
    def keeping(self) -> Keeping:
        """What keeps its artifacts; made when there is something to keep."""
        if self._keeping is None:
            self._keeping = Keeping(self)
        return self._keeping

    # --- what may happen to it from outside

    def stop(self, why: Stop) -> None:
        """End it for this reason; the first reason stays. Once its handlers run, only those are ended."""
        if why.kind == "budget_exceeded" and self._current is not None and self._current.let_go():
            return  # its result is told, and paid
        if self._stop is None and not self._ending:
            self._stop = why
        self.abandoned = self.abandoned or why.status == "interrupted"
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
        if self._hosted is not None:
            self._hosted.wake()
        if self.children is not None:
            self.children.stop(why)
        if self._keeping is not None:
            self._keeping.stop(why)
        if self._current is not None:
            self._current.stop(why)

    def spawner_died(self, why: Stop) -> None:
        """If it was that of the current process, nobody is left to end that, and it is ended already."""
        if self._current is not None:
            self._current.lost(why)

    def report(self, data: Json) -> None:
        """The run's agent says something about itself."""
        kind = data.get("t")
        if kind in ("done", "cancelled") and self._hosted is not None:
            self._hosted.wake()
        if kind in ("launch", "cancel") and self.work.get("children"):
            self.own_children().take(data)
            return
        self.agent.take(data)

    # --- child runs, and what was used

    def own_children(self) -> Children:
        """Its child runs; a place for them is made when the first one comes."""
        if self.children is None:
            self.children = Children(self)
        return self.children

    def release(self) -> None:
        """It is over: let go of what knows it in turn, or the collector of cycles would have to find each run."""
        if self.out is not None:
            self.out.release()
        self.out = self._agent = self._hosted = self._keeping = self._replay = self.children = None

    def adopt(self, run_id: str) -> bool:
        """Take a run for a child that ends with this one; False when it is too late."""
        if self._ending or self._stop is not None:
            return False
        self.own_children().adopt(run_id)
        return True

    def launch_child(self, run: Json, work: Work) -> None:
        """Launch a run for the agent."""
        self.host.launch_child(run, work)

    def stop_child(self, run_id: str, why: Stop) -> None:
        """End a child run."""
        self.host.stop(run_id, why)

    def answer(self, data: bytes) -> None:
        """Write to the agent's process; nobody may be there to read it."""
        if self._current is not None:
            self._current.answer(data)

    def used(self, tokens: int, cost_usd: float) -> None:
        """The run has used so much so far, in all its attempts."""
        self.host.used(self.run_id, tokens, cost_usd)

    def overdue_soon(self) -> None:
        """The current process has told its result: it shall exit."""
        if self._current is not None:
            self._current.overdue_in(self.work.get("linger_s", LINGER_S))

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
        self.host.tell(message)

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
        return self.host.store

    def add_output(self, stream: str, data: bytes) -> None:
        """Output that comes in reports instead of a pipe."""
        if self.out is not None:
            try:
                self.out.streams[stream].add(data)
            except OSError as bad:
                self.warn(f"output of the agent could not be written yet: {bad.strerror}")

    def warn(self, text: str, most: int | None = None) -> None:
        """Add a warning to the result, once, cut to `most` characters (a secret is masked before that); after MAX_WARNINGS no more."""
        if (text := self.masked(text)[:most]) not in self._warnings and len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(text)

    # --- the pipeline

    async def go(self) -> None:
        """Run it to its end and emit RunFinished; never raises."""
        try:
            outcome, attempts = await (self._replayed() if self.work["kind"] == "replay" else self._attempts())
        except Exception as bad:  # noqa: BLE001 - a fault of ours must end the run, not the supervisor
            outcome, attempts = Outcome(), 1
            outcome.fail("runtime_error", f"agentnb failed: {type(bad).__name__}: {bad}", "internal_error")
        self._ending = True
        if self.children is not None:
            await self.children.end()
        for given in self.early:
            given.settle("it ended before it could read that")
        try:
            await self._finish_work(outcome, attempts)
        except Exception as bad:  # noqa: BLE001
            self.warn(f"agentnb failed after the run: {type(bad).__name__}: {bad}")
        if outcome.status == "interrupted" and self._started_at is None:
            outcome.status = "cancelled"  # there is no way from pending to interrupted; the error says by what
        try:
            finished = self._finished(outcome, attempts)
            if self._replay is not None:
                finished = self._replay.finished(finished)
        except Exception as bad:  # noqa: BLE001
            self.warn(f"agentnb failed to describe the run: {type(bad).__name__}: {bad}")
            error = self._masked_error(outcome.error)
            finished = RunFinished(self.run_id, outcome.status, error=error, attempts=attempts, detail={"warnings": self._warnings})
        self.emit(finished)

    async def _finish_work(self, outcome: Outcome, attempts: int) -> None:
        if patterns := self.work.get("artifacts"):
            await self.keeping.run(patterns, outcome)
        if "handlers" in self.work:
            await Handlers(self, outcome, attempts).run()
        if self.workspace is not None:
            await self.workspace.finish(outcome)
        if self._dirty is not None and not self._dirty.done() and not self.abandoned:
            await self.until(self._dirty, GIT_TIMEOUT_S)

    async def _replayed(self) -> tuple[Outcome, int]:
        from agentnb.engine.replay import Replay  # most runs need none

        self._replay = Replay(self)
        return await self._replay.play()

    async def _attempts(self) -> tuple[Outcome, int]:
        number = 0
        way = self._hosted or Spawned(self)
        while True:
            number += 1
            self.attempt = number
            step = self._step = self.begin_step("attempt", f"attempt {number}", number)
            if self._agent is not None:
                self._agent.begin(step)
            if self.out is not None:
                self.out.release()
            self.out = self.new_output(number)
            outcome = await way.attempt(number)
            if self._agent is not None or self.work.get("channel"):
                await self.agent.end(outcome)
            if self.children is not None:
                await self.children.end()
            if (why := self._stop) is not None and why.kind == "budget_exceeded" and (outcome.ok or _failed_by_itself(outcome)):
                outcome.stop(why)  # it came to its end in the same moment; the budget is crossed all the same
            if outcome.ok and ("check" in self.work or self.work["capture"] == "structured"):
                await Checking(self, self.out).check(outcome, step, number)
            plan = self.work.get("retry")
            again = outcome.error is not None and self._stop is None and self._again(plan, number, outcome)
            self.end_step(step, outcome, self.output_record() if again else None)
            if not again or plan is None or outcome.error is None:
                return outcome, number
            delay = retry.wait_s(plan, number, outcome.error)
            self.emit(RunRetrying(self.run_id, number + 1, delay, self._masked_error(outcome.error)))
            await self.sleep(delay)
            if self._stop is not None:
                outcome.stop(self._stop)
                return outcome, number

    def _again(self, plan: RetryPlan | None, number: int, outcome: Outcome) -> bool:
        timeout, error = self.work.get("timeout_s"), outcome.error or {}
        if (why := retry.too_late(plan, error, timeout)) is not None:
            self.warn(why)
        return retry.again(plan, number, error, outcome.exit_code, timeout)

    async def sleep(self, delay: float) -> None:
        """Wait so many seconds, or until somebody wants the run to end."""
        if self._stop is None:
            self._sleeper = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._sleeper], timeout=delay)
            self._sleeper = None

    def new_output(self, attempt: int) -> Output:
        """The output of an attempt that begins."""
        limit = (self.work.get("limits") or {}).get("max_output_bytes")
        return Output(
            self.folder,
            attempt,
            secrets=self.secrets,
            max_bytes=limit,
            on_data=lambda stream, data: self.host.output(self.run_id, stream, data) if self.watched else None,
            on_limit=self.too_much_output,
        )

    def sampled(self, sample: Sample) -> None:
        """Its tree was read, ten times a second: who watches it hears of some of that."""
        if self.watched and sample.at - self._told_at >= _SAMPLE_S:
            self._told_at = sample.at
            self.host.tell(UsageSample(self.run_id, sample.at, sample.cpu_s, sample.memory))

    def too_much_output(self, size: int) -> None:
        """It printed more than its limit allows."""
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
            if self.work["kind"] != "replay":
                self._dirty = self.host.git_dirty(self.work)

    async def until(self, future: asyncio.Future[Any], timeout_s: float) -> None:
        """Wait for `future`, at most so long, unless the run is to stop."""
        if self._stop is None:
            self._sleeper = asyncio.get_running_loop().create_future()
            either: list[asyncio.Future[Any]] = [future, self._sleeper]
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            self._sleeper = None

    def own_env(self, env: dict[str, str]) -> dict[str, str]:
        """`env` with what every process of the run finds in its environment; a TRACEPARENT that was given stays."""
        own = {"TRACEPARENT": self.work["traceparent"], **env} if "traceparent" in self.work else env.copy()
        if self.workspace is not None:
            own.update(self.workspace.env)
        own["AGENTNB_RUN_ID"] = self.run_id
        return own

    # --- one process

    def _own_workspace(self) -> Place:
        from agentnb.engine.workspace import Place  # most runs need none

        return Place(self, self.work["workspace"])

    def written(self) -> bool:
        """Whether everything that was recorded of it so far is in the history."""
        return self.host.written()

    async def process(self, plan: Plan, out: Output | None, on_start: Callable[[int], None] | None = None) -> Ended:
        """Run one process to its end; a spawner that dies under it is a stop with kind runtime_error."""
        assert out is not None  # noqa: S101 - set before every attempt
        try:
            attempt = self._current = Attempt(self.host.spawner(), plan, out, self._trouble, on_start or self._on_start)
            if self._stop is not None and not self._ending:
                attempt.stop(self._stop)
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

    # --- records

    def begin_step(self, kind: str, name: str, attempt: int, *, parent: str | None = None, given: Any = None) -> str:
        """Record that a step begins; returns its id."""
        step = new_id()
        self.emit(StepStarted(self.run_id, step, kind, name, attempt, parent, given))
        return step

    def end_step(self, step: str, outcome: Outcome, output: Any) -> None:
        """Record how a step ended."""
        agent = self._agent
        tokens, cost_usd = (None, None) if agent is None else (agent.tokens(step), agent.cost(step))
        error = self._masked_error(outcome.error)
        self.emit(StepFinished(self.run_id, step, outcome.status, error, outcome.exit_code, outcome.usage, tokens, cost_usd, output))

    def _circumstances(self) -> Json:
        """The fields of results.ExecutionMetadata."""
        environment = self.host.environment(self.work["env_id"])
        found = metadata(self.work, environment, self._started_at, time.time_ns() // 1000)
        if self._pid is not None:
            found["pid"] = self._pid
        if (trace := self.run.get("trace_id")) is not None:
            found["trace_id"] = trace
        if self._dirty is not None and self._dirty.done() and (dirty := self._dirty.result()) is not None:
            found["git_dirty"] = dirty
        if self.workspace is not None:
            found |= self.workspace.circumstances
        found["working_directory"] = self.masked(found["working_directory"])
        return found

    def output_record(self) -> Json:
        """Both streams of the attempt, as in events.RunFinished."""
        assert self.out is not None  # noqa: S101
        return {name: stream.record(self.host.store.root) for name, stream in self.out.streams.items()}

    def _finished(self, outcome: Outcome, attempts: int) -> RunFinished:
        streams = self.output_record() if self.out is not None else {"stdout": None, "stderr": None}
        said = {"reason": outcome.reason, "validation": outcome.issues, "warnings": self._warnings, "output_source": outcome.output_source}
        detail: Json = {name: value for name, value in said.items() if value}
        detail["metadata"] = self._circumstances()
        if self.out is not None and (order := self.out.order()) is not None:
            detail["order"] = order
            if (last := self.out.last_order()) is not None:
                detail["last_order"] = last
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


def _failed_by_itself(outcome: Outcome) -> bool:
    return outcome.error is not None and outcome.error["kind"] == "execution_failed"
