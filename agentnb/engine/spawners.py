"""The spawners of one supervisor: one, and a second as soon as commands wait for each other's start.

A spawner stands still from the moment that it asks for a process until the command's program is loaded, while another processor has
nothing to do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from agentnb.engine.process import Spawner, SpawnerDied

#: More than two bring nothing: what is between two starts of one is shorter than a start.
_MOST = 2
#: A start that finds so many before it waits; after so many that waited, another spawner is worth its memory and its 25 ms.
_QUEUE, _PATIENCE = 2, 32


class Spawners:
    """Starts spawners, says which one is to start a command, and goes on with another one when one dies."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stamp: int, on_death: Callable[[], None], on_change: Callable[[], None]) -> None:
        """Start the first. `stamp`: of their runs' marks (lineage.py).

        `on_death` is called when one has died by itself and before another takes its place, `on_change` when there are others than before.
        """
        self._loop, self._stamp = loop, stamp
        self._on_death, self._on_change = on_death, on_change
        self._envs: dict[int, dict[str, str]] = {}
        self._most = min(_MOST, len(os.sched_getaffinity(0)))
        self._waited = 0
        self._all: list[Spawner] = []
        self._add()

    @property
    def pids(self) -> list[int]:
        """Of the live ones."""
        return [spawner.pid for spawner in self._all]

    @property
    def envs(self) -> Mapping[int, dict[str, str]]:
        """The environments that commands may name."""
        return self._envs

    def next(self) -> Spawner:
        """The one that starts the next command: that which owes the fewest starts. Raises SpawnerDied when there is no room for any."""
        if not self._all and not self._added():
            raise SpawnerDied
        first = self._all[0]
        if not first.owed:
            return first
        found = min(self._all, key=_owed)
        if found.owed >= _QUEUE and len(self._all) < self._most:
            self._waited += 1
            if self._waited >= _PATIENCE:
                self._waited = 0
                self._added()
        return found

    def set_env(self, env_id: int, env: dict[str, str]) -> None:
        """Keep an environment under a number that commands can name."""
        self._envs[env_id] = env
        for spawner in self._all:
            spawner.set_env(env_id, env)

    def drop_env(self, env_id: int) -> None:
        """Forget an environment."""
        del self._envs[env_id]
        for spawner in self._all:
            spawner.drop_env(env_id)

    def close(self) -> None:
        """Let them end, all at the same time; they kill whatever is left."""
        live = [spawner for spawner in self._all if spawner.alive]
        for spawner in live:
            spawner.let_go()
        for spawner in live:
            spawner.reap()

    def _added(self) -> bool:
        """Add one, if the system has room for it now."""
        try:
            self._add()
        except OSError:
            return False
        self._on_change()
        return True

    def _add(self) -> None:
        spawner = Spawner(self._loop, self._died, self._stamp)
        self._all.append(spawner)
        for env_id, env in self._envs.items():
            spawner.set_env(env_id, env)

    def _died(self) -> None:
        self._all = [spawner for spawner in self._all if spawner.alive]
        self._on_death()
        if self._all or not self._added():  # else `next` tries again
            self._on_change()


def _owed(spawner: Spawner) -> int:
    return spawner.owed
