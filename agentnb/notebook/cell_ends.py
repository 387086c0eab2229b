"""When cells begin and end: what has ended by then is settled before the front end hears that the cell is over.

nbclient, and with it nbconvert, papermill and nbval, takes updates of outputs only while a cell runs, and drops what comes between two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from agentnb.notebook.views import Loop

#: A loop that does not answer holds the end of a cell up for so long at most.
PATIENCE_S = 1.0


class CellEnds:
    """Follows the cells of one shell."""

    def __init__(self, shell: Any, loop: Loop, wanted: Callable[[], bool], settle: Callable[[], None]) -> None:
        """Made while a cell runs. At the end of each, `settle` is called on the loop thread, if `wanted` says that there is a need."""
        self.running = self.alive = True
        self.shell = shell
        self._loop = loop
        self._wanted = wanted
        self._settle = settle
        shell.events.register("pre_run_cell", self._begins)
        shell.events.register("post_run_cell", self._ends)

    def _begins(self, _: Any) -> None:
        self.running = True

    def _ends(self, _: Any) -> None:
        if self._wanted() and not self._settled():
            self._leave()
        self.running = False

    def _settled(self) -> bool:
        settled = threading.Event()
        try:
            self._loop.call_soon(self._and_say, settled)
        except RuntimeError:  # the loop is closed
            return False
        return settled.wait(PATIENCE_S)

    def _leave(self) -> None:
        """The loop has ended, or is stuck: it shall not hold up each cell."""
        self.alive = False
        self.shell.events.unregister("pre_run_cell", self._begins)
        self.shell.events.unregister("post_run_cell", self._ends)

    def _and_say(self, settled: threading.Event) -> None:
        try:
            self._settle()
        finally:
            settled.set()
