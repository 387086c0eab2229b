"""One run's steps as a waterfall: each on a row of its own, below the step that it belongs to (matplotlib, an extra)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.errors import ConfigError
from agentnb.events import now_us
from agentnb.history import reader
from agentnb.notebook import figures, looks
from agentnb.notebook.looks import EDGE, LIVE, LOOKS, UNKNOWN
from agentnb.notebook.snapshot import StepSnapshot
from agentnb.notebook.steps import StepLog, latest, tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from agentnb.events import Json

#: So many steps are drawn, the latest of a run.
MOST_STEPS = 150
_DEEPEST = 8
_LABEL = 44
_PITCH = 0.26
#: A replay that was played so many times faster than it was recorded has no times of its own left.
_TOO_FAST = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a step, how deep it lies, and when it was, in seconds since the run's start."""

    step: StepSnapshot
    depth: int
    start: float
    length: float


def waterfall(root: Path, run: str, *, ax: Axes | None = None, title: str | None = None) -> Figure:
    """The steps of the run that `run` means (id, name, or start of its id) in the store at `root`, from its history: also while it runs.

    Each step (turn, tool, child step, check, handler; attempts, when there were several) has a row, indented below the step it
    belongs to: its bar, in the colour and hatch of its status, its duration at the bar's end, tokens and cost at the side, and a word
    for what failed. The x axis is seconds since the run's start. Of a replay times are as recorded, as well as its speed lets
    them be known. `ax`: draw into these axes; `title`: instead of the run's name. The figure's `alt` says in words what it shows.
    Of a run with more than 150 steps the latest are drawn. Raises ConfigError when no run is meant, StoreError, RuntimeUnavailable
    without matplotlib.
    """
    record = reader.read_run(root, run)
    if record["reused_from"]:  # its steps are told again, all at once; when they were, only that run knows
        with suppress(ConfigError):
            record = reader.read_run(root, record["reused_from"]) | {"name": f"{record['name'] or record['id']} (reused)"}
    rows, total, guessed = _rows(root, record)
    axes = looks.new_axes("the waterfall", 9, 1.3 + max(len(rows), 2) * _PITCH) if ax is None else ax
    if rows:
        _draw(axes, rows)
        if guessed:
            axes.set_xlabel("seconds of steps as recorded; the times between them are not known")
    else:
        looks.empty(axes, "no steps yet" if record["status"] in LIVE else "this run has no steps")
    named = looks.short(record["name"] or record["id"], 80) if title is None else title
    axes.set_title(named, loc="left", parse_math=False, pad=24 if rows else 6)  # above the legend
    figure = looks.figure_of(axes, "waterfall")
    looks.describe(figure, _told(named, record, rows, total))
    return figure


def _rows(root: Path, record: Json) -> tuple[list[Row], int, bool]:
    """The rows, how many steps there are, and whether their times are only their order."""
    found, total = reader.read_last_steps(root, record["id"], MOST_STEPS)
    log = StepLog(len(found) + 1)
    log.take(found, total)
    shown = tree(log.shown()) or [(step, None, 0) for step in log.shown()]
    kept = {step.id for step in latest([step for step, *_ in shown], MOST_STEPS)}
    shown = [row for row in shown if row[0].id in kept]
    ends = {row["id"]: row["finished_at"] for row in found}
    speed, zero = _speed(record), (record["started_at"] or record["created_at"]) / 1e6
    zero = min([zero, *(step.started_at for step, *_ in shown if step.started_at is not None)])  # a first attempt is begun, then started
    if speed > _TOO_FAST or _played_at_once(record):
        starts = _in_order(shown, ends)
        return [Row(step, min(depth, _DEEPEST), starts[step.id], step.elapsed_s or 0.0) for step, _, depth in shown], total, True
    rows = []
    for step, _, depth in shown:
        start = ((step.started_at or zero) - zero) * speed
        passed = _end(record) - (step.started_at or zero) if step.elapsed_s is None else step.elapsed_s
        rows.append(Row(step, min(depth, _DEEPEST), start, max(passed, 0.0)))
    return rows, total, False


def _end(record: Json) -> float:
    """When a run ended, or now; seconds since the epoch."""
    return float(record["finished_at"] or now_us()) / 1e6


def _speed(record: Json) -> float:
    """How many times faster than recorded a replay was played; 1 for what is none."""
    if not record["replay_of"] or not record["run_s"] or not record["started_at"]:
        return 1.0
    passed = max(_end(record) - float(record["started_at"]) / 1e6, 1e-6)
    return float(record["run_s"]) / passed


def _played_at_once(record: Json) -> bool:
    """Whether it is a replay with speed=None, which the record of its spec leaves out."""
    return bool(record["replay_of"]) and (record["target"] or {}).get("spec", {}).get("speed") is None


def _in_order(shown: Sequence[tuple[StepSnapshot, str | None, int]], ends: dict[str, int | None]) -> dict[str, float]:
    """Starts by the order of events alone: a step follows those of its siblings that had ended before it began."""
    starts: dict[str, float] = {}
    siblings: dict[str | None, list[StepSnapshot]] = {}
    for step, parent, _ in shown:
        known = siblings.setdefault(parent, [])
        before = [other for other in known if (ends[other.id] or 0) / 1e6 <= (step.started_at or 0.0)]
        floor = starts.get(parent, 0.0) if parent is not None else 0.0
        starts[step.id] = max([floor, *(starts[other.id] + (other.elapsed_s or 0.0) for other in before)])
        known.append(step)
    return starts


def _draw(axes: Axes, rows: Sequence[Row]) -> None:
    from matplotlib.patches import Rectangle

    end = max(*(row.start + row.length for row in rows), 1e-3)
    for place, row in enumerate(rows):
        colour, hatch = LOOKS.get(row.step.status, UNKNOWN)
        height = 0.72 - 0.07 * min(row.depth, 4)
        corner = (row.start, place - height / 2)
        axes.add_patch(Rectangle(corner, row.length, height, facecolor=colour, edgecolor=EDGE, linewidth=0.6, hatch=hatch))
        axes.text(row.start + row.length + end * 0.008, place, _at_bar(row), va="center", fontsize=8, parse_math=False, color="#222222")
        axes.text(1.01, place, figures.step_used(row.step), transform=axes.get_yaxis_transform(), va="center", fontsize=8, color="#444444")
    live = [(row.start + row.length, place) for place, row in enumerate(rows) if row.step.status in LIVE]
    axes.plot([x for x, _ in live], [y for _, y in live], marker=">", linestyle="none", markersize=5, color="#111111")
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8, parse_math=False, ha="left")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, end * 1.16)
    looks.time_axis(axes, end, "the run began")
    looks.dress(axes)
    axes.tick_params(axis="y", length=0, pad=_widest(rows))
    looks.legend(axes, _marks(rows))


def _widest(rows: Sequence[Row]) -> float:
    """Room for labels that stand at the left, in points: eight-point letters are about 4.6 wide."""
    return max(len(_label(row)) for row in rows) * 4.6 + 6


def _label(row: Row) -> str:
    kind = figures.step_kind(row.step)
    name = looks.short(row.step.name or row.step.kind, _LABEL - 10)
    given = looks.short(row.step.input, max(_LABEL - len(name) - len(kind), 0)) if row.step.kind == "tool" else ""
    text = " ".join(part for part in (kind, name, given) if part)
    return "\u2003" * row.depth + looks.short(text, _LABEL)


def _at_bar(row: Row) -> str:
    """What is written at a bar's end: how long it took, and that it went wrong."""
    known = row.step.elapsed_s is not None or row.step.status in LIVE
    took = figures.duration(row.length) if known else "?"
    return took if row.step.status == "completed" else f"{took} {figures.shape(row.step.status)} {row.step.status}"


def _marks(rows: Sequence[Row]) -> list[Any]:
    from matplotlib.patches import Patch

    shown = {row.step.status for row in rows}
    return [Patch(facecolor=c, edgecolor=EDGE, hatch=h, label=status) for status, (c, h) in LOOKS.items() if status in shown]


def _told(name: str, record: Json, rows: Sequence[Row], total: int) -> str:
    """What the chart shows, in words and numbers."""
    passed = _end(record) - (record["started_at"] or record["created_at"]) / 1e6
    took = record["run_s"] if record["replay_of"] and record["run_s"] is not None else passed
    text = f"Waterfall of the run {looks.short(name, 80)}, {record['status']}, {figures.duration(took)}"
    if not rows:
        return f"{text}: no steps."
    last = f" (the last; there are {total})" if total > len(rows) + 1 else ""
    longest = max(rows, key=lambda row: (row.step.kind != "attempt", row.length))
    text += f": {len(rows)} {'step' if len(rows) == 1 else 'steps'}{last}: {looks.counted(row.step.status for row in rows)}."
    text += f" The longest was {looks.short(longest.step.name, 60)}, {figures.duration(longest.length)}."
    if failed := [row for row in rows if row.step.status in {"failed", "timeout"}]:
        text += f" Failed: {', '.join(looks.short(row.step.name, 40) for row in failed[:5])}{' and others' if len(failed) > 5 else ''}."
    tokens = " / ".join(figures.number(record[name]) or "?" for name in ("input_tokens", "output_tokens"))
    used = [f"{tokens} tokens" if tokens != "? / ?" else "", figures.money(record["cost_usd"])]
    return f"{text} In all: {', '.join(part for part in used if part)}." if any(used) else text
