"""Every kind of view at once, in both themes and on a narrow page: nothing overlaps, nothing overflows; pictures for people."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser import scenes
from tests.browser.conftest import Book, Open, picture

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(240)]
SHARED = True

CELLS = {
    "one": scenes.ONE,
    "failing": scenes.FAILING,
    "agent": scenes.STEPS + scenes.AGENT,
    "group_200": scenes.GROUP_200,
    "group_2000": scenes.GROUP_2000,
    "session": scenes.SESSION,
    "texts": scenes.TEXTS,
    "empty": scenes.EMPTY,
}
#: Inside of a view nothing may stick out to the side, but for what scrolls or is cut on purpose.
STICKS_OUT = """node => [...node.querySelectorAll('*')].filter(part => part.offsetParent
    && part.getBoundingClientRect().right > node.getBoundingClientRect().right + 1
    && !part.closest('.anb-scroll, .anb-box, .anb-hidden, pre, .anb-x')).map(part => part.className)"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_kind_of_view_fits_its_page_also_a_narrow_one(open_book: Open, theme: str) -> None:
    book = open_book(scenes.SETUP, *CELLS.values(), scenes.ENDS, theme=theme)
    book.run(0)
    for n, scene in enumerate(CELLS, start=1):
        book.run(n)
        views = book.output(n).locator(".anb")
        expect(views.first).to_be_visible(timeout=20_000)
        book.idle()
        if scene in {"group_200", "texts"}:
            views.first.locator(".anb-toggle").nth(1).click()
            expect(views.first.locator(".anb-detail .anb-line").first).to_be_visible()
        look(book, n, f"{scene}_{theme}")
    if theme == "light":
        book.page.keyboard.press("Control+b")  # JupyterLab's side bar
        book.page.set_viewport_size({"width": 480, "height": 900})
        for n, scene in enumerate(CELLS, start=1):
            look(book, n, f"{scene}_narrow")
        book.page.set_viewport_size({"width": 1300, "height": 900})
        look(book, list(CELLS).index("group_200") + 1, "group_200_wide")
        book.page.set_viewport_size({"width": 1100, "height": 900})
        book.page.keyboard.press("Control+b")
    book.run(len(CELLS) + 1)
    for n in (2, 3):
        expect(book.output(n).locator(".anb-s")).to_be_visible(timeout=20_000)
        look(book, n, f"{list(CELLS)[n - 1]}_done_{theme}")
    assert book.errors == []


def look(book: Book, cell: int, name: str) -> None:
    """Whether the views of a cell fit their page; a picture of them."""
    place = book.output(cell)
    place.scroll_into_view_if_needed()
    for view in place.locator(".anb, .anb-s").all():
        assert view.evaluate(STICKS_OUT) == []
    picture(place, name)
