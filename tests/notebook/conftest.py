"""Sessions for tests, and scripts in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.fakes.fixtures import fake_claude
from agentnb.notebook import loop

__all__ = ["fake_claude", "new_session", "run_script", "session", "start_script"]


@pytest.fixture
def new_session(store: Path) -> Iterator[Callable[..., nb.Session]]:
    """Makes sessions in a scratch store; the engine and its threads end with the test."""
    yield lambda name="test", **options: nb.Session(name, **({"store": store} | options))
    loop.shutdown()


@pytest.fixture
def session(new_session: Callable[..., nb.Session]) -> nb.Session:
    """A session in a scratch store."""
    return new_session(max_parallel=4)


@pytest.fixture
def start_script(tmp_path: Path, store: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a script in a process of its own, with `nb` and `session` at hand."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        path = tmp_path / f"script{len(started)}.py"
        path.write_text("import agentnb as nb\nsession = nb.Session('script')\n" + textwrap.dedent(code), encoding="utf-8")
        env = os.environ | {"AGENTNB_HOME": str(store), "PYTHONUNBUFFERED": "1"}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen([sys.executable, str(path)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_script(start_script: Callable[[str], subprocess.Popen[str]]) -> Callable[[str], str]:
    """Runs such a script to its end and returns what it printed; it must end well and say nothing on stderr."""

    def run(code: str) -> str:
        process = start_script(code)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, ""), err
        return out

    return run
