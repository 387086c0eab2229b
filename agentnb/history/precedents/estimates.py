"""What a command will probably need: from this store's own history of it, else built-in defaults (plain SQLite, no pandas)."""

from __future__ import annotations

import inspect
import shlex
import sqlite3
from pathlib import Path, PurePath
from typing import NamedTuple

from agentnb.commands import Command, Python, Shell, Spec
from agentnb.declared import Agent
from agentnb.execution import AnySpec, Handler
from agentnb.history.jsontext import bindable
from agentnb.history.reader import reading
from agentnb.prompts import LocalModel
from agentnb.results import Estimate

#: At most this many of the latest completed runs are looked at.
MAX_RUNS = 200
#: Confidence is n / (n + this): 0 without history, one half after four runs, 0.9 after 36.
HALF_AT = 4
_MB = 1_000_000
#: Of the local model on one thread: seconds to load, tokens a second afterwards.
_LOAD_S, _TOKENS_PER_S = 1.0, 60.0


class Need(NamedTuple):
    """Seconds, bytes, percent of one processor; None: not known."""

    duration: float | None
    memory: int | None
    cpu_percent: float | None


#: What is assumed of a command that the history does not know.
DEFAULTS: dict[str, Need] = {
    "git": Need(5.0, 128 * _MB, 20.0),
    "shell": Need(10.0, 256 * _MB, 50.0),
    "test": Need(30.0, 512 * _MB, 80.0),
    "handler": Need(2.0, 64 * _MB, 10.0),
    "claude": Need(None, 512 * _MB, 10.0),
    "python": Need(10.0, 128 * _MB, 100.0),
    "coroutine": Need(10.0, None, None),
    "replay": Need(None, None, None),
    "local_model": Need(None, 320 * _MB, 100.0),
    "openai_compatible": Need(None, 64 * _MB, 5.0),
    "a2a": Need(None, 96 * _MB, 5.0),
    "json_lines": Need(None, None, None),
    "swarm": Need(None, 48 * _MB, None),
}

_RUNS = """SELECT run_s, peak_memory_bytes, cpu_s FROM runs
    WHERE command = ? AND target_kind = ? AND status = 'completed' AND reused_from IS NULL
    ORDER BY created_at DESC LIMIT ?"""
_HANDLERS = """SELECT (finished_at - started_at) / 1e6, peak_memory_bytes, cpu_s FROM steps
    WHERE json_extract(input, '$.command') = ? AND kind = ? AND status = 'completed' ORDER BY created_at DESC LIMIT ?"""


def estimate(root: Path, spec: AnySpec | Handler) -> Estimate:
    """What `spec` will probably need, by the history at `root`: its latest completed runs with the same kind and command line.

    Raises StoreError when the history cannot be read.
    """
    query, kind = (_HANDLERS, "handler") if isinstance(spec, Handler) else (_RUNS, spec.type)
    with reading(root) as db:
        found = _needs(db.execute(query, (bindable(spec.display), kind, MAX_RUNS)))
    if not found:
        return _default(spec)
    durations, memories, percents = ([value for value in column if value is not None] for column in zip(*found, strict=True))
    return Estimate(
        source="history",
        basis=f"the latest {len(found)} completed runs of the same command" if len(found) > 1 else "the one completed run of this command",
        n=len(found),
        confidence=len(found) / (len(found) + HALF_AT),
        duration=_quantile(durations, 0.5),
        duration_p90=_quantile(durations, 0.9),
        peak_memory_bytes=_whole(_quantile(memories, 0.5)),
        peak_memory_p90_bytes=_whole(_quantile(memories, 0.9)),
        cpu_percent=_quantile(percents, 0.5),
        cpu_percent_p90=_quantile(percents, 0.9),
    )


def default_kind(spec: Spec | Handler) -> str:
    """The row of `DEFAULTS` for a spec."""
    match spec:
        case Handler():
            return "handler"
        case Shell() | Command():
            return "git" if _program(spec) == "git" else "shell"
        case Python():
            return "coroutine" if inspect.iscoroutinefunction(spec.function) else "python"
        case Agent():
            return default_kind(spec.bound.command)
        case _:
            return str(getattr(spec, "type", ""))


def _default(spec: AnySpec | Handler) -> Estimate:
    kind = default_kind(spec)
    need = DEFAULTS[kind]
    if isinstance(spec, LocalModel):
        need = Need(_LOAD_S + spec.max_tokens / _TOKENS_PER_S, need.memory, 100.0 * (spec.threads or 1))
    return Estimate(
        source="default",
        basis=f"the built-in default for {kind}: the history knows no completed run of this command",
        duration=need.duration,
        peak_memory_bytes=need.memory,
        cpu_percent=need.cpu_percent,
    )


def _program(spec: Shell | Command) -> str:
    """The name of the program that the command begins with."""
    if isinstance(spec, Command):
        return PurePath(spec.argv[0]).name
    try:
        words = shlex.split(spec.command, comments=True)
    except ValueError:  # quotes that only the shell understands
        words = spec.command.split()
    return PurePath(words[0]).name if words else ""


def _needs(cursor: sqlite3.Cursor) -> list[Need]:
    return [Need(run_s, memory, 100 * cpu / run_s if run_s and cpu is not None else None) for run_s, memory, cpu in cursor]


def _quantile(values: list[float], q: float) -> float | None:
    """The quantile, between the two values beside it; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
