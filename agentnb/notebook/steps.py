"""The steps of one run, as its events and the history tell of them: the latest of them, as a tree (no front end)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from agentnb.events import Json, StepFinished, StepStarted, StepUsed
from agentnb.notebook.snapshot import StepSnapshot

#: So many steps of a run are kept for views; the history has them all.
MAX_STEPS = 500
MAX_TEXT = 600
#: What says most of a call comes first.
_TELLING = ("command", "file_path", "path", "pattern", "query", "url", "prompt", "description")


class StepLog:
    """The latest steps of a run, in the order in which they began. Fed with events and rows in any order; what ended stays ended."""

    def __init__(self, most: int = MAX_STEPS) -> None:
        """Keep at most `most` steps, and those that these belong to."""
        self._most = most
        self._steps: dict[str, StepSnapshot] = {}
        self._cut = 0
        self._shown: tuple[StepSnapshot, ...] | None = ()

    @property
    def cut(self) -> int:
        """How many earlier steps are not kept."""
        return self._cut

    def shown(self) -> tuple[StepSnapshot, ...]:
        """The steps; the same tuple until something changes."""
        if self._shown is None:
            self._shown = tuple(self._steps.values())
        return self._shown

    def started(self, event: StepStarted) -> None:
        """A step began."""
        if event.step_id in self._steps:
            return
        step = StepSnapshot(
            event.step_id,
            event.kind,
            event.name,
            parent_id=event.parent_id,
            started_at=event.at / 1e6,
            input=_given(event.kind, event.input),
        )
        self._steps[step.id] = step
        self._trim()
        self._shown = None

    def finished(self, event: StepFinished) -> None:
        """A step ended."""
        step = self._steps.get(event.step_id)
        if step is not None and not step.done:
            self._steps[step.id] = _ended(step, event)
            self._shown = None

    def used(self, event: StepUsed) -> None:
        """It became known what a step that has ended used."""
        step, tokens = self._steps.get(event.step_id), event.tokens or {}
        if step is not None and step.done:
            read, written = _count(tokens.get("input")), _count(tokens.get("output"))
            self._steps[step.id] = replace(
                step,
                input_tokens=step.input_tokens if read is None else read,
                output_tokens=step.output_tokens if written is None else written,
                cost_usd=step.cost_usd if event.cost_usd is None else event.cost_usd,
            )
            self._shown = None

    def take(self, rows: Iterable[Json], total: int) -> None:
        """Rows of the history (reader.read_last_steps), oldest first, of `total` in all; steps that began since stay behind them."""
        known, self._steps = self._steps, {row["id"]: _of_row(row) for row in rows}
        for step in known.values():
            if step.id not in self._steps or (step.done and not self._steps[step.id].done):
                self._steps[step.id] = step
        self._cut = max(total - len(self._steps), 0)
        self._trim()
        self._shown = None

    def _trim(self) -> None:
        if len(self._steps) > self._most:
            kept = latest(list(self._steps.values()), self._most)
            self._cut += len(self._steps) - len(kept)
            self._steps = {step.id: step for step in kept}


def _ended(step: StepSnapshot, event: StepFinished) -> StepSnapshot:
    tokens = event.tokens or {}
    took = event.run_s if event.run_s is not None else max(event.at / 1e6 - (step.started_at or event.at / 1e6), 0.0)
    return replace(
        step,
        status=event.status,
        elapsed_s=took,
        output=brief(event.output),
        error=cut(str((event.error or {}).get("message") or "")),
        exit_code=event.exit_code,
        input_tokens=_count(tokens.get("input")),
        output_tokens=_count(tokens.get("output")),
        cost_usd=event.cost_usd,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _of_row(row: Json) -> StepSnapshot:
    started, finished, took = row["started_at"], row["finished_at"], row["run_s"]
    if took is None and started is not None and finished is not None:
        took = max(finished - started, 0) / 1e6
    return StepSnapshot(
        row["id"],
        row["kind"] or "",
        row["name"] or "",
        row["status"],
        row["parent_id"],
        started / 1e6 if started is not None else None,
        took,
        _given(row["kind"], _decoded(row["input"])),
        brief(_decoded(row["output"])),
        cut(row["error"] or ""),
        row["exit_code"],
        row["input_tokens"],
        row["output_tokens"],
        row["cost_usd"],
    )


def _given(kind: str | None, value: Any) -> str:
    """What a step was given; of a worker of a swarm without the id of the run that did its work."""
    if kind == "worker" and isinstance(value, dict) and value.keys() == {"input", "run_id"}:
        value = value["input"]
    return brief(value)


def _decoded(text: str | None) -> Any:
    """JSON text that may have been cut."""
    for ending in ("", '"') if text else ():
        try:
            return json.loads(f"{text}{ending}")
        except ValueError:
            continue
    return text


def cut(text: str) -> str:
    """At most MAX_TEXT characters of `text`."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def brief(value: Any) -> str:
    """What a step was given, or gave, as text for people: one telling value, else ``name=value …``."""
    if value is None or (isinstance(value, dict | list) and not value):
        return ""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, dict):
        named = [name for name in _TELLING if name in value] + [name for name in value if name not in _TELLING]
        texts = [(str(name), brief(value[name])) for name in named[:12]]
        if len(texts) == 1:
            return texts[0][1]
        return cut(" ".join(f"{name}={text}" for name, text in texts if text))
    try:
        return cut(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return cut(repr(value))


def latest(steps: Sequence[StepSnapshot], most: int) -> list[StepSnapshot]:
    """The last `most` steps, with those that they belong to; in order."""
    if len(steps) <= most:
        return list(steps)
    by_id = {step.id: step for step in steps}
    kept: set[str] = set()
    for step in reversed(steps):
        chain, above = [step.id], step.parent_id
        while above in by_id and above not in kept and above not in chain:
            chain.append(above)
            above = by_id[above].parent_id
        if step.id in kept:
            continue
        if len(kept) + len(chain) > most and kept:
            break
        kept.update(chain[:most])
    return [step for step in steps if step.id in kept]


def tree(steps: Sequence[StepSnapshot]) -> list[tuple[StepSnapshot, str | None, int]]:
    """The steps that are worth showing, each below its parent: (step, its parent's id or None, its depth from 0), in reading order.

    Of a run that did nothing but run its one attempt there are none, and that one attempt is left out: its steps stand at the top.
    """
    attempts = [step for step in steps if step.kind == "attempt"]
    if len(steps) == len(attempts) <= 1:
        return []
    hidden = attempts[0].id if len(attempts) == 1 else None
    ids = {step.id for step in steps if step.id != hidden}
    below: dict[str | None, list[StepSnapshot]] = {}
    for step in steps:
        if step.id != hidden:
            below.setdefault(step.parent_id if step.parent_id in ids and step.parent_id != step.id else None, []).append(step)
    found: list[tuple[StepSnapshot, str | None, int]] = []
    todo: list[tuple[StepSnapshot, str | None, int]] = [(step, None, 0) for step in reversed(below.get(None, []))]
    while todo:
        step, parent, depth = todo.pop()
        found.append((step, parent, depth))
        todo += [(child, step.id, depth + 1) for child in reversed(below.pop(step.id, []))]
    return found
