"""One session of a supervisor: its queue, its live runs, and what these need of their host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentnb.engine.executor import Execution
from agentnb.engine.masking import Masker
from agentnb.engine.pipes import EarlyInput
from agentnb.engine.process import Spawner
from agentnb.engine.recorder import Recorder
from agentnb.engine.scheduler import Queue, Waiting
from agentnb.engine.stop import Stop
from agentnb.engine.work import Work
from agentnb.events import Json, Message, RunFinished, RunQueued

if TYPE_CHECKING:
    from agentnb.engine.reused import Reused
    from agentnb.engine.services import Services
    from agentnb.engine.supervisor import Supervisor


#: When no more than so many runs are left, nothing is gathered any more: who waits for the last one waits for its record too.
FEW = 4


class SessionHost:
    """One session: its queue, its live executions, and what these need of the supervisor."""

    def __init__(self, supervisor: Supervisor, session: Json, recorder: Recorder, max_parallel: int) -> None:
        """Make its queue."""
        self.id: str = session["id"]
        self.recorder = recorder
        self.store = recorder.store
        self.queue = Queue(max_parallel, self._start)
        self.live: dict[str, Execution] = {}
        self.ended = False
        self._parents: dict[str, Execution] = {}
        self._supervisor = supervisor
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._at_hand = False
        self._next: Execution | None = None
        self._idle: list[Callable[[], None]] = []
        self._reused: Reused | None = None

    # what executions need (executor.Host)

    def emit(self, event: Message) -> None:
        """Record an event and pass it on."""
        self.recorder.emit(event)
        if self._parents and isinstance(event, RunFinished) and (parent := self._parents.pop(event.run_id, None)) is not None:
            child = self.live.get(event.run_id)
            parent.own_children().over(event, {} if child is None else child.agent.totals())

    def used(self, run_id: str, tokens: int, cost_usd: float) -> None:
        """A run has used so much so far."""
        self._supervisor.budgets.used(run_id, tokens, cost_usd)

    def remaining_usd(self, run_id: str) -> float | None:
        """The dollars that its budgets leave a run; None when nothing bounds them."""
        return self._supervisor.budgets.remaining_usd(run_id)

    def launch_child(self, run: Json, work: Work) -> None:
        """Launch a run that one of its runs wants; the client hears of it, since it did not launch it."""
        if not self._supervisor.admit(run["id"], self):
            raise ValueError("its id is taken")
        self.tell(RunQueued(run))
        self.launch(run, work)

    def stop_launched(self, run_id: str, why: Stop) -> None:
        """End what the run's coroutine launched."""
        self._supervisor.stop_launched(run_id, why)

    def tell(self, message: Message) -> None:
        """Send a signal to the client that launched it."""
        self._supervisor.peers.first.send([message])

    def spawner(self) -> Spawner:
        """A live spawner, to start a process now."""
        return self._supervisor.spawners.next()

    def services(self) -> Services:
        """The processes that runs share."""
        return self._supervisor.services()

    def environment(self, env_id: int) -> dict[str, str]:
        """The environment with this number."""
        return self._supervisor.spawners.envs.get(env_id, {})

    def output(self, run_id: str, stream: str, data: bytes) -> None:
        """A watched run printed something."""
        self._supervisor.watching.add(run_id, stream, data)

    def git_dirty(self, work: Work) -> asyncio.Future[bool | None]:
        """Whether the checkout that the work is done in differs from its commit; asked now, answered later."""
        return self._supervisor.checkouts.dirty(work["cwd"], work["env_id"])

    def written(self) -> bool:
        """Whether everything that was emitted is in the history now."""
        self.recorder.flush()
        return self.recorder.is_settled

    # runs

    def launch(self, run: Json, work: Any) -> None:
        """Record the run and queue it."""
        self.emit(RunQueued(run))
        budgets = self._supervisor.budgets
        if "bound" in work and not self._bind(run):
            self._refuse(run, Stop("cancelled", "cancelled", "the run that launched it has ended"))
        elif work["kind"] == "reused":
            self._reusing().take(run)
        elif budgets.concern(work) and (why := budgets.enter(run, work)) is not None:
            self._refuse(run, why)
        else:
            self.queue.put(Waiting(run, work))

    def _reusing(self) -> Reused:
        if self._reused is None:
            from agentnb.engine.reused import Reused  # most sessions need none

            self._reused = Reused(self.store.root, self.emit, self.recorder.flush, self._was_reused)
        return self._reused

    def _was_reused(self, run_id: str) -> None:
        self._supervisor.forget(run_id)
        self._check_idle()

    def _bind(self, run: Json) -> bool:
        """Make it a child of the run that launched it; False when that is over."""
        parent = self.live.get(run.get("parent_run_id") or "")
        if parent is None or not parent.adopt(run["id"]):
            return False
        self._parents[run["id"]] = parent
        return True

    def _refuse(self, run: Json, why: Stop) -> None:
        """End a run that never starts."""
        error: Json = {"kind": why.kind, "message": why.message} | ({"details": why.details} if why.details else {})
        detail: Json = {"metadata": {"trace_id": run.get("trace_id")}}
        status = "cancelled" if why.status == "interrupted" else why.status
        self.emit(RunFinished(run["id"], status, error=error, detail=detail))
        self._supervisor.forget(run["id"])
        self._check_idle()

    def _start(self, item: Waiting) -> None:
        self._supervisor.budgets.started(item.run["id"])
        try:
            execution = Execution(self, item.run, item.work)
        except Exception as bad:  # noqa: BLE001 - work that makes no sense fails its run, and frees its place
            self.emit(RunFinished(item.run["id"], "failed", error=malformed(bad)))
            self._supervisor.forget(item.run["id"])
            self.queue.finished(item.run["id"])
            return
        self.live[execution.run_id] = execution
        execution.early = item.early
        execution.watched = self._supervisor.watching.wants(execution.run_id)
        if self._at_hand:
            self._at_hand, self._next = False, execution
            return
        task = self._loop.create_task(self._work(execution))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, execution: Execution | None) -> None:
        """Do a run, and then the one that its end gives way to: a task for each would cost more."""
        while execution is not None:
            well = False
            try:
                await execution.go()
                if execution.started_at is None:  # it may never have waited for anything: the loop has others to serve
                    await asyncio.sleep(0)
                well = True
            finally:
                execution = self._over(execution, goes_on=well)

    def _over(self, execution: Execution, *, goes_on: bool) -> Execution | None:
        """A run is over; returns what its task is to do next, if that goes on."""
        self._supervisor.watching.finish(execution.run_id)
        del self.live[execution.run_id]
        self._supervisor.forget(execution.run_id)
        execution.release()
        self._at_hand = goes_on
        try:
            self.queue.finished(execution.run_id)
        except Exception as bad:  # noqa: BLE001 - the task may have been given its next run before
            self._loop.call_exception_handler({"message": "the next run could not be begun", "exception": bad})
        finally:
            following, self._next, self._at_hand = self._next, None, False
        self._check_idle()
        return following

    def send(self, run_id: str, given: EarlyInput) -> None:
        """Write to the stdin of a run, waiting or live."""
        item, execution = self.queue.item(run_id), self.live.get(run_id)
        work = item.work if item is not None else execution.work if execution is not None else None
        if work is None:
            given.settle("it is not running; it has ended")
        elif work.get("stdin") is not True:
            given.settle("it has no open stdin; launch it with stdin=True")
        elif item is not None:
            item.early.append(given)
        elif execution is not None:
            execution.send(given)

    def stop(self, run_id: str, why: Stop) -> None:
        """End one run, waiting or live."""
        if (item := self.queue.drop(run_id)) is not None:
            for given in item.early:
                given.settle("it ended before it could read that")
            secrets = [secret for secret in item.work.get("secrets", ()) if secret]
            self._refuse(item.run, replace(why, message=Masker(secrets).clean(why.message)) if secrets else why)
        elif (execution := self.live.get(run_id)) is not None:
            execution.stop(why)

    def stop_all(self, why: Stop) -> None:
        """End every run of the session."""
        for run_id in [*self.queue.waiting, *self.live]:
            self.stop(run_id, why)

    def env_ids(self) -> list[int]:
        """Numbers of the environments that its runs need."""
        return [item.work["env_id"] for item in self.queue.items()] + [execution.work["env_id"] for execution in self.live.values()]

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once no run is left."""
        self._idle.append(callback)
        self._check_idle()

    def _check_idle(self) -> None:
        if len(self.live) <= FEW and not self.queue.waits:
            self.recorder.hurry()
        if not len(self.queue) and not self.live and not self._reused:
            callbacks, self._idle = self._idle, []
            for callback in callbacks:
                callback()


def malformed(bad: Exception) -> Json:
    """The error of a request that makes no sense."""
    return {"kind": "invalid_config", "message": f"the request makes no sense to the supervisor ({type(bad).__name__}: {bad})"}
