"""A snapshot as static HTML, as text and as a mime bundle (pure).

The HTML stands alone: it is readable with every style stripped, as GitHub does it, and nothing in it comes from a process
without being escaped. Names and outputs use no heading elements, because front ends put those into the notebook's contents.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from agentnb.notebook import figures
from agentnb.notebook.ansi import MAX_LINES, Line, Screen
from agentnb.notebook.budget import Budget
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot, Snapshot
from agentnb.notebook.step_tree import steps_html, steps_text

MAX_ROWS = 50
TEXT_WIDTH = 100
TEXT_LINES = 20
_BAR = 12
#: Else front ends set what stands between two dollar signs as a formula.
_NO_MATHS = "mathjax_ignore tex2jax_ignore"
_TROUBLE = ("failed", "timeout", "interrupted", "cancelled")


@functools.cache
def asset(name: str) -> str:
    """The text of a file that lies beside this module."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def to_bundle(snapshot: Snapshot) -> dict[str, str]:
    """The static forms of `snapshot`: ``text/html`` and ``text/plain``."""
    return {"text/html": to_html(snapshot), "text/plain": to_text(snapshot)}


def shown_runs(runs: Sequence[RunSnapshot], limit: int) -> list[RunSnapshot]:
    """The runs to list: all of them, or `limit`, the failed ones first and then the unfinished ones."""
    if len(runs) <= limit:
        return list(runs)
    ranked = sorted(range(len(runs)), key=lambda i: (_TROUBLE.index(s) if (s := runs[i].status) in _TROUBLE else 4 + runs[i].done, i))
    return [runs[i] for i in ranked[:limit]]


# --- HTML ---------------------------------------------------------------------------------------------------------------


def to_html(snapshot: Snapshot, *, max_lines: int = MAX_LINES) -> str:
    """`snapshot` as self-contained HTML, with at most `max_lines` lines of output."""
    body = _run_html(snapshot, max_lines) if isinstance(snapshot, RunSnapshot) else _group_html(snapshot)
    palette = asset("palette.css") if 'class="anb-a' in body else ""
    return f'<style>{asset("static.css")}{palette}</style><div class="anb-s {_NO_MATHS}">{body}</div>'


def _status_html(status: str) -> str:
    word = figures.short(status, 20) or "unknown"
    known = f" anb-{word}" if word in figures.SHAPES else ""
    return f'<span class="anb-st{known}">{figures.shape(word)} {escape(word)}</span>'


def _facts_html(facts: Iterable[tuple[str, str]]) -> str:
    told = " · ".join(f'<span class="anb-m">{escape(label)}</span> {escape(text)}' for label, text in facts)
    return f"<p>{told}</p>" if told else ""


def _budget_html(budget: Budget | None) -> str:
    if budget is None:
        return ""
    level, filled = figures.budget_level(budget), round(_BAR * min(budget.share, 1.0))
    bar = f'<span class="anb-bb">{"▰" * filled}{"▱" * (_BAR - filled)}</span>'
    return f'<p class="anb-bu anb-b-{level}"><span class="anb-m">budget</span> {escape(figures.budget_told(budget))} {bar}</p>'


def _head_html(snapshot: Snapshot, status: str, extra: Iterable[str]) -> str:
    name = f'<strong dir="auto">{escape(figures.short(snapshot.name or snapshot.id, 160))}</strong>'
    parts = [_status_html(status), name, f'<span class="anb-m">{escape(figures.short(snapshot.kind, 30))}</span>', *map(escape, extra)]
    return f"<p>{' &nbsp;'.join(part for part in parts if part)}</p>"


def _run_html(run: RunSnapshot, max_lines: int) -> str:
    screen = Screen(max_lines)
    screen.feed(run.tail)
    parts = [_head_html(run, run.status, [figures.duration(run.elapsed_s)])]
    if run.command:
        parts.append(f'<p class="anb-m"><code dir="auto">{escape(figures.short(run.command, 400))}</code></p>')
    if run.error:
        parts.append(f'<p class="{_error_class(run)}" dir="auto">{escape(figures.short(run.error, 1000))}</p>')
    parts.extend(f'<p class="anb-w" dir="auto">{escape(figures.short(warning, 400))}</p>' for warning in list(run.warnings)[:5])
    parts += [_facts_html(figures.facts(run)), _budget_html(run.budget), _facts_html(figures.params(run)), steps_html(run)]
    if screen.lines:
        shown = sum(len(text.encode("utf-8", "replace")) for _, text in run.tail)
        cut = screen.first or shown < run.stdout_bytes + run.stderr_bytes
        parts.append('<p class="anb-m">The last lines of the output:</p>' if cut else "")
        parts.append(f"<pre>{chr(10).join(map(_line_html, screen.lines))}</pre>")
    elif run.done:
        parts.append('<p class="anb-m">No output.</p>')
    return "".join(parts)


def _error_class(run: RunSnapshot) -> str:
    return "anb-m" if run.status == "cancelled" else "anb-e"


def _line_html(line: Line) -> str:
    text = "".join(_span_html(classes, text) for classes, text in line.spans)
    return f'<span class="anb-err">{text}</span>' if line.stream == "stderr" else text


def _span_html(classes: str, text: str) -> str:
    if not classes:
        return escape(text)
    names = " ".join(f"anb-a-{name}" for name in classes.split())
    return f'<span class="{names}">{escape(text)}</span>'


def group_status(group: GroupSnapshot) -> str:
    """A group's or session's state in one word: its own, else made from its runs'."""
    if group.status:
        return figures.short(group.status, 20)
    found = group.counts
    if group.done:
        return next((name for name in _TROUBLE if found.get(name)), "completed")
    if any(found.get(name) for name in ("running", "cancelling")):
        return "running" if found.get("running") else "cancelling"
    return "running" if any(run.done for run in group.runs) else "pending"


def _group_html(group: GroupSnapshot) -> str:
    runs = shown_runs(group.runs, MAX_ROWS)
    counts = [(name, str(count)) for name, count in figures.counts(group.counts)]
    parts = [_head_html(group, group_status(group), [_runs_word(len(group.runs))])]
    parts += [_facts_html([*counts, *figures.totals(group)]), _budget_html(group.budget)]
    if not runs:
        return "".join([*parts, '<p class="anb-m">No runs yet.</p>'])
    with_params = any(run.params for run in runs)
    heads = ["Status", "Run", *(["Parameters"] if with_params else []), "Elapsed", "Last output"]
    cells = "".join(f"<th{_NUMERIC if head == 'Elapsed' else ''}>{head}</th>" for head in heads)
    rows = "".join(_row_html(run, with_params=with_params) for run in runs)
    parts.append(f'<div class="anb-x"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>')
    if len(runs) < len(group.runs):
        parts.append(f'<p class="anb-m">… and {len(group.runs) - len(runs)} more</p>')
    return "".join(parts)


_NUMERIC = ' class="anb-n"'
#: Where styles are stripped nothing else keeps a row short.
_CELL = 120


def _row_html(run: RunSnapshot, *, with_params: bool) -> str:
    middle = f'<td dir="auto">{escape(figures.params_line(run))}</td>' if with_params else ""
    last = (
        f'<td class="{_error_class(run)}" dir="auto">{escape(figures.short(run.error, _CELL))}</td>'
        if run.error
        else f'<td dir="auto"><code>{escape(figures.latest(run, _CELL))}</code></td>'
    )
    name = escape(figures.title(run, 60))
    elapsed = escape(figures.duration(run.elapsed_s))
    return f'<tr><td>{_status_html(run.status)}</td><td dir="auto">{name}</td>{middle}<td{_NUMERIC}>{elapsed}</td>{last}</tr>'


def _runs_word(count: int) -> str:
    return "1 run" if count == 1 else f"{figures.number(count)} runs"


# --- text ---------------------------------------------------------------------------------------------------------------


def to_text(snapshot: Snapshot) -> str:
    """`snapshot` as lines of at most TEXT_WIDTH columns, for terminals; no colours, no control characters."""
    lines = _run_text(snapshot) if isinstance(snapshot, RunSnapshot) else _group_text(snapshot)
    return "\n".join(fit(line, TEXT_WIDTH) for line in lines)


def columns(text: str) -> int:
    """How many terminal columns `text` takes."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def fit(text: str, width: int) -> str:
    """`text` cut to `width` columns, with an ellipsis where something is missing."""
    if columns(text) <= width:
        return text
    kept, used = "", 1
    for char in text:
        used += columns(char)
        if used > width:
            break
        kept += char
    return kept + "…"


def _run_text(run: RunSnapshot) -> list[str]:
    screen = Screen(max_lines=TEXT_LINES)
    screen.feed(run.tail)
    name = figures.title(run, 60)
    head = [f"{figures.shape(run.status)} {figures.short(run.status, 20)}", name, figures.duration(run.elapsed_s)]
    lines = ["  ".join(part for part in head if part)]
    if run.command:
        lines.append(f"  $ {figures.short(run.command, 400)}")
    if run.error:
        lines.append(f"  error: {figures.short(run.error, 400)}")
    lines.extend(f"  warning: {figures.short(warning, 400)}" for warning in list(run.warnings)[:5])
    lines.extend(_wrapped([f"{label} {text}" for label, text in figures.facts(run)]))
    lines.extend([f"  budget {figures.budget_told(run.budget)}"] if run.budget else [])
    lines.extend([f"  {figures.params_line(run)}"] if run.params else [])
    lines.extend(steps_text(run))
    lines.extend(f"  {'!' if line.stream == 'stderr' else '│'} {line.text}" for line in screen.lines)
    return lines


def _group_text(group: GroupSnapshot) -> list[str]:
    status = group_status(group)
    told = ", ".join(f"{count} {name}" for name, count in figures.counts(group.counts)) or "no runs yet"
    name = figures.short(group.name or group.id, 60)
    lines = [f"{figures.shape(status)} {status}  {name}  {_runs_word(len(group.runs))}: {told}"]
    totals = [f"{label} {text}" for label, text in figures.totals(group)]
    lines.extend(["  " + " · ".join(totals)] if totals else [])
    lines.extend([f"  budget {figures.budget_told(group.budget)}"] if group.budget else [])
    runs = shown_runs(group.runs, MAX_ROWS)
    rows = [
        (
            f"{figures.shape(run.status)} {figures.short(run.status, 12)}",
            fit(figures.title(run, 24), 30),
            fit(figures.params_line(run), 26),
            figures.duration(run.elapsed_s),
            figures.short(run.error or figures.latest(run, 100), 100),
        )
        for run in runs
    ]
    widths = [max((columns(row[i]) for row in rows), default=0) for i in range(4)]
    lines.extend("  " + "  ".join([*(_pad(row[i], widths[i]) for i in range(4) if widths[i]), row[4]]).rstrip() for row in rows)
    return lines + ([f"  … and {len(group.runs) - len(runs)} more"] if len(runs) < len(group.runs) else [])


def _wrapped(parts: list[str]) -> list[str]:
    lines: list[str] = []
    for part in parts:
        if lines and columns(lines[-1]) + columns(part) + 3 <= TEXT_WIDTH:
            lines[-1] += f" · {part}"
        else:
            lines.append(f"  {part}")
    return lines


def _pad(text: str, width: int) -> str:
    return text + " " * (width - columns(text))
