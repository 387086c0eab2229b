"""Budgets in JupyterLab: the line and its bar while there is enough, past 80 %, and when nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import Open

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(240)]
SHARED = True

START = """
    import asyncio
    from pathlib import Path
    import agentnb as nb
    session = nb.Session("thrifty", budget_usd=5, budget_tokens=200_000)
    async def spender(ctx: nb.RunContext):
        for name, usd, tokens in (("one", 0.42, 12_000), ("two", 4.0, 20_000), ("three", 1.0, 900)):
            while not Path(name).exists():
                await asyncio.sleep(0.05)
            ctx.usage(input_tokens=tokens, cost_usd=usd)
        await asyncio.sleep(600)
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_budget_shows_what_is_left_warns_and_says_when_it_is_spent(open_book: Open, theme: str) -> None:
    book = open_book(
        START,
        'run = session.python(spender, name="spender", budget_tokens=100_000)\nsession',
        "Path('one').touch()",
        "Path('two').touch()",
        "Path('three').touch()",
        "_ = run.wait()\nfor name in ('one', 'two', 'three'): Path(name).unlink()\nsession.end()",
        theme=theme,
    )
    book.run(0)
    book.run(1)
    line = book.output(1).locator(".anb-budget").first
    for cell, level, text in (
        (2, "good", "$0.42 of $5 · 12k of 200k tokens"),
        (3, "near", "$4.42 of $5 · 32k of 200k tokens: 88 %"),
        (4, "spent", "$5.42 of $5 · 32.9k of 200k tokens: spent"),
    ):
        book.run(cell)
        expect(line).to_contain_text(text, timeout=20_000)
        expect(line).to_have_attribute("data-level", level)
        _picture(book.output(1), f"budget_{level}_{theme}")
    book.run(5)
    expect(book.output(1)).to_contain_text("ended", timeout=20_000)
    expect(book.output(1).locator(".anb-b-spent")).to_contain_text("$5.42 of $5 · 32.9k of 200k tokens: spent")
    expect(book.output(1)).to_contain_text("the session's budget_usd=5 is spent: $5.42")
    expect(book.output(1).locator("mjx-container, .MathJax")).to_have_count(0)
    _picture(book.output(1), f"budget_static_{theme}")
    assert book.errors == []


def _picture(place: Locator, name: str) -> None:
    """Keep a picture for people, where they ask for it by AGENTNB_PICTURES."""
    if folder := os.environ.get("AGENTNB_PICTURES"):
        (Path(folder) / f"{name}.png").write_bytes(place.screenshot())
