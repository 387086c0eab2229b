"""Runs and their steps on a time axis, as a matplotlib figure (an extra: ``pip install "agentnb[plot]"``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentnb.errors import ConfigError
from agentnb.notebook import figures, looks
from agentnb.notebook.looks import EDGE, LIVE, LOOKS, MARKERS, QUEUED, QUEUED_EDGE, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What a row is divided into: the run itself, and below it a lane for each level of steps that any run has.
_ROW, _LANE = 0.8, 0.55
_LANES = ("attempt", "step", "tool")
_MOST_LABELS = 200
_RETRY = "#666666"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in seconds since the first run was created; `kind`: "run", "queue" or a step's; `live`: it goes on."""

    row: float
    start: float
    length: float
    height: float
    status: str
    kind: str = "run"
    live: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """The time between two attempts of a run."""

    row: float
    start: float
    end: float


def timeline(runs_df: pd.DataFrame, steps_df: pd.DataFrame, *, ax: Axes | None = None, title: str | None = None) -> Figure:
    """A Gantt chart: one row per run of `runs_df`; first its waiting, light, then its running in its status's colour and hatch.

    Below that are its steps, thinner: a lane each for attempts (of runs that have more than one, with the waits between them dashed), for
    turns and other steps, and for tools; a marker at its start tells a step's kind by its shape. What goes on ends in an arrow.
    `runs_df` and `steps_df` are frames of the history (any selection of rows; steps of other runs are left out). The x axis is
    time since the first of the runs was created; a replay is as long as its playing took. `ax`: draw into these axes instead of a new
    figure. Without runs the figure says so. The bar of a run whose supervisor died goes up to finished_at, the last thing known of it.
    The figure's `alt` says in words what it shows. Raises RuntimeUnavailable without matplotlib, ConfigError for
    what is no such DataFrame, or holds a run twice.
    """
    looks.check_frame("timeline", "runs_df", runs_df, ("id", "name", "status", "created_at", "queued_s", "run_s"))
    looks.check_frame("timeline", "steps_df", steps_df, ("run_id", "status", "started_at", "run_s"))
    if (again := runs_df["id"].duplicated()).any():
        raise ConfigError(
            f"timeline: runs_df has the run {runs_df['id'][again].iloc[0]!r} more than once; use runs_df.drop_duplicates('id')"
        )
    drawing = _Drawing(runs_df, _steps_of(runs_df, steps_df))
    axes = looks.new_axes("the timeline", 9, drawing.height) if ax is None else ax
    if len(runs_df):
        drawing.draw(axes)
    else:
        looks.empty(axes, "no runs yet")
    if title:
        axes.set_title(title, loc="left", parse_math=False, pad=24 + 12 * drawing.legend_rows if len(runs_df) else 6)  # above the legend
    figure = looks.figure_of(axes, "timeline")
    looks.describe(figure, drawing.told(title))
    return figure


def _steps_of(runs: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """The steps of these runs that began, each with its lane; the only attempt of a run says nothing, and is left out."""
    mine = steps[steps["run_id"].isin(runs["id"]) & steps["started_at"].notna()]
    if "kind" not in mine:
        return mine.assign(kind="step", lane="step")
    kinds = mine["kind"].astype("object")
    attempts = kinds == "attempt"
    several = mine["run_id"].isin(mine["run_id"][attempts][mine["run_id"][attempts].duplicated()])
    lanes = kinds.where(kinds.isin(["attempt", "tool"]), "step")
    return mine.assign(kind=kinds, lane=lanes)[~attempts | several]


class _Drawing:
    """What one timeline shows."""

    def __init__(self, runs: pd.DataFrame, steps: pd.DataFrame) -> None:
        self.runs, self.steps = runs, steps
        present = set(steps["lane"])
        self.lanes = [lane for lane in _LANES if lane in present]
        self.pitch = min(0.32 + 0.1 * len(self.lanes), 9 / max(len(runs), 1) + 0.1, 29 / max(len(runs), 1))
        self.height = 1.3 + max(len(runs), 2) * self.pitch
        self.first = runs["created_at"].min() if len(runs) else None
        self.bars = list(self._run_bars()) + list(self._step_bars()) if len(runs) else []
        self.waits = list(self._waits())
        self.legend_rows = 0

    def _heights(self) -> tuple[float, float]:
        """The height of a run's own bar and of a lane, in rows."""
        own = _ROW / (1 + _LANE * len(self.lanes))
        return own, own * _LANE

    def _run_bars(self) -> Iterator[Bar]:
        with_steps, (own, _) = set(self.steps["run_id"]), self._heights()
        starts, queued, lengths = _seconds(self.runs["created_at"] - self.first), _lengths(self.runs["queued_s"]), _spans(self.runs)
        for row, (run, status, start, waited, ran) in enumerate(
            zip(self.runs["id"], self.runs["status"], starts, queued, lengths, strict=True)
        ):
            height = own if run in with_steps else _ROW
            middle = row - _ROW / 2 + height / 2
            yield Bar(middle, start, waited, height * 0.5, "pending", "queue", str(status) == "pending")
            if ran or status not in {"pending", "cancelled"}:
                yield Bar(middle, start + waited, ran, height, str(status), "run", str(status) in LIVE)

    def _step_bars(self) -> Iterator[Bar]:
        rows, (own, lane) = {run: row for row, run in enumerate(self.runs["id"])}, self._heights()
        tops = {name: -_ROW / 2 + own + lane * place for place, name in enumerate(self.lanes)}
        starts, lengths, steps = _seconds(self.steps["started_at"] - self.first), _spans(self.steps), self.steps
        for run, status, kind, on, start, ran in zip(
            steps["run_id"], steps["status"], steps["kind"], steps["lane"], starts, lengths, strict=True
        ):
            yield Bar(rows[run] + tops[on] + lane / 2, start, ran, lane * 0.8, str(status), str(kind), str(status) in LIVE)

    def _waits(self) -> Iterator[Wait]:
        """The times between attempts: from the end of one to the start of the next."""
        before: Bar | None = None
        for bar in sorted((bar for bar in self.bars if bar.kind == "attempt"), key=lambda bar: (bar.row, bar.start)):
            if before is not None and before.row == bar.row and bar.start > before.start + before.length:
                yield Wait(bar.row, before.start + before.length, bar.start)
            before = bar

    @property
    def end(self) -> float:
        """The end of the last bar."""
        return max((bar.start + bar.length for bar in self.bars), default=0.0)

    def draw(self, axes: Axes) -> None:
        """Draw all of it."""
        from matplotlib.patches import Rectangle

        for bar in self.bars:
            colour, hatch = (QUEUED, "") if bar.kind == "queue" else LOOKS.get(bar.status, UNKNOWN)
            edge, width = (QUEUED_EDGE, 0.5) if bar.kind == "queue" else (EDGE, 0.6)  # the edge keeps a bar of no length visible as a line
            corner = (bar.start, bar.row - bar.height / 2)
            axes.add_patch(Rectangle(corner, bar.length, bar.height, facecolor=colour, edgecolor=edge, linewidth=width, hatch=hatch))
        for wait in self.waits:
            axes.plot([wait.start, wait.end], [wait.row, wait.row], color=_RETRY, linestyle=(0, (2, 1.5)), linewidth=1.2)
        for kind in self._kinds():
            mine = [bar for bar in self.bars if bar.kind == kind]
            axes.plot([bar.start for bar in mine], [bar.row for bar in mine], **_marker(kind))
        live = [bar for bar in self.bars if bar.live and bar.kind in {"run", "queue"}]
        axes.plot([bar.start + bar.length for bar in live], [bar.row for bar in live], **_ARROW)
        self._dress(axes)

    def _kinds(self) -> list[str]:
        return [kind for kind in MARKERS if any(bar.kind == kind for bar in self.bars)]

    def _dress(self, axes: Axes) -> None:
        """Labels, axis, grid and legend."""
        every, names = -(-len(self.runs) // _MOST_LABELS), self.runs["name"]
        size = min(9.0, max(6.0, self.pitch * 72 * 0.62))
        axes.set_yticks(range(0, len(names), every), [looks.short(name) for name in names.iloc[::every]], fontsize=size, parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, self.end * 1.02 or 1)
        looks.time_axis(axes, self.end, "the first run was created")
        looks.dress(axes)
        marks = self._marks()
        self.legend_rows = (len(marks) - 1) // 6
        looks.legend(axes, marks)

    def _marks(self) -> list[Any]:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        shown = {bar.status for bar in self.bars if bar.kind != "queue"}
        waited = any(bar.kind == "queue" and bar.length for bar in self.bars)
        marks: list[Any] = [Patch(facecolor=QUEUED, edgecolor=QUEUED_EDGE, label="waiting")] if waited else []
        marks += [Patch(facecolor=c, edgecolor=EDGE, hatch=h, label=status) for status, (c, h) in LOOKS.items() if status in shown]
        marks += [Line2D([], [], label=kind, **_marker(kind)) for kind in self._kinds()]
        if self.waits:
            marks.append(Line2D([], [], color=_RETRY, linestyle=(0, (2, 1.5)), linewidth=1.2, label="waiting to retry"))
        if any(bar.live for bar in self.bars):
            marks.append(Line2D([], [], label="goes on", **_ARROW))
        return marks

    def told(self, title: str | None) -> str:
        """What the chart shows, in words and numbers."""
        named = f" of {looks.short(title, 80)}" if title else ""
        if self.runs.empty:
            return f"Timeline{named}: no runs yet."
        ran = [bar for bar in self.bars if bar.kind == "run"]
        text = f"Timeline{named}: {_many(len(self.runs), 'run')} within {figures.duration(self.end)}; {looks.counted(self.runs['status'])}."
        waited = [bar.length for bar in self.bars if bar.kind == "queue"]
        text += f" Waiting took at most {figures.duration(max(waited))}." if max(waited) else ""
        if ran:
            longest = max(ran, key=lambda bar: bar.length)
            name = looks.short(self.runs["name"].iloc[round(longest.row)])
            least = figures.duration(min(bar.length for bar in ran))
            text += f" Running took {least} to {figures.duration(longest.length)}; the longest was {name}."
        if kinds := self._kinds():
            text += f" Below the runs: {', '.join(_many(sum(bar.kind == kind for bar in self.bars), kind) for kind in kinds)}."
        if self.waits:
            spent = figures.duration(sum(wait.end - wait.start for wait in self.waits))
            text += f" Runs waited {_many(len(self.waits), 'time')} to retry, {spent} in all."
        return text


_ARROW: dict[str, Any] = {"marker": ">", "linestyle": "none", "markersize": 5, "color": "#111111"}


def _marker(kind: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"marker": MARKERS[kind], "linestyle": "none", "markersize": 4, "color": "#222222"}
    return shape | ({} if MARKERS[kind] == "|" else {"markerfacecolor": "white", "markeredgewidth": 0.8})


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}es" if what.endswith("h") else f"{count} {what}s"


def _seconds(spans: pd.Series[Any]) -> list[float]:
    return [float(value) for value in spans.dt.total_seconds()]


def _lengths(values: pd.Series[Any]) -> list[float]:
    return [float(value) for value in values.fillna(0.0)]


def _spans(rows: pd.DataFrame) -> list[float]:
    """How long each took, waits between its attempts included, as far as is known; a replay: how long it was played."""
    if not {"started_at", "finished_at"} <= set(rows.columns):
        return _lengths(rows["run_s"])
    return _lengths((rows["finished_at"] - rows["started_at"]).dt.total_seconds().fillna(rows["run_s"]))
