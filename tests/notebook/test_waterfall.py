from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.errors import ConfigError, RuntimeUnavailable
from tests.notebook.drawing import drawn
from tests.notebook.polling import until

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

RECORDED = Path(__file__).parents[2] / "notebooks/recorded/denied.jsonl"


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """Matplotlib keeps the fonts that it opened first; that is no leak of the test that happened to come first."""
    axes = Figure().add_subplot()
    axes.set_title("fonts ✗")
    drawn(axes.figure)


def labels(figure: Figure) -> list[str]:
    """The rows' labels, each em space a level of depth."""
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def bars(figure: Figure) -> list[tuple[float, float]]:
    return [(p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches]  # type: ignore[attr-defined]


async def agent(ctx: nb.RunContext) -> None:
    with ctx.step("think $x$", kind="turn"), ctx.step("Read", kind="tool") as step:
        step.output = "text"
    with ctx.step("think again", kind="turn"), suppress(ValueError), ctx.step("Bash", kind="tool"):
        int("no number")
    ctx.usage(input_tokens=1200, output_tokens=34, cost_usd=0.002)


def test_each_step_has_a_row_below_the_step_that_it_belongs_to(session: nb.Session) -> None:
    run = session.python(agent, name="an agent")
    run.wait()
    figure = run.waterfall()
    assert labels(figure) == ["turn think $x$", "\u2003tool Read", "turn think again", "\u2003tool Bash"]
    assert figure.axes[0].get_title(loc="left") == "an agent"
    assert any(text.endswith("✗ failed") for text in texts(figure))
    first, tool, second, bash = bars(figure)
    times = [0, first[0], tool[0], tool[1], first[1], second[0], bash[0]]
    assert all(one <= other + 1e-4 for one, other in pairwise(times)), "each in the other, one after the other"
    alt = getattr(figure, "alt", "")
    assert alt.startswith("Waterfall of the run an agent, completed, ")
    assert "4 steps: 3 completed, 1 failed" in alt
    assert alt.endswith("Failed: Bash. In all: 1\u202f200 / 34 tokens, $0.0020.")
    assert drawn(figure).startswith(b"\x89PNG")


def test_attempts_are_rows_when_there_were_several_and_steps_of_a_live_run_go_on(session: nb.Session) -> None:
    again = nb.Retry(max_attempts=2, initial_delay=0.2, strategy="constant", jitter=0, on_exit_codes=(3,))
    run = session.shell("exit 3", retry=again)
    live = session.shell("echo begun; sleep 60")
    run.wait()
    figure = run.waterfall(title="mine")
    assert labels(figure) == ["attempt 1", "attempt 2"]
    assert bars(figure)[1][0] - bars(figure)[0][1] >= 0.15, "the wait between them"
    until(lambda: "begun" in live.stdout)
    going = live.waterfall()
    assert labels(going) == ["attempt 1"]
    assert "running" in "".join(texts(going))
    assert ", running, " in getattr(going, "alt", "")
    drawn(going)
    live.cancel()
    live.wait()


def test_a_run_that_never_began_says_so(session: nb.Session) -> None:
    blocked = [session.shell("sleep 60") for _ in range(4)]
    waiting = session.shell("true")
    until(lambda: all(run.status == "running" for run in blocked))
    assert texts(waiting.waterfall()) == ["no steps yet"]
    waiting.cancel()
    waiting.wait()
    figure = waiting.waterfall()
    assert texts(figure) == ["this run has no steps"]
    assert getattr(figure, "alt", "").endswith("no steps.")
    drawn(figure)
    for run in blocked:
        run.cancel()
        run.wait()


@pytest.mark.parametrize("speed", [20, None])
def test_a_replay_has_the_times_that_were_recorded_at_any_speed(session: nb.Session, speed: float | None) -> None:
    run = session.replay(RECORDED, speed=speed)
    run.wait()
    figure = run.waterfall()
    steps = [step for step in session.steps_df(run=run).to_dict("records") if step["kind"] != "attempt"]
    assert len(labels(figure)) == len(steps) >= 5
    assert sorted(end - start for start, end in bars(figure)) == pytest.approx(sorted(step["run_s"] for step in steps))
    turns = [bar for bar, name in zip(bars(figure), labels(figure), strict=True) if name.startswith("turn")]
    tools = [bar for bar, name in zip(bars(figure), labels(figure), strict=True) if name.startswith("\u2003")]
    assert turns == sorted(turns)
    assert turns[0][0] <= tools[0][0]
    assert ("not known" in figure.axes[0].get_xlabel()) == (speed is None)
    assert sum("tokens" in text for text in texts(figure)) == len(turns)
    drawn(figure)


def test_a_reused_run_shows_when_the_steps_were_of_the_run_that_did_them(session: nb.Session) -> None:
    first = session.python(agent, name="an agent", reuse=True)
    first.wait()
    again = session.python(agent, name="once more", reuse=True)
    again.wait()
    assert bars(again.waterfall()) == bars(first.waterfall())
    assert again.waterfall().axes[0].get_title(loc="left") == "once more (reused)"


def test_any_run_of_the_history_is_found_by_id_name_or_handle(new_session: Callable[..., nb.Session], store: Path) -> None:
    session = new_session()
    run = session.python(agent, name="an agent")
    run.wait()
    session.end()
    assert labels(nb.waterfall(run)) == labels(nb.waterfall(run.id, store=store)) == labels(nb.waterfall("an agent", store=store))
    axes = Figure().add_subplot()
    assert nb.waterfall("an agent", store=store, ax=axes) is axes.figure
    with pytest.raises(ConfigError, match="did you mean 'an agent'"):
        nb.waterfall("an agnt", store=store)
    with pytest.raises(ConfigError, match="int is no run"):
        nb.waterfall(5, store=store)


def test_of_thousands_of_steps_the_latest_are_drawn(session: nb.Session) -> None:
    async def busy(ctx: nb.RunContext) -> None:
        for number in range(400):
            with ctx.step(f"s{number}"):
                pass

    run = session.python(busy)
    run.wait()
    figure = run.waterfall()
    assert 100 < len(labels(figure)) <= 150
    assert labels(figure)[-1].endswith("s399")
    assert "there are 401" in getattr(figure, "alt", "")
    assert figure.get_figheight() < 45


def test_sessions_and_groups_draw_themselves(session: nb.Session) -> None:
    group = session.map(nb.Shell("sleep {{t}}"), [{"t": 0.01}, {"t": 0.02}], repeats=2, name="naps")
    other = session.shell("true")
    group.wait()
    other.wait()
    assert getattr(session.timeline(), "alt", "").startswith("Timeline of test: 5 runs within ")
    assert getattr(group.timeline(), "alt", "").startswith("Timeline of naps: 4 runs within ")
    for figure in (session.plot_compare("kind"), group.plot_compare("param.t", "run_s", paired=False)):
        assert getattr(figure, "alt", "").startswith("Strips of points: run_s by ")


def test_without_matplotlib_the_extra_is_named(session: nb.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    run = session.shell("true")
    run.wait()
    for name in [n for n in sys.modules if n == "matplotlib" or n.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "agentnb.notebook.chart", raising=False)
    with pytest.raises(RuntimeUnavailable, match=r'pip install "agentnb\[plot\]"'):
        run.waterfall()
