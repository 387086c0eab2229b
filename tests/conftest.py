"""What every test gets: a scratch folder as working directory, and a check that it leaves nothing behind."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from agentnb.engine.proc import children_of

#: The examples of the last run again, unless the test was changed: whether a change is good shall not hang on what is drawn that day.
settings.register_profile("steady", derandomize=True)

#: How long a test's leftovers may take to go away, in seconds. It is waited for as a condition, not slept.
PATIENCE = 5.0

#: Descriptors that libraries open once and keep: they are no leak of the test that happened to come first.
LASTING = ("anon_inode:", "/dev/urandom", "/dev/null", "/dev/pts/", "/dev/tty", "/proc/", "/sys/", "/usr/", "/etc/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run browser tests last: playwright keeps an event loop running on the main thread, where others call asyncio.run."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temporary folder that nobody else on this machine writes to, so that leftovers are this session's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("t"))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of a store that does not exist yet."""
    return tmp_path / "store"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Work in a scratch folder, so that ./.agentnb never lands in the repository; views are text unless a browser looks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENTNB_HOME", raising=False)
    if "browser" not in request.keywords:
        monkeypatch.setenv("AGENTNB_DISPLAY", "text")


@pytest.fixture(autouse=True)
def no_leaks(scratch: None) -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a file descriptor or a temporary file behind."""
    processes, threads, descriptors, files = _processes(), set(threading.enumerate()), _descriptors(), _temporary()
    yield
    if (loop := sys.modules.get("agentnb.notebook.loop")) is not None:
        loop.shutdown()
    elif (client := sys.modules.get("agentnb.engine.client")) is not None:
        client.shutdown_all()
    checks: list[Callable[[], list[str]]] = [
        # mostly there is none at all, and psutil reads the state of every process of the machine to find that out
        lambda: [f"process {pid}: {line}" for pid, line in _processes(processes).items()] if children_of(os.getpid()) else [],
        lambda: [f"thread {t.name}" for t in set(threading.enumerate()) - threads if not t.daemon or t.name.startswith("agentnb")],
        lambda: [f"descriptor of {target} (+{more})" for target, more in (_descriptors() - descriptors).items()],
        lambda: [f"file {name}" for name in sorted(_temporary() - files)],
    ]
    if left := _wait_until_clean(checks):
        pytest.fail("the test left behind: " + "; ".join(left))


def _wait_until_clean(checks: list[Callable[[], list[str]]]) -> list[str]:
    deadline = time.monotonic() + PATIENCE
    while (left := [found for check in checks for found in check()]) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return left


def _processes(known: Collection[int] = ()) -> dict[int, str]:
    """The live processes below this one, except for the families of `known` ones (a browser starts children when it likes)."""
    found, todo = {}, psutil.Process().children()
    while todo:
        child = todo.pop()
        try:
            if child.pid not in known:
                todo += child.children()
                if child.status() != psutil.STATUS_ZOMBIE:
                    found[child.pid] = " ".join(child.cmdline())[:120]
        except psutil.NoSuchProcess:
            continue
    return found


def _descriptors() -> Counter[str]:
    """What this process has open: kind of pipe and socket without its number, files by path."""
    targets: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if not target.startswith(LASTING):
            targets[target.partition("[")[0] if target.startswith(("pipe:", "socket:")) else target] += 1
    return targets


def _temporary() -> set[str]:
    return set(os.listdir(tempfile.gettempdir()))
