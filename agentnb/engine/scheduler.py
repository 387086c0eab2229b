"""Who runs next: at most `max_parallel` runs of a session at once, groups within their own bound, each group in its turn.

A waiting run costs its record and an entry in a queue, no task. A run that has launched runs of its own lends them its place, since
it may be waiting for them: else a few such parents would wait for ever.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agentnb.engine.pipes import EarlyInput
from agentnb.engine.work import Work
from agentnb.events import Json


@dataclass(slots=True)
class Waiting:
    """A run that has not started."""

    run: Json
    work: Work
    early: list[EarlyInput] = field(default_factory=list)


@dataclass(slots=True)
class _Lane:
    """The waiting runs of one group (or of no group) of a session."""

    bound: int
    queue: deque[str] = field(default_factory=deque)
    live: int = 0
    lent: int = 0


class Queue:
    """The runs of one session: waiting in lanes, started in turn."""

    def __init__(self, max_parallel: int, start: Callable[[Waiting], None]) -> None:
        """`start` is called for each run when its time has come; `finished` must follow."""
        self.max_parallel = max_parallel
        self._start = start
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._waiting: dict[str, Waiting] = {}
        self._live: dict[str, str] = {}
        self._children: dict[str, set[str]] = {}
        self._parents: dict[str, str] = {}
        self._filling = False

    def __len__(self) -> int:
        """How many runs are not finished."""
        return len(self._waiting) + len(self._live)

    @property
    def waits(self) -> bool:
        """Whether any run waits."""
        return bool(self._waiting)

    @property
    def waiting(self) -> list[str]:
        """Ids of the waiting runs."""
        return list(self._waiting)

    def item(self, run_id: str) -> Waiting | None:
        """The waiting run with this id."""
        return self._waiting.get(run_id)

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
        self._lend(item.run.get("parent_run_id"), item.run["id"])
        self.fill()

    def drop(self, run_id: str) -> Waiting | None:
        """Take a waiting run out; None when it is not waiting."""
        found = self._waiting.pop(run_id, None)
        if found is not None:
            self._return(run_id)
        return found

    def finished(self, run_id: str) -> None:
        """A started run is over: its place is free."""
        lane_name = self._live.pop(run_id, None)
        lent = self._children.pop(run_id, None) is not None
        if lane_name is not None and lane_name in self._lanes:
            self._lanes[lane_name].live -= 1
            self._lanes[lane_name].lent -= lent
        self._return(run_id)
        self.fill()

    def _lend(self, parent: str | None, run_id: str) -> None:
        """A live run's place is free as long as it has unfinished children."""
        if parent is None or parent not in self._live:
            return
        self._parents[run_id] = parent
        if parent not in self._children:
            self._children[parent] = set()
            self._lanes[self._live[parent]].lent += 1
        self._children[parent].add(run_id)

    def _return(self, child: str) -> None:
        """A child is over; after the last one the parent counts again, even where that makes one too many for a while."""
        parent = self._parents.pop(child, None)
        children = self._children.get(parent) if parent is not None else None
        if parent is None or children is None:
            return
        children.discard(child)
        if not children:
            del self._children[parent]
            self._lanes[self._live[parent]].lent -= 1

    def fill(self) -> None:
        """Start what may start, one of each lane in turn."""
        if self._filling:
            return
        self._filling = True
        try:
            while len(self._live) - len(self._children) < self.max_parallel and (item := self._next()) is not None:
                self._start(item)
        finally:
            self._filling = False

    def _next(self) -> Waiting | None:
        for name in list(self._lanes):
            lane = self._lanes[name]
            if lane.live - lane.lent >= lane.bound:
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
