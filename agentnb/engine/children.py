"""Child runs: what a run launched through its context. They end with it: none goes on when it is over."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from agentnb.engine.stop import Stop
from agentnb.engine.work import check_work
from agentnb.events import Json, RunFinished

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution

#: A run has at most so many unfinished children; a mistake in a loop shall not fill the machine.
MAX_CHILDREN = 1000
_TEXTS = ("id", "name")
_MAX_REASON = 1000


class Children:
    """The unfinished children of one run."""

    def __init__(self, execution: Execution) -> None:
        """Belong to this run; nobody is there yet."""
        self._of = execution
        self._ids: dict[str, None] = {}
        self._asked: set[str] = set()
        self._none_left: asyncio.Future[None] | None = None

    def take(self, data: Json) -> None:
        """The agent's process wants a run launched, or cancelled. What makes no sense is warned of."""
        if data["t"] == "cancel":
            self._cancel(data)
        else:
            self._launch(data)

    def _cancel(self, data: Json) -> None:
        """A ``cancel`` report; it may come too late, and then nothing is to be done."""
        run_id, reason = data.get("run_id"), data.get("reason", "")
        if not isinstance(run_id, str) or not isinstance(reason, str):
            self._of.warn("a malformed cancellation of a child run was left out")
        elif run_id in self._ids:
            why = self._of.masked(reason)[:_MAX_REASON] or "the run that launched it cancelled it"
            self._of.stop_child(run_id, Stop("cancelled", "cancelled", why))

    def _launch(self, data: Json) -> None:
        """A ``launch`` report. What makes no sense is answered."""
        try:
            run, work = self._request(data)
            self._asked.add(run["id"])
            self._of.launch_child(run, work)
        except (LookupError, TypeError, ValueError) as bad:
            self._of.warn(f"a malformed launch of a child run was left out ({type(bad).__name__}: {bad})")
            if isinstance(data.get("run"), dict):
                self._answer({"run_id": str(data["run"].get("id")), "error": f"the launch makes no sense to the supervisor: {bad}"})

    def _request(self, data: Json) -> tuple[Json, Any]:
        """The run and work that are asked for, made a child of this run: its session, environment, folder of secrets, tags."""
        parent, own = self._of.run, self._of.work
        run, work = data["run"], data["work"]
        for name in _TEXTS:
            if not isinstance(run[name], str):
                raise TypeError(f"its {name} is no text")
        if not isinstance(run["target"], dict) or not isinstance(run["target"]["kind"], str):
            raise TypeError("its target is no object")
        check_work(work)
        if len(self._ids) >= MAX_CHILDREN:
            raise ValueError(f"the run has {MAX_CHILDREN} unfinished child runs already")
        self._of.store.run_dir(run["id"])
        tags = parent.get("tags") or {}
        run = self._of.masked(run) | {"session_id": parent["session_id"], "parent_run_id": self._of.run_id}
        run |= {"tags": tags | (run.get("tags") or {}), "trace_id": parent.get("trace_id")}
        run.pop("group_id", None)
        secrets = list(dict.fromkeys([*own["secrets"], *work["secrets"]]))
        work = work | {"env_id": own["env_id"], "env": own["env"] | work["env"], "secrets": secrets, "bound": True}
        if "traceparent" in own:
            work["traceparent"] = own["traceparent"]
        return run, {name: value for name, value in work.items() if name not in ("group", "group_parallel", "group_budget")}

    def adopt(self, run_id: str) -> None:
        """This run is a child now."""
        self._ids[run_id] = None

    def over(self, event: RunFinished, used: dict[str, float]) -> None:
        """A child has ended. `used`: its tokens and cost."""
        self._ids.pop(event.run_id, None)
        if used and self._of.work.get("sums"):
            self._of.agent.add(used)
        if event.run_id in self._asked:
            self._asked.discard(event.run_id)
            self._answer({"run_id": event.run_id, "event": event.to_wire(), "used": used})
        if not self._ids and self._none_left is not None and not self._none_left.done():
            self._none_left.set_result(None)

    def _answer(self, data: Json) -> None:
        self._of.answer(json.dumps(data).encode() + b"\n")

    def stop(self, why: Stop) -> None:
        """The parent is told to end, and its children with it."""
        if why.status == "interrupted":
            child = why
        else:
            child = Stop("cancelled", "cancelled", f"the run that launched it was ended: {why.message}", grace_s=why.grace_s)
        for run_id in list(self._ids):
            self._of.stop_child(run_id, child)

    async def end(self) -> None:
        """The parent's attempt is over: end those that are left, and wait for their end."""
        if self._ids:
            for run_id in list(self._ids):
                self._of.stop_child(run_id, Stop("cancelled", "cancelled", "the run that launched it ended first"))
        if self._ids:
            self._none_left = asyncio.get_running_loop().create_future()
            await self._none_left
            self._none_left = None
