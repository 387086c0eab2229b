"""The child process of a Python agent: calls the function and reports what came of it.

The first SIGTERM sets `ctx.cancelled` and raises SystemExit(143) in the main thread, so that ``finally`` blocks run; SIGKILL
follows after the grace period. Only the standard library is imported here.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import FrameType
from typing import Any

from agentnb.agents.channel import Channel
from agentnb.agents.context import Launch, RunContext
from agentnb.agents.jsonable import jsonable

#: Exit code of a process that SIGTERM ended, as shells count.
TERMINATED = 128 + signal.SIGTERM
#: What launches child runs; it is of the room above, and so it is named here, not imported.
_LAUNCHES = "agentnb.notebook.child_runs"


def main(body: bytes, channel: Channel) -> int:
    """Run the call that `body` holds; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    context = RunContext(channel.send, attempt=int(os.environ.get("AGENTNB_ATTEMPT", "1")), launch=_launcher(channel))
    _watch(context, channel)
    try:
        code = _run(body, context, channel)
    except SystemExit as end:
        code = _exit_code(end)
        if code == 0:  # a decision to end here, unlike a process that just ends
            channel.send({"t": "result", "output": None})
    channel.send({"t": "done"})  # threads that it left must not hold its result back for ever
    return code


def _launcher(channel: Channel) -> Launch:
    """Launches child runs; what it takes is imported when the first one is wanted."""
    env, known = dict(os.environ), list[Launch]()

    def launch(target: Any, options: Mapping[str, Any]) -> Any:
        if not known:
            known.append(import_module(_LAUNCHES).launcher(channel, env))
        return known[0](target, options)

    return launch


def _run(body: bytes, context: RunContext, channel: Channel) -> int:
    kind = "startup_failed"
    try:
        call = _load(body, context)
        kind = "execution_failed"
        output = jsonable(_result(call()), "the result")
    except SystemExit:
        raise
    except BaseException as bad:  # noqa: BLE001 - whatever ends the function is the failure of the run
        from agentnb.agents.tracebacks import failure, text  # most agents do not fail

        channel.send(failure(bad, kind))
        print(text(bad), file=sys.stderr, end="")  # noqa: T201 - the run's own stderr
        return 1
    channel.send({"t": "result", "output": output})
    return 0


def _load(body: bytes, context: RunContext) -> Callable[[], Any]:
    """The call that `body` holds. Raises what unpickling raises, with advice for a module that is not found."""
    head = pickle.loads(body)  # noqa: S301 - written by the notebook's own process
    import linecache

    for filename, source in head["sources"].items():
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    context.run_id = head["run_id"]
    try:
        context.params = pickle.loads(head["params"])  # noqa: S301 - written by the notebook's own process
        function, args, kwargs = pickle.loads(head["call"])  # noqa: S301 - written by the notebook's own process
    except ModuleNotFoundError as bad:
        advice = "install it, or put its folder on sys.path before launching; functions defined in the notebook itself always work"
        raise ModuleNotFoundError(f"{bad}: the child process cannot import it; {advice}", name=bad.name) from None
    first = (context,) if head["takes_context"] else ()
    return lambda: function(*first, *args, **kwargs)


def _result(value: Any) -> Any:
    """The value; awaited, if a plain function (a lambda, a decorator) gave a coroutine."""
    if hasattr(value, "__await__"):
        import asyncio

        async def waited() -> Any:
            return await value

        return asyncio.run(waited())
    return value


def _watch(context: RunContext, channel: Channel) -> None:
    def on_term(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the finally blocks; SIGKILL can
        context._cancel()  # noqa: SLF001 - the other half of the context
        channel.interrupt(SystemExit(TERMINATED))

    signal.signal(signal.SIGTERM, on_term)


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)  # noqa: T201 - the run's own stderr
    return 1
