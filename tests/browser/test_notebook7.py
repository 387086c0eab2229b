"""Notebook 7: a live run with its Cancel button, and what its file holds then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Lab, running_lab, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Lab]:
    """Notebook 7 on loopback."""
    with running_lab(tmp_path, app="notebook") as running:
        yield running


def run(page: Page, cell: int) -> None:
    here = page.locator(".jp-Notebook .jp-Cell").nth(cell)
    untouched = here.get_by_text("[ ]:", exact=True)

    def pressed() -> bool:  # a kernel that is only starting drops what it is asked
        here.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(500)
        return untouched.count() == 0

    wait_until(pressed, "the cell to run")


def test_notebook_7_shows_a_run_live_cancels_it_and_saves_its_end(notebook: Lab, browser: Browser) -> None:
    launch = 'run = session.shell("echo started; sleep 600", name="endless")\nrun'
    name = notebook.write('import agentnb as nb\nsession = nb.Session("seven")', launch, "run.wait().status")
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    errors: list[str] = []
    # Notebook 7.6 has errors of its own when it starts; widgets' modules are loaded from blobs.
    page.on("pageerror", lambda error: errors.append(str(error)) if "blob:" in (error.stack or "") else None)
    page.goto(f"{notebook.url}/notebooks/{name}?token={notebook.token}")
    expect(page.locator(".jp-Notebook .jp-Cell").nth(2)).to_be_visible(timeout=60_000)
    expect(page.locator(".jp-NotebookKernelStatus, .jp-Notebook-ExecutionIndicator").first).to_be_visible(timeout=30_000)
    outputs = page.locator(".jp-Notebook .jp-Cell .jp-Cell-outputWrapper")
    for cell in range(3):
        run(page, cell)
    expect(outputs.nth(1).locator(".anb").get_by_role("log")).to_contain_text("started", timeout=30_000)
    outputs.nth(1).get_by_role("button", name="Cancel").click()
    expect(outputs.nth(2)).to_contain_text("CANCELLED", timeout=20_000)
    expect(outputs.nth(1).locator(".anb-s")).to_contain_text("cancelled in its view")
    before = notebook.saved(name)
    page.keyboard.press("Control+s")
    wait_until(lambda: notebook.saved(name) != before, "the saved notebook")
    [output] = notebook.saved(name)["cells"][1]["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    assert "started" in json.dumps(output)
    assert errors == []
    page.close()
    notebook.end_kernel(name)
