"""Groups of runs as strips of points with their medians and intervals (matplotlib, an extra)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from agentnb.errors import ConfigError
from agentnb.history.comparing.comparand import missing
from agentnb.history.comparing.compare import compare, points, told_of
from agentnb.history.comparing.resampling import ENOUGH, Bootstrap
from agentnb.history.comparing.wording import Metric, label, quantity, span, times
from agentnb.notebook import looks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from agentnb.history.comparing.resampling import Array

#: So many groups are drawn, points of each, lines between pairs, and groups that the text tells of.
MOST_GROUPS, MOST_POINTS, MOST_LINES, MOST_TOLD = 60, 400, 60, 8
#: From this ratio of the largest to the smallest value on, the axis is logarithmic.
_WIDE = 50
_POINT, _DARK, _LINE, _BOX = "#0072B2", "#111111", "#999999", "#555555"
_UNITS = {"s": "seconds", "USD": "US dollars", "1/s": "per second"}


def plot_compare(
    df: pd.DataFrame,
    by: Any,
    metric: Any = "run_s",
    *,
    ax: Axes | None = None,
    title: str | None = None,
    log: bool | None = None,
    **options: Any,
) -> Figure:
    """What ``compare`` compares, drawn: a row per group with all of its values, their median, its interval, and the ratio at the side.

    A box holds the middle half of the values (from 5 on), the thick line is the median, the bar through it its bootstrap interval; of a
    rate (bools, say) only the mean and its interval are drawn. Grey lines join pairs (up to 60). `log`: whether the axis is
    logarithmic; default: when all values are above zero and the largest is 50 times the smallest. `options` are those of ``compare``
    (`baseline`, `pair`, `paired`, `confidence` ...). `ax`: draw into these axes instead of a new figure. The first 60 groups are drawn, and
    of more than 400 values in one an even choice. The figure's `alt` says in words what it shows. Raises what ``compare`` raises, and
    RuntimeUnavailable without matplotlib.
    """
    if log is not None and not isinstance(log, bool):
        raise ConfigError(f"plot_compare: log={log!r} must be True or False")
    table = compare(df, by, metric, **options)
    entering = points(df, by, metric, **{name: options[name] for name in ("pair", "paired") if name in options})
    drawing = _Drawing(table, entering, options)
    axes = looks.new_axes("plot_compare", 9, 1.1 + 0.52 * max(len(drawing.names), 2)) if ax is None else ax
    if len(entering):
        drawing.draw(axes, log=log)
    else:
        looks.empty(axes, "no values to compare")
    axes.set_title(drawing.title if title is None else title, loc="left", parse_math=False, pad=24 if len(entering) else 6)
    figure = looks.figure_of(axes, "plot_compare")
    looks.describe(figure, drawing.told(axes.get_xscale() == "log"))
    return figure


class _Drawing:
    """What one such plot shows."""

    def __init__(self, table: pd.DataFrame, entering: pd.DataFrame, options: dict[str, Any]) -> None:
        self.table, self.told_of, self.entering = table, told_of(table), entering
        self.metric = Metric(self.told_of["metric"], self.told_of["unit"], rate=self.told_of["center"] == "rate")
        keys = [key if len(self.told_of["by"]) > 1 else (key,) for key in table.head(MOST_GROUPS).index]
        self.names = [label([None if missing(value) else value for value in key], self.told_of["by"]) for key in keys]
        group, value = entering["group"].to_numpy(), entering["value"].to_numpy()
        self.samples = [np.sort(value[group == place]) for place in range(len(self.names))]
        self._bootstrap = Bootstrap(self.told_of["confidence"], options.get("resamples", 2000), options.get("seed", 0))
        self.intervals = [self._interval(place) for place in range(len(self.names))]
        self.title = f"{self.metric.name} by {', '.join(self.told_of['by'])}"

    def _interval(self, place: int) -> tuple[float, float] | None:
        """The interval of a group's median (of a rate: of the mean)."""
        sample = self.samples[place]
        if len(sample) < ENOUGH:
            return None
        row = self.table.iloc[place]
        drawn = (
            (row["mean_low"], row["mean_high"])
            if self.metric.rate
            else self._bootstrap.interval(self._bootstrap.medians(sample), len(sample))
        )
        return None if any(bound is None or missing(bound) for bound in drawn) else (float(drawn[0]), float(drawn[1]))  # type: ignore[arg-type]

    def draw(self, axes: Axes, *, log: bool | None) -> None:
        """Draw all of it."""
        known = np.concatenate(self.samples)
        if log or (log is None and len(known) and known.min() > 0 and known.max() / known.min() >= _WIDE):
            axes.set_xscale("log", base=2 if self.metric.unit == "bytes" else 10)
        self._join(axes)
        for place, sample in enumerate(self.samples):
            if len(sample):
                self._strip(axes, place, sample)
            axes.text(1.01, place, self._side(place), transform=axes.get_yaxis_transform(), va="center", fontsize=8, parse_math=False)
        axes.set_yticks(range(len(self.names)), [self._row_label(place) for place in range(len(self.names))], fontsize=8, parse_math=False)
        axes.set_ylim(len(self.names) - 0.4, -0.6)
        self._label_values(axes)
        axes.use_sticky_edges = False  # else boxes and points at the ends touch the frame
        axes.margins(x=0.03)
        looks.dress(axes)
        looks.legend(axes, self._marks())

    def _marks(self) -> list[Any]:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        level, center = f"{100 * self.told_of['confidence']:g} %", "mean" if self.metric.rate else "median"
        marks: list[Any] = []
        if not self.metric.rate:
            marks += [
                Line2D([], [], color=_DARK, linewidth=2.2, label="median"),
                Patch(facecolor="none", edgecolor=_BOX, label="middle half"),
            ]
        if any(self.intervals):
            marks.append(Line2D([], [], color=_DARK, linewidth=1.4, marker="|", markersize=6, label=f"{level} interval of the {center}"))
        return marks + ([Line2D([], [], color=_LINE, linewidth=0.7, label="pairs")] if len(self._paired()) else [])

    def _strip(self, axes: Axes, place: int, sample: Array) -> None:
        center, interval = float(sample.mean() if self.metric.rate else np.median(sample)), self.intervals[place]
        marker = "s" if place == self.told_of["baseline"] else "o"
        if not self.metric.rate:
            shown = sample if len(sample) <= MOST_POINTS else sample[np.linspace(0, len(sample) - 1, MOST_POINTS).astype(int)]
            faint = 0.75 if len(shown) < 30 else 0.4
            axes.scatter(shown, place + self._shifts(len(shown)), s=16, marker=marker, color=_POINT, alpha=faint, linewidths=0, zorder=3)
            if len(sample) >= ENOUGH:
                low, high = np.quantile(sample, [0.25, 0.75])
                axes.barh(place, high - low, left=low, height=0.5, facecolor="none", edgecolor=_BOX, linewidth=0.8, zorder=2)
            axes.plot([center, center], [place - 0.3, place + 0.3], color=_DARK, linewidth=2.2, zorder=5)
        else:
            axes.plot([center], [place], marker=marker, markersize=8, color=_POINT, linestyle="none", zorder=5)
        if interval is not None:
            axes.errorbar(
                [sum(interval) / 2], [place if self.metric.rate else place + 0.36], xerr=[[(interval[1] - interval[0]) / 2]] * 2, **_WHISKER
            )

    def _shifts(self, count: int) -> Array:
        """Up and down, so that points which lie side by side are told apart; the same in every drawing."""
        if len(self._paired()):
            return np.zeros(count)  # lines end at points
        shifts: Array = ((np.arange(count) * 0.618034) % 1 - 0.5) * 0.36
        return shifts

    def _join(self, axes: Axes) -> None:
        """A line for each pair, through its groups from top to bottom."""
        paired = self._paired()
        for _, rows in paired.sort_values("group", kind="stable").groupby("pair", sort=False):
            axes.plot(rows["value"], rows["group"], color=_LINE, linewidth=0.7, alpha=0.8, zorder=1)

    def _paired(self) -> pd.DataFrame:
        """The points that are joined: none of a rate, where all lie on two spots, and none when they are too many."""
        joined = self.entering[(self.entering["pair"] >= 0) & (self.entering["group"] < len(self.names))]
        return joined.head(0) if self.metric.rate or joined["pair"].nunique() > MOST_LINES else joined

    def _side(self, place: int) -> str:
        row = self.table.iloc[place]
        if place == self.told_of["baseline"]:
            return "baseline"
        if missing(row["ratio"]) or self.metric.rate:
            return ""
        if missing(row["ratio_low"]):
            return f"{times(float(row['ratio']))[0]}x, too few to tell"
        ratio, low, high = times(float(row["ratio"]), float(row["ratio_low"]), float(row["ratio_high"]))
        return f"{ratio}x ({low}-{high})"

    def _row_label(self, place: int) -> str:
        row = self.table.iloc[place]
        failed = f", {row['failures']} failed" if row["failures"] else ""
        return f"{looks.short(self.names[place])}\nn={len(self.samples[place])}{failed}"

    def _label_values(self, axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter

        more = f"; the first {len(self.names)} of {len(self.table)} groups" if len(self.table) > len(self.names) else ""
        unit = f" ({_UNITS.get(self.metric.unit, self.metric.unit)})" if self.metric.unit else ""
        axes.set_xlabel(f"{self.metric.name}{unit}{more}", parse_math=False)
        if self.metric.rate:
            axes.set_xlim(-0.03, 1.03)
        if self.metric.rate or self.metric.unit in {"bytes", "USD"} or axes.get_xscale() == "log":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, self.metric)))

    def told(self, log: bool) -> str:  # noqa: FBT001
        """What the plot shows, in words and numbers."""
        unit = f" in {_UNITS.get(self.metric.unit, self.metric.unit)}" if self.metric.unit else ""
        kind = "Rates" if self.metric.rate else "Strips of points"
        pairs = f", in pairs of the same {', '.join(self.told_of['paired_by'])}" if self.told_of["paired_by"] else ""
        parts = [f"{kind}: {self.title}{unit}{pairs}{', on a logarithmic axis' if log else ''}; {len(self.table)} groups."]
        for place, sample in list(enumerate(self.samples))[:MOST_TOLD]:
            parts.append(f"{self._says(place, sample)} {self.table['sentence'].iloc[place]}.")
        if len(self.table) > MOST_TOLD:
            parts.append(f"And {len(self.table) - MOST_TOLD} more groups.")
        return " ".join(part for part in parts if part)

    def _says(self, place: int, sample: Array) -> str:
        if not len(sample):
            return ""
        low, high = quantity(float(sample[0]), self.metric), quantity(float(sample[-1]), self.metric)
        center = quantity(float(sample.mean() if self.metric.rate else np.median(sample)), self.metric)
        bounds = self.intervals[place]
        within = f" ({span(*bounds, self.metric)})" if bounds else ""
        spread = "" if self.metric.rate else f", values from {low} to {high}"
        return f"{self.names[place]}: {'mean' if self.metric.rate else 'median'} {center}{within}{spread}."


_WHISKER: dict[str, Any] = {"color": _DARK, "linewidth": 1.4, "capsize": 3, "fmt": "none", "zorder": 4}
