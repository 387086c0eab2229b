"""A run of the history in MLflow's terms: names, parameters, metrics and tags within its bounds, and notes of what did not fit."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: Characters that MLflow takes in names everywhere, and its bounds.
_BAD = re.compile(r"[^\w .:/-]")
MAX_NAME, MAX_PARAM, MAX_TAG = 250, 6000, 5000
_METRICS = (
    "run_s", "cpu_s", "peak_memory_bytes", "attempts", "exit_code", "processes", "disk_read_bytes", "disk_write_bytes", "stdout_bytes",
    "stderr_bytes", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd", "tokens_per_s", "turns",
    "files_changed", "insertions", "deletions",
)  # fmt: skip
_STEP_METRICS = ("run_s", "cpu_s", "peak_memory_bytes", "input_tokens", "output_tokens", "cost_usd")
_TAGS = (
    "session", "session_id", "group_id", "status", "reason", "error_kind", "trace_id", "parent_run_id", "replay_of", "reused_from",
    "resumed_from", "cache_key", "model", "agent_session",
)  # fmt: skip
Figure = tuple[str, float, int, int]


class Notes:
    """What of a run is not in MLflow as it is here."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.cut: list[str] = []
        self.left_out: list[str] = []
        self.renamed: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._taken: set[tuple[str, str]] = set()

    def name(self, kind: str, name: str) -> str:
        """The name that a `kind` of thing (param, metric, tag, file) gets: itself, where MLflow takes it, and nobody's else."""
        if (kind, name) not in self._names:
            plain = _BAD.sub("_", name)[:MAX_NAME].strip()
            plain = plain if plain and posixpath.normpath(plain) == plain and not plain.startswith(("/", "..")) else plain.replace("/", "_")
            plain = plain if plain.strip("./ ") else "_"
            free, number = plain, 2
            while (kind, free) in self._taken:
                free, number = f"{plain[: MAX_NAME - 8]}_{number}", number + 1
            self._taken.add((kind, free))
            self._names[kind, name] = free
            if free != name:
                self.renamed[f"{kind} {free}"] = name
        return self._names[kind, name]

    def text(self, name: str, text: str, most: int) -> str:
        """The text, cut to `most` characters."""
        text = text.encode("utf-8", "replace").decode()
        if len(text) <= most:
            return text
        self.cut.append(f"{name} ({len(text)} characters)")
        return text[: most - 1] + "…"

    def tags(self) -> Iterator[tuple[str, str]]:
        """Tags that say so."""
        for name, value in (("cut", self.cut), ("left_out", self.left_out), ("renamed", self.renamed)):
            if value:
                yield f"agentnb.{name}", json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()[:MAX_TAG]


class Tracked:
    """One run; `name` is its name for MLflow."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        """`run`: its row, with `session`, its session's name."""
        self._run = run
        self.notes = Notes()
        self.name = str(run["name"] or run["id"]).encode("utf-8", "replace").decode()[:MAX_NAME]

    def params(self) -> Iterator[tuple[str, str]]:
        """Its parameters: texts as they are, anything else as JSON."""
        for name, value in _object(self._run["params"]).items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield self.notes.name("param", name), self.notes.text(f"param {name}", text, MAX_PARAM)

    def metrics(self, steps: Iterable[Mapping[str, Any]]) -> Iterator[Figure]:
        """(name, value, stamp in us, step): figures of the run, numbers of its output, and those of its steps by kind, numbered from 0."""
        run = self._run
        end = run["finished_at"] or 0
        found = {name: run[name] for name in _METRICS} | _durations(run) | _numbers(run["output"])
        yield from ((self.notes.name("metric", name), value, end, 0) for name, value in self._finite(found))
        numbers: dict[str, int] = {}
        for step in steps:
            kind = step["kind"] or "step"
            number = numbers[kind] = numbers.get(kind, -1) + 1
            start, until = step["started_at"], step["finished_at"]
            took = (until - start) / 1e6 if step["run_s"] is None and None not in (start, until) else step["run_s"]
            figures = {f"{kind}.{name}": step[name] for name in _STEP_METRICS} | {f"{kind}.run_s": took}
            yield from ((self.notes.name("metric", name), value, until or end, number) for name, value in self._finite(figures))

    def tags(self) -> Iterator[tuple[str, str]]:
        """What else is known of it; its own tags under their names."""
        run = self._run
        error = _object(run["error"]).get("message")
        found = {f"agentnb.{name}": run.get(name) for name in _TAGS} | {"agentnb.kind": run["target_kind"], "agentnb.error": error}
        found |= {"agentnb.command": run["command"], "mlflow.source.name": "agentnb"}
        own = _object(run["tags"])
        self.notes.left_out += [f"tag {name}: its name is taken" for name in own if name.startswith("agentnb.")]
        for name, value in ({name: value for name, value in own.items() if not name.startswith("agentnb.")} | found).items():
            if value is not None and value != "":
                text = value if isinstance(value, str) else json.dumps(value)
                yield self.notes.name("tag", name), self.notes.text(f"tag {name}", text, MAX_TAG)

    def _finite(self, found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        for name, value in found.items():
            if isinstance(value, int | float):
                if math.isfinite(number := _float(value)):
                    yield name, number
                else:
                    self.notes.left_out.append(f"metric {name}: {value}")


def _durations(run: Mapping[str, Any]) -> dict[str, float | None]:
    """queued_s and total_s as in runs_df; not of a run that was found dead with its supervisor, since nobody knows."""
    created, started, finished = run["created_at"], run["started_at"], run["finished_at"]
    if finished is None or created is None or _object(run["detail"]).get("discovered_at") is not None:
        return {}
    return {"total_s": max(finished - created, 0) / 1e6, "queued_s": max((started or finished) - created, 0) / 1e6}


def _numbers(output: str | None) -> dict[str, Any]:
    """The numbers of an output: itself, or those of its fields."""
    try:
        found = json.loads(output) if output else None
    except ValueError:
        return {}
    if isinstance(found, dict):
        return {f"output.{name}": value for name, value in found.items() if isinstance(value, int | float)}
    return {"output": found} if isinstance(found, int | float) else {}


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _object(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
