"""Pages that come late: reloaded, closed and opened again, a second view, a restarted kernel; and the file that is kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Book, Open, picture

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(240)]
SHARED = True

#: Runs that go on until a file says stop; the names differ from those of other modules that share the kernel.
START = """
    import agentnb as nb
    from pathlib import Path
    Path("stop").unlink(missing_ok=True)
    session = nb.Session("late", max_parallel=4)
    command = "echo first; while [ ! -e stop ]; do sleep 0.05; done; echo last; exit {}"
"""
RUN = 'run = session.shell(command.format(3), name="steady")\nrun'
STOP = 'Path("stop").touch()\n_ = run.wait()'


def close_and_open(book: Book, meanwhile: str = "") -> None:
    """Close the notebook's tab, run code in its kernel, and open it again."""
    book.save()
    script = """async ([name, code]) => {
        const {shell, commands} = jupyterapp, {kernel} = shell.currentWidget.sessionContext.session
        const other = kernel.clone()
        await shell.currentWidget.context.save()
        shell.currentWidget.close()
        await new Promise(done => setTimeout(done, 300))
        if (code) await other.requestExecute({code}).done
        await commands.execute('docmanager:open', {path: name})
        other.dispose()
    }"""
    book.page.evaluate(script, [book.name, meanwhile])
    book.ready()


def test_two_views_of_a_run_follow_it_and_both_turn_static(open_book: Open) -> None:
    book = open_book(START, RUN, "run", "session", STOP)
    for cell in range(4):
        book.run(cell)
    for cell in (1, 2):
        expect(book.output(cell).locator(".anb").get_by_role("log")).to_contain_text("first", timeout=20_000)
    book.output(2).get_by_role("button", name="Expand").click()
    book.run(4)
    for cell in (1, 2):
        expect(book.output(cell).locator(".anb-s")).to_contain_text("last", timeout=20_000)
        expect(book.output(cell).locator(".anb")).to_have_count(0)
    expect(book.output(3).locator(".anb-row")).to_contain_text("failed")
    assert book.errors == []


def test_a_page_that_was_reloaded_in_mid_run_shows_the_end(open_book: Open) -> None:
    book = open_book(START, RUN, "session", STOP + "\nsession.end()")
    for cell in range(3):
        book.run(cell)
    expect(book.output(1).get_by_role("log")).to_contain_text("first", timeout=20_000)
    book.save()
    book.reload()
    expect(book.output(1).locator(".anb").get_by_role("log")).to_contain_text("first", timeout=20_000)
    expect(book.output(2).locator(".anb-row")).to_contain_text("running")
    book.run(3)
    expect(book.output(1).locator(".anb-s")).to_contain_text("failed", timeout=20_000)
    expect(book.output(1)).to_contain_text("last")
    expect(book.output(1).locator(".anb")).to_have_count(0)
    expect(book.output(2).locator(".anb-s")).to_contain_text("ended")
    book.save()
    book.reload()
    expect(book.output(1).locator(".anb-s")).to_contain_text("last", timeout=20_000)
    assert book.errors == []


def test_a_notebook_that_was_closed_shows_what_goes_on_or_what_ended_meanwhile(open_book: Open) -> None:
    book = open_book(START, RUN, STOP)
    book.run(0)
    book.run(1)
    expect(book.output(1).get_by_role("log")).to_contain_text("first", timeout=20_000)
    close_and_open(book)
    expect(book.output(1).locator(".anb").get_by_role("log")).to_contain_text("first", timeout=20_000)
    expect(book.output(1).locator(".anb-pill")).to_contain_text("running")
    close_and_open(book, STOP)
    expect(book.output(1).locator(".anb-s")).to_contain_text("last", timeout=20_000)
    expect(book.output(1)).to_contain_text("failed")
    assert book.errors == []


def test_a_view_whose_kernel_is_restarted_says_so_and_counts_no_further(open_book: Open) -> None:
    book = open_book(START, RUN, 'import agentnb as nb\nnb.runs_df(session="late").status.iloc[-1]')
    book.run(0)
    book.run(1)
    view = book.output(1).locator(".anb")
    expect(view.get_by_role("log")).to_contain_text("first", timeout=20_000)
    book.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    expect(view.locator(".anb-note")).to_contain_text("kernel that showed this is gone", timeout=20_000)
    expect(view.get_by_role("button", name="Cancel")).to_be_hidden()
    shown = view.locator(".anb-elapsed").first.inner_text()
    picture(view, "kernel_gone")
    book.ready()
    book.run(2)
    expect(book.output(2)).to_contain_text("interrupted", timeout=20_000)
    assert view.locator(".anb-elapsed").first.inner_text() == shown
    assert book.errors == []


def test_what_has_ended_is_read_without_a_kernel_widgets_or_a_network(open_book: Open) -> None:
    book = open_book(START, RUN, STOP)
    for cell in range(3):
        book.run(cell)
    expect(book.output(1).locator(".anb-s")).to_contain_text("last", timeout=20_000)
    saved = book.save()
    assert "widgets" not in saved["metadata"]
    [output] = saved["cells"][1]["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    assert "<script" not in (html := "".join(output["data"]["text/html"]))
    assert "http" not in html
    assert "✗ failed" in "".join(output["data"]["text/plain"])
    source = book.lab.folder / book.name
    target = source.with_name("exported.html")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(source), "--output", target.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    page = book.page.context.new_page()
    page.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page.goto(target.as_uri())
    expect(page.locator(".anb-s")).to_contain_text("last")
    expect(page.locator(".anb-s")).to_contain_text("it exited with code 3")
    page.close()
    assert "widget-view" not in json.dumps(saved["cells"])
