"""The child process of a Python agent: calls the function and reports what came of it.

The first SIGTERM sets `ctx.cancelled` and raises SystemExit(143) in the main thread, so that ``finally`` blocks run; SIGKILL
follows after the grace period. Only the standard library is imported here.
"""

# importing pathlib would cost every child some milliseconds
# ruff: noqa: PTH120
from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from agentnb.agents.channel import Channel
from agentnb.agents.context import RunContext, describe
from agentnb.agents.jsonable import clean, jsonable

#: Exit code of a process that SIGTERM ended, as shells count.
TERMINATED = 128 + signal.SIGTERM
_MAX_TRACEBACK = 20_000


def main(body: bytes, channel: Channel) -> int:
    """Run the call that `body` holds; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    context = RunContext(channel.send, attempt=int(os.environ.get("AGENTNB_ATTEMPT", "1")))
    _watch(context, channel)
    try:
        return _run(body, context, channel)
    except SystemExit as end:
        code = _exit_code(end)
        if code == 0:  # a decision to end here, unlike a process that just ends
            channel.send({"t": "result", "output": None})
        return code


def _run(body: bytes, context: RunContext, channel: Channel) -> int:
    kind = "startup_failed"
    try:
        call = _load(body, context)
        kind = "execution_failed"
        output = jsonable(_result(call()), "the result")
    except SystemExit:
        raise
    except BaseException as bad:  # noqa: BLE001 - whatever ends the function is the failure of the run
        channel.send(failure(bad, kind))
        print(_traceback_text(bad), file=sys.stderr, end="")  # noqa: T201 - the run's own stderr
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


def failure(bad: BaseException, kind: str = "execution_failed") -> dict[str, Any]:
    """The error report for an exception, its traceback cut to the agent's own frames."""
    details = {"type": type(bad).__qualname__, "traceback": _traceback_text(bad)}
    return {"t": "error", "kind": kind, "message": describe(bad), "details": details}


def _traceback_text(bad: BaseException) -> str:
    import traceback

    lines = traceback.format_exception(type(bad), bad, _own(bad.__traceback__))
    text = clean("".join(lines))
    half = _MAX_TRACEBACK // 2
    return text if len(text) <= _MAX_TRACEBACK else f"{text[:half]}\n... ({len(text) - 2 * half} characters left out) ...\n{text[-half:]}"


def _own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this package at its start."""
    first = trace
    here = os.path.dirname(__file__)
    while first is not None and os.path.dirname(first.tb_frame.f_code.co_filename) == here:
        first = first.tb_next
    return first
