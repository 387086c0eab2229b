"""The live view of core widgets in a real JupyterLab, on a kernel without anywidget."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import FAKE_SOURCE, Open, picture
from tests.browser.test_live_view import WAITING

pytestmark = pytest.mark.browser

SETUP = "import sys\nsys.modules['anywidget'] = None\n" + FAKE_SOURCE + "\nfrom agentnb.notebook.display import show\nloop = ThreadLoop()\n"
RUN = "source = FakeSource(a_run(name='build'))\nshow(source, loop)"
GROUP = "group = a_group(*[a_run(i, params={'seconds': i / 10, 'word': 'a b'}) for i in range(6)])\nshow(group, loop)"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_without_anywidget_core_widgets_show_status_output_progress_and_cancel(open_book: Open, theme: str) -> None:
    lines = "for i in range(40): source.emit('run-0', f'line {i}\\n')\n"
    lines += "source.emit('run-0', '\\x1b[31mred\\x1b[0m <b>no markup</b>\\n', 'stderr')\n"
    lines += "group.emit('run-1', 'one speaks\\n')\n"
    lines += "group.update('run-2', status='completed')\ngroup.update('run-3', status='failed', error='exit code 2')"
    end = "source.update('run-0', status='completed', exit_code=0, elapsed_s=2.0)\n"
    end += "for i in range(6): group.update(f'run-{i}', status='completed')"
    book = open_book(SETUP + RUN, GROUP, lines, end, theme=theme)
    book.run(0)
    book.run(1)
    run, group = (book.output(number).locator(".agentnb-core-view") for number in (0, 1))
    expect(run).to_contain_text("running")
    book.run(2)
    expect(run.locator("pre")).to_contain_text("line 39")
    expect(run.locator("pre")).not_to_contain_text("line 20")
    expect(run.locator("pre")).to_contain_text("<b>no markup</b>")
    expect(run).to_contain_text("3.0 s", timeout=10_000)
    expect(group).to_contain_text("one speaks")
    expect(group).to_contain_text("exit code 2")
    expect(group.get_by_text("2 of 6")).to_be_visible()
    group.get_by_role("button", name="Cancel all").click()
    expect(group.get_by_role("button", name="cancelling")).to_be_disabled()
    expect(run.get_by_role("button", name="Cancel")).to_be_enabled()
    picture(run, f"core-run-{theme}")
    picture(group, f"core-group-{theme}")
    assert "widget-view" in json.dumps(book.save()["cells"][0]["outputs"])
    book.run(3)
    for number in (0, 1):
        expect(book.output(number).locator(".anb-s")).to_contain_text("completed")
        expect(book.output(number).locator(".agentnb-core-view")).to_have_count(0)
    saved = [json.dumps(cell["outputs"]) for cell in book.save()["cells"][:2]]
    assert not any("widget-view" in outputs for outputs in saved)
    assert book.errors == []


@pytest.mark.parametrize("wait", ["time.sleep", "await asyncio.sleep"], ids=["blocks", "awaits"])
def test_its_cancel_button_reaches_the_source_at_once_while_a_cell_waits(open_book: Open, wait: str) -> None:
    book = open_book(SETUP + RUN, "print('waiting', flush=True)" + WAITING.format(wait=wait))
    book.run(0)
    button = book.output(0).get_by_role("button", name="Cancel")
    expect(button).to_be_enabled()
    book.run(1)
    expect(book.output(1)).to_contain_text("waiting")
    button.click()
    expect(book.output(1)).to_contain_text("cancelled after [None]", timeout=5000)
    expect(book.output(0).get_by_role("button", name="cancelling")).to_be_disabled()


def test_reloading_the_page_restores_the_view_and_it_shows_the_end(open_book: Open) -> None:
    end = "source.update('run-0', status='completed', exit_code=0, elapsed_s=2.0)"
    book = open_book(SETUP + RUN, "source.emit('run-0', 'after it\\n')", end)
    book.run(0)
    expect(book.output(0).get_by_role("button", name="Cancel")).to_be_enabled()
    book.save()
    book.reload()
    expect(book.output(0).locator(".agentnb-core-view")).to_contain_text("running")
    book.run(1)
    expect(book.output(0).locator("pre")).to_contain_text("after it")
    book.run(2)
    expect(book.output(0).locator(".agentnb-core-view")).to_contain_text("completed")
    expect(book.output(0).get_by_role("button", name="Cancel")).to_be_hidden()
    assert book.errors == []
