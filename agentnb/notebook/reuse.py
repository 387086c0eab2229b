"""Which runs of a launch with ``reuse=True`` the history has already: their keys are looked up together, by one query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentnb.agents.cache_key import CacheKeys
from agentnb.engine.work import Work
from agentnb.events import Json
from agentnb.execution import AnySpec, ExecutionConfig
from agentnb.history.precedents.reuse import Found, find
from agentnb.history.store import DATABASE


@dataclass(slots=True)
class Wanted:
    """A run that is asked for. `reused_from`: the run that it was done by; `note`: why an earlier one is not good any more.

    `folder`: where its process would start, if it has one; `resumed_from`: the run that was cut off, if it is for one.
    """

    spec: AnySpec
    params: dict[str, Any]
    name: str | None
    named: bool
    key: str
    folder: str | None = None
    resumed_from: str | None = None
    reused_from: str | None = None
    note: str | None = None

    def mark(self, run: Json, work: Work) -> None:
        """Put into a run's record, and into its work, what was found out."""
        run |= {"cache_key": self.key, "reused_from": self.reused_from}
        if self.note is not None:
            work["notes"] = [self.note]


class Reuse:
    """The runs of one launch, until it is decided which of them start."""

    def __init__(self, root: Path, given: ExecutionConfig, defaults: ExecutionConfig) -> None:
        """`root`: the store's folder; `given`: at the launch; `defaults`: the session's."""
        self._root = root
        self._keys = CacheKeys(given, defaults)
        self._wanted: list[Wanted] = []

    def __len__(self) -> int:
        """How many are not decided yet."""
        return len(self._wanted)

    def want(self, spec: AnySpec, params: dict[str, Any], name: str | None, *, named: bool, resumed_from: str | None = None) -> None:
        """Ask for a run. Raises ConfigError when it cannot be told from other work."""
        key, folder = self._keys.key(spec, params)
        self._wanted.append(Wanted(spec, params, name, named, key, folder, resumed_from))

    def decided(self) -> list[Wanted]:
        """All that were asked for, in order, with what the history has of them. Raises StoreError."""
        wanted, self._wanted = self._wanted, []
        found = find(self._root, [one.key for one in wanted]) if (self._root / DATABASE).exists() else Found()
        for one in wanted:
            one.reused_from = found.runs.get(one.key)
            if one.reused_from is None and (why := found.damaged.get(one.key)) is not None:
                one.note = f"it ran again, since a completed run of the same work is damaged: {why}"
        return wanted
