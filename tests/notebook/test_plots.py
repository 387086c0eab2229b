from __future__ import annotations

import gc
import io
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.states import RunStatus, StepStatus

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from agentnb.notebook.looks import LOOKS
from agentnb.notebook.plots import timeline
from tests.notebook.drawing import drawn

STATUSES = [str(status) for status in RunStatus]


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """Matplotlib keeps the fonts that it opened first; that is no leak of the test that happened to come first."""
    timeline(some_runs(0), some_steps(0)).savefig(io.BytesIO())


def some_runs(count: int, names: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame({
        "id": [f"r{n}" for n in range(count)],
        "name": names or [f"run {n}" for n in range(count)],
        "status": pd.Categorical([STATUSES[n % len(STATUSES)] for n in range(count)], categories=STATUSES),
        "created_at": pd.to_datetime(pd.Series(range(count)), unit="s", utc=True),
        "queued_s": [0.5] * count,
        "run_s": [None if STATUSES[n % len(STATUSES)] == "pending" else 2.0 for n in range(count)],
    })  # fmt: skip


def run_of(steps: list[tuple[str, str, float, float | None]], status: str = "completed", end: float | None = 10.0) -> Figure:
    """The timeline of one run with these steps: (kind, status, start, end)."""
    runs = some_runs(1).assign(status=status, queued_s=1.0, run_s=3.0, started_at=stamps([1.0]), finished_at=stamps([end]))
    kinds, states, starts, ends = zip(*steps, strict=True)
    mine = {"run_id": "r0", "kind": kinds, "status": states, "started_at": stamps(starts), "finished_at": stamps(ends), "run_s": 0.5}
    return timeline(runs, pd.DataFrame(mine))


def stamps(seconds: Sequence[float | None]) -> pd.DatetimeIndex:
    """Seconds since the first run as times."""
    return pd.to_datetime(pd.Series(list(seconds), dtype="float64"), unit="s", utc=True)  # type: ignore[return-value]


def boxes(figure: Figure) -> list[tuple[float, float, float]]:
    """Start, end and middle of each bar."""
    found = [(p.get_x(), p.get_x() + p.get_width(), p.get_y() + p.get_height() / 2) for p in figure.axes[0].patches]  # type: ignore[attr-defined]
    return [(round(a, 3), round(b, 3), round(c, 3)) for a, b, c in found]


def some_steps(count: int) -> pd.DataFrame:
    return pd.DataFrame({
        "run_id": [f"r{n}" for n in range(count)],
        "status": ["completed"] * count,
        "started_at": pd.to_datetime(pd.Series([n + 0.5 for n in range(count)], dtype="float64"), unit="s", utc=True),
        "run_s": [1.0] * count,
    })  # fmt: skip


def texts(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    legend = axes.get_legend()
    return [t.get_text() for t in (*axes.texts, *axes.get_yticklabels(), *(legend.get_texts() if legend else ()))]


def test_every_run_has_its_waiting_part_and_its_bar_in_seconds_since_the_first() -> None:
    figure = timeline(some_runs(3), some_steps(0), title="a title")
    bars = [(round(p.get_x(), 3), round(p.get_width(), 3)) for p in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert bars == [(0.0, 0.5), (1.0, 0.5), (1.5, 2.0), (2.0, 0.5), (2.5, 2.0)]
    assert "run 2" in texts(figure)
    assert figure.axes[0].get_title(loc="left") == "a title"
    assert drawn(figure).startswith(b"\x89PNG")


def test_steps_are_thinner_and_steps_of_other_runs_are_left_out() -> None:
    runs = some_runs(2)
    figure = timeline(runs, some_steps(5))
    heights = sorted({round(p.get_height(), 3) for p in figure.axes[0].patches})  # type: ignore[attr-defined]
    assert len(figure.axes[0].patches) == 2 + 1 + 2
    assert heights[-1] > heights[0]


def test_every_status_has_its_own_look_without_colour_as_well() -> None:
    assert set(LOOKS) == set(STATUSES) | {str(status) for status in StepStatus}
    loud = [LOOKS[status] for status in STATUSES if status != "pending"]
    assert len({colour for colour, _ in loud}) == len({hatch for _, hatch in loud}) == len(loud)
    assert {"completed", "failed", "waiting"} <= set(texts(timeline(some_runs(7), some_steps(0))))


@pytest.mark.parametrize("count", [1, 2, 60, 200, 1000])
def test_any_number_of_runs_draws_without_a_warning_into_a_figure_of_sensible_size(count: int) -> None:
    figure = timeline(some_runs(count), some_steps(0))
    assert figure.get_figheight() <= 31
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) <= 200
    assert min(float(label.get_fontsize()) for label in labels) >= 6
    if count <= 200:
        assert len(labels) == count
        drawn(figure)


def test_no_runs_is_said() -> None:
    figure = timeline(some_runs(0), some_steps(0))
    assert "no runs yet" in texts(figure)
    drawn(figure)


def test_names_are_text_and_nothing_else() -> None:
    names = ["$\\frac{", "a\nb\x00\x1b[31m", "x" * 500, "_hidden"]
    figure = timeline(some_runs(4, names), some_steps(0), title="$\\bad")
    drawn(figure)
    shown = texts(figure)
    assert "$\\frac{" in shown
    assert "a b [31m" in shown
    assert max(map(len, shown)) <= 32


def test_runs_without_any_length_still_show() -> None:
    runs = some_runs(2).assign(queued_s=0.0, run_s=0.0, status="failed", created_at=pd.Timestamp(0, unit="s", tz="UTC"))
    figure = timeline(runs, some_steps(0))
    assert len(figure.axes[0].patches) == 4
    drawn(figure)


def test_it_draws_into_given_axes() -> None:
    axes = Figure().add_subplot()
    assert timeline(some_runs(2), some_steps(1), ax=axes) is axes.figure


def test_a_figure_is_gone_when_nobody_holds_it() -> None:
    gone = weakref.ref(timeline(some_runs(2), some_steps(1)))
    gc.collect()
    assert gone() is None


def test_pyplot_is_never_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, pandas as pd; from agentnb.notebook.plots import timeline\n"
        "runs = pd.DataFrame({'id': [], 'name': [], 'status': [], 'created_at': [], 'queued_s': [], 'run_s': []})\n"
        "timeline(runs, pd.DataFrame({'run_id': [], 'status': [], 'started_at': [], 'run_s': []}))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout == "False\n"


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ConfigError, match="runs_df lacks the column.s. run_s"):
        timeline(some_runs(1).drop(columns="run_s"), some_steps(0))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "matplotlib" or n.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "agentnb.notebook.chart", raising=False)
    with pytest.raises(RuntimeUnavailable, match=r'pip install "agentnb\[plot\]"'):
        timeline(some_runs(1), some_steps(0))


@pytest.mark.parametrize(
    ("runs", "steps", "message"),
    [
        (None, some_steps(1), "runs_df is NoneType, no DataFrame"),
        (some_runs(1), None, "steps_df is NoneType, no DataFrame"),
        ([1], some_steps(1), "runs_df is list, no DataFrame"),
        (pd.concat([some_runs(1), some_runs(1)[["id"]]], axis="columns"), some_steps(1), "more than one column 'id'"),
        (pd.concat([some_runs(2), some_runs(1)]), some_steps(1), "more than once"),
        (some_runs(2).astype({"created_at": str}), some_steps(1), r"runs_df\['created_at'\] is (object|str), no times"),
    ],
)
def test_odd_input_is_refused_in_words(runs, steps, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        timeline(runs, steps)


def test_a_run_whose_supervisor_died_reaches_as_far_as_is_known_of_it() -> None:
    runs = some_runs(1).assign(status="interrupted", run_s=float("nan"))
    began = runs["created_at"] + pd.to_timedelta(runs["queued_s"], unit="s")
    for more, length in (({}, 0.0), ({"started_at": began, "finished_at": began + pd.Timedelta(seconds=3)}, 3.0)):
        figure = timeline(runs.assign(**more), some_steps(0))
        assert [getattr(bar, "get_width")() for bar in figure.axes[0].patches][-1] == length  # noqa: B009 - typed as any patch


ATTEMPTS: list[tuple[str, str, float, float | None]] = [
    ("attempt", "failed", 1, 2),
    ("turn", "completed", 1.2, 1.8),
    ("tool", "failed", 1.3, 1.5),
    ("attempt", "completed", 6, 10),
    ("check", "completed", 9, 10),
]


def test_attempts_steps_and_tools_have_a_lane_each_below_their_run_and_waits_between_attempts_are_dashed() -> None:
    figure = run_of(ATTEMPTS)
    queue, run, attempt, again, turn, tool, check = [boxes(figure)[n] for n in (0, 1, 2, 5, 3, 4, 6)]
    assert (queue[:2], run[:2]) == ((0, 1), (1, 10)), "with its retries, whatever its run_s, which is that of the last attempt"
    assert run[2] < attempt[2] == again[2] < turn[2] == check[2] < tool[2]
    [dashed] = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert list(map(float, dashed.get_xdata())) == [2, 6]
    assert {"attempt", "turn", "tool", "check", "waiting to retry", "failed"} <= set(texts(figure))
    shapes = {line.get_marker() for line in figure.axes[0].lines if line.get_linestyle() != "--" and len(line.get_xdata())}
    assert len(shapes) == 4, "a shape for each kind"
    drawn(figure)


def test_the_only_attempt_of_a_run_is_left_out_and_what_goes_on_ends_in_an_arrow() -> None:
    figure = run_of([("attempt", "running", 1, None)], status="running", end=None)
    assert boxes(figure) == [(0, 1, 0), (1, 4, 0)]
    assert "goes on" in texts(figure)
    assert "attempt" not in texts(figure)


def test_a_chart_says_what_it_shows() -> None:
    told = [getattr(timeline(some_runs(count), some_steps(0), title=title), "alt", "") for count, title in ((3, "a $title$"), (0, None))]
    plain = "Timeline of a $title$: 3 runs within 4.5 s; 1 pending, 1 running, 1 completed. Waiting took at most 0.50 s."
    assert told == [f"{plain} Running took 2.0 s to 2.0 s; the longest was run 1.", "Timeline: no runs yet."]
    whole = "Timeline: 1 run within 10.0 s; 1 completed. Waiting took at most 1.0 s. Running took 9.0 s to 9.0 s; the longest was run 0."
    whole += " Below the runs: 2 attempts, 1 turn, 1 tool, 1 check. Runs waited 1 time to retry, 4.0 s in all."
    assert getattr(run_of(ATTEMPTS), "alt", "") == whole


def test_axes_of_ones_own_get_the_text_too_also_of_two_charts() -> None:
    figure = Figure()
    for axes in figure.subplots(1, 2):
        timeline(some_runs(1), some_steps(0), ax=axes)
    assert getattr(figure, "alt", "").count("Timeline:") == 2


def test_long_times_are_told_in_hours_and_minutes() -> None:
    figure = timeline(some_runs(2).assign(run_s=7300.0, status="completed"), some_steps(0))
    drawn(figure)
    assert figure.axes[0].get_xlabel().startswith("hours:minutes")
    assert "1:00" in [t.get_text() for t in figure.axes[0].get_xticklabels()]
