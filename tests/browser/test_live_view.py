"""The live view in a real JupyterLab, on a real kernel, driven by a scripted source."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Dialog, expect

from tests.browser.conftest import FAKE_SOURCE, Open, wait_until

pytestmark = pytest.mark.browser
SHARED = True

SETUP = FAKE_SOURCE + "\nfrom agentnb.notebook.display import show\nglobals().get('loop') and loop.stop()\nloop = ThreadLoop()\n"
LINES = "for i in range(100): source.emit('run-0', f'line {i}\\n')"
RUN = "source = FakeSource(a_run())\nshow(source, loop)"


def test_a_live_run_shows_its_output_as_it_comes_and_follows_the_end(open_book: Open) -> None:
    book = open_book(SETUP + RUN, LINES, "source.emit('run-0', 'the end\\n', 'stderr')")
    book.run(0)
    view = book.output(0).locator(".anb")
    expect(view.locator(".anb-pill")).to_contain_text("running")
    book.run(1)
    log = view.get_by_role("log")
    expect(log).to_contain_text("line 99")
    at_end = "node => node.scrollHeight - node.scrollTop - node.clientHeight < 4"
    wait_until(lambda: log.evaluate(at_end), "the log at its end")
    book.run(2)
    expect(log.locator(".anb-stderr")).to_have_text("the end")
    assert log.evaluate(at_end)
    assert book.errors == []


def test_scrolling_up_stops_following_and_jump_to_end_takes_it_up_again(open_book: Open) -> None:
    more = "for i in range(100, 150): source.emit('run-0', f'line {i}\\n')"
    book = open_book(SETUP + RUN + "\n" + LINES, more)
    book.run(0)
    log = book.output(0).get_by_role("log")
    expect(log).to_contain_text("line 99")
    log.evaluate("node => { node.scrollTop = 40 }")
    jump = book.output(0).get_by_role("button", name="Jump to end")
    expect(jump).to_be_visible()
    book.run(1)
    expect(log).to_contain_text("line 149")
    assert log.evaluate("node => node.scrollTop") == 40
    jump.click()
    assert log.evaluate("node => node.scrollHeight - node.scrollTop - node.clientHeight < 4")
    expect(jump).to_be_hidden()
    log.press("Home")
    expect(jump).to_be_visible()
    wait_until(lambda: log.evaluate("node => node.scrollTop") == 0, "the log at its start")


WAITING = """
import asyncio, time
end = time.time() + 12
while time.time() < end and not source.cancels:
    {wait}(0.05)
print('cancelled after', source.cancels)
"""


@pytest.mark.parametrize("wait", ["time.sleep", "await asyncio.sleep"], ids=["blocks", "awaits"])
def test_a_click_on_cancel_reaches_the_source_at_once_while_a_cell_waits(open_book: Open, wait: str) -> None:
    book = open_book(SETUP + RUN, "print('waiting', flush=True)" + WAITING.format(wait=wait))
    book.run(0)
    expect(book.output(0).locator(".anb")).to_be_visible()
    book.run(1)
    expect(book.output(1)).to_contain_text("waiting")
    cancel = book.output(0).locator(".anb-cancel")
    cancel.click()
    expect(book.output(0).locator(".anb-pill")).to_contain_text("cancelling", timeout=500)
    expect(cancel).to_be_disabled()
    expect(book.output(1)).to_contain_text("cancelled after [['run-0']]", timeout=5000)
    expect(book.output(0).locator(".anb-pill")).to_contain_text("cancelling")


def test_a_run_that_ends_leaves_static_html_in_the_saved_notebook_and_no_widget(open_book: Open) -> None:
    end = "source.update('run-0', status='failed', exit_code=3, error='exit code 3', finished_at=time.time(), elapsed_s=1.5)"
    book = open_book(SETUP + RUN, "source.emit('run-0', 'hello <b>there</b>\\n')\n" + end)
    book.run(0)
    expect(book.output(0).locator(".anb")).to_be_visible()
    assert "application/vnd.jupyter.widget-view+json" in json.dumps(book.save())
    book.run(1)
    static = book.output(0).locator(".anb-s")
    expect(static).to_contain_text("failed")
    expect(book.output(0).locator(".anb")).to_have_count(0)
    book.idle()
    [output] = book.save()["cells"][0]["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    assert "hello &lt;b&gt;there" in "".join(output["data"]["text/html"])
    assert "exit code 3" in "".join(output["data"]["text/plain"])


def test_reloading_the_page_in_mid_run_restores_the_view_and_output_goes_on(open_book: Open) -> None:
    book = open_book(SETUP + RUN + "\nsource.emit('run-0', 'before the reload\\n')", "source.emit('run-0', 'after it\\n')")
    book.run(0)
    expect(book.output(0).get_by_role("log")).to_contain_text("before the reload")
    book.save()
    book.reload()
    log = book.output(0).get_by_role("log")
    expect(log).to_have_text(re.compile("before the reload"), timeout=20_000)
    book.run(1)
    expect(log).to_contain_text("after it")
    assert log.locator(".anb-line").count() == 2


def test_a_group_of_200_is_patched_row_by_row_and_opens_a_log(open_book: Open) -> None:
    group = "source = a_group(*[a_run(i, params={'seed': i}) for i in range(200)])\nshow(source, loop)"
    book = open_book(SETUP + group, "source.emit('run-7', 'seven speaks\\n')\nsource.update('run-8', status='completed', elapsed_s=2.0)")
    book.run(0)
    view = book.output(0).locator(".anb")
    expect(view.locator(".anb-row").nth(9)).to_be_visible()
    assert view.locator(".anb-row").count() < 60
    view.locator(".anb-row").nth(3).evaluate("node => { node.dataset.probe = 'kept' }")
    view.get_by_role("button", name="job-7", exact=True).press("Enter")
    expect(view.locator(".anb-detail")).to_be_visible()
    book.run(1)
    expect(view.locator(".anb-detail").get_by_role("log")).to_contain_text("seven speaks")
    expect(view.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
    assert view.locator("[data-probe=kept]").count() == 1
    view.get_by_role("button", name="Cancel job-9", exact=True).click()
    expect(view.locator(".anb-row").nth(9).locator(".anb-pill")).to_contain_text("cancelling")
    assert book.errors == []


def test_hostile_text_stays_text_in_the_live_view_and_in_the_static_one(open_book: Open) -> None:
    hostile = r"""
    bad = "<img src=x onerror=alert(1)><script>alert(2)</script>\x1b]8;;javascript:alert(3)\x1b\\click\x1b]8;;\x1b\\ \u202egnp"
    source = FakeSource(a_run(name=bad, command=bad, error=bad, params={bad: bad}, warnings=[bad]))
    source.emit('run-0', bad + '\n')
    show(source, loop)
    group = a_group(a_run(1, name=bad, params={'x': bad}, error=bad))
    show(group, loop)
    """
    book = open_book(SETUP, hostile, "source.update('run-0', status='failed')\ngroup.update('run-1', status='failed')")
    dialogs: list[str] = []

    def refuse(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    book.page.on("dialog", refuse)
    book.run(0)
    book.run(1)
    views = book.output(1).locator(".anb")
    expect(views).to_have_count(2)
    expect(views.first.get_by_role("log")).to_contain_text("onerror=alert(1)")
    expect(views.first.get_by_role("log")).to_contain_text("[U+202E]gnp")
    assert book.output(1).locator(".anb :is(img, script, a, iframe, svg)").count() == 0
    book.run(2)
    static = book.output(1).locator(".anb-s")
    expect(static).to_have_count(2)
    assert static.locator("img, script, a, iframe, svg").count() == 0
    book.page.remove_listener("dialog", refuse)  # the page goes on to the next test
    assert dialogs == []
    assert book.errors == []


def test_a_click_that_nobody_answers_says_how_to_cancel(open_book: Open) -> None:
    deaf = "source.request_cancel = lambda run_ids: source.cancels.append(run_ids)"
    book = open_book(SETUP + RUN, deaf)
    book.run(0)
    book.run(1)
    book.idle()
    view = book.output(0).locator(".anb")
    view.get_by_role("button", name="Cancel", exact=True).click()
    expect(view.locator(".anb-note")).to_contain_text("stop button")
    expect(view.get_by_role("status")).to_have_text("job-0: cancelling")


def test_copy_output_puts_the_shown_text_on_the_clipboard(open_book: Open) -> None:
    book = open_book(SETUP + RUN + "\nsource.emit('run-0', 'one\\n\\n\\x1b[31mthree\\x1b[0m')")
    book.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    book.run(0)
    expect(book.output(0).get_by_role("log")).to_contain_text("three")
    book.output(0).get_by_role("button", name="Copy output").click()
    expect(book.output(0).get_by_role("button", name="Copied")).to_be_visible()
    assert book.page.evaluate("navigator.clipboard.readText()") == "one\n\nthree"
