"""Attempts of processes: from the run's work to a plan, and from the end of the process to an outcome."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from agentnb.engine.attempt import Plan
from agentnb.engine.limits import LimitWatch
from agentnb.engine.outcome import Outcome, judge
from agentnb.errors import ConfigError

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution
    from agentnb.engine.parsing import Parsing


class Spawned:
    """The processes of one run."""

    def __init__(self, execution: Execution) -> None:
        """Nothing happens before `attempt`."""
        self._of = execution

    def _env(self, number: int, served: dict[str, str] | None) -> dict[str, str]:
        """The run's own variables; for an agent that launches child runs also where it is at home."""
        work = self._of.work
        env = self._of.own_env(work["env"])
        env["AGENTNB_ATTEMPT"] = str(number)
        if work.get("children"):
            env["AGENTNB_STORE"], env["AGENTNB_SESSION_ID"] = str(self._of.host.store.root), self._of.run["session_id"]
        if served:
            env.update(served)
        return env

    def _bounded(self) -> list[str]:
        """The option of a program that counts its own cost, so that it stops by itself where a budget would end."""
        if (option := self._of.work.get("budget_option")) is None:
            return []
        left = self._of.host.remaining_usd(self._of.run_id)
        return [] if left is None else [option, f"{max(left, 1e-6):.6f}"]  # zero is no bound that a program would take

    async def _served(self, number: int) -> Outcome:
        """An attempt whose process asks a service, which has to be there first."""
        from agentnb.engine.services import Leasing  # most runs need none

        async with Leasing(self._of, self._of.host.services(), self._of.work["service"]) as lease:
            return lease.outcome or await self.attempt(number, lease.env)

    async def attempt(self, number: int, served: dict[str, str] | None = None) -> Outcome:
        """Run the process of attempt `number` to its end. `served`: variables of the service that it asks."""
        work = self._of.work
        if served is None and "service" in work:
            return await self._served(number)
        if self._of.workspace is not None and (failed := await self._of.workspace.prepare(number)) is not None:
            return failed
        try:
            parsing = _parsing(self._of, number) if "parser" in work else None
        except ConfigError as bad:
            return Outcome.failed("invalid_config", str(bad), "startup")
        plan = Plan(
            argv=[*work["argv"], *self._bounded()],
            cwd=work["cwd"],
            env_id=work["env_id"],
            env=self._env(number, served),
            capture=work["capture"],
            stdin=work.get("stdin"),
            early=self._of.early,
            timeout_s=work.get("timeout_s"),
            grace_s=work["grace_s"],
            payload=base64.b64decode(work["payload"]) if "payload" in work else None,
            on_report=self._of.report if work.get("channel") else None,
            answers=work.get("children", False),
            limits=LimitWatch.of(f"{self._of.run_id}-{number}", bounds) if (bounds := work.get("limits")) else None,
            on_sample=self._of.sampled,
            parsing=parsing,
        )
        if parsing is not None:
            plan.interrupt_s = work.get("interrupt_s", 0.0)
        try:
            ended = await self._of.process(plan, self._of.out)
        finally:
            if plan.limits is not None:
                plan.limits.close()
        outcome = judge(ended, work["expected_exit_code"])
        if parsing is not None:
            await parsing.end(ended, outcome)
        if ended.bad_reports:
            self._of.warn(f"{ended.bad_reports} reports of the agent were not understood")
        return outcome


def _parsing(execution: Execution, number: int) -> Parsing:
    from agentnb.engine.parsing import Parsing  # most runs need none

    return Parsing(execution, number)
