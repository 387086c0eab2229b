"""Attempts of coroutines that live in the client's process: the engine sees to their time, their cancel and their record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentnb.engine.capture import SPILL_AFTER_S
from agentnb.engine.outcome import Outcome
from agentnb.engine.stop import Stop
from agentnb.events import HostCancel, HostStart

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution


class Hosted:
    """The coroutine of one run."""

    def __init__(self, execution: Execution) -> None:
        """Nothing happens before `attempt`."""
        self._of = execution
        self._over: asyncio.Future[None] | None = None
        self._started = False

    def wake(self) -> None:
        """It said that it is over, or somebody wants it to be."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def attempt(self, number: int) -> Outcome:
        """Have the client run it, and wait for its end."""
        loop = asyncio.get_running_loop()
        self._started = False
        outcome, start = Outcome(), loop.time()
        self._of.begin("client")
        self._over = loop.create_future()
        if self._of.stopping is None:
            await self._run(number, self._over)
        if (stop := self._of.stopping) is None and not self._over.done():
            timeout = self._of.work.get("timeout_s")
            stop = Stop("timeout", "timeout", f"it was still running after {timeout:g} s", {"timeout_s": timeout})
        if stop is not None:
            await self._end(stop)
            outcome.stop(stop)
        self._over = None
        for stream in self._of.out.streams.values() if self._of.out else ():
            stream.end()
        outcome.run_s = loop.time() - start
        outcome.usage = {"wall_time": outcome.run_s}
        return outcome

    async def _run(self, number: int, over: asyncio.Future[None]) -> None:
        spilling = asyncio.get_running_loop().call_later(SPILL_AFTER_S, self._spill)
        self._started = True
        self._of.tell(HostStart(self._of.run_id, number))
        await asyncio.wait([over], timeout=self._of.work.get("timeout_s"))
        spilling.cancel()

    def _spill(self) -> None:
        try:
            if self._of.out is not None:
                self._of.out.spill()
        except OSError as bad:
            self._of.warn(f"output of the agent could not be written yet: {bad.strerror}")

    async def _end(self, stop: Stop) -> None:
        if not self._started or self._of.agent.hosted_done or stop.status == "interrupted":
            return
        self._over = asyncio.get_running_loop().create_future()
        child = Stop("cancelled", "cancelled", f"the run that launched it was ended: {stop.message}", grace_s=stop.grace_s)
        self._of.host.stop_launched(self._of.run_id, child)
        self._of.tell(HostCancel(self._of.run_id, stop.message))
        grace = self._of.work["grace_s"]
        await asyncio.wait([self._over], timeout=grace)
        if not self._of.agent.hosted_done:
            self._of.warn(f"the coroutine did not end within {grace:g} s of its cancellation; it may still be running in the notebook")
