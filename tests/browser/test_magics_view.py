"""The magics in a real JupyterLab: a cell that is a run, the table of all runs, completion as people see it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open, picture

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_cell_is_a_run_that_is_live_listed_cancelled_and_completed(open_book: Open, theme: str) -> None:
    cells = (
        "%load_ext agentnb",
        "%%agent shell --name greet --as run\necho 'hello {run} $HOME'; sleep 600",
        "%%agent shell --name short --wait\necho done",
        "%runs",
        "%cancel greet",
        "%%agent claude --perm",
    )
    book = open_book(*cells, theme=theme, height=1300)
    for number in range(4):
        book.run(number)
    expect(book.output(1)).to_contain_text("hello {run} $HOME", timeout=20_000)
    expect(book.output(2)).to_contain_text("completed", timeout=20_000)
    table = book.output(3)
    expect(table).to_contain_text("runs of this kernel")
    expect(table).to_contain_text("greet")
    expect(table.get_by_role("button", name="Cancel greet")).to_be_enabled()
    book.cell(5).locator(".cm-content").click()
    book.page.keyboard.press("Control+End")
    book.page.keyboard.press("Tab")
    offered = book.page.locator(".jp-Completer-item")
    expect(offered).to_contain_text("--permission-mode")
    book.page.keyboard.press("Enter")
    expect(book.cell(5)).to_contain_text("--permission-mode")
    book.page.keyboard.type(" ")
    book.page.keyboard.press("Tab")
    expect(offered.filter(has_text="acceptEdits")).to_be_visible()
    picture(book.page.locator("#main"), f"magics-{theme}")
    book.page.keyboard.press("Escape")
    book.run(4)
    expect(book.output(4)).to_contain_text("cancelling 1 of 1 live runs: greet")
    for number in (1, 3):
        expect(book.output(number)).to_contain_text("cancelled", timeout=20_000)
        expect(book.output(number).locator(".anb-s")).to_be_visible()
    assert book.errors == []
