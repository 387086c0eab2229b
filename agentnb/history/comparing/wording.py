"""What a comparison says in words: ``B is 1.8x slower than A (1.6-2.1), 12 pairs``, and quantities with their units (pure)."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentnb.history.comparing.contrast import Contrast
from agentnb.history.comparing.resampling import ENOUGH

_LONGEST = 60
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared: its name, its unit ("s", "USD", "bytes", "1/s" or ""), whether it counts things, whether it is a rate (0 or 1)."""

    name: str
    unit: str = ""
    counts: bool = False
    rate: bool = False

    def words(self) -> tuple[str, str] | None:
        """What is said of more, and of less, of it; None for what is only higher or lower."""
        if self.unit == "s":
            return ("longer", "shorter") if self.name == "queued_s" else ("slower", "faster")
        return {"USD": ("dearer", "cheaper"), "bytes": ("larger", "smaller"), "1/s": ("faster", "slower")}.get(self.unit)

    def says(self, one: str, other: str, how: str, *, more: bool) -> str:
        """That `one` has more, or less, of it than `other`; `how`: how much, such as "1.8x", or "" to be told behind it."""
        much = f"{how} " if how else ""
        if words := self.words():
            return f"{one} is {much}{words[0] if more else words[1]} than {other}"
        if self.counts:
            return f"{one} has {much}{'more' if more else 'fewer'} {self.name} than {other}"
        return f"{self.name} is {much}{'higher' if more else 'lower'} for {one} than for {other}"


def unit_of(name: str, declared: str) -> str:
    """The unit of a metric: as declared, else by the usual endings of names."""
    if declared:
        return declared
    endings = {"_s": "s", "_usd": "USD", "_bytes": "bytes"}
    return "1/s" if name.endswith("_per_s") else next((unit for end, unit in endings.items() if name.endswith(end)), "")


def quantity(value: float | None, metric: Metric) -> str:
    """``0.24 s``, ``$0.0042``, ``1.5 MiB``, ``60 %``, ``12.3``; "" for None."""
    if value is None or not math.isfinite(value):
        return ""
    if metric.rate:
        return f"{100 * value:.0f} %"
    sign, size = "-" if value < 0 else "", abs(value)
    if metric.unit == "USD":
        return f"{sign}${size:,.2f}" if size == 0 or 1 <= size < 1e9 else f"{sign}${size:.3g}"
    if metric.unit == "bytes":
        power = min(int(math.log(size, 1024)), len(_SIZES) - 1) if size >= 1 else 0
        return f"{sign}{plain(size / 1024**power)} {_SIZES[power]}"
    return f"{sign}{plain(size)}{f' {metric.unit}' if metric.unit else ''}"


def span(low: float, high: float, metric: Metric) -> str:
    """Both ends of an interval, to the same place: ``0.75 to 7.26 s``, ``$0.01 to $0.02``, ``8 to 86 %``."""
    if metric.rate:
        return f"{100 * low:.0f} to {100 * high:.0f} %"
    if metric.unit in {"USD", "bytes"}:
        return f"{quantity(low, metric)} to {quantity(high, metric)}"
    whole = low == round(low) and high == round(high)
    digits = 0 if whole and abs(high) < 1e9 else _digits(max(abs(low), abs(high)))
    while digits < 12 and low > 0 and round(low, digits) == 0:
        digits += 1
    return f"{plain(low, digits)} to {plain(high, digits)}{f' {metric.unit}' if metric.unit else ''}"


def gap(low: float, high: float, metric: Metric) -> str:
    """An interval of differences; those of rates are points."""
    return f"{100 * low:.0f} to {100 * high:.0f}" if metric.rate else span(low, high, metric)


def _digits(size: float) -> int:
    """The decimal places that leave three digits which tell something."""
    return 3 if size == 0 or not math.isfinite(size) else max(0, 2 - math.floor(math.log10(size)))


def plain(value: float, digits: int | None = None) -> str:
    """Without an exponent where a person needs none: ``0.0123``, ``1.23``, ``12 345``; `digits`: so many places, not three that tell."""
    places = _digits(abs(value)) if digits is None else digits
    if places > 6 or abs(value) >= 1e9:
        return f"{value:.3g}"
    text = f"{value:,.{places}f}".replace(",", "\u202f")
    if digits is None and "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.removeprefix("-") if set(text) <= set("-0.") else text


def times(*values: float) -> list[str]:
    """Ratios, all with as many digits; enough of them that no bound above 1 reads 1."""
    digits = 2 if values[0] < 1.2 else 1 if values[0] < 10 else 0
    while digits < 4 and 1 < min(values) <= 1 + 0.5 / 10**digits:
        digits += 1
    return [f"{value:.{digits}f}" if value < 1e6 else f"{value:.2g}" for value in values]


def label(values: Sequence[Any], names: Sequence[Any]) -> str:
    """A group's name on one short line: its value (None: missing), or ``a=1, b=x``; what would turn the line around is kept apart."""
    texts = [_line(value) for value in values]
    text = texts[0] if len(texts) == 1 else ", ".join(f"{_line(name)}={text}" for name, text in zip(names, texts, strict=True))
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    turned = any(unicodedata.bidirectional(char) in {"R", "AL", "AN"} for char in text)
    return f"\u2068{text}\u2069" if turned else text


def _line(value: Any) -> str:
    if value is None:
        return "(missing)"
    try:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    except Exception:  # noqa: BLE001 - values of any class
        text = object.__repr__(value)
    return " ".join("".join(char if char.isprintable() else " " for char in text[: 8 * _LONGEST]).split()) or repr(text)


@dataclass(frozen=True, slots=True)
class Group:
    """What is said of a group: its name, its runs, how many failed, how many values enter, and their center as text."""

    name: str
    runs: int
    failures: int
    values: int
    center: str

    @property
    def trouble(self) -> str:
        """What is told of failures behind a sentence."""
        return f"; {self.failures} of {self.runs} failed" if self.failures else ""


def sentence(group: Group, base: Group, found: Contrast | None, metric: Metric) -> str:
    """What is to be said of `group`, whose contrast with `base` is `found`; None: it is the baseline itself."""
    if not group.values:
        return f"{group.name}: nothing to compare, no run has a value of {metric.name}{group.trouble}"
    if found is None:
        return f"{group.name} is the baseline: {group.center}, n={group.values}{group.trouble}"
    if not base.values:
        return f"{group.name}: nothing to compare it with, the baseline {base.name} has no value of {metric.name}{group.trouble}"
    least = min(group.values, base.values) if found.pairs is None else found.pairs
    if least < ENOUGH:
        few = f"n={least}" if found.pairs is None else f"{least} {'pair' if least == 1 else 'pairs'}"
        return f"{group.name} and {base.name}: too few to tell ({few}){group.trouble}"
    evidence = f"n={group.values} and {base.values}" if found.pairs is None else f"{least} pairs"
    return f"{_verdict(group, base, found, metric)}, {evidence}{group.trouble}"


def _verdict(group: Group, base: Group, found: Contrast, metric: Metric) -> str:
    ratio, low, high = found.ratio, found.ratio_low, found.ratio_high
    if ratio is None or low is None or high is None or low <= 0 or metric.rate:
        return _difference(group, base, found, metric)
    if low <= 1 <= high:
        _, *bounds = times(1.0, low, high)
        return f"{group.name} and {base.name}: no clear difference ({'-'.join(bounds)})"
    more = low > 1
    much, *bounds = times(ratio, low, high) if more else times(1 / ratio, 1 / high, 1 / low)
    return f"{metric.says(group.name, base.name, f'{much}x', more=more)} ({'-'.join(bounds)})"


def _difference(group: Group, base: Group, found: Contrast, metric: Metric) -> str:
    diff, low, high = found.diff, found.diff_low, found.diff_high
    if diff is None or low is None or high is None:
        return f"{group.name} and {base.name}: too far apart to tell"
    points = " points" if metric.rate else ""
    if low <= 0 <= high:
        return f"{group.name} and {base.name}: no clear difference ({gap(low, high, metric)}{points})"
    more = low > 0
    much, least, most = (diff, low, high) if more else (-diff, -high, -low)
    by = f"{100 * much:.0f} points" if metric.rate else quantity(much, metric)
    return f"{metric.says(group.name, base.name, '', more=more)} by {by} ({gap(least, most, metric)})"
