"""Keeping files as artifacts: a search and copies that may take long, on threads, which a run that is to end does not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.engine.matching import Stopped, matching
from agentnb.engine.outcome import Outcome
from agentnb.engine.stop import Stop
from agentnb.errors import StoreError

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution

#: At most this many files are kept as artifacts of one run.
MAX_ARTIFACTS = 1000
#: What a run that was told to end has to keep may take so long; when the client is gone, so long.
LATE_S, ABANDONED_S = 5.0, 0.5
#: A thread that does not see that it is to stop (a file system that hangs) is not waited for longer than this.
_STUCK_S = 0.6
_LOOK_S = 0.2
CUT_SHORT = "artifacts: not all were kept, since the run was to end"


class Keeping:
    """What one run keeps. `hurried`: there is no time left; threads look at it at every entry and every piece."""

    def __init__(self, execution: Execution) -> None:
        """Belong to this run, which may have been told to end already."""
        self._of = execution
        self._why: Stop | None = None
        self._searching = False
        self.hurried = False
        if execution.stopping is not None:
            self._hurry_in(LATE_S)

    def _hurry_in(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(ABANDONED_S if self._of.abandoned else seconds, self._hurry)

    def _hurry(self) -> None:
        self.hurried = True

    def stop(self, why: Stop) -> None:
        """The run is to end: if only its artifacts are left, at once."""
        if self._searching:
            self._why = self._why or why
            self.hurried = True
        else:
            self._hurry_in(self._of.work["grace_s"] + LATE_S)

    async def see_through(self, tasks: Collection[asyncio.Future[Any]]) -> None:
        """Wait for tasks that keep something; those that are not done when there is no time left are cancelled."""
        pending, late = set(tasks), 0.0
        while pending and late < _STUCK_S:
            _, pending = await asyncio.wait(pending, timeout=_LOOK_S)
            late += _LOOK_S if self.hurried else 0.0
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)

    async def run(self, patterns: list[str], outcome: Outcome) -> None:
        """Keep what matches. A run that is cancelled meanwhile reads cancelled."""
        self._searching = True
        task = asyncio.ensure_future(self._keep_all(patterns, outcome))
        await self.see_through([task])
        self._searching = False
        if task.cancelled() or isinstance(task.exception(), Stopped):
            self._of.warn(CUT_SHORT)
            if self._why is not None and outcome.ok:
                outcome.stop(self._why)
        else:
            task.result()

    async def _keep_all(self, patterns: list[str], outcome: Outcome) -> None:
        cwd = Path(self._of.work["cwd"])
        for pattern in patterns:
            names = await asyncio.to_thread(matching, pattern, cwd, lambda: self.hurried)
            if not names and outcome.ok:
                self._of.warn(f"artifacts: nothing matches {pattern!r} in {cwd}")
            if len(names) > MAX_ARTIFACTS:
                self._of.warn(f"artifacts: {len(names)} files match {pattern!r}; the first {MAX_ARTIFACTS} were kept")
            for name in names[:MAX_ARTIFACTS]:
                if self.hurried:
                    raise Stopped
                try:
                    await self._of.agent.keep_file(self._of.masked(name), cwd / name, None)
                    self._of.kept_files.add(name)
                except StoreError as bad:
                    if self.hurried:
                        raise Stopped from None
                    outcome.fail("artifact_error", str(bad))
