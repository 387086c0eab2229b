"""Services: processes that several runs use at once (a loaded model ...), started with the first run and ended after the last.

A service is a child of the spawner like any command, so that it never outlives the supervisor. It gets a payload and a channel, and
says where it is found by the report {"t": "ready", "address": {...}}, or why it cannot be by an "error". Runs find the address, as
JSON, in the variable AGENTNB_SERVICE; it may hold a key, so it is never recorded.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentnb.engine.attempt import CHANNEL_FD, PAYLOAD_FD
from agentnb.engine.outcome import Outcome
from agentnb.engine.pipes import ReportReader
from agentnb.engine.proc import is_live
from agentnb.engine.process import Child, Exit, Spawner, SpawnerDied, memfd
from agentnb.engine.stop import Stop
from agentnb.engine.work import ServicePlan
from agentnb.events import Json

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution

VARIABLE = "AGENTNB_SERVICE"
#: A service that is not ready after this long is ended, and its runs fail.
READY_S = 300.0
_TARGETS = (CHANNEL_FD, PAYLOAD_FD)


class Service:
    """One service process. `ready`: its address, or a report of type error that says why there is none."""

    def __init__(self, spawner: Spawner, plan: ServicePlan, env_id: int, on_end: Callable[[Service], None]) -> None:
        """Prepare; `start` starts it. `on_end` is called once, when the process is gone."""
        self.key, self.name = plan["key"], plan["name"]
        self.users = 0
        self.pid = 0
        self.timer: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.spawner, self._plan, self._env_id = spawner, plan, env_id
        self._on_end: Callable[[Service], None] | None = on_end
        self._channel: ReportReader | None = None
        self._child: Child | None = None
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._starting = asyncio.ensure_future(self._start())

    @property
    def alive(self) -> bool:
        """Whether it can be used, as far as can be seen: its end may not have been reported yet."""
        if self._on_end is None:
            return False
        return not self.pid or is_live(self.pid)

    @property
    def failed(self) -> bool:
        """Whether it said that it cannot be used."""
        return self.ready.done() and self.ready.result()["t"] == "error"

    async def _start(self) -> None:
        """Spawn it; what goes wrong is told by `ready`."""
        env = {"AGENTNB_CHANNEL_FD": str(CHANNEL_FD), "AGENTNB_PAYLOAD_FD": str(PAYLOAD_FD)}
        try:
            fds = self._descriptors()
            child = self.spawner.start(self._plan["argv"], "/", self._env_id, env, fds, _TARGETS, self._changed)
        except (SpawnerDied, OSError) as bad:
            self._has_failed(bad)
            return
        await self._begun
        if child.failure is not None:
            self.spawner.forget(child)
            self._has_failed(child.failure)

    def _descriptors(self) -> list[int]:
        payload = memfd(base64.b64decode(self._plan["payload"]))
        try:
            ours, theirs = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(payload)
            raise
        self._channel = ReportReader(asyncio.get_running_loop(), ours, self._take)
        return [theirs, payload]

    def _changed(self, child: Child) -> None:
        if child.exit is not None:
            self._exited(child.exit)
        elif child.failure is None:
            self._child, self.pid = child, child.pid
        if not self._begun.done():
            self._begun.set_result(None)

    def _has_failed(self, bad: Exception) -> None:
        self._tell({"t": "error", "kind": "startup_failed", "message": f"the {self.name} could not be started: {bad}"})
        self.lost()

    def _take(self, report: Json) -> None:
        if report.get("t") == "ready" and not isinstance(report.get("address"), dict):
            report = {"t": "error", "kind": "runtime_error", "message": f"the {self.name} did not say where it is found: {report!r:.200}"}
        if report.get("t") in ("ready", "error"):
            self._tell(report)

    def _tell(self, report: Json) -> None:
        if not self.ready.done():
            self.ready.set_result(report)

    def _exited(self, end: Exit) -> None:
        if self._channel is not None:
            self._channel.stop()
        how = f"signal {end.signal}" if end.signal is not None else f"exit code {end.exit_code}"
        self._tell({"t": "error", "kind": "runtime_error", "message": f"the {self.name} ended before it was ready ({how})"})
        if self._child is not None:
            self.spawner.forget(self._child)
        self.lost()

    def lost(self) -> None:
        """The process is gone, or nobody can reach it any more."""
        if self.timer is not None:
            self.timer.cancel()
        if self._channel is not None:
            self._channel.stop()
        self._tell({"t": "error", "kind": "runtime_error", "message": f"the {self.name} was ended before it was ready"})
        if self._on_end is not None:
            on_end, self._on_end = self._on_end, None
            on_end(self)

    async def end(self) -> None:
        """Kill it: it has nothing to save."""
        await asyncio.wait([self._starting])
        if self._child is not None and self._child.exit is None:
            with suppress(SpawnerDied):  # then it is gone, too
                await self.spawner.signal(self._child, signal.SIGKILL)


class Services:
    """The services of one supervisor, by the key of their plans."""

    def __init__(self, spawner: Callable[[], Spawner]) -> None:
        """`spawner` gives a live one."""
        self._spawner = spawner
        self._known: dict[str, Service] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def take(self, plan: ServicePlan, env_id: int) -> Service:
        """The service of this plan, for one more user; it is started when there is none that lives. Raises SpawnerDied."""
        service = self._known.get(plan["key"])
        if service is not None and service.failed:  # it said so, and has not exited yet
            self.end(service)
            service = None
        if service is None or not service.alive:
            service = self._known[plan["key"]] = Service(self._spawner(), plan, env_id, self._ended)
        if service.timer is not None:
            service.timer.cancel()
            service.timer = None
        service.users += 1
        return service

    def give_back(self, service: Service, keep_s: float) -> None:
        """One user less; after the last one it is kept for so long."""
        service.users -= 1
        if service.users == 0 and self._known.get(service.key) is service:
            service.timer = asyncio.get_running_loop().call_later(keep_s, self.end, service)

    def end(self, service: Service) -> None:
        """End it now; who asks next gets another one."""
        self._ended(service)
        task = asyncio.ensure_future(service.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _ended(self, service: Service) -> None:
        if self._known.get(service.key) is service:
            del self._known[service.key]

    def lost(self) -> None:
        """A spawner died, and its services with it."""
        for service in list(self._known.values()):
            if not service.spawner.alive:
                service.lost()


class Leasing:
    """One attempt's use of a service, as a context: `env` tells its process where, `outcome` is there when that cannot be."""

    def __init__(self, execution: Execution, services: Services, plan: ServicePlan) -> None:
        """Nothing happens before it is entered."""
        self._of, self._services, self._plan = execution, services, plan
        self._service: Service | None = None
        self.env: dict[str, str] = {}
        self.outcome: Outcome | None = None

    async def __aenter__(self) -> Self:
        """Wait until the service is ready, the run is to stop, or its time is over."""
        work = self._of.work
        try:
            self._service = self._services.take(self._plan, work["env_id"])
        except SpawnerDied:
            self._fail("runtime_error", "the process that starts commands was killed; it starts anew")
            return self
        if not self._service.ready.done():
            self._of.begin(f"service:{self._plan['name']}")
            await self._of.until(self._service.ready, min(READY_S, work.get("timeout_s") or READY_S))
        if (stop := self._of.stopping) is not None:
            self.outcome = Outcome()
            self.outcome.stop(stop)
        elif not self._service.ready.done():
            self._too_late(work.get("timeout_s"))
        else:
            self._settle(self._service.ready.result())
        return self

    def _settle(self, report: Json) -> None:
        if report["t"] == "ready":
            self.env = {VARIABLE: json.dumps(report["address"])}
        else:
            self._fail(str(report.get("kind", "runtime_error")), str(report.get("message")))

    def _too_late(self, timeout_s: float | None) -> None:
        if timeout_s is not None and timeout_s <= READY_S:
            said = f"it was still running after {timeout_s:g} s: the {self._plan['name']} was not ready"
            self.outcome = Outcome()
            self.outcome.stop(Stop("timeout", "timeout", said, {"timeout_s": timeout_s}))
            return
        if self._service is not None:
            self._services.end(self._service)
        self._fail("runtime_error", f"the {self._plan['name']} was not ready after {READY_S:g} s; it was ended")

    def _fail(self, kind: str, message: str) -> None:
        self.outcome = Outcome()
        self.outcome.fail(kind, message, "startup" if kind == "startup_failed" else "internal_error")

    async def __aexit__(self, kind: type[BaseException] | None, bad: BaseException | None, trace: TracebackType | None) -> Any:
        """Let go of it."""
        if self._service is not None:
            self._services.give_back(self._service, self._plan["keep_s"])
