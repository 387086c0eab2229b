"""Pytest fixtures: ``from agentnb.fakes.fixtures import fake_claude`` in a conftest.py or a test module."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentnb.agents.claude_cli import VARIABLE
from agentnb.fakes import claude


def install_fake_claude(folder: Path) -> Path:
    """Write a program named ``claude`` into `folder` that runs the stand-in; return its path."""
    program = folder / "claude"
    words = shlex.join([sys.executable, "-I", "-S", str(claude.__file__)])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return program


@pytest.fixture
def fake_claude(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs of claude use the stand-in of agentnb.fakes.claude: ``fake_claude("slow:1")`` sets its mode, ``text=`` its answer."""
    monkeypatch.setenv(VARIABLE, str(install_fake_claude(tmp_path_factory.mktemp("fake"))))

    def choose(mode: str = "text", *, text: str | None = None) -> None:
        monkeypatch.setenv("AGENTNB_FAKE_CLAUDE", mode)
        if text is None:
            monkeypatch.delenv("AGENTNB_FAKE_CLAUDE_TEXT", raising=False)
        else:
            monkeypatch.setenv("AGENTNB_FAKE_CLAUDE_TEXT", text)

    choose()
    return choose
