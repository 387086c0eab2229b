"""A real JupyterLab on loopback and the system's Chromium: nothing here reads or writes a file of the user's."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: The scripted source of views, as the text of a cell.
FAKE_SOURCE = (ROOT / "tests/notebook/fake_source.py").read_text(encoding="utf-8").replace("from __future__ import annotations\n", "")


def chromium() -> str:
    """The path of the system's Chromium; a test run without one fails, it does not skip."""
    found = "/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else shutil.which("chromium")
    if not found:
        pytest.fail("the browser tests need Chromium: apt-get install -y --no-install-recommends chromium fonts-dejavu-core", pytrace=False)
    return found


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """The first true value of `condition`; fails, naming `what`, when there is none in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s:.0f} s in vain for {what}")


def code_cells(*cells: str) -> list[dict[str, Any]]:
    """These texts as the code cells of a notebook."""
    empty: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    return [{**empty, "id": f"c{i}-{secrets.token_hex(4)}", "source": textwrap.dedent(cell).strip()} for i, cell in enumerate(cells)]


@dataclass
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    folder: Path
    opened: int = 0

    def write(self, *cells: str) -> str:
        """Write a notebook with these code cells; its name."""
        self.opened += 1
        name = f"n{self.opened}.ipynb"
        code = code_cells(*cells)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / name).write_text(json.dumps(book), encoding="utf-8")
        return name

    def ask(self, path: str, method: str = "GET", data: Any = None) -> Any:
        """Ask the server's API."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"{self.url}/{path}?token={self.token}", body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def end_kernel(self, name: str) -> None:
        """End the kernel of this notebook."""
        for session in self.ask("api/sessions"):
            if session["path"] == name:
                self.ask(f"api/sessions/{session['id']}", "DELETE")

    def saved(self, name: str) -> Any:
        """The notebook as it is on disk."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab with a token, all of its folders in scratch."""
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@contextmanager
def running_lab(base: Path, app: str = "jupyterlab") -> Iterator[Lab]:
    """JupyterLab, or the `app` "notebook", on loopback, all of its folders below `base`."""
    folders = {name: base / name for name in ("home", "config", "data", "runtime", "ipython", "settings", "workspaces", "work", "tmp")}
    for folder in folders.values():
        folder.mkdir()
    apputils = folders["settings"] / "@jupyterlab/apputils-extension"
    apputils.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (apputils / "notification.jupyterlab-settings").write_text(json.dumps(quiet), encoding="utf-8")
    env = {key: text for key, text in os.environ.items() if not key.startswith(("JUPYTER", "IPYTHON", "AGENTNB", "COV_"))} | {
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "JUPYTER_CONFIG_DIR": str(folders["config"]),
        "JUPYTER_DATA_DIR": str(folders["data"]),
        "JUPYTER_RUNTIME_DIR": str(folders["runtime"]),
        "JUPYTERLAB_SETTINGS_DIR": str(folders["settings"]),
        "JUPYTERLAB_WORKSPACES_DIR": str(folders["workspaces"]),
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(folders["ipython"]),
        "PYTHONPATH": str(ROOT),
        "JUPYTER_NO_CONFIG": "1",
    }
    port, token = free_port(), secrets.token_hex(16)
    command = [sys.executable, "-m", app, "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folders['work']}"]
    name = "LabApp" if app == "jupyterlab" else "JupyterNotebookApp"
    command += [f"--{name}.news_url=None", f"--{name}.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    command += [f"--{name}.expose_app_in_browser=True"]
    url = f"http://127.0.0.1:{port}"
    with (base / "lab.log").open("wb") as log, subprocess.Popen(command, env=env, cwd=folders["work"], stdout=log, stderr=log) as server:
        try:
            wait_until(lambda: server.poll() is not None or _answers(f"{url}/api/status?token={token}"), "JupyterLab", 60)
            assert server.poll() is None, (base / "lab.log").read_text(errors="replace")[-3000:]
            yield Lab(url, token, folders["work"])
        finally:
            server.terminate()
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()


def picture(place: Locator, name: str) -> None:
    """Keep a picture for people, in a folder that git ignores."""
    folder = ROOT / "test-artifacts"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.png").write_bytes(place.screenshot())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        yield running
        running.close()


def _is_whole(path: Path) -> bool:
    """Whether the file is written to its end."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


@dataclass
class Book:
    """A notebook that is open in a page of its own."""

    page: Page
    lab: Lab
    name: str
    ran: int = 0
    errors: list[str] = field(default_factory=list)
    #: No later test may use it: its kernel is gone, say.
    spent: bool = False

    def stage(self, *cells: str) -> None:
        """Put these cells in the place of all; the kernel stays."""
        self.idle()
        self.errors.clear()
        self.page.evaluate(_STAGE, code_cells(*cells))
        expect(self.page.locator(".jp-Notebook .jp-Cell")).to_have_count(len(cells))

    def dress(self, theme: str) -> None:
        """Give the page its theme: the setting is one for all pages, and one that was loaded again has the latest."""
        name, light = ("JupyterLab Dark", "false") if theme == "dark" else ("JupyterLab Light", "true")
        self.page.evaluate("theme => { jupyterapp.commands.execute('apputils:change-theme', {theme}) }", name)
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", light, timeout=20_000)

    def cell(self, number: int) -> Locator:
        """A cell of the notebook."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def output(self, number: int) -> Locator:
        """What a cell shows."""
        return self.cell(number).locator(".jp-Cell-outputWrapper")

    def run(self, number: int) -> None:
        """Run a cell, as a person does; returns at once."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def idle(self, timeout_s: float = 60.0) -> None:
        """Wait until the kernel is."""
        indicator = self.page.locator(".jp-Notebook-ExecutionIndicator").first
        expect(indicator).to_have_attribute("data-status", "idle", timeout=timeout_s * 1000)

    def save(self) -> Any:
        """Save; the notebook as it is on disk then."""
        path = self.lab.folder / self.name
        before = path.stat().st_mtime_ns
        self.page.keyboard.press("Control+s")
        wait_until(lambda: path.stat().st_mtime_ns != before and _is_whole(path), "the saved notebook")
        return self.lab.saved(self.name)

    def reload(self) -> None:
        """Load the page again."""
        self.page.reload()
        self.ready()

    def ready(self) -> None:
        """Wait until cells can be run."""
        expect(self.page.locator(".jp-Notebook .jp-Cell").first).to_be_visible(timeout=60_000)
        self.idle()
        self.page.wait_for_timeout(1500)  # JupyterLab swallows keys for a moment after it says that it is idle


_STAGE = """cells => {
    const {content} = jupyterapp.shell.currentWidget, model = content.model.sharedModel
    model.transact(() => { model.deleteCellRange(0, model.cells.length); model.insertCells(0, cells) })
    content.activeCellIndex = 0
}"""
Open = Callable[..., Book]


class Books:
    """Notebooks that are open in pages of their own, each kind at most once."""

    def __init__(self, lab: Lab, browser: Browser) -> None:
        """None is open yet."""
        self._lab, self._browser = lab, browser
        self._books: dict[tuple[str, int, int], Book] = {}
        self._all: list[Book] = []

    def open(self, *cells: str, theme: str = "light", width: int = 1100, height: int = 900) -> Book:
        """A notebook with these cells: to load JupyterLab and start a kernel takes most of a test's time, so one that is open gets them."""
        known = self._books.get((theme, width, height))
        if known is not None and not known.spent:
            known.stage(*cells)
            known.dress(theme)
            return known
        lab, name = self._lab, self._lab.write(*cells)
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if theme == "dark" else "light"
        )
        page = context.new_page()
        book = Book(page, lab, name)
        self._all.append(book)
        page.on("pageerror", lambda error: book.errors.append(str(error)))
        settings = {"raw": json.dumps({"theme": "JupyterLab Dark" if theme == "dark" else "JupyterLab Light", "adaptive-theme": False})}
        lab.ask("lab/api/settings/@jupyterlab/apputils-extension:themes", "PUT", settings)
        page.goto(f"{lab.url}/lab/workspaces/w{lab.opened}/tree/{name}?token={lab.token}")
        book.ready()
        book.dress(theme)
        self._books[theme, width, height] = book
        return book

    def close(self) -> None:
        """Close their pages and end their kernels, which would slow down the rest."""
        for book in self._all:
            book.page.context.close()
            self._lab.end_kernel(book.name)


@pytest.fixture(scope="session")
def shared_books(lab: Lab, browser: Browser) -> Iterator[Books]:
    """Pages and kernels for all modules that share theirs."""
    books = Books(lab, browser)
    yield books
    books.close()


@pytest.fixture(scope="module")
def open_book(lab: Lab, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Give a notebook with the given cells; `theme`, `width` and `height` as asked.

    Tests of one module share pages and kernels; those of modules that say SHARED do with each other.
    """
    if getattr(request.module, "SHARED", False):
        yield request.getfixturevalue("shared_books").open
        return
    books = Books(lab, browser)
    yield books.open
    books.close()
