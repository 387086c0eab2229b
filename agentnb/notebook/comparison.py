"""How a comparison shows itself in a notebook: a table with units and intervals, and what it says in sentences below.

What ``nb.compare`` returns is a DataFrame and nothing else; only its own HTML is another one than pandas'. Copies, slices and files of
it are as plain as any. The HTML reads as well with every style stripped: the baseline is marked by a word, intervals are numbers.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

import pandas as pd

from agentnb.history.comparing.comparand import missing
from agentnb.history.comparing.compare import told_of
from agentnb.history.comparing.wording import Metric, gap, label, quantity, span, times
from agentnb.notebook.render import asset

#: So many groups, and sentences, are shown; the DataFrame has them all.
MOST_GROUPS, MOST_SENTENCES = 50, 12
_NO_MATHS = "mathjax_ignore tex2jax_ignore"


def styled(table: pd.DataFrame) -> pd.DataFrame:
    """The same `table`, which shows itself as a comparison while it is as `compare` made it."""
    made = table["sentence"].tolist()

    def same() -> bool:
        return list(table.get("sentence", [])) == made and all(column in table for column in _NEEDED)

    def to_html() -> str | None:
        if same():
            return html(table)
        return pd.DataFrame(table)._repr_html_()  # type: ignore[operator,no-any-return]  # changed meanwhile: what pandas shows

    def to_bundle(**_: Any) -> dict[str, str]:
        return {"text/plain": plain_text(table)} if same() else {}

    # On this one object: a subclass would be no plain DataFrame to pandas.testing, to pickle, and to a reader without agentnb.
    object.__setattr__(table, "_repr_html_", to_html)
    object.__setattr__(table, "_repr_mimebundle_", to_bundle)
    return table


_NEEDED = (
    "n",
    "failures",
    "median",
    "p90",
    "mean",
    "mean_low",
    "mean_high",
    "ratio",
    "ratio_low",
    "ratio_high",
    "diff",
    "diff_low",
    "diff_high",
    "effect",
)


def html(table: pd.DataFrame) -> str:
    """A comparison as self-contained HTML."""
    page = _Page(table)
    body = page.table() + page.sentences()
    return f'<style>{asset("static.css")}{asset("comparison.css")}</style><div class="anb-s {_NO_MATHS}">{body}</div>'


def plain_text(table: pd.DataFrame) -> str:
    """A comparison as text, for terminals."""
    page = _Page(table)
    rows = [[*page.told["by"], *page.heads()]]
    for place, keys in enumerate(page.keys):
        mark = " (baseline)" if place == page.told["baseline"] else ""
        cells = [f"{text} ({interval})" if interval else text for text, interval in page.cells(place)]
        rows.append([f"{keys[0]}{mark}", *keys[1:], *cells])
    count, widths = len(page.told["by"]), [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[text.ljust(w) if n < count else text.rjust(w) for n, (text, w) in enumerate(zip(row, widths, strict=True))] for row in rows]
    return "\n".join([page.caption(), *("  ".join(row).rstrip() for row in aligned), *page.notes(), "", *page.said()]).rstrip()


class _Page:
    """What is shown of one comparison."""

    def __init__(self, table: pd.DataFrame) -> None:
        told = told_of(table)
        self.rows: list[dict[Any, Any]] = [
            {name: None if missing(value) else value for name, value in row.items()} for row in table.head(MOST_GROUPS).to_dict("records")
        ]
        self.count, self.told = len(table), told
        self.metric = Metric(told["metric"], told["unit"], rate=told["center"] == "rate")
        self.keys = [_texts(key, len(told["by"])) for key in table.head(MOST_GROUPS).index]
        others = [row for place, row in enumerate(self.rows) if place != told["baseline"]]
        self.ratios = not self.metric.rate and any(row["ratio"] is not None for row in others)
        self.failed = any(row["failures"] for row in self.rows)
        bounds = [bound for row in others if row["ratio_low"] for bound in (row["ratio_high"], 1 / row["ratio_low"])]
        self.widest = max(1.5, *bounds) if bounds else 1.5

    def caption(self) -> str:
        """What is compared, and how."""
        unit = f", in {_UNITS.get(self.metric.unit, self.metric.unit)}" if self.metric.unit else ""
        pairs = f"; runs are paired by {', '.join(self.told['paired_by'])}" if self.told["paired_by"] else ""
        return f"{self.metric.name} by {', '.join(self.told['by'])}{unit}{pairs}; intervals at {100 * self.told['confidence']:g} %"

    def heads(self) -> list[str]:
        """What stands above the columns of figures."""
        own = ["Rate"] if self.metric.rate else ["Median", "p90", "Mean"]
        against = "Ratio" if self.ratios else "Difference in points" if self.metric.rate else "Difference"
        return ["Runs", *(["Failed"] if self.failed else []), *own, against, "Effect"]

    def cells(self, place: int) -> list[tuple[str, str]]:
        """The figures of a group: each with its interval, or ""."""
        row, base = self.rows[place], place == self.told["baseline"]
        own = [] if self.metric.rate else [(quantity(row[name], self.metric), "") for name in ("median", "p90")]
        within = (
            "" if row["mean_low"] is None or row["mean_low"] == row["mean_high"] else span(row["mean_low"], row["mean_high"], self.metric)
        )
        against = ("", "") if base else self._ratio(row) if self.ratios else self._diff(row)
        effect = "" if base or row["effect"] is None else f"{row['effect']:+.2f}"
        failed = [(f"{row['failures']}", "")] if self.failed else []
        return [(f"{row['n']}", ""), *failed, *own, (quantity(row["mean"], self.metric), within), against, (effect, "")]

    def _diff(self, row: dict[Any, Any]) -> tuple[str, str]:
        if row["diff"] is None:
            return "", ""
        size = f"{100 * row['diff']:+.0f}" if self.metric.rate else f"{'+' if row['diff'] > 0 else ''}{quantity(row['diff'], self.metric)}"
        return size, "" if row["diff_low"] is None else gap(row["diff_low"], row["diff_high"], self.metric)

    def _ratio(self, row: dict[Any, Any]) -> tuple[str, str]:
        if row["ratio"] is None:
            return "", ""
        if row["ratio_low"] is None:
            return f"{times(row['ratio'])[0]}x", ""
        ratio, low, high = times(row["ratio"], row["ratio_low"], row["ratio_high"])
        return f"{ratio}x", f"{low}-{high}"

    def notes(self) -> list[str]:
        """What is to be said of the table as a whole."""
        more = self.count - len(self.rows)
        return ["No runs to compare."] if not self.count else [f"{more} more groups are in the DataFrame."] if more else []

    def said(self) -> list[str]:
        """What it says, the baseline first."""
        order = sorted(range(len(self.rows)), key=lambda place: place != self.told["baseline"])[:MOST_SENTENCES]
        more = self.count - len(order)
        rest = [f'{more} more sentences are in the column "sentence".'] if more else []
        return [str(self.rows[place]["sentence"]) for place in order] + rest

    def table(self) -> str:
        """The table as HTML, with its caption."""
        heads = [f'<th scope="col"><bdi>{escape(name)}</bdi></th>' for name in self.told["by"]]
        heads += [f'<th scope="col" class="anb-n"{_TITLES.get(head, "")}>{escape(head)}</th>' for head in self.heads()]
        rows = "".join(self._row(place) for place in range(len(self.rows)))
        notes = "".join(f'<p class="anb-m">{escape(note)}</p>' for note in self.notes())
        return (
            f'<div class="anb-x"><table class="anb-cmp"><caption>{escape(self.caption())}</caption>'
            f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{rows}</tbody></table></div>{notes}"
        )

    def _row(self, place: int) -> str:
        base = place == self.told["baseline"]
        mark = ' <span class="anb-base">(baseline)</span>' if base else ""
        heads = [f'<th scope="row"><bdi>{escape(text)}</bdi>{mark if n == 0 else ""}</th>' for n, text in enumerate(self.keys[place])]
        cells = [f"{escape(text)} {_muted(interval)}" if interval else escape(text) for text, interval in self.cells(place)]
        if self.ratios and not base:
            cells[-2] += self._bar(self.rows[place])
        return f"<tr>{''.join(heads)}{''.join(f'<td class=anb-n>{cell}</td>' for cell in cells)}</tr>"

    def _bar(self, row: dict[Any, Any]) -> str:
        """The interval of the ratio on a logarithmic line, whose middle is the baseline."""
        if not row["ratio_low"]:
            return ""
        ratio, low, high = (50 + 50 * math.log(row[name]) / math.log(self.widest) for name in ("ratio", "ratio_low", "ratio_high"))
        shape = f'<span style="left:{low:.1f}%;width:{high - low:.1f}%"></span><span class="anb-dot" style="left:{ratio:.1f}%"></span>'
        return f'<span class="anb-ci" aria-hidden="true">{shape}</span>'

    def sentences(self) -> str:
        """What it says as an HTML list."""
        said = "".join(f'<li dir="ltr">{escape(text)}</li>' for text in self.said())
        return f'<ul class="anb-said">{said}</ul>' if said else ""


_TITLES = {
    "p90": ' title="nine of ten values are below it"',
    "Ratio": ' title="to the baseline: of the medians (or means); of pairs, the median of their ratios"',
    "Effect": ' title="Cliff&#39;s delta: from -1, always below the baseline, to +1, always above"',
}
_UNITS = {"s": "seconds", "USD": "dollars", "1/s": "per second"}


def _muted(text: str) -> str:
    return f'<span class="anb-m">({escape(text)})</span>'


def _texts(key: Any, count: int) -> list[str]:
    return [label([None if missing(value) else value], [""]) for value in (key if count > 1 else (key,))]
