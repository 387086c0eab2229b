"""Holding an attempt's output against what was asked of it.

Patterns, schemas and the search for JSON run in a process of their own: a pattern that never ends, a schema library and output
of any size are then no burden of the supervisor, and cancelling the run ends them as well.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agentnb.engine import checks
from agentnb.engine.attempt import Plan
from agentnb.engine.capture import Output
from agentnb.engine.outcome import Outcome, signal_name
from agentnb.engine.work import CheckPlan
from agentnb.events import Json

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution

#: A check that has no end of its own is ended after this long.
CHECK_TIMEOUT_S = 60.0
_CHILD = Path(__file__).with_name("check_child.py")


class Checking:
    """The checks of one attempt."""

    def __init__(self, execution: Execution, out: Output) -> None:
        """`out`: what the attempt wrote."""
        self._of = execution
        self._out = out
        self._plan: CheckPlan = execution.work.get("check") or {}

    async def check(self, outcome: Outcome, step: str, number: int) -> None:
        """Look for structured output and make the checks; findings of severity error fail the attempt."""
        check = self._of.begin_step("check", "validation", number, parent=step) if self._plan else None
        outcome.issues = await self._search(outcome)
        if script := self._plan.get("script"):
            outcome.issues += await self._script(script)
        outcome.issues = [issue | {"message": self._of.masked(issue["message"])} for issue in outcome.issues]
        verdict = Outcome()
        if errors := [issue["message"] for issue in outcome.issues if issue["severity"] == "error"]:
            outcome.fail("validation_error", "; ".join(errors), "validation_failed")
            verdict.fail("validation_error", "; ".join(errors))
        if (why := self._of.stopping) is not None:
            outcome.stop(why)
            verdict.stop(why)
        if check is not None:
            self._of.end_step(check, verdict, outcome.issues or None)

    async def _search(self, outcome: Outcome) -> list[Json]:
        """Search the streams; what is found as structured output becomes the outcome's."""
        job = self._job(outcome)
        if checks.nothing_to_do(job):
            return []
        found = checks.examine(job) if checks.is_quick(job) else await self._in_child(job)
        if found.get("source") is not None and outcome.output_source is None:
            outcome.output, outcome.output_source = found["output"], found["source"]
        issues: list[Json] = found["issues"]
        return issues

    def _job(self, outcome: Outcome) -> checks.Job:
        capture = self._of.work["capture"]
        captured = {"stdout", "stderr"} if capture in {"both", "structured"} else {capture}
        streams: dict[str, Json | None] = {}
        for name, stream in self._out.streams.items():
            text, path = stream.text(), str(stream.path)
            streams[name] = None if name not in captured else {"path": path} if text is None else {"text": text}
        wants_json = capture == "structured" or self._plan.get("json_schema") is not None
        return {
            "plan": self._plan,
            "streams": streams,
            "wants_json": wants_json and outcome.output_source is None,
            "output": outcome.output,
            "source": outcome.output_source,
        }

    async def _in_child(self, job: checks.Job) -> Json:
        found: list[Json] = []
        argv = [sys.executable, "-I", "-S", "-X", "utf8", str(_CHILD), *sys.path]
        plan = self._plan_of(argv, {})
        plan.payload, plan.on_report = json.dumps(job).encode(), found.append
        why, said = await self._run(plan)
        if found and isinstance(found[0].get("issues"), list):
            return found[0]
        return {"issues": [checks.issue("checks", f"the output could not be checked: {why}" + (f": {said}" if said else ""))]}

    async def _script(self, argv: list[str]) -> list[Json]:
        plan = self._plan_of(argv, self._of.own_env(self._of.work["env"]))
        stdout = self._out.streams["stdout"]
        plan.stdin, plan.stdin_file = stdout.text(), stdout.path
        why, said = await self._run(plan)
        return [checks.issue("script", f"the validation script failed: {why}" + (f": {said}" if said else ""))] if why else []

    def _plan_of(self, argv: list[str], env: dict[str, str]) -> Plan:
        work = self._of.work
        return Plan(argv, work["cwd"], work["env_id"], env, timeout_s=CHECK_TIMEOUT_S, grace_s=work["grace_s"])

    async def _run(self, plan: Plan) -> tuple[str | None, str]:
        """Run it; why it failed, if so, and the end of its stderr."""
        out = Output(f"{self._of.folder}/check", 1, secrets=self._of.secrets)
        ended = await self._of.process(plan, out, lambda _pid: None)
        said = out.streams["stderr"].content()[-500:].decode("utf-8", "replace").strip()
        out.release()
        if ended.stop is not None:
            return ended.stop.message, said
        if ended.exit is None:
            return str(ended.failure), said
        if ended.exit.signal is not None:
            return f"it was ended by signal {signal_name(ended.exit.signal)}", said
        return (None if ended.exit.status == 0 else f"it ended with {ended.exit.exit_code}"), said
