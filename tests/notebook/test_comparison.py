"""What nb.compare returns: a DataFrame and nothing else, which shows itself as a table with sentences."""

from __future__ import annotations

import copy
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

import agentnb as nb
from agentnb.notebook.comparison import MOST_GROUPS, MOST_SENTENCES


def times(**factors: float) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = [{"g": g, "run_s": f * rng.lognormal(0, 0.1), "status": "completed"} for g, f in factors.items() for _ in range(8)]
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame) -> str:
    """Its HTML without the styles."""
    text = table._repr_html_()  # type: ignore[operator]
    assert isinstance(text, str)
    return re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


class Tags(HTMLParser):
    """The tags of a page, and that each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_a_plain_dataframe_to_everybody_else(tmp_path: Path) -> None:
    table = nb.compare(times(a=1, b=2), "g")
    assert type(table) is pd.DataFrame
    for other in (table.copy(), copy.copy(table), copy.deepcopy(table), pickle.loads(pickle.dumps(table)), table.loc[:]):
        assert type(other) is pd.DataFrame
        pd.testing.assert_frame_equal(other, table)
        pd.testing.assert_frame_equal(table, other)
        assert "anb-cmp" not in str(other._repr_html_())  # type: ignore[operator]
    table.to_parquet(tmp_path / "t.parquet")
    back = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(back, table)
    assert back.attrs == table.attrs


def test_a_cell_shows_it_with_units_intervals_and_sentences() -> None:
    text = shown(nb.compare(times(a=1, b=2), "g"))
    tags = Tags(text).seen
    assert [attrs["scope"] for tag, attrs in tags if tag == "th"] == ["col"] * 7 + ["row"] * 2
    assert "<caption>run_s by g, in seconds; intervals at 95 %</caption>" in text
    assert "(baseline)" in text
    words = re.sub(r"<[^>]+>", " ", text)
    assert re.search(r"[12]\.\dx\s+\([12]\.\d-2\.\d\)", words)
    assert re.search(r"b is [12]\.\dx slower than a \([12]\.\d-2\.\d\), n=8 and 8", words)


def test_it_reads_well_with_all_styles_stripped() -> None:
    bare = re.sub(r' (class|style|title)="[^"]*"', "", shown(nb.compare(times(a=1, b=2), "g")))
    assert "<th><bdi>a</bdi> <span>(baseline)</span></th>" in bare.replace(' scope="row"', "")
    assert "script" not in bare


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a\nb</table>", "$x$ %s {0}", "\u202eevil", "\u05e9\u05dc\u05d5\u05dd", "", 'x" onload="']
)
def test_names_are_text_and_nothing_else(name: str) -> None:
    df = times(a=1, b=2).assign(**{"<i>g": lambda d: d["g"].where(d["g"] != "b", name)})
    text = shown(nb.compare(df, "<i>g"))
    tags = Tags(text).seen
    assert {tag for tag, _ in tags} == {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "bdi", "span", "ul", "li"}
    assert not [attrs for _, attrs in tags if any(key.startswith("on") for key in attrs)]
    assert "mathjax_ignore" in text
    assert "\u202e" not in text


def test_rates_are_percentages_and_failures_have_their_column_when_there_are_any() -> None:
    df = times(a=1, b=1).assign(score=[1.0, 0.0] * 8)
    df.loc[3, "status"] = "failed"
    text = shown(nb.compare(df, "g", "score"))
    assert all(f">{head}</th>" in text for head in ("Rate", "Failed", "Difference in points"))
    assert ">Median</th>" not in text
    assert ">50 % <" in text


@pytest.mark.filterwarnings("error")
def test_any_table_can_be_shown() -> None:
    df = times(a=1, b=2)
    for odd in (
        df.iloc[:0],
        df.iloc[:1],
        df.assign(run_s=0.0),
        df.assign(run_s=-df["run_s"]),
        df.assign(status="failed"),
        df.assign(g=pd.NA),
    ):
        Tags(shown(nb.compare(odd, "g")))
    pairs: list[Any] = [(g, 1) for g in df["g"]]
    tuples = nb.compare(df.assign(t=pairs), "t")
    assert shown(tuples).count('scope="row"') == 2
    more: list[Any] = [[1, 2], {}]
    tuples["more"] = more
    Tags(shown(tuples))
    both = shown(nb.compare(df.assign(h=1.5), ["g", "h"]))
    assert both.count('scope="row"') == 4
    assert "No runs to compare." in shown(nb.compare(df.iloc[:0], "g"))


def test_of_many_groups_the_first_are_shown_and_the_rest_is_said() -> None:
    table = nb.compare(pd.DataFrame({"g": range(300), "run_s": 1.0}), "g", baseline=299)
    text = shown(table)
    assert text.count('scope="row"') == MOST_GROUPS
    assert f"{300 - MOST_GROUPS} more groups" in text
    assert text.count("<li") == MOST_SENTENCES + 1
    assert len(text) < 60_000


def test_a_table_that_was_changed_shows_itself_as_pandas_does() -> None:
    table = nb.compare(times(a=1, b=2), "g")
    table["sentence"] = table["sentence"].to_numpy()[::-1]
    assert "anb-cmp" not in shown(table)
    other = nb.compare(times(a=1, b=2), "g")
    del other["ratio"]
    assert 'class="dataframe"' in shown(other)


def test_a_terminal_shows_it_as_aligned_text_with_the_sentences() -> None:
    df = times(a=1, b=2)
    data, _ = DisplayFormatter().format(nb.compare(df, "g"))
    assert 'class="anb-cmp"' in data["text/html"]
    caption, heads, first, second, _, *said = data["text/plain"].split("\n")
    assert caption == "run_s by g, in seconds; intervals at 95 %"
    assert heads.split() == ["g", "Runs", "Median", "p90", "Mean", "Ratio", "Effect"]
    assert first.startswith("a (baseline)     8  ")
    assert re.search(r" [12]\.\dx \([12]\.\d-2\.\d\)   \+1\.00$", second)
    assert len(said) == 2
    assert DisplayFormatter().format(nb.compare(df, "g").copy())[0]["text/plain"] == repr(nb.compare(df, "g"))
    assert "No runs to compare." in DisplayFormatter().format(nb.compare(df.iloc[:0], "g"))[0]["text/plain"]
