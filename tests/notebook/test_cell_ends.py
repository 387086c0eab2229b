from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.events import EventManager

from agentnb.notebook import cell_ends
from tests.notebook.fake_source import ThreadLoop


class Shell:
    def __init__(self) -> None:
        names = ("pre_run_cell", "post_run_cell")
        self.events = EventManager(self, {name: lambda *_: None for name in names})

    def cell(self, during: Callable[[], object] = lambda: None) -> float:
        began = time.monotonic()
        self.events.trigger("pre_run_cell", None)
        during()
        self.events.trigger("post_run_cell", None)
        return time.monotonic() - began

    def listeners(self) -> int:
        return sum(map(len, self.events.callbacks.values()))


def test_what_is_wanted_is_settled_before_the_end_of_each_cell() -> None:
    shell, loop, done = Shell(), ThreadLoop(), list[str]()
    wanted = [True]
    cells = cell_ends.CellEnds(shell, loop, lambda: wanted[0], lambda: done.append("settled"))
    assert cells.running
    shell.cell(lambda: done.append("in the cell"))
    assert (done, cells.running) == (["in the cell", "settled"], False)
    wanted[0] = False
    shell.cell()
    assert len(done) == 2
    loop.stop()


def test_a_fault_in_settling_is_no_fault_of_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    def bad() -> None:
        raise RuntimeError("boom")

    class Loop:
        def call_soon(self, fn: Callable[..., Any], *args: Any) -> None:
            with pytest.raises(RuntimeError, match="boom"):  # on the loop thread, where it is logged
                fn(*args)

        def call_later(self, delay_s: float, fn: Callable[..., Any], *args: Any) -> None: ...

    shell = Shell()
    cells = cell_ends.CellEnds(shell, Loop(), lambda: True, bad)
    shell.cell()
    assert cells.alive
    assert capsys.readouterr() == ("", "")


def test_a_loop_that_is_closed_or_stuck_is_left_alone_from_then_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed:
        def call_soon(self, fn: Callable[..., Any], *args: Any) -> None:
            raise RuntimeError("Event loop is closed")

        def call_later(self, delay_s: float, fn: Callable[..., Any], *args: Any) -> None: ...

    class Stuck(Closed):
        def call_soon(self, fn: Callable[..., Any], *args: Any) -> None: ...

    monkeypatch.setattr(cell_ends, "PATIENCE_S", 0.05)
    shell = Shell()
    for loop in (Closed(), Stuck()):
        cells = cell_ends.CellEnds(shell, loop, lambda: True, lambda: None)
        before = shell.listeners()
        shell.cell()
        assert not cells.alive
        assert shell.listeners() == before - 2
    assert capsys.readouterr() == ("", "")
