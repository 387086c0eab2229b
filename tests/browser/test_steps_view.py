"""The tree of an agent's steps in JupyterLab: while they happen, by keyboard, and of a real run."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser import scenes
from tests.browser.conftest import Open

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
SHARED = True


def test_steps_come_as_they_happen_and_the_tree_obeys_the_keyboard(open_book: Open) -> None:
    more = "agent.update('run-0', steps=turns(7))"
    book = open_book(scenes.SETUP, scenes.STEPS + scenes.AGENT, more, scenes.AGENT_DONE)
    book.run(0)
    book.run(1)
    tree = book.output(1).get_by_role("tree", name="Steps")
    items = tree.locator(".anb-step")
    expect(items).to_have_count(12)
    expect(book.output(1).locator(".anb-steps-head")).to_contain_text("12 steps, 1 failed")
    expect(items.last).to_contain_text("running")
    items.nth(2).evaluate("node => { node.dataset.probe = 'kept' }")
    book.run(2)
    expect(items).to_have_count(14)
    assert tree.locator("[data-probe=kept]").count() == 1
    items.first.focus()
    assert items.first.get_attribute("aria-expanded") == "true"
    book.page.keyboard.press("ArrowLeft")
    expect(items.first).to_have_attribute("aria-expanded", "false")
    expect(items.nth(1)).to_be_hidden()
    book.page.keyboard.press("ArrowDown")
    book.page.keyboard.press("ArrowRight")
    expect(items.nth(3)).to_be_focused()
    assert items.nth(3).get_attribute("aria-level") == "2"
    book.page.keyboard.press("Enter")
    expect(items.nth(3).locator(".anb-step-detail")).to_contain_text("of the tool")
    book.page.keyboard.press("End")
    expect(items.last).to_be_focused()
    book.output(1).get_by_role("button", name="Fold all", exact=True).click()
    expect(items.last).to_be_hidden()
    book.run(3)
    static = book.output(1).locator(".anb-s .anb-tr")
    expect(static.locator("li")).to_have_count(14)
    static.locator("summary").nth(1).click()
    expect(static.get_by_text("ls -la src tests")).to_be_hidden()
    assert book.errors == []


def test_the_steps_of_a_real_agent_are_there_whenever_one_looks(open_book: Open) -> None:
    start = """
    import time, agentnb as nb
    from pathlib import Path
    session = nb.Session("steps")
    def agent(ctx: nb.RunContext):
        with ctx.step("early", kind="turn"):
            pass
        ctx.log("looked around")
        while not Path('look-on').exists(): time.sleep(0.05)
        with ctx.step("late", kind="turn"), ctx.step("search", kind="tool", input={"query": "<b>x</b>"}):
            while Path('look-on').exists(): time.sleep(0.05)
    """
    launch = "runs = [session.python(agent, name='agent [0]'), session.python(agent, name='agent [1]')]\nsession"
    book = open_book(start, launch, "Path('look-on').touch()", "Path('look-on').unlink()\n_ = session.wait()", "runs[0]")
    for cell in (0, 1):
        book.run(cell)
    view = book.output(1)
    expect(view.locator(".anb-row").first).to_contain_text("looked around", timeout=30_000)
    view.locator(".anb-toggle").first.click()
    expect(view.get_by_role("treeitem")).to_have_count(1)
    expect(view.get_by_role("treeitem")).to_contain_text("early")
    book.run(2)
    expect(view.get_by_role("treeitem")).to_have_count(3)
    expect(view.get_by_role("treeitem").last).to_contain_text("<b>x</b>")
    book.run(3)
    expect(view.get_by_role("treeitem").last).not_to_contain_text("running")
    book.run(4)
    expect(book.output(4).locator(".anb-tr")).to_contain_text("3 steps")
    assert book.errors == []
