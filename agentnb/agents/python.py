"""Python functions as agents: ``def`` in a child process that can be killed, ``async def`` as a task of the notebook's process."""

from __future__ import annotations

import asyncio
import functools
import inspect
import linecache
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cloudpickle

from agentnb.agents import template
from agentnb.agents.adapters import Asked, Features
from agentnb.agents.context import Launch, RunContext, Send, takes_context
from agentnb.agents.jsonable import jsonable
from agentnb.agents.launch import child_work
from agentnb.agents.tracebacks import failure
from agentnb.commands import Python
from agentnb.errors import ConfigError

#: Largest call (function, arguments and what they refer to) that is sent to a child, in bytes.
MAX_CALL = 64 * 1024 * 1024
#: After its result an agent's process has so many seconds for what it does at its exit; what hangs then is ended, and the result kept.
LINGER_S = 60.0

_FILE_ADVICE = (
    "give the child a path, a URL or other plain data, and open it in there; "
    "or write the agent as `async def`, which runs in the notebook's process"
)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives a coroutine, so that it runs in the notebook's process.

    Looks through functools.partial and into callable objects. Raises ConfigError for generators, with what to write instead.
    """
    while isinstance(function, functools.partial):
        function = function.func
    candidates = [function] if inspect.isroutine(function) or inspect.isclass(function) else [function, type(function).__call__]
    name = getattr(function, "__qualname__", type(function).__qualname__)
    for candidate in candidates:
        if inspect.isasyncgenfunction(candidate) or inspect.isgeneratorfunction(candidate):
            raise ConfigError(f"{name}() is a generator (it uses `yield`); return a list, and show progress with ctx.log(...)")
    return any(inspect.iscoroutinefunction(candidate) for candidate in candidates)


def check_call(spec: Python) -> None:
    """Raise ConfigError if the function cannot be called with the spec's arguments."""
    try:
        signature = inspect.signature(spec.function)
    except (TypeError, ValueError):  # a function in C without a signature
        return
    first = (None,) if takes_context(spec.function) else ()
    try:
        signature.bind(*first, *spec.args, **spec.kwargs)
    except TypeError as bad:
        name = getattr(spec.function, "__qualname__", "the function")
        raise ConfigError(f"{name}{signature} cannot be called with these arguments: {bad}") from None


def python_work(spec: Python, *, run_id: str = "", params: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parts of an engine Work (kind, argv, payload, channel) that calls a plain function in a child process.

    Functions and classes of the notebook travel by value, with what they close over. Raises ConfigError, which names what cannot
    be sent and why.
    """
    check_call(spec)
    function = _pickled((spec.function, spec.args, spec.kwargs), lambda: _culprit(spec))
    if len(function) > MAX_CALL:
        size = f"{len(function) / 2**20:.0f} MiB, more than {MAX_CALL // 2**20} MiB"
        raise ConfigError(f"python: the function and its arguments have {size}; write the data to a file and pass its path")
    call = {
        "call": function,
        "params": _pickled(dict(params or {}), lambda: _first_bad({f"parameter {k!r}": v for k, v in (params or {}).items()})),
        "takes_context": takes_context(spec.function),
        "run_id": run_id,
        "sources": _sources(spec.function),
    }
    return child_work("agentnb.agents.python_child", pickle.dumps(call)) | {"children": True, "linger_s": LINGER_S}


async def host(
    spec: Python, params: Mapping[str, Any] | None, send: Send, run_id: str = "", attempt: int = 1, *, launch: Launch | None = None
) -> None:
    """Await an ``async def`` agent in this process and report to `send`: its result or error, then ``done``. `launch`: for child runs.

    Raises nothing but CancelledError, after reporting ``cancelled`` and ``done``.
    """
    context = RunContext(send, run_id=run_id, params=params, attempt=attempt, launch=launch)
    try:
        check_call(spec)
        first = (context,) if takes_context(spec.function) else ()
        output = jsonable(await spec.function(*first, *spec.args, **spec.kwargs), "the result")
        send({"t": "result", "output": output})
    except asyncio.CancelledError:
        context._cancel()  # noqa: SLF001 - the other half of the context
        send({"t": "cancelled"})
        raise
    except BaseException as bad:  # noqa: BLE001 - SystemExit and KeyboardInterrupt would end the loop that all runs share
        send({"t": "result", "output": None} if isinstance(bad, SystemExit) and bad.code in (None, 0) else failure(bad))
    finally:
        send({"t": "done"})


def _pickled(value: object, culprit: Callable[[], str]) -> bytes:
    try:
        return bytes(cloudpickle.dumps(value))
    except RecursionError:
        raise ConfigError(f"python: {culprit()}: it is nested too deeply; {_FILE_ADVICE}") from None
    except Exception as bad:  # noqa: BLE001 - each type has its own way to refuse
        raise ConfigError(f"python: {culprit()} cannot be sent to a child process: {bad}; {_FILE_ADVICE}") from None


def _culprit(spec: Python) -> str:
    names = _parameter_names(spec)[int(takes_context(spec.function)) :]
    given = {f"argument {names[i] if i < len(names) else i + 1!r}": value for i, value in enumerate(spec.args)}
    given |= {f"argument {key!r}": value for key, value in spec.kwargs.items()}
    given |= {f"{kind} {name!r} of the function": value for kind, name, value in _references(spec.function)}
    return _first_bad(given)


def _parameter_names(spec: Python) -> list[str]:
    try:
        return list(inspect.signature(spec.function).parameters)
    except (TypeError, ValueError):
        return []


def _references(function: Callable[..., Any]) -> list[tuple[str, str, object]]:
    """What the function refers to by name: (kind, name, value)."""
    try:
        found = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):
        return []
    return [("variable", name, value) for group in (found.nonlocals, found.globals) for name, value in group.items()]


def _first_bad(given: Mapping[str, object]) -> str:
    """The label and type of the first value that cannot be pickled."""
    for label, value in given.items():
        try:
            cloudpickle.dumps(value)
        except Exception:  # noqa: BLE001 - which error it was is told with the whole
            return f"{label} ({type(value).__module__}.{type(value).__qualname__})"
    return "the function"


def _sources(function: Callable[..., Any]) -> dict[str, str]:
    """Source of the cell that defines the function: it is in no file, and tracebacks shall show its lines."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or Path(code.co_filename).is_file():
        return {}
    return {code.co_filename: "".join(linecache.getlines(code.co_filename))}


def _filled(spec: Python, params: Mapping[str, Any]) -> Python:
    name = getattr(spec.function, "__qualname__", "python")

    def filled(value: Any, what: str) -> Any:
        return template.render_value(value, params, what=f"{name}(): {what}") if isinstance(value, str) else value

    args = tuple(filled(value, f"argument {number}") for number, value in enumerate(spec.args, start=1))
    kwargs = {key: filled(value, f"argument {key!r}") for key, value in spec.kwargs.items()}
    kwargs |= {key: params[key] for key in _open_parameters(spec) if key in params}
    return spec.model_copy(update={"args": args, "kwargs": kwargs})


def _open_parameters(spec: Python) -> list[str]:
    """Names of the parameters that the call leaves open and that can be given by name."""
    try:
        parameters = list(inspect.signature(spec.function).parameters.values())
    except (TypeError, ValueError):  # a function in C without a signature
        return []
    taken = len(spec.args) + takes_context(spec.function)
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    by_name = [p for p in positional[taken:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    by_name += [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return [p.name for p in by_name if p.name not in spec.kwargs]


class _PythonAdapter:
    features = Features(steps=True, tokens=True, cost=True, agent=True)

    def missing(self) -> str:
        return ""

    def fill(self, spec: Python, params: Mapping[str, Any]) -> Python:
        return _filled(spec, params)

    def work(self, spec: Python, asked: Asked) -> dict[str, Any]:
        if is_async(spec.function):
            check_call(spec)
            return {"kind": "hosted"}
        return python_work(spec, run_id=asked.run_id, params=asked.params)


PYTHON = _PythonAdapter()
