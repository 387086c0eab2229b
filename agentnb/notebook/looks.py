"""What charts have in common: the look of each status, axes that notebooks show, labels that are text and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agentnb.errors import ConfigError, RuntimeUnavailable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: status -> (colour, hatch). The colours are Okabe and Ito's, told apart by colour-blind people; the hatch tells it without colour.
LOOKS: dict[str, tuple[str, str]] = {
    "completed": ("#009E73", ""),
    "running": ("#56B4E9", "..."),
    "failed": ("#D55E00", "xxx"),
    "timeout": ("#E69F00", "///"),
    "cancelled": ("#999999", "\\\\\\"),
    "interrupted": ("#CC79A7", "++"),
    "skipped": ("#DDDDDD", ""),
    "pending": ("#EEEEEE", ""),
}
UNKNOWN = ("#000000", "")
QUEUED, QUEUED_EDGE, EDGE = "#EEEEEE", "#BBBBBB", "#444444"
#: kind of step -> marker at its start: the shape tells the kind, the colour and hatch of its bar the status.
MARKERS = {"attempt": "|", "turn": "o", "tool": "D", "worker": "s", "branch": "v", "handler": "P", "check": "^"}
LIVE = frozenset({"pending", "running", "cancelling"})
_LONGEST = 32


def new_axes(what: str, width: float, height: float) -> Axes:
    """Axes of a Chart of that size in inches. Raises RuntimeUnavailable, naming the extra, without matplotlib."""
    try:
        from agentnb.notebook.chart import Chart
    except ImportError as missing:
        raise RuntimeUnavailable(f'{what} needs matplotlib: pip install "agentnb[plot]"') from missing
    return Chart(figsize=(width, height), layout="constrained").add_subplot()


def figure_of(axes: Any, what: str) -> Figure:
    """The figure of `axes`. Raises ConfigError when there is none."""
    figure: Figure | None = axes.get_figure(root=True)
    if figure is None:
        raise ConfigError(f"{what}: ax belongs to no figure; leave it out, or pass axes that do")
    return figure


def describe(figure: Figure, text: str) -> None:
    """Add `text` to what a figure says of itself: ``figure.alt``, also of one that is not ours, and may have more than one chart."""
    before = getattr(figure, "alt", "")
    object.__setattr__(figure, "alt", f"{before} {text}".strip())


def check_frame(what: str, name: str, df: Any, needed: Sequence[str]) -> None:
    """Raise ConfigError unless `df` is a DataFrame that has these columns, each once, and times where they belong."""
    columns = getattr(df, "columns", None)
    if columns is None:
        raise ConfigError(f"{what}: {name} is {type(df).__name__}, no DataFrame; give it what {name}() returns")
    if missing := [column for column in needed if column not in columns]:
        raise ConfigError(f"{what}: {name} lacks the column(s) {', '.join(missing)}; do not leave them out with columns=")
    if twice := [str(column) for column in columns[columns.duplicated()]]:
        raise ConfigError(f"{what}: {name} has more than one column {twice[0]!r}; keep one: df.loc[:, ~df.columns.duplicated()]")
    for column in ("created_at", "started_at", "finished_at"):
        if len(df) and column in columns and df[column].dtype.kind != "M":
            raise ConfigError(
                f"{what}: {name}[{column!r}] is {df[column].dtype}, no times; make them so with pandas.to_datetime(..., utc=True)"
            )


def short(name: object, most: int = _LONGEST) -> str:
    """A name on one short line; characters that no font can draw are left out."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def empty(axes: Axes, text: str) -> None:
    """Say that there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#666666")
    axes.set_axis_off()


def dress(axes: Axes) -> None:
    """The axes' frame and grid: light, so that the data are not."""
    axes.grid(axis="x", linewidth=0.4, color="#CCCCCC")
    axes.tick_params(axis="x", labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes: Axes, marks: Sequence[Any]) -> None:
    """A legend above the axes."""
    if marks:
        axes.legend(handles=list(marks), loc="lower left", bbox_to_anchor=(0, 1), ncols=6, frameon=False, fontsize=8, borderaxespad=0.2)


def counted(statuses: Iterable[object]) -> str:
    """``3 completed, 1 failed``: how many have each status."""
    counts: dict[str, int] = {}
    for status in statuses:
        counts[str(status)] = counts.get(str(status), 0) + 1
    return ", ".join(f"{count} {status}" for status, count in counts.items())


#: Distances of ticks on axes of more than five minutes, in seconds.
_DISTANCES = (60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400)


def time_axis(axes: Axes, span: float, since: str) -> None:
    """Label the x axis, which holds seconds: as seconds, or from five minutes on as hours and minutes."""
    if span < 300:
        axes.set_xlabel(f"seconds since {since}")
        return
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    distance = next((step for step in _DISTANCES if span / step <= 12), 86400 * -(-int(span) // (12 * 86400)))
    axes.xaxis.set_major_locator(MultipleLocator(distance))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02d}"))
    axes.set_xlabel(f"hours:minutes since {since}")
