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
        code: list[Any] = [
            {
                "cell_type": "code",
                "id": f"c{i}",
                "metadata": {},
                "source": textwrap.dedent(cell).strip(),
                "outputs": [],
                "execution_count": None,
            }
            for i, cell in enumerate(cells)
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        book = {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        (self.folder / name).write_text(json.dumps(book), encoding="utf-8")
        return name

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
    base = tmp_path_factory.mktemp("lab")
    folders = {name: base / name for name in ("home", "config", "data", "runtime", "ipython", "settings", "workspaces", "work")}
    for folder in folders.values():
        folder.mkdir()
    apputils = folders["settings"] / "@jupyterlab/apputils-extension"
    apputils.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (apputils / "notification.jupyterlab-settings").write_text(json.dumps(quiet), encoding="utf-8")
    env = {key: text for key, text in os.environ.items() if not key.startswith(("JUPYTER", "IPYTHON", "AGENTNB", "COV_"))} | {
        "HOME": str(folders["home"]),
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
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folders['work']}", "--LabApp.news_url=None"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        yield running
        running.close()


@dataclass
class Book:
    """A notebook that is open in a page of its own."""

    page: Page
    lab: Lab
    name: str
    ran: int = 0
    errors: list[str] = field(default_factory=list)

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
        wait_until(lambda: path.stat().st_mtime_ns != before, "the saved notebook")
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


Open = Callable[..., Book]


@pytest.fixture
def open_book(lab: Lab, browser: Browser) -> Iterator[Open]:
    """Open a notebook with the given cells in a fresh workspace; `theme`, `width` and `height` as asked."""
    contexts = []

    def opening(*cells: str, theme: str = "light", width: int = 1100, height: int = 900) -> Book:
        name = lab.write(*cells)
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="dark" if theme == "dark" else "light")
        contexts.append(context)
        page = context.new_page()
        book = Book(page, lab, name)
        page.on("pageerror", lambda error: book.errors.append(str(error)))
        settings = {"raw": json.dumps({"theme": "JupyterLab Dark" if theme == "dark" else "JupyterLab Light", "adaptive-theme": False})}
        asked = f"{lab.url}/lab/api/settings/@jupyterlab/apputils-extension:themes?token={lab.token}"
        request = urllib.request.Request(asked, json.dumps(settings).encode(), {"Content-Type": "application/json"}, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        page.goto(f"{lab.url}/lab/workspaces/w{lab.opened}/tree/{name}?token={lab.token}")
        book.ready()
        return book

    yield opening
    for context in contexts:
        context.close()
