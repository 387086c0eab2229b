"""What runs after a run's last attempt: on_success, on_failure, rollback and cleanup, each as a step of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentnb.engine import condition
from agentnb.engine.attempt import Plan
from agentnb.engine.capture import Output
from agentnb.engine.outcome import Outcome, judge
from agentnb.engine.work import HandlerPlan
from agentnb.errors import ConfigError
from agentnb.events import Json

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution

#: A handler that has no end of its own is ended after this long, unless it says how long.
HANDLER_TIMEOUT_S = 60.0
#: Characters of an error that handlers get; the system bounds the size of their environment.
MAX_ERROR = 8000


class Handlers:
    """The handlers of one run. They find how it went in AGENTNB_STATUS, _EXIT_CODE, _ERROR and _ATTEMPTS, and change nothing of it."""

    def __init__(self, execution: Execution, outcome: Outcome, attempts: int) -> None:
        """`outcome`: how the run went, after so many attempts."""
        self._of = execution
        self._outcome = outcome
        error = outcome.error["message"][:MAX_ERROR] if outcome.error else ""
        self._values: Json = {"status": outcome.status, "exit_code": outcome.exit_code, "error": error, "attempts": attempts}

    async def run(self) -> None:
        """Run those that the outcome calls for, in the order of the plan."""
        for handler in self._of.work.get("handlers", []):
            if self._of.abandoned:  # the client is gone: nothing may be started any more
                return
            wanted = {"on_success": self._outcome.ok, "on_failure": not self._outcome.ok, "rollback": not self._outcome.ok, "cleanup": True}
            if wanted[handler["when"]]:
                await self._handle(handler)

    async def _handle(self, handler: HandlerPlan) -> None:
        rule = handler.get("condition")
        given = {"command": handler["display"]} | ({"condition": rule} if rule else {})
        given = {name: self._of.masked(text) for name, text in given.items()}
        step = self._of.begin_step("handler", handler["when"], 1, given=given)
        streams = None
        if (verdict := self._excused(rule)) is None:
            verdict, streams = await self._run(handler)
        if verdict.error:
            self._of.warn(f"the {handler['when']} handler failed: {verdict.error['message']}")
        self._of.end_step(step, verdict, streams)

    def _excused(self, rule: str | None) -> Outcome | None:
        """What becomes of a handler whose condition is false, or makes no sense for these values; None when it shall run."""
        if rule is None:
            return None
        try:
            return None if condition.holds(rule, self._values) else Outcome("skipped")
        except (TypeError, ConfigError) as bad:
            outcome = Outcome()
            outcome.fail("execution_failed", f"its condition {rule!r} cannot be decided: {bad}")
            return outcome

    async def _run(self, handler: HandlerPlan) -> tuple[Outcome, Json]:
        context = {f"AGENTNB_{name.upper()}": "" if value is None else str(value) for name, value in self._values.items()}
        env = {name: value.replace("\0", "") for name, value in self._of.own_env(handler["env"] | context).items()}
        out = Output(f"{self._of.folder}/{handler['when']}", 1, secrets=self._of.secrets)
        plan = Plan(handler["argv"], handler["cwd"], self._of.work["env_id"], env)
        plan.timeout_s, plan.grace_s = handler.get("timeout_s", HANDLER_TIMEOUT_S), self._of.work["grace_s"]
        ended = await self._of.process(plan, out, lambda _pid: None)
        said = {name: stream.record(self._of.store.root) for name, stream in out.streams.items()}
        out.release()
        return judge(ended), said
