"""Flows of a swarm, run over whoever does the work.

A flow is JSON data, as a swarm file has it: the name of a worker, or a mapping with a ``type`` (patterns.py). Nothing here knows of
processes: a `Crew` does what a worker is to do, and a `Story` hears of each step. Whatever ends a flow, all that it started has ended
before. Only asyncio and the templates are imported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from agentnb.agents.failures import Failure, FlowFailed, together
from agentnb.agents.patterns import PATTERNS
from agentnb.agents.scope import Scope
from agentnb.agents.siblings import ended

Json = dict[str, Any]
Item = str | Json
#: Keys of flows that hold items.
_ITEMS = frozenset({"steps", "branches", "then", "else", "do", "worker", "to", "workers", "primary", "chain", "main", "sides"})


@dataclass(frozen=True, slots=True)
class Result:
    """How the work of a worker ended.

    `status`: a states.RunStatus. `seen`: what templates find under ``steps.NAME`` beside status, error and output. `used`: tokens and
    cost, as a step's report has them.
    """

    status: str
    output: Any = None
    error: Json | None = None
    retryable: bool = False
    run_id: str | None = None
    seen: Json = field(default_factory=dict)
    used: Json = field(default_factory=dict)


class Working(Protocol):
    """Work that was asked for. `done` is always resolved in the end, also after `cancel`.

    `run_id`: of the run that does it. `told`: what of it the reader should see of what it was given; None: nothing of its own.
    """

    run_id: str
    told: Any
    done: asyncio.Future[Result]

    def cancel(self, reason: str) -> None:
        """Have it ended; what has ended stays as it is."""


class Crew(Protocol):
    """Those who do the work."""

    def given(self, worker: str, scope: Scope) -> Any:
        """What the worker is given. Raises FlowFailed for a template that names what is not there."""

    def start(self, worker: str, title: str, given: Any, scope: Scope) -> Working:
        """Have it done; `title` tells it from other work of the same worker. Raises FlowFailed when it cannot be asked for."""


class Story(Protocol):
    """Who hears what happens."""

    def begin(self, kind: str, name: str, parent: str | None, given: Any = None, run_id: str = "") -> str:
        """A step begins, a worker or a branch; returns its id. `run_id`: of the run that does a worker's work."""

    def end(self, step: str, status: str, *, error: Json | None = None, result: Result | None = None) -> None:
        """A step has ended; `result`: of a worker that worked."""

    def note(self, text: str) -> None:
        """Something that raises nothing, and that the reader should know."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item stands: what its templates see, what a failure does, the step around it, and what comes after its name."""

    scope: Scope
    policy: str
    step: str | None = None
    suffix: str = ""


def workers_of(item: Item) -> Iterator[str]:
    """The names of all workers in an item."""
    if isinstance(item, str):
        yield item
        return
    for key in _ITEMS & item.keys():
        inner = item[key]
        for one in inner if isinstance(inner, list) else [inner]:
            yield from () if one is None else workers_of(one)


class Flow:
    """Runs flows."""

    def __init__(self, crew: Crew, story: Story, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """`sleep`: how time passes before a restart."""
        self.sleep = sleep
        self._crew, self._story = crew, story

    async def run(self, item: Item, place: Place) -> Any:
        """Run a worker or a flow; returns its output. Raises FlowFailed, with every cause, and CancelledError."""
        return await (self._worker(item, place) if isinstance(item, str) else self._flow(item, place))

    async def _worker(self, name: str, place: Place) -> Any:
        title = f"{name}{place.suffix}"
        try:
            given = self._crew.given(name, place.scope)
            working = self._crew.start(name, title, given, place.scope)
        except FlowFailed as bad:
            self._story.end(self._story.begin("worker", title, place.step), "failed", error=bad.error())
            raise
        step = self._story.begin("worker", title, place.step, working.told, working.run_id)
        try:
            await asyncio.shield(working.done)
        except asyncio.CancelledError:
            working.cancel("its swarm does not need it any more")
            with suppress(asyncio.CancelledError):
                await ended([working.done], cancel=False)
            self._worked(name, step, place.scope, working.done.result())
            raise
        result = working.done.result()
        self._worked(name, step, place.scope, result)
        if result.status == "completed":
            return result.output
        error = result.error or {"kind": "runtime_error", "message": f"it ended as {result.status}"}
        raise FlowFailed([Failure(f"worker {title!r}", error["kind"], error["message"], result.retryable, result.run_id)])

    def _worked(self, name: str, step: str, scope: Scope, result: Result) -> None:
        """Let later templates see how a worker ended, and end its step."""
        gave = {"output": result.output} if result.status == "completed" else {}
        scope.steps[name] = {**result.seen, "status": result.status, "error": (result.error or {}).get("message"), **gave}
        error = None if result.status == "cancelled" else result.error  # that it was cancelled says it all
        self._story.end(step, result.status, error=error, result=result)

    async def _flow(self, flow: Json, place: Place) -> Any:
        step = self._story.begin("branch", f"{flow['type']}{place.suffix}", place.step)
        inside = replace(place, step=step, suffix="", policy=flow.get("on_failure") or place.policy)
        status, error = "cancelled", None
        try:
            output = await PATTERNS[flow["type"]](self, flow, inside)
            status = "completed"
        except FlowFailed as bad:
            status, error = "failed", bad.error()
            raise
        finally:
            self._story.end(step, status, error=error)
        return output

    # --- what patterns share

    def skip(self, items: Sequence[Item], place: Place) -> None:
        """Say of these that they are not run, also to later templates: ``steps.NAME.status``."""
        for item in items:
            for worker in workers_of(item):
                place.scope.steps.setdefault(worker, {"status": "skipped", "error": None})
            kind, name = ("worker", item) if isinstance(item, str) else ("branch", item["type"])
            self._story.end(self._story.begin(kind, name, place.step), "skipped")

    def settle(self, failed: Sequence[FlowFailed], place: Place) -> None:
        """All was run: raise what failed, or say that it was ignored."""
        if failed and place.policy != "ignore":
            raise together(failed)
        for bad in failed:
            self.tell("ignored", bad)

    def tell(self, what: str, bad: FlowFailed) -> None:
        """Say of failures that they raise nothing."""
        for failure in bad.failures:
            self._story.note(f"{what}: {failure}")
