"""The parts of a view as JSON (pure). All text is made here and in `figures`: a front end only counts seconds and sets text content."""

from __future__ import annotations

from typing import Any

from agentnb.notebook import figures
from agentnb.notebook.ansi import Line
from agentnb.notebook.budget import Budget
from agentnb.notebook.render import group_status
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot, StepSnapshot

Json = dict[str, Any]


def run_state(run: RunSnapshot) -> Json:
    """What the view of one run shows, as JSON. Stamps are the kernel's, seconds since the epoch."""
    return {
        "id": run.id,
        "name": figures.short(run.name or run.id, 160),
        "kind": figures.short(run.kind, 30),
        "command": figures.short(run.command, 400),
        "status": figures.short(run.status, 20),
        "shape": figures.shape(run.status),
        "done": run.done,
        **_times(run),
        "error": figures.short(run.error or "", 1000),
        "warnings": [figures.short(warning, 400) for warning in list(run.warnings)[:5]],
        "facts": figures.facts(run),
        "budget": budget_state(run.budget),
        "params": figures.params(run),
    }


def budget_state(budget: Budget | None) -> Json | None:
    """What a view shows of a budget, as JSON; `share`: how much of its bar is filled, 0 to 1."""
    if budget is None:
        return None
    return {"text": figures.budget_told(budget), "share": round(min(budget.share, 1.0), 3), "level": figures.budget_level(budget)}


def _times(run: RunSnapshot) -> Json:
    """The front end counts on from `started`; only what has ended has its time as text, so that a running run is no change."""
    if run.done or run.started_at is None:
        return {"started": None, "elapsed": figures.duration(run.elapsed_s) if run.done else ""}
    return {"started": run.started_at, "elapsed": ""}


def row_state(run: RunSnapshot, position: int) -> list[Any]:
    """What a row of the table shows, in the order of view_table.js: there may be thousands of them, so no names go with them.

    Id, position, name, parameters, status, started, elapsed, seconds it took, error, last output, what it uses now.
    """
    started = None if run.done else run.started_at
    took = round(run.elapsed_s, 3) if run.done and run.elapsed_s is not None and figures.duration(run.elapsed_s) else None
    times = (round(started, 2) if started is not None else None, figures.duration(run.elapsed_s) if run.done else "", took)
    name, status = figures.title(run, 80), figures.short(run.status, 20)
    said = (
        figures.short(run.error or "", 200),
        figures.latest(run, 160),
        figures.load(run),
        run.memories[-1] if run.memories and not run.done else None,
    )
    return [run.id, position, name, figures.params_line(run), status, *times, *said]


def head_state(group: GroupSnapshot) -> Json:
    """What the head of a group's or session's view shows, as JSON."""
    status = group_status(group)
    return {
        "id": group.id,
        "name": figures.short(group.name or group.id, 160),
        "kind": figures.short(group.kind, 30),
        "status": figures.short(status, 20),
        "shape": figures.shape(status),
        "done": group.done,
        "total": len(group.runs),
        "ended": sum(run.done for run in group.runs),
        "until": figures.ends_at(group.runs),
        "counts": [(figures.shape(name), figures.short(name, 20), count) for name, count in figures.counts(group.counts)],
        "facts": figures.totals(group),
        "budget": budget_state(group.budget),
    }


def step_state(step: StepSnapshot, parent: str | None, position: int) -> Json:
    """What the tree shows of a step, as JSON; `position`: its place among all, so that siblings can be put in order."""
    state: Json = {
        "id": step.id,
        "i": position,
        "parent": parent,
        "kind": figures.step_kind(step),
        "name": figures.short(step.name or step.kind, 80),
        "status": figures.short(step.status, 20),
        "shape": figures.shape(step.status),
        "done": step.done,
        "started": None if step.done else step.started_at,
        "elapsed": figures.duration(step.elapsed_s) if step.done else "",
        "used": figures.step_used(step),
        "brief": figures.short(step.input, 160),
        "error": figures.step_trouble(step),
        "input": block(step.input),
        "output": block(step.output),
    }
    return {name: value for name, value in state.items() if value not in (None, "")}


def block(text: str) -> str:
    """Untrusted text of several lines, without control characters."""
    return "\n".join(figures.short(line, 400) for line in text.strip("\n").split("\n")[:20]) if text else ""


def line_state(line: Line) -> Any:
    """A line as JSON: its text when it is plain stdout, else ``[stream, [[classes, text], …]]``."""
    if line.stream == "stdout" and not any(classes for classes, _ in line.spans):
        return line.text
    return [line.stream, [list(span) for span in line.spans]]
