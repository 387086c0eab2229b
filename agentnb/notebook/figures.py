"""Numbers and states as people read them: ``3 m 04 s``, ``12.3 MiB``, ``✓ completed`` (pure)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from agentnb.notebook.ansi import plain
from agentnb.notebook.snapshot import RunSnapshot

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
}
#: The order in which counts are told: what goes on first, then what went wrong, then what is done.
ORDER = ("running", "cancelling", "pending", "failed", "timeout", "interrupted", "cancelled", "completed")
MAX_VALUE = 120


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


def short(text: str, limit: int = MAX_VALUE) -> str:
    """Untrusted `text` on one line, without control characters, at most `limit` characters."""
    text = plain(text[: 8 * limit]).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


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
    """The parameters on one line: ``seconds=0.1 word=a b``."""
    return short(" ".join(f"{name}={text}" for name, text in params(run, 8)), 160)


def facts(run: RunSnapshot) -> list[tuple[str, str]]:
    """What was measured, as (label, text), without what is not known."""
    tokens = " / ".join(number(n) or "?" for n in (run.input_tokens, run.output_tokens))
    rows = [
        ("attempt", str(run.attempt) if run.attempt > 1 else ""),
        ("exit", "" if run.exit_code is None else str(run.exit_code)),
        ("CPU", duration(run.cpu_s)),
        ("peak memory", size(run.peak_memory_bytes)),
        ("tokens in / out", "" if run.input_tokens is None and run.output_tokens is None else tokens),
        ("tokens/s", "" if run.tokens_per_s is None else f"{run.tokens_per_s:.1f}"),
        ("cost", money(run.cost_usd)),
        ("output", size(run.stdout_bytes + run.stderr_bytes) if run.stdout_bytes + run.stderr_bytes else ""),
    ]
    return [(label, text) for label, text in rows if text]


def counts(found: dict[str, int]) -> list[tuple[str, int]]:
    """Counts by status in telling order, zeros left out."""
    told = [(short(name, 20) or "unknown", found[name]) for name in [*ORDER, *sorted(set(found) - set(ORDER))] if found.get(name)]
    return told[: 2 * len(ORDER)]


def totals(runs: Iterable[RunSnapshot]) -> list[tuple[str, str]]:
    """What several runs used together, as (label, text), without what is not known."""
    runs = list(runs)
    cpu = [run.cpu_s for run in runs if run.cpu_s is not None]
    tokens = [n for run in runs for n in (run.input_tokens, run.output_tokens) if n is not None]
    cost = [run.cost_usd for run in runs if run.cost_usd is not None]
    rows = [
        ("CPU", duration(sum(cpu)) if cpu else ""),
        ("tokens", number(sum(tokens)) if tokens else ""),
        ("cost", money(sum(cost)) if cost else ""),
    ]
    return [(label, text) for label, text in rows if text]
