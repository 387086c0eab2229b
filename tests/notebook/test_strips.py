from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import agentnb as nb
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.history.comparing.compare import compare

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from agentnb.notebook.strips import MOST_GROUPS, MOST_LINES, MOST_POINTS
from tests.notebook.drawing import drawn


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """Matplotlib keeps the fonts that it opened first; that is no leak of the test that happened to come first."""
    drawn(nb.plot_compare(grid(6), "param.m"))


def grid(words: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame([
        {"param.m": m, "param.w": w, "run_s": f * (w + 1) * rng.lognormal(0, 0.02), "status": "completed"}
        for m, f in (("A", 1.0), ("B", 2.0))
        for w in range(words)
    ])  # fmt: skip


def texts(figure: Figure) -> list[str]:
    axes = figure.axes[0]
    legend = axes.get_legend()
    return [t.get_text() for t in (*axes.texts, *axes.get_yticklabels(), *(legend.get_texts() if legend else ()))]


def points(figure: Figure) -> list[list[float]]:
    """The values of each strip."""
    return [np.sort(np.asarray(strip.get_offsets())[:, 0]).tolist() for strip in figure.axes[0].collections if len(strip.get_offsets())]


def test_all_values_are_there_with_median_interval_pairs_and_ratio() -> None:
    df = grid(8)
    df.loc[0, "status"] = "failed"
    figure = nb.plot_compare(df, "param.m")
    strips = [strip for strip in points(figure) if len(strip) > 1]
    assert strips[0] == sorted(df["run_s"][1:8])
    assert strips[1] == sorted(df["run_s"][8:])
    ratio = compare(df, "param.m").loc["B"]
    assert f"{ratio['ratio']:.1f}x ({ratio['ratio_low']:.1f}-{ratio['ratio_high']:.1f})" in texts(figure)
    assert {"A\nn=7, 1 failed", "B\nn=8", "baseline", "median", "middle half", "95 % interval of the median", "pairs"} <= set(texts(figure))
    assert figure.axes[0].get_xlabel() == "run_s (seconds)"
    joined = [line for line in figure.axes[0].lines if list(line.get_ydata()) == [0, 1]]
    assert len(joined) == 7
    drawn(figure)


def test_it_says_what_it_shows() -> None:
    figure = nb.plot_compare(grid(8), "param.m")
    alt = getattr(figure, "alt", "")
    assert alt.startswith("Strips of points: run_s by param.m in seconds, in pairs of the same param.w; 2 groups. A: median 4.49 s (")
    assert "B is 2.0x slower than A (" in alt
    assert "8 pairs" in alt


def test_the_axis_is_logarithmic_where_values_spread_widely_or_as_asked() -> None:
    assert nb.plot_compare(grid(8), "param.m").axes[0].get_xscale() == "linear"
    assert nb.plot_compare(grid(8), "param.m", log=True).axes[0].get_xscale() == "log"
    wide = grid(60)
    assert nb.plot_compare(wide, "param.m").axes[0].get_xscale() == "log"
    assert nb.plot_compare(wide, "param.m", log=False).axes[0].get_xscale() == "linear"
    figure = nb.plot_compare(wide.assign(peak_memory_bytes=wide["run_s"] * 2**20), "param.m", "peak_memory_bytes")
    drawn(figure)
    assert "MiB" in "".join(t.get_text() for t in figure.axes[0].get_xticklabels())


def test_of_a_rate_the_mean_and_its_interval_are_drawn() -> None:
    figure = nb.plot_compare(grid(8).assign(ok=[True, False] * 8), "param.m", "ok", paired=False)
    assert [strip for strip in points(figure) if len(strip) > 1] == []
    assert "95 % interval of the mean" in texts(figure)
    assert getattr(figure, "alt", "").startswith("Rates: ok by param.m; 2 groups. A: mean 50 % (")
    drawn(figure)


def test_many_groups_points_and_pairs_stay_readable_and_are_said() -> None:
    many = pd.DataFrame({"g": np.arange(5 * 200) % 200, "run_s": np.linspace(1, 2, 1000)})
    figure = nb.plot_compare(many, "g")
    assert len(figure.axes[0].get_yticklabels()) == MOST_GROUPS
    assert f"the first {MOST_GROUPS} of 200 groups" in figure.axes[0].get_xlabel()
    assert figure.get_figheight() < 35
    big = grid(MOST_POINTS + 100)
    strips = [strip for strip in points(nb.plot_compare(big, "param.m")) if len(strip) > 1]
    assert [len(strip) for strip in strips] == [MOST_POINTS] * 2
    assert strips[0][-1] == big["run_s"][: MOST_POINTS + 100].max(), "extremes are kept"
    assert not [line for line in nb.plot_compare(grid(MOST_LINES + 1), "param.m").axes[0].lines if list(line.get_ydata()) == [0, 1]]


@pytest.mark.parametrize("values", [[], [1.0], [0.0, 0.0], [-1.0, 5.0], [float("nan")], [3.0] * 7])
def test_any_values_can_be_drawn(values: list[float]) -> None:
    df = pd.DataFrame({"g": ["$x$ <b>\n\x00"] * len(values), "run_s": pd.array(values, dtype="Float64")})
    figure = nb.plot_compare(df, "g", title="$\\frac{")
    drawn(figure)
    assert ("no values to compare" in texts(figure)) == (not np.isfinite(values).any())


def test_it_draws_into_given_axes_and_refuses_what_compare_refuses() -> None:
    axes = Figure().add_subplot()
    assert nb.plot_compare(grid(6), "param.m", ax=axes) is axes.figure
    with pytest.raises(ConfigError, match="no column 'nope'"):
        nb.plot_compare(grid(6), "nope")
    with pytest.raises(ConfigError, match="True or False"):
        nb.plot_compare(grid(6), "param.m", log="yes")
    with pytest.raises(TypeError, match="colour"):
        nb.plot_compare(grid(6), "param.m", colour="red")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [n for n in sys.modules if n == "matplotlib" or n.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "agentnb.notebook.chart", raising=False)
    with pytest.raises(RuntimeUnavailable, match=r'pip install "agentnb\[plot\]"'):
        nb.plot_compare(grid(6), "param.m")
