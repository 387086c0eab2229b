"""A real engine for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.driver import Engine, Loop, running


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    """An event loop in a thread, for clients; nothing may fail unseen in it."""
    loop = Loop()
    yield loop
    loop.stop()
    assert not loop.faults


@pytest.fixture
def engine(store: Path, loop: Loop) -> Iterator[Engine]:
    """A supervisor with an open session."""
    with running(store, loop) as engine:
        yield engine
