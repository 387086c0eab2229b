"""The nine patterns: how the workers and flows in a flow work together. Each is a coroutine that returns the output of the flow.

All take the flow as JSON data, keys as in a swarm file. The output of a sequence is that of its last step; of a parallel, a loop and a
supervisor a list, in the order of the file; of the others that of the one that counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agentnb.agents.failures import Failure, FlowFailed, together
from agentnb.agents.scope import Scope, shown
from agentnb.agents.siblings import Siblings

if TYPE_CHECKING:
    from agentnb.agents.flow import Flow, Item, Json, Place

#: A ``while`` loop that names no max_iterations fails after so many.
MAX_ITERATIONS = 1000
#: A supervisor waits no longer than this before a restart, in seconds.
MAX_BACKOFF_S = 60.0


async def sequence(run: Flow, flow: Json, place: Place) -> Any:
    """One by one. fail_fast skips the rest; continue runs all and raises all failures as one."""
    output, failed = None, list[FlowFailed]()
    for number, item in enumerate(flow["steps"]):
        try:
            output = await run.run(item, place)
        except FlowFailed as bad:
            output = None
            failed.append(bad)
            if place.policy == "fail_fast":
                run.skip(flow["steps"][number + 1 :], place)
                raise
    run.settle(failed, place)
    return output


async def parallel(run: Flow, flow: Json, place: Place) -> list[Any]:
    """All at once, at most `max_concurrency`. fail_fast cancels and awaits the others; continue waits for all."""
    items: list[Item] = flow["branches"]
    waiting, bound = deque(enumerate(items)), flow.get("max_concurrency") or len(items)
    fast = place.policy == "fail_fast"
    async with Siblings() as siblings:
        while (waiting or siblings) and not (fast and siblings.failed):
            while waiting and len(siblings) < bound:
                number, item = waiting.popleft()
                siblings.start(number, run.run(item, place))
            await siblings.some()
    run.skip([item for _, item in waiting], place)
    if siblings.failed:
        run.settle([siblings.failure()], place)
    return [siblings.outputs.get(number) for number in range(len(items))]


async def conditional(run: Flow, flow: Json, place: Place) -> Any:
    """One of two; the other is skipped."""
    chosen, other = (flow["then"], flow.get("else"))
    if not place.scope.holds(flow["condition"], "condition"):
        chosen, other = other, chosen
    run.skip([] if other is None else [other], place)
    return None if chosen is None else await run.run(chosen, place)


async def loop(run: Flow, flow: Json, place: Place) -> list[Any]:
    """Once for each item of `over`, or as long as `while` holds; `max_iterations` is a cap that must not be crossed."""
    items = _items(flow, place.scope)
    most = flow.get("max_iterations") or (MAX_ITERATIONS if items is None else len(items))
    outputs, failed = list[Any](), list[FlowFailed]()
    while items is None or len(outputs) < len(items):
        index = len(outputs)
        item = {} if items is None else {"item": items[index]}
        scope = place.scope.inside(index, item, flow.get("as"))
        if items is None and not scope.holds(flow["while"], "while"):
            break
        if index >= most:
            raise together([*failed, _fault("loop", f"its condition still holds after {most} iterations, which is max_iterations")])
        try:
            outputs.append(await run.run(flow["do"], replace(place, scope=scope, suffix=f" #{index + 1}")))
        except FlowFailed as bad:
            outputs.append(None)
            failed.append(bad)
            if place.policy == "fail_fast":
                raise
    run.settle(failed, place)
    return outputs


def _items(flow: Json, scope: Scope) -> list[Any] | None:
    """What a loop goes over; None for one that has a condition instead."""
    if flow.get("over") is None:
        return None
    items, most = scope.fill(flow["over"], "over"), flow.get("max_iterations")
    if not isinstance(items, list | tuple):
        raise _fault("loop", f"over: {shown(items)} is no list")
    if most is not None and len(items) > most:
        raise _fault("loop", f"over: it has {len(items)} items, more than max_iterations={most}; nothing of it was run")
    return list(items)


def _fault(where: str, said: str) -> FlowFailed:
    return FlowFailed([Failure(where, "pattern_error", said)])


async def delegate(run: Flow, flow: Json, place: Place) -> Any:
    """The output of the router names the one that works; the others are skipped."""
    names: list[str] = flow["to"]
    try:
        said = await run.run(flow["worker"], place)
    except FlowFailed:
        run.skip(names, place)
        raise
    chosen = said.strip() if isinstance(said, str) else said
    run.skip([name for name in names if name != chosen], place)
    if chosen not in names:
        raise _fault(
            "delegate", f"the output of {flow['worker']!r}, {shown(said)}, names none of the workers that it may: {', '.join(names)}"
        )
    return await run.run(chosen, place)


async def supervisor(run: Flow, flow: Json, place: Place) -> list[Any]:
    """All at once; what fails in a way that may be tried again is restarted, alone or with all the others."""
    items: list[Item] = flow["workers"]
    most, restarts = flow.get("max_restarts", 3), 0

    async def later(item: Item, delay_s: float) -> Any:
        await run.sleep(delay_s)
        return await run.run(item, place)

    async with Siblings() as siblings:
        for number, item in enumerate(items):
            siblings.start(number, run.run(item, place))
        while siblings:
            for number in await siblings.some():
                if (bad := siblings.failed.get(number)) is None:
                    continue
                if not bad.retryable or restarts >= most:
                    raise _exhausted(siblings.failure(), restarts)
                delay_s = min(flow.get("backoff", 1.0) * 2.0 ** min(restarts, 30), MAX_BACKOFF_S)
                restarts += 1
                if flow.get("strategy") != "one_for_all":
                    siblings.restart(number, later(items[number], delay_s))
                    continue
                await siblings.cancel()
                await run.sleep(delay_s)
                for every, item in enumerate(items):
                    siblings.restart(every, run.run(item, place))
                break
    return [siblings.outputs[number] for number in range(len(items))]


def _exhausted(bad: FlowFailed, restarts: int) -> FlowFailed:
    """The failure of a supervisor, which says how often something was restarted before."""
    told = f" (after {restarts} restart{'s' if restarts > 1 else ''})" if restarts else ""
    return FlowFailed([replace(failure, message=failure.message + told) for failure in bad.failures])


async def compete(run: Flow, flow: Json, place: Place) -> Any:
    """All at once; the first that succeeds wins, the others are cancelled and awaited. Fails only if none succeeds."""
    async with Siblings() as siblings:
        for number, item in enumerate(flow["workers"]):
            siblings.start(number, run.run(item, place))
        while siblings:
            for number in await siblings.some():
                if number in siblings.outputs:
                    return siblings.outputs[number]
    raise siblings.failure()


async def escalation(run: Flow, flow: Json, place: Place) -> Any:
    """One, and after its failure the next; those that are not needed are skipped. Fails when the last has failed."""
    items: list[Item] = [flow["primary"], *flow["chain"]]
    failed = list[FlowFailed]()
    for number, item in enumerate(items):
        try:
            output = await run.run(item, place)
        except FlowFailed as bad:
            failed.append(bad)
        else:
            run.skip(items[number + 1 :], place)
            return output
    raise together(failed)


async def alongside(run: Flow, flow: Json, place: Place) -> Any:
    """Sides run beside the main; when it succeeds they get `grace`, when it fails they are cancelled. Their failures are only told."""
    async with Siblings() as siblings:
        for number, item in enumerate([flow["main"], *flow["sides"]]):
            siblings.start(number, run.run(item, place))
        while 0 not in siblings.outputs and 0 not in siblings.failed:
            await siblings.some()
        clock = asyncio.get_running_loop()
        until = clock.time() + flow.get("grace", 5.0)
        while 0 in siblings.outputs and siblings and (left := until - clock.time()) > 0:
            await siblings.some(left)
    for number in sorted(siblings.failed.keys() - {0}):
        run.tell("beside the main work", siblings.failed[number])
    if 0 in siblings.failed:
        raise siblings.failed[0]
    return siblings.outputs[0]


PATTERNS: dict[str, Callable[[Flow, Json, Place], Awaitable[Any]]] = {
    "sequence": sequence,
    "parallel": parallel,
    "conditional": conditional,
    "loop": loop,
    "delegate": delegate,
    "supervisor": supervisor,
    "compete": compete,
    "escalation": escalation,
    "alongside": alongside,
}
