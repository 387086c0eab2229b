"""What a view shows, as JSON, and what changed in it since it was last told (no front end).

What the parts of a view look like as JSON says `parts`.
"""

from __future__ import annotations

import time
from typing import Any

from agentnb.notebook import figures
from agentnb.notebook.ansi import Screen
from agentnb.notebook.parts import Json, head_state, line_state, row_state, run_state, step_state
from agentnb.notebook.render import shown_runs
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot, StepSnapshot
from agentnb.notebook.steps import tree
from agentnb.notebook.views import ViewSource

#: The front end has a row of each run, up to here, and draws those that are in sight.
MAX_ROWS = 10_000
#: Of so many unfinished runs a view asks for live output: of all of them, or of those whose rows are in sight.
WATCHED_ROWS = 32


class LogFeed:
    """The output of the one run whose log is shown: where reading stands, and the lines that the reader may see."""

    def __init__(self, run: RunSnapshot) -> None:
        """Start from the snapshot's tail."""
        self.run_id = run.id
        self.screen = Screen()
        self._seq = run.tail_seq
        self.screen.feed(run.tail)

    def read(self, source: ViewSource) -> None:
        """Take what came since the last read."""
        self._seq, pieces, gap = source.output_since(self.run_id, self._seq)
        if pieces or gap:
            self.screen.feed(pieces, gap=gap)

    def delta(self) -> Json | None:
        """The lines that changed since the last delta, to be put in place of all lines from number `base` on."""
        change = self.screen.take()
        if change is None:
            return None
        return {"run": self.run_id, "first": self.screen.first, "base": change[0], "lines": [line_state(line) for line in change[1]]}

    def whole(self) -> Json:
        """All lines that are kept."""
        return {"run": self.run_id, "first": self.screen.first, "lines": [line_state(line) for line in self.screen.lines]}


class StepPart:
    """The steps of the one run that is shown, as the front end was told of them."""

    def __init__(self) -> None:
        """Nothing is told yet."""
        self._steps: Any = None
        self._known: dict[str, tuple[StepSnapshot, str | None, int]] = {}
        self._states: dict[str, Json] = {}
        self._head: Json = {}

    def compare(self, run: RunSnapshot) -> Json | None:
        """Look at the run's steps; what changed since the last look, or None."""
        head = {"run": run.id, "cut": run.steps_cut}
        if run.steps is self._steps and head == self._head:
            return None
        self._steps = run.steps
        places = {step.id: run.steps_cut + i for i, step in enumerate(run.steps)}
        found = {step.id: (step, parent, places[step.id]) for step, parent, _ in tree(run.steps)}
        head["told"] = figures.steps_told([step for step, *_ in found.values()], run.steps_cut)
        changed = [step_id for step_id, place in found.items() if self._known.get(step_id) != place]
        gone = [step_id for step_id in self._known if step_id not in found]
        fresh = {step_id: step_state(*found[step_id]) for step_id in changed}
        self._known, self._head = found, head
        self._states = {step_id: fresh.get(step_id) or self._states[step_id] for step_id in found}
        return {**head, "set": list(fresh.values()), "gone": gone} if changed or gone else None

    def whole(self) -> Json | None:
        """All steps that are shown; None when there are none."""
        return {**self._head, "set": list(self._states.values())} if self._states else None


class Picture:
    """What a view shows now, and what changed since it was last told. Used by the loop thread only."""

    def __init__(self, source: ViewSource) -> None:
        """Read `source` for the first time."""
        self.source = source
        self.snapshot = source.snapshot()
        self.n = 0
        self.parts: Json = {}
        self.rows: dict[str, list[Any]] = {}
        self.log: LogFeed | None = None
        self.opened: str | None = None
        self._steps = StepPart()
        self._seen: list[str] = []
        self._keys: dict[str, tuple[object, ...]] = {}
        self._watched: set[str] = set()
        if isinstance(self.snapshot, RunSnapshot):
            self._open_log(self.snapshot).delta()
        self._compare()

    def open(self, run_id: str | None) -> None:
        """Show the log of this run of a group; None: of none."""
        self.opened = run_id
        if isinstance(self.snapshot, GroupSnapshot):
            self.log, self._steps = None, StepPart()
            self.parts.pop("run", None)
            for run in self.snapshot.runs:
                if run.id == run_id:
                    self._open_log(run)

    def _open_log(self, run: RunSnapshot) -> LogFeed:
        self.log = LogFeed(run)
        return self.log

    def refresh(self, *, output: bool = True) -> Json | None:
        """Read the source; what changed, as a numbered message, or None."""
        self.snapshot = self.source.snapshot()
        delta = self._compare()
        if output and self.log is not None:
            self.log.read(self.source)
            if (out := self.log.delta()) is not None:
                delta["out"] = out
        if not delta:
            return None
        self.n += 1
        return {"type": "delta", "n": self.n, "now": time.time(), **delta}

    def frame(self) -> tuple[Json, Json]:
        """The whole picture: the values of the traits ``state`` and ``tail``."""
        tail = self.log.whole() if self.log is not None else {}
        rows = {} if isinstance(self.snapshot, RunSnapshot) else {"rows": list(self.rows.values())}
        return {"n": self.n, **self.parts, "steps": self._steps.whole(), "shapes": figures.SHAPES, **rows}, {"n": self.n, **tail}

    def see(self, run_ids: list[str]) -> None:
        """The rows of these runs are in sight."""
        self._seen = run_ids

    def watch(self) -> None:
        """Ask for the live output of what is shown, and for no other."""
        shown = [self.snapshot] if isinstance(self.snapshot, RunSnapshot) else self.snapshot.runs
        live = {run.id for run in shown if not run.done}
        if len(live) > WATCHED_ROWS:
            live &= {self.opened, *[run_id for run_id in self._seen if run_id in live][:WATCHED_ROWS]}
        self._watch(live)

    def unwatch(self) -> None:
        """Ask for no live output any more."""
        self._watch(set())

    def _watch(self, wanted: set[str]) -> None:
        for run_ids, on in ((wanted - self._watched, True), (self._watched - wanted, False)):
            if run_ids:
                self.source.watch(sorted(run_ids), on)
        self._watched = wanted

    def _compare(self) -> Json:
        snapshot, delta = self.snapshot, Json()
        if isinstance(snapshot, RunSnapshot):
            shown: RunSnapshot | None = snapshot
            new: Json = {"view": "run", "run": run_state(snapshot)}
        else:
            shown = self.source.detail(self.opened) if self.opened else None
            new = {"view": snapshot.kind, "head": head_state(snapshot), "opened": self.opened, "run": run_state(shown) if shown else None}
            delta = self._compare_rows(snapshot)
        delta.update((key, part) for key, part in new.items() if key not in self.parts or self.parts[key] != part)
        if shown is not None and (steps := self._steps.compare(shown)) is not None:
            delta["steps"] = steps
        self.parts = new
        return delta

    def _row(self, run: RunSnapshot, position: int) -> list[Any]:
        """The row of `run`: the one from before when nothing that a row shows has changed."""
        took = run.elapsed_s if run.done else None
        key = (position, run.name, run.status, run.error, run.note, run.started_at, took, run.tail_seq, len(run.tail), *run.memories[-1:])
        known = self._keys.get(run.id)
        if known == key and run.id in self.rows:
            return self.rows[run.id]
        self._keys[run.id] = key
        return row_state(run, position)

    def _compare_rows(self, group: GroupSnapshot) -> Json:
        positions = {run.id: i for i, run in enumerate(group.runs)}
        new = {run.id: self._row(run, positions[run.id]) for run in shown_runs(group.runs, MAX_ROWS)}
        changed = [row for run_id, row in new.items() if self.rows.get(run_id) != row]
        gone = [run_id for run_id in self.rows if run_id not in new]
        self.rows = new
        return {key: part for key, part in (("rows", changed), ("gone", gone)) if part}
