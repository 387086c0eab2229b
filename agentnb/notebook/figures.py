"""Numbers and states as people read them: ``3 m 04 s``, ``12.3 MiB``, ``✓ completed`` (pure)."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from typing import Any

from agentnb.notebook.ansi import last_line, plain
from agentnb.notebook.budget import NEARLY, Budget
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot, StepSnapshot

#: A shape for each status, so that colour is never the only sign. All are text glyphs, none an emoji.
SHAPES = {
    "pending": "○",
    "running": "◐",
    "active": "◐",
    "cancelling": "◌",
    "completed": "✓",
    "ended": "✓",
    "failed": "✗",
    "cancelled": "⊘",
    "timeout": "◷",
    "interrupted": "◇",
    "skipped": "\u2013",
}
#: The order in which counts are told: what goes on first, then what went wrong, then what is done.
ORDER = ("running", "cancelling", "pending", "failed", "timeout", "interrupted", "cancelled", "completed")
MAX_VALUE = 120
#: A parameter in a table, where several share a line.
_CELL_VALUE = 40
_BARS = "▁▂▃▄▅▆▇█"
_INDEX = re.compile(r" \[\d{1,9}\]\Z")
#: How many runs must have ended before the rest is estimated by them.
_ENOUGH = 2


def shape(status: str) -> str:
    """The shape of `status`; ``•`` for one that is not known."""
    return SHAPES.get(status, "•")


def duration(seconds: float | None) -> str:
    """``0.24 s``, ``1.2 s``, ``3 m 04 s``, ``2 h 05 m``, ``3 d 04 h``; "" for None."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    seconds = max(0.0, seconds)
    if round(seconds, 2) < 1:
        return f"{seconds:.2f} s"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours < 48 else f"{hours // 24} d {hours % 24:02d} h"


def size(count: int | None) -> str:
    """``512 B``, ``12.3 MiB``; "" for None."""
    if count is None:
        return ""
    value, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1023.95:
            break
        value, unit = value / 1024, bigger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def number(count: float | None) -> str:
    """``1 234``, grouped by narrow no-break spaces; "" for None."""
    return "" if count is None or not math.isfinite(count) else f"{count:,.0f}".replace(",", "\u202f")


def money(usd: float | None) -> str:
    """``$0.0042``, ``$1.25``; "" for None."""
    if usd is None or not math.isfinite(usd):
        return ""
    return f"${usd:.2f}" if usd == 0 or abs(usd) >= 0.1 else f"${usd:.4f}"


def budget_line(budget: Budget) -> str:
    """``$0.42 of $5 · 12k of 200k tokens · 3.0 s of 1 h 00 m``: what is spent of what is bounded."""
    spent, most = budget.spent, budget.bounds
    told = {
        "usd": lambda: f"{money(spent['usd'])} of ${most['usd']:g}",
        "tokens": lambda: f"{_rounded(spent['tokens'])} of {_rounded(most['tokens'])} tokens",
        "time": lambda: f"{duration(spent['time'])} of {duration(most['time'])}",
    }
    return " · ".join(told[name]() for name in most)


def budget_level(budget: Budget) -> str:
    """``spent`` when nothing is left, ``near`` past 80 %, else ``good``."""
    return "spent" if budget.exhausted else "near" if budget.share > NEARLY else "good"


def budget_told(budget: Budget) -> str:
    """The line with its state in words: ``budget $5.10 of $5: spent``."""
    state = {"spent": ": spent", "near": f": {100 * budget.share:.0f} %", "good": ""}[budget_level(budget)]
    return f"{budget_line(budget)}{state}"


def _rounded(count: float) -> str:
    """``950``, ``12k``, ``1.5M``: a count that people compare, not add up."""
    for unit, value in (("M", 1e6), ("k", 1e3)):
        if count >= value:
            return f"{count / value:.3g}{unit}" if count < 1000 * value else f"{count / value:,.0f}{unit}"
    return f"{count:.0f}"


def short(text: str, limit: int = MAX_VALUE) -> str:
    """Untrusted `text` on one line, without control characters, at most `limit` characters."""
    text = plain(text[: 8 * limit]).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def title(run: RunSnapshot, limit: int) -> str:
    """A run's name, or its id; a replay or a reused run is marked. What is cut is not the number at its end: ``a long na… [12]``."""
    name, mark = plain((run.name or run.id)[: 8 * MAX_VALUE]).strip(), " (reused)" if run.reused_from else " (replay)" * bool(run.replay_of)
    if (index := _INDEX.search(name)) is not None:
        name, mark = name[: index.start()], f"{index[0]}{mark}"
    return short(name, limit - len(mark)) + mark


def latest(run: RunSnapshot, limit: int) -> str:
    """What a row says of a run: what it waits for, else the last line of its output."""
    return short(f"waits {run.note}" if run.note else last_line(run.tail), limit)


def value(item: Any, limit: int = MAX_VALUE) -> str:
    """A parameter as text: strings as they are, the rest as JSON (or its repr)."""
    if isinstance(item, str):
        return short(item, limit)
    if isinstance(item, float) and math.isfinite(item):
        return f"{item:.6g}"
    try:
        return short(json.dumps(item, ensure_ascii=False), limit)
    except (TypeError, ValueError, RecursionError):
        return short(repr(item), limit)


def params(run: RunSnapshot, limit: int = 24) -> list[tuple[str, str]]:
    """The names and values of a run's parameters, bounded."""
    return [(short(str(name), 60), value(item)) for name, item in list(run.params.items())[:limit]]


def params_line(run: RunSnapshot) -> str:
    """The parameters on one line, cut: ``seconds=0.1 word=a b``."""
    return short(" ".join(f"{name}={short(text, _CELL_VALUE)}" for name, text in params(run, 8)), MAX_VALUE)


def facts(run: RunSnapshot) -> list[tuple[str, str]]:
    """What was measured, as (label, text), without what is not known."""
    tokens = " / ".join(number(n) or "?" for n in (run.input_tokens, run.output_tokens))
    rows = [
        ("replay of", short(run.replay_of or "", 40)),
        ("reused from", short(run.reused_from or "", 40)),
        ("waits", short(run.note)),
        ("attempt", str(run.attempt) if run.attempt > 1 else ""),
        ("exit", "" if run.exit_code is None else str(run.exit_code)),
        ("CPU", duration(run.cpu_s)),
        ("peak memory", size(run.peak_memory_bytes)),
        *_now(run),
        ("model", short(run.model or "", 40)),
        ("turns", number(run.turns)),
        ("tokens in / out", "" if run.input_tokens is None and run.output_tokens is None else tokens),
        ("tokens/s", "" if run.tokens_per_s is None else f"{run.tokens_per_s:.1f}"),
        ("cost", money(run.cost_usd)),
        ("output", size(run.stdout_bytes + run.stderr_bytes) if run.stdout_bytes + run.stderr_bytes else ""),
    ]
    return [(label, text) for label, text in rows if text]


def sparkline(values: Sequence[float], most: int = 16) -> str:
    """The last values as bars, ``▁▃▇``, from zero to the highest."""
    shown = list(values)[-most:]
    top = max(shown, default=0)
    return "".join(_BARS[min(int(len(_BARS) * value / top), len(_BARS) - 1)] if top > 0 else _BARS[0] for value in shown)


def load(run: RunSnapshot) -> str:
    """What a run uses now, in short: ``▁▃▇ 48.0 MiB``; "" where it is not read."""
    return f"{sparkline(run.memories, 8)} {size(run.memories[-1])}" if run.memories and not run.done else ""


def _now(run: RunSnapshot) -> list[tuple[str, str]]:
    """What a run that goes on uses now."""
    if run.done or not run.memories:
        return []
    cpu = f"{sparkline(run.cpu_percents)} {run.cpu_percents[-1]:.0f} %" if run.cpu_percents else ""
    return [("CPU now", cpu), ("memory now", f"{sparkline(run.memories)} {size(run.memories[-1])}")]


def step_used(step: StepSnapshot) -> str:
    """What a step used: ``1 234 / 56 tokens · $0.0012``; "" when nothing is known, or nothing was used."""
    if not (step.input_tokens or step.output_tokens or step.cost_usd):
        return ""
    tokens = " / ".join(number(n) or "?" for n in (step.input_tokens, step.output_tokens))
    known = step.input_tokens is not None or step.output_tokens is not None
    return " · ".join(text for text in (f"{tokens} tokens" if known else "", money(step.cost_usd)) if text)


def steps_told(steps: Sequence[StepSnapshot], cut: int) -> str:
    """``14 steps, 1 failed``, and how many earlier ones are not shown."""
    failed = sum(step.status in {"failed", "timeout"} for step in steps)
    told = "1 step" if len(steps) == 1 else f"{number(len(steps))} steps"
    return told + (f", {failed} failed" if failed else "") + (f"; {number(cut)} earlier ones are in the history" if cut else "")


def step_kind(step: StepSnapshot) -> str:
    """What a step is, where its name does not say so already."""
    kind = short(step.kind, 20)
    return "" if step.name.startswith(kind) else kind


def step_trouble(step: StepSnapshot) -> str:
    """Why a step did not succeed, as far as it says so."""
    if step.error:
        return short(step.error, 400)
    return f"exit code {step.exit_code}" if step.exit_code else ""


def ends_at(runs: Sequence[RunSnapshot], now: float | None = None) -> float | None:
    """When the last of these runs will have ended, if those that go on are like those that ended: an estimate, roughly rounded.

    Seconds since the epoch; None while too little is known.
    """
    now = time.time() if now is None else now
    took = [run.elapsed_s for run in runs if run.status in {"completed", "failed", "timeout"} and run.elapsed_s is not None]
    since = [now - run.started_at for run in runs if not run.done and run.started_at is not None]
    if len(took) < _ENOUGH or not since:
        return None
    mean = sum(took) / len(took)
    waiting = sum(not run.done for run in runs) - len(since)
    left = (sum(max(mean - passed, 0.1 * mean) for passed in since) + waiting * mean) / len(since)
    grain = max(1.0, left / 16)
    return math.ceil((now + left) / grain) * grain


def counts(found: dict[str, int]) -> list[tuple[str, int]]:
    """Counts by status in telling order, zeros left out."""
    told = [(short(name, 20) or "unknown", found[name]) for name in [*ORDER, *sorted(set(found) - set(ORDER))] if found.get(name)]
    return told[: 2 * len(ORDER)]


def totals(group: GroupSnapshot) -> list[tuple[str, str]]:
    """What several runs used together, as (label, text), without what is not known."""
    runs: Sequence[RunSnapshot] = group.runs
    cpu = [run.cpu_s for run in runs if run.cpu_s is not None]
    if group.kind == "session":  # the workers of its swarms are among its runs
        runs = [run for run in runs if run.kind != "swarm"]
    tokens = [n for run in runs for n in (run.input_tokens, run.output_tokens) if n is not None]
    cost = [run.cost_usd for run in runs if run.cost_usd is not None]
    rows = [
        ("CPU", duration(sum(cpu)) if cpu else ""),
        ("tokens", number(sum(tokens)) if tokens else ""),
        ("cost", money(sum(cost)) if cost else ""),
    ]
    return [(label, text) for label, text in rows if text]
