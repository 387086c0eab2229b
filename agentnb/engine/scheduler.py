"""Who runs next: at most `max_parallel` runs of a session at once, groups within their own bound, each group in its turn.

A waiting run costs its record and an entry in a queue, no task.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agentnb.engine.work import Work
from agentnb.events import Json


@dataclass(slots=True)
class Waiting:
    """A run that has not started."""

    run: Json
    work: Work


@dataclass(slots=True)
class _Lane:
    """The waiting runs of one group (or of no group) of a session."""

    bound: int
    queue: deque[str] = field(default_factory=deque)
    live: int = 0


class Queue:
    """The runs of one session: waiting in lanes, started in turn."""

    def __init__(self, max_parallel: int, start: Callable[[Waiting], None]) -> None:
        """`start` is called for each run when its time has come; `finished` must follow."""
        self.max_parallel = max_parallel
        self._start = start
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._waiting: dict[str, Waiting] = {}
        self._live: dict[str, str] = {}
        self._filling = False

    def __len__(self) -> int:
        """How many runs are not finished."""
        return len(self._waiting) + len(self._live)

    @property
    def waiting(self) -> list[str]:
        """Ids of the waiting runs."""
        return list(self._waiting)

    def items(self) -> list[Waiting]:
        """The waiting runs."""
        return list(self._waiting.values())

    def put(self, item: Waiting) -> None:
        """Queue a run, and start it at once if it may."""
        name = item.work.get("group", "")
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(item.work.get("group_parallel") or self.max_parallel)
        self._waiting[item.run["id"]] = item
        lane.queue.append(item.run["id"])
        self.fill()

    def drop(self, run_id: str) -> Waiting | None:
        """Take a waiting run out; None when it is not waiting."""
        return self._waiting.pop(run_id, None)

    def finished(self, run_id: str) -> None:
        """A started run is over: its place is free."""
        lane_name = self._live.pop(run_id, None)
        if lane_name is not None and lane_name in self._lanes:
            self._lanes[lane_name].live -= 1
        self.fill()

    def fill(self) -> None:
        """Start what may start, one of each lane in turn."""
        if self._filling:
            return
        self._filling = True
        try:
            while len(self._live) < self.max_parallel and (item := self._next()) is not None:
                self._start(item)
        finally:
            self._filling = False

    def _next(self) -> Waiting | None:
        for name in list(self._lanes):
            lane = self._lanes[name]
            if lane.live >= lane.bound:
                continue
            while lane.queue:
                run_id = lane.queue.popleft()
                item = self._waiting.pop(run_id, None)
                if item is not None:
                    lane.live += 1
                    self._live[run_id] = name
                    self._lanes.move_to_end(name)
                    return item
            if not lane.live:
                del self._lanes[name]
        return None
