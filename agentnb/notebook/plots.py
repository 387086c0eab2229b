"""Runs and steps on a time axis, as a matplotlib figure (an extra: ``pip install "agentnb[plot]"``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentnb.errors import ConfigError, RuntimeUnavailable

if TYPE_CHECKING:
    import pandas as pd
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
_UNKNOWN = ("#000000", "")
_QUEUED = "#EEEEEE"
_EDGE = "#444444"

#: Heights in parts of a row; a run's bar gets thinner when its steps are drawn below it.
_RUN_HEIGHT, _STEP_HEIGHT = 0.72, 0.28
_MOST_LABELS = 200
_LONGEST_LABEL = 32


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in seconds since the first run was created."""

    row: float
    start: float
    length: float
    height: float
    status: str
    queued: bool = False


def timeline(runs_df: pd.DataFrame, steps_df: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Figure:
    """A Gantt chart: one row per run of `runs_df`, waiting light, running in its status's colour and hatch, its steps thinner below.

    `runs_df` and `steps_df` are frames of agentnb.history.frames (any selection of rows; steps of other runs are left out). The x axis
    is seconds since the first of the runs was created. `ax`: draw into these axes instead of a new figure. Without runs the figure says so.
    A bar whose run_s is NA, because its supervisor died meanwhile, goes up to finished_at, the last thing known of it.
    Raises RuntimeUnavailable without matplotlib, ConfigError for what is no such DataFrame, or holds a run twice.
    """
    _check(runs_df, ("id", "name", "status", "created_at", "queued_s", "run_s"), "runs_df")
    _check(steps_df, ("run_id", "status", "started_at", "run_s"), "steps_df")
    axes = _axes(len(runs_df)) if ax is None else ax
    bars = list(_bars(runs_df, steps_df))
    if len(runs_df):
        for bar in bars:
            _draw(axes, bar)
        _dress(axes, runs_df, bars)
    else:
        axes.text(0.5, 0.5, "no runs yet", ha="center", va="center", transform=axes.transAxes, color="#666666")
        axes.set_axis_off()
    if title:
        axes.set_title(title, loc="left", parse_math=False, pad=24 if len(runs_df) else 6)  # above the legend
    return _figure(axes)


def _check(df: Any, needed: Sequence[str], what: str) -> None:
    columns = getattr(df, "columns", None)
    if columns is None:
        raise ConfigError(f"timeline: {what} is {type(df).__name__}, no DataFrame; give it what {what}() returns")
    if missing := [name for name in needed if name not in columns]:
        raise ConfigError(f"timeline: {what} lacks the column(s) {', '.join(missing)}; do not leave them out with columns=")
    if twice := [str(name) for name in columns[columns.duplicated()]]:
        raise ConfigError(f"timeline: {what} has more than one column {twice[0]!r}; keep one: df.loc[:, ~df.columns.duplicated()]")
    for name in ("created_at", "started_at", "finished_at"):
        if len(df) and name in columns and df[name].dtype.kind != "M":
            raise ConfigError(
                f"timeline: {what}[{name!r}] is {df[name].dtype}, no times; make them so with pandas.to_datetime(..., utc=True)"
            )
    if what == "runs_df" and (again := df["id"].duplicated()).any():
        raise ConfigError(f"timeline: runs_df has the run {df['id'][again].iloc[0]!r} more than once; use runs_df.drop_duplicates('id')")


def _axes(rows: int) -> Axes:
    try:
        from agentnb.notebook.chart import Chart
    except ImportError as missing:
        raise RuntimeUnavailable('the timeline needs matplotlib: pip install "agentnb[plot]"') from missing
    return Chart(figsize=(9, 1.1 + max(rows, 2) * _pitch(rows)), layout="constrained").add_subplot()


def _pitch(rows: int) -> float:
    """The height of a row in inches: comfortable for a few, still legible for 200, and never a figure beyond 30 inches."""
    return min(0.34, 9 / max(rows, 1) + 0.1, 29 / max(rows, 1))


def _figure(axes: Axes) -> Figure:
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ConfigError("timeline: ax belongs to no figure; leave it out, or pass axes that do")
    return figure


def _bars(runs: pd.DataFrame, steps: pd.DataFrame) -> Iterator[Bar]:
    if runs.empty:
        return
    first = runs["created_at"].min()
    rows = {run: row for row, run in enumerate(runs["id"])}
    mine = steps[steps["run_id"].isin(list(rows)) & steps["started_at"].notna()]
    with_steps = set(mine["run_id"])
    starts = _seconds(runs["created_at"] - first)
    for (run, row), status, start, queued, ran in zip(
        rows.items(), runs["status"], starts, _lengths(runs["queued_s"]), _spans(runs), strict=True
    ):
        height = _RUN_HEIGHT - (_STEP_HEIGHT if run in with_steps else 0)
        middle = row - (_STEP_HEIGHT / 2 if run in with_steps else 0)
        yield Bar(middle, start, queued, height * 0.5, "pending", queued=True)
        if ran or status not in {"pending", "cancelled"}:
            yield Bar(middle, start + queued, ran, height, str(status))
    for run, status, start, ran in zip(mine["run_id"], mine["status"], _seconds(mine["started_at"] - first), _spans(mine), strict=True):
        yield Bar(rows[run] + (_RUN_HEIGHT - _STEP_HEIGHT) / 2, start, ran, _STEP_HEIGHT * 0.8, str(status))


def _seconds(spans: pd.Series[Any]) -> list[float]:
    return [float(value) for value in spans.dt.total_seconds()]


def _lengths(values: pd.Series[Any]) -> list[float]:
    return [float(value) for value in values.fillna(0.0)]


def _spans(rows: pd.DataFrame) -> list[float]:
    """How long each ran, as far as is known."""
    if not {"started_at", "finished_at"} <= set(rows.columns):
        return _lengths(rows["run_s"])
    return _lengths(rows["run_s"].fillna((rows["finished_at"] - rows["started_at"]).dt.total_seconds()))


def _draw(axes: Axes, bar: Bar) -> None:
    colour, hatch = LOOKS.get(bar.status, _UNKNOWN)
    if bar.queued:
        axes.barh(bar.row, bar.length, left=bar.start, height=bar.height, color=_QUEUED, edgecolor="#BBBBBB", linewidth=0.5)
        return
    # The edge keeps a bar of no length visible as a line.
    axes.barh(bar.row, bar.length, left=bar.start, height=bar.height, color=colour, edgecolor=_EDGE, linewidth=0.6, hatch=hatch)


def _dress(axes: Axes, runs: pd.DataFrame, bars: Sequence[Bar]) -> None:
    """Labels, axis, grid and legend."""
    every = -(-len(runs) // _MOST_LABELS)
    size = min(9.0, max(6.0, _pitch(len(runs)) * 72 * 0.62))
    axes.set_yticks(range(0, len(runs), every), [_label(name) for name in runs["name"].iloc[::every]], fontsize=size, parse_math=False)
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.set_xlim(left=0)
    if not any(bar.length for bar in bars):
        axes.set_xlim(0, 1)
    axes.set_xlabel("seconds since the first run was created")
    axes.grid(axis="x", linewidth=0.4, color="#CCCCCC")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, bars)


def _legend(axes: Axes, bars: Sequence[Bar]) -> None:
    from matplotlib.patches import Patch

    shown = {bar.status for bar in bars if not bar.queued}
    waited = any(bar.queued and bar.length for bar in bars)
    marks = [Patch(facecolor=_QUEUED, edgecolor="#BBBBBB", label="waiting")] if waited else []
    marks += [Patch(facecolor=c, edgecolor=_EDGE, hatch=h, label=status) for status, (c, h) in LOOKS.items() if status in shown]
    axes.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=max(len(marks), 1), frameon=False, fontsize=8, borderaxespad=0.2
    )


def _label(name: object) -> str:
    """A run's name on one short line; characters that no font can draw are left out."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
