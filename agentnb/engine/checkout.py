"""Whether the checkout that a run works in differs from its commit: git is asked beside the run, never before it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from agentnb.engine.attempt import Attempt, Plan
from agentnb.engine.capture import Output
from agentnb.engine.circumstances import git_commit
from agentnb.engine.process import Spawner, SpawnerDied
from agentnb.engine.stop import Stop

#: git gets this long; a repository that needs more is not asked again for `SLOW_S`.
TIMEOUT_S = 2.0
SLOW_S = 60.0
#: An answer is good for this long: a grid of short runs asks often.
FRESH_S = 1.0
_MANY = 1000
#: Exits with 0 when something differs, 1 when nothing does, 2 when git cannot tell. The folder decides, whatever GIT_DIR says; naming the
#: repository instead would switch off git's check of who owns it. No monitor or hook is started, and nothing is written.
_SCRIPT = """unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_COMMON_DIR
found=$(git --no-optional-locks -c core.fsmonitor=false -c core.hooksPath=/dev/null status \\
    --porcelain --untracked-files=no --ignore-submodules=dirty --no-renames) || exit 2
test -n "$found\""""
_ENV = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1"}


class Checkouts:
    """Asks git about folders: one process for each folder and second, in the spawner's care, so that none is left behind."""

    def __init__(self, spawner: Callable[[], Spawner]) -> None:
        """`spawner` gives a live one."""
        self._spawner = spawner
        self._asked: dict[str, tuple[float, asyncio.Future[bool | None]]] = {}
        self._live: set[Attempt] = set()

    def spawner_died(self, why: Stop) -> None:
        """If it was that of what was asked, nobody is left to see to that; it is ended already."""
        for attempt in self._live:
            attempt.lost(why)

    def dirty(self, folder: str, env_id: int) -> asyncio.Future[bool | None]:
        """Whether files that git tracks differ from the commit, in the repository around `folder`; asked now, answered later.

        None: no repository, no commit, no git, or no answer within `TIMEOUT_S`. git is looked for in environment number `env_id`.
        """
        now = time.monotonic()
        known = self._asked.get(folder)
        if known is not None and (known[0] > now or not known[1].done()):
            return known[1]
        if len(self._asked) > _MANY:
            self._asked = {name: item for name, item in self._asked.items() if item[0] > now or not item[1].done()}
        task = asyncio.get_running_loop().create_task(self._ask(folder, env_id))
        self._asked[folder] = (now + FRESH_S, task)
        return task

    async def _ask(self, folder: str, env_id: int) -> bool | None:
        root = _root(folder)
        if root is None or git_commit(root) is None:
            return None
        plan = Plan(["sh", "-c", _SCRIPT], root, env_id, _ENV, capture="none", timeout_s=TIMEOUT_S, grace_s=0.0)
        out = Output(root, 1, secrets=[])
        try:
            attempt = Attempt(self._spawner(), plan, out, _ignore, _ignore)
            self._live.add(attempt)
            try:
                ended = await attempt.run()
            finally:
                self._live.discard(attempt)
                out.release()
        except (SpawnerDied, OSError):  # no descriptors, no processes: nothing is known
            return None
        if ended.stop is not None and ended.stop.kind == "timeout":
            self._asked[folder] = (time.monotonic() + SLOW_S, self._asked[folder][1])
        if ended.exit is None or ended.stop is not None:
            return None
        return {0: True, 1: False}.get(ended.exit.exit_code if ended.exit.exit_code is not None else -1)


def _ignore(_: object) -> None:
    """Nobody wants to know."""


def _root(folder: str) -> str | None:
    """The folder of the checkout around `folder`."""
    while not os.path.exists(os.path.join(folder, ".git")):  # noqa: PTH110, PTH118
        parent = os.path.dirname(folder)  # noqa: PTH120
        if parent == folder:
            return None
        folder = parent
    return folder
