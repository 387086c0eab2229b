"""The steps of a run as static HTML and as text (pure)."""

from __future__ import annotations

from html import escape

from agentnb.notebook import figures
from agentnb.notebook.snapshot import RunSnapshot, StepSnapshot
from agentnb.notebook.steps import latest, tree

#: So many steps, the latest, a saved notebook shows; text shows fewer.
HTML_STEPS = 200
TEXT_STEPS = 40
#: Steps that lie deeper are shown at this depth.
_DEEPEST = 12


def _cut(run: RunSnapshot, most: int) -> tuple[list[tuple[StepSnapshot, int]], str]:
    """The steps to show with their depths, and a line about all of them."""
    everything = tree(run.steps)
    shown = (
        {step.id for step in latest([step for step, *_ in everything], most)} if len(everything) > most else {s.id for s, *_ in everything}
    )
    told = figures.steps_told([step for step, *_ in everything], run.steps_cut)
    if len(shown) < len(everything):
        told += f"; the last {len(shown)} are shown"
    return [(step, min(depth, _DEEPEST)) for step, _, depth in everything if step.id in shown], told


def steps_html(run: RunSnapshot) -> str:
    """The tree of steps, each with children can be folded; "" when there is nothing worth showing."""
    steps, told = _cut(run, HTML_STEPS)
    if not steps:
        return ""
    parts: list[str] = []
    closing: list[tuple[int, str]] = []
    for n, (step, depth) in enumerate(steps):
        while closing and closing[-1][0] >= depth:
            parts.append(closing.pop()[1])
        parent = n + 1 < len(steps) and steps[n + 1][1] > depth
        parts.append(f"<li><details open><summary>{_step_html(step)}</summary><ul>" if parent else f"<li>{_step_html(step)}</li>")
        if parent:
            closing.append((depth, "</ul></details></li>"))
    parts += [end for _, end in reversed(closing)]
    return f'<details class="anb-tr" open><summary class="anb-m">{escape(told)}</summary><ul>{"".join(parts)}</ul></details>'


def _step_html(step: StepSnapshot) -> str:
    kind, given, trouble = figures.step_kind(step), figures.short(step.input, 120), figures.step_trouble(step)
    told = " · ".join(text for text in (figures.duration(step.elapsed_s), figures.step_used(step)) if text)
    known = f" anb-{step.status}" if step.status in figures.SHAPES else ""
    parts = [
        f'<span class="anb-st{known}">{escape(_status(step))}</span>',
        f'<span class="anb-m">{escape(kind)}</span>' if kind else "",
        f'<strong dir="auto">{escape(figures.short(step.name or step.kind, 80))}</strong>',
        f'<code dir="auto">{escape(given)}</code>' if given else "",
        f'<span class="anb-m">{escape(told)}</span>' if told else "",
        f'<span class="anb-e" dir="auto">{escape(figures.short(trouble, 200))}</span>' if trouble else "",
    ]
    return " ".join(part for part in parts if part)


def _status(step: StepSnapshot) -> str:
    status = figures.short(step.status, 20)
    return figures.shape(status) if status == "completed" else f"{figures.shape(status)} {status}"


def steps_text(run: RunSnapshot) -> list[str]:
    """The tree of steps as lines; empty when there is nothing worth showing."""
    steps, told = _cut(run, TEXT_STEPS)
    return ([f"  {told}"] if steps else []) + [f"  {'  ' * depth}{_step_text(step)}" for step, depth in steps]


def _step_text(step: StepSnapshot) -> str:
    trouble = figures.step_trouble(step)
    parts = [
        _status(step),
        figures.step_kind(step),
        figures.short(step.name or step.kind, 40),
        figures.short(step.input, 40),
        figures.duration(step.elapsed_s),
        figures.step_used(step),
        figures.short(f"error: {trouble}", 100) if trouble else "",
    ]
    return "  ".join(part for part in parts if part)
