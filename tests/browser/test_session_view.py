"""The main job in JupyterLab: real runs of a real session, live, failed, cancelled, done, and reopened without a kernel."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(240)]
SHARED = True

START = """
    import agentnb as nb
    session = nb.Session("look", max_parallel=2)
"""


def test_a_run_is_live_while_it_works_and_static_when_it_has_ended(open_book: Open) -> None:
    book = open_book(
        START,
        'run = session.shell("echo first; while [ ! -e go ]; do sleep 0.1; done; echo last", name="steady")\nrun',
        "open('go', 'w').close()",
    )
    for cell in range(2):
        book.run(cell)
    live = book.output(1).locator(".agentnb-run, [data-status]").first
    expect(live).to_contain_text("running", timeout=20_000)
    expect(book.output(1)).to_contain_text("first")
    book.run(2)
    expect(book.output(1)).to_contain_text("completed", timeout=20_000)
    expect(book.output(1)).to_contain_text("last")
    saved = json.dumps(book.save()["cells"][1]["outputs"])
    assert "text/html" in saved
    assert "widget-view" not in saved


@pytest.mark.parametrize("waiting", ["await run", "run.wait()"])
def test_cancel_ends_a_real_run_while_a_cell_waits_for_it(open_book: Open, waiting: str) -> None:
    book = open_book(
        START, 'run = session.shell("echo started; sleep 600", name="endless")\nrun', waiting, "print(run.status, run.error.message)"
    )
    for cell in range(4):
        book.run(cell)
    expect(book.output(1)).to_contain_text("started", timeout=20_000)
    book.output(1).get_by_role("button", name="Cancel").click()
    expect(book.output(3)).to_contain_text("cancelled cancelled in its view", timeout=20_000)
    expect(book.output(1)).to_contain_text("cancelled")


def test_a_saved_notebook_shows_its_runs_without_a_kernel(open_book: Open) -> None:
    book = open_book(
        START,
        'run = session.shell("echo to stdout; echo to stderr >&2; exit 3", name="broken")\nrun',
        'group = session.map(nb.Shell("echo {{word}}; exit {{code}}"), nb.grid(word=["a", "b c"], code=[0, 1]), name="several")\ngroup',
        "_ = session.wait()",
        "session",
        "session.end()",
    )
    for cell in range(6):
        book.run(cell)
    book.idle()
    for cell, texts in {1: ("failed", "exit", "to stderr"), 2: ("several", "failed 2", "completed 2"), 4: ("look", "ended")}.items():
        for text in texts:
            expect(book.output(cell)).to_contain_text(text, timeout=20_000)
    book.save()
    stop = "for (const k of await (await fetch('/api/kernels')).json()) await fetch('/api/kernels/' + k.id, {method: 'DELETE'})"
    book.spent = True
    book.page.evaluate(f"async () => {{ {stop} }}")
    book.page.reload()
    expect(book.output(1)).to_contain_text("to stderr", timeout=60_000)
    expect(book.output(2)).to_contain_text("failed 2")
    expect(book.output(4)).to_contain_text("ended")
    assert "widget-view" not in json.dumps(book.lab.saved(book.name)["cells"])
