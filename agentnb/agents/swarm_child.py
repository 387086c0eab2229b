"""The child process of a swarm: runs the flow, with each worker's work as a child run, and reports each step.

The first SIGTERM cancels the flow; what it launched is cancelled by the engine at the same time, and its end is waited for.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentnb.agents.channel import Channel
from agentnb.agents.crew import RunningCrew, bounded
from agentnb.agents.failures import Failure, FlowFailed
from agentnb.agents.flow import Flow, Json, Place, Result
from agentnb.agents.scope import Scope
from agentnb.agents.swarm_plan import SwarmPlan
from agentnb.engine.reports import MAX_LINE, too_deep
from agentnb.formats import without_iri

TERMINATED = 128 + signal.SIGTERM
_LONGEST = MAX_LINE - 64 * 1024


def main(body: bytes, channel: Channel) -> int:
    """Run the swarm that `body` holds; return the exit code."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    without_iri()
    plan: SwarmPlan = pickle.loads(body)  # noqa: S301 - written by the notebook's own process
    return asyncio.run(_hold(plan, channel))


async def _hold(plan: SwarmPlan, channel: Channel) -> int:
    story = Told(channel.send, os.environ.get("AGENTNB_ATTEMPT", "1"))
    crew = RunningCrew(channel.send, Path(os.environ["AGENTNB_STORE"]), plan.inputs, plan.target, story.note)
    loop, work = asyncio.get_running_loop(), asyncio.ensure_future(_run(plan, crew, story))

    def readable() -> None:
        data = channel.receive()
        if not data:
            loop.remove_reader(channel.fileno())
        crew.feed(data)

    loop.add_reader(channel.fileno(), readable)
    loop.add_signal_handler(signal.SIGTERM, work.cancel)
    try:
        channel.send({"t": "result", "output": await work})
    except FlowFailed as bad:
        channel.send({"t": "error", **bad.error()})
        for failure in bad.failures:
            sys.stderr.write(f"{failure}\n")
        return 1
    except asyncio.CancelledError:
        return TERMINATED
    except Exception as bad:  # noqa: BLE001 - a fault of ours is told like any other
        from agentnb.agents.tracebacks import failure as told

        channel.send(told(bad, "runtime_error"))
        return 1
    finally:
        channel.send({"t": "done"})
    return 0


async def _run(plan: SwarmPlan, crew: RunningCrew, story: Told) -> Any:
    """The output of the swarm. Raises FlowFailed."""
    scope = Scope(plan.input, params=plan.params)
    output = await Flow(crew, story).run(plan.flow, Place(scope, plan.on_failure))
    if plan.output is not None:
        output = scope.fill(plan.output, "output")
    size = len(json.dumps(output))
    if size > _LONGEST or too_deep(output):
        what = f"has {size} bytes" if size > _LONGEST else "is nested too deeply"
        raise FlowFailed([Failure("output", "execution_failed", f"it {what}; have a worker write it to a file, and give its path")])
    return output


class Told:
    """The steps of a swarm, as reports; each worker's end is a line of its output."""

    def __init__(self, send: Callable[[Json], None], attempt: str) -> None:
        """`send` writes a report."""
        self._send, self._attempt = send, attempt
        self._count = 0
        self._workers: dict[str, str] = {}

    def begin(self, kind: str, name: str, parent: str | None, given: Any = None, run_id: str = "") -> str:
        """A step begins."""
        self._count += 1
        step = f"{self._attempt}.{self._count}"
        if kind == "worker":
            self._workers[step] = name
        about = {"input": {"input": bounded(given), "run_id": run_id}} if run_id else {}
        self._send({"t": "step", "id": step, "name": name, "kind": kind, "status": "running", "parent": parent, **about})
        return step

    def end(self, step: str, status: str, *, error: Json | None = None, result: Result | None = None) -> None:
        """A step has ended."""
        told: Json = {"t": "step", "id": step, "status": status}
        if error is not None:
            told |= {"error": error["message"], "error_kind": error["kind"]}
        if result is not None:
            told |= {"output": bounded(result.output), "exit_code": result.seen.get("exit_code")} | _used(result.used)
        self._send(told)
        if (name := self._workers.pop(step, None)) is not None:
            why = f": {error['message'].removeprefix(f'worker {name!r}: ')}" if error is not None else ""
            self._send({"t": "log", "text": f"{name}: {status}{why}"})

    def note(self, text: str) -> None:
        """A warning."""
        self._send({"t": "warning", "text": text})


def _used(used: Json) -> Json:
    tokens = {name.removesuffix("_tokens"): value for name, value in used.items() if name.endswith("_tokens")}
    cost = {"cost_usd": used["cost_usd"]} if "cost_usd" in used else {}
    return ({"tokens": tokens} if tokens else {}) | cost
