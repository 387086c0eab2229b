"""The table of a group in JupyterLab: thousands of runs, sorted, filtered, selected, opened, by mouse and by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser import scenes
from tests.browser.conftest import Book, Open, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
SHARED = True

SAYS = "from pathlib import Path\nPath('said').write_text(repr({}))"


@pytest.fixture
def large(open_book: Open) -> Book:
    """A notebook that shows 2,000 runs."""
    ends = "for i in range(10): large.update(f'run-{i}', status='completed', elapsed_s=1.0)\nlarge.emit('run-1999', 'the last one\\n')"
    book = open_book(scenes.SETUP, scenes.GROUP_2000, SAYS.format("large.cancels"), SAYS.format("sorted(large.watched)"), ends)
    book.run(0)
    book.run(1)
    expect(rows(book).first).to_be_visible(timeout=20_000)
    book.idle()
    return book


def rows(book: Book) -> Locator:
    return book.output(1).locator(".anb-row")


def said(book: Book, cell: int) -> str:
    """What the kernel answers when this cell is run."""
    path: Path = book.lab.folder / "said"
    path.unlink(missing_ok=True)
    book.run(cell)
    wait_until(lambda: path.exists() and path.read_text(), "the answer")
    return path.read_text()


def test_only_rows_in_sight_are_in_the_page_and_only_their_output_is_asked_for(large: Book) -> None:
    scroller = large.output(1).locator(".anb-scroll")
    assert rows(large).count() < 60
    assert large.output(1).locator("table").get_attribute("aria-rowcount") == "2001"
    height = scroller.evaluate("node => node.scrollHeight")
    scroller.evaluate("node => { node.scrollTop = node.scrollHeight }")
    expect(rows(large).last).to_contain_text("[1999]")
    assert rows(large).count() < 60
    assert abs(scroller.evaluate("node => node.scrollHeight") - height) < 60
    wait_until(lambda: "run-1999" in said(large, 3), "the rows in sight to be watched")
    assert said(large, 3).count("run-") <= 32
    large.run(4)
    expect(rows(large).last).to_contain_text("the last one")
    assert large.errors == []


def test_rows_are_sorted_filtered_and_counted(large: Book) -> None:
    view = large.output(1)
    sort = view.get_by_role("button", name="Elapsed")
    sort.click()
    sort.click()
    expect(view.locator("th.anb-cell-elapsed")).to_have_attribute("aria-sort", "descending")
    longest = [float(text.split()[0]) for text in rows(large).locator(".anb-cell-elapsed").all_inner_texts()]
    assert longest == sorted(longest, reverse=True)
    sort.click()
    expect(rows(large).first).to_contain_text("[0]")
    view.get_by_role("searchbox").fill("seed=19 failed")
    expect(view.get_by_text("of 2000 shown")).to_be_visible()
    assert all("failed" in text and "seed=19" in text for text in rows(large).all_inner_texts())
    view.get_by_role("searchbox").fill("no such run")
    expect(view.get_by_text("No run matches the filter.")).to_be_visible()
    view.get_by_role("searchbox").fill("")
    view.get_by_role("button", name="229 failed").click()
    expect(view.get_by_text("229 of 2000 shown")).to_be_visible()
    expect(rows(large).nth(3)).to_contain_text("failed")


def test_a_selection_is_cancelled_and_says_so_at_once(large: Book) -> None:
    view = large.output(1)
    view.get_by_role("checkbox", name="Select large [6]", exact=True).check()
    view.locator(".anb-row", has_text="[4]").get_by_role("checkbox").check()
    view.get_by_role("button", name="Cancel 2 selected").click()
    expect(view.locator(".anb-row", has_text="[4]").locator(".anb-pill")).to_contain_text("cancelling", timeout=500)
    expect(view.get_by_role("button", name="Cancel 2 selected")).to_be_hidden()
    assert said(large, 2) == "[['run-6', 'run-4']]"
    expect(view.get_by_role("button", name="2 cancelling")).to_be_visible()  # the kernel's word: neither is pending any more
    view.get_by_role("searchbox").fill("pending")
    expect(view.get_by_text("627 of 2000 shown")).to_be_visible()
    view.get_by_role("checkbox", name="Select all runs").check()
    expect(view.get_by_role("button", name="Cancel 627 selected")).to_be_visible()


def test_the_keyboard_goes_through_all_runs_and_opens_one(large: Book) -> None:
    toggle = rows(large).first.locator(".anb-toggle")
    toggle.focus()
    for _ in range(30):
        large.page.keyboard.press("ArrowDown")
    focused = "() => document.activeElement.title"
    wait_until(lambda: large.page.evaluate(focused).endswith("[30]"), "row 30")
    large.page.keyboard.press("Enter")
    expect(large.output(1).locator(".anb-detail")).to_be_visible()
    expect(large.output(1).locator(".anb-detail .anb-command")).to_have_text("sleep 30")
    large.page.keyboard.press("End")
    wait_until(lambda: large.page.evaluate(focused).endswith("[1999]"), "the last row")
    expect(large.output(1).locator(".anb-detail")).to_have_count(0)
    large.page.keyboard.press("Home")
    wait_until(lambda: large.page.evaluate(focused).endswith("[0]"), "the first row")
    assert large.errors == []
