"""Comparisons and charts in a real JupyterLab: the table fits both themes and is read by rows, charts have their alternative text."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, picture

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(240)]
SHARED = True

FRAME = """
    import agentnb as nb, pandas as pd
    words, rows = ["<b>w1</b>", "w2", "w3", "w4", "w5", "w6"], []
    for n, word in enumerate(words):
        for model, factor in (("small", 1.0), ("big & <i>bold</i>", 1.8 + n / 1000), ("שלום 100 %", 1.02 - n / 100)):
            rows.append({"param.model": model, "param.word": word, "status": "completed", "run_s": (n + 1) ** 2 * factor / 4})
    df = pd.DataFrame(rows)
    df.loc[17, "status"] = "failed"
    nb.compare(df, by="param.model")
"""
STRIPS = "nb.plot_compare(df, by='param.model')"
RUNS = """
    import tempfile
    session = nb.Session("charts", store=tempfile.mkdtemp(), max_parallel=2)
    def agent(ctx: nb.RunContext, n):
        with ctx.step("turn 1", kind="turn"):
            with ctx.step("Read", kind="tool") as step:
                step.output = n
        ctx.usage(input_tokens=100, output_tokens=20, cost_usd=0.001)
    agents = session.map(agent, [{"n": 1}, {"n": 2}], name="agents")
    agents.wait()
    session.timeline()
"""
WATERFALL = "figure = agents[0].waterfall(); session.end(); figure"
#: Contrast of a text with what is behind it, by the definition of WCAG 2.
CONTRAST = """node => {
    const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number)
    const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                         return 0.2126 * r + 0.7152 * g + 0.0722 * b }
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
    const seen = css => { canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data] }
    const [a, b] = [seen(getComputedStyle(node).color), seen(getComputedStyle(node.closest('.anb-s')).backgroundColor)].map(light)
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_comparison_is_a_table_with_sentences_and_charts_have_alternative_text(open_book: Open, theme: str) -> None:
    book = open_book(FRAME, STRIPS, RUNS, WATERFALL, theme=theme)
    for number in range(4):
        book.run(number)
    book.idle()
    table = book.output(0).locator("table.anb-cmp")
    expect(table.locator("caption")).to_contain_text("run_s by param.model, in seconds; runs are paired by param.word")
    assert table.locator("tbody th[scope=row]").all_inner_texts() == [
        "small (baseline)",
        "big & <i>bold</i>",
        "\u2068\u05e9\u05dc\u05d5\u05dd 100 %\u2069",
    ]
    assert table.locator("thead th[scope=col]").count() == len(table.locator("thead th").all())
    expect(book.output(0).locator("li").nth(1)).to_contain_text("big & <i>bold</i> is 1.8x slower than small (1.8-1.8), 6 pairs")
    for text in (table.locator("td.anb-n").first, table.locator(".anb-m").first, table.locator("caption")):
        assert text.evaluate(CONTRAST) >= 4.5
    picture(book.output(0), f"comparison_{theme}")
    shown = []
    bars = book.output(0).locator(".anb-ci")
    assert [bars.nth(n).evaluate("node => node.offsetWidth") for n in range(2)] == [100, 100]
    box, inside = book.output(0).locator(".anb-x").bounding_box(), table.bounding_box()
    assert box is not None
    assert inside is not None
    assert inside["width"] <= box["width"], "the whole table is in sight"
    for number, name in ((1, "strips"), (2, "timeline"), (3, "waterfall")):
        image = book.output(number).locator("img")
        expect(image).to_be_visible()
        image.scroll_into_view_if_needed()
        assert image.evaluate("node => node.complete && node.naturalWidth > node.width") is True
        shown.append(image.get_attribute("alt") or "")
        picture(book.output(number), f"{name}_{theme}")
    assert "big & <i>bold</i> is 1.8x slower than small" in shown[0]
    assert shown[1].startswith("Timeline of charts: 2 runs within")
    assert "2 turns, 2 tools" in shown[1]
    assert shown[2].startswith("Waterfall of the run agents [0], completed")
    assert book.errors == []
    if theme == "light":
        saved = [output for cell in book.save()["cells"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
        assert [output["metadata"]["image/png"]["alt"] for output in saved] == shown
        book.reload()
        expect(book.output(1).locator("img")).to_have_attribute("alt", shown[0])
