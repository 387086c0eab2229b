"""What a view shows, as JSON, and what changed in it since it was last told (no front end).

All text is made here: numbers by `figures`, output by `ansi`. A front end only counts seconds and sets text content.
"""

from __future__ import annotations

import time
from typing import Any

from agentnb.notebook import figures
from agentnb.notebook.ansi import Line, Screen, last_line
from agentnb.notebook.display import ViewSource
from agentnb.notebook.render import group_status, shown_runs
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot

Json = dict[str, Any]

MAX_ROWS = 500
#: A view of a group with at most this many unfinished runs asks for the live output of all of them.
WATCHED_ROWS = 24


def run_state(run: RunSnapshot) -> Json:
    """What the view of one run shows, as JSON. Stamps are the kernel's, seconds since the epoch."""
    return {
        "id": run.id,
        "name": figures.short(run.name or run.id, 160),
        "kind": figures.short(run.kind, 30),
        "command": figures.short(run.command, 400),
        "status": figures.short(run.status, 20),
        "shape": figures.shape(run.status),
        "done": run.done,
        **_times(run),
        "error": figures.short(run.error or "", 1000),
        "warnings": [figures.short(warning, 400) for warning in list(run.warnings)[:5]],
        "facts": figures.facts(run),
        "params": figures.params(run),
    }


def _times(run: RunSnapshot) -> Json:
    """The front end counts on from `started`; only what has ended has its time as text, so that a running run is no change."""
    if run.done or run.started_at is None:
        return {"started": None, "elapsed": figures.duration(run.elapsed_s) if run.done else ""}
    return {"started": run.started_at, "elapsed": ""}


def row_state(run: RunSnapshot, position: int) -> Json:
    """What a row of the table shows, as JSON."""
    return {
        "id": run.id,
        "i": position,
        "name": figures.short(run.name or run.id, 80),
        "params": figures.params_line(run),
        "status": figures.short(run.status, 20),
        "shape": figures.shape(run.status),
        "done": run.done,
        **_times(run),
        "error": figures.short(run.error or "", 200),
        "last": figures.short(last_line(run.tail), 160),
    }


def head_state(group: GroupSnapshot) -> Json:
    """What the head of a group's or session's view shows, as JSON."""
    status = group_status(group)
    return {
        "id": group.id,
        "name": figures.short(group.name or group.id, 160),
        "kind": figures.short(group.kind, 30),
        "status": figures.short(status, 20),
        "shape": figures.shape(status),
        "done": group.done,
        "total": len(group.runs),
        "ended": sum(run.done for run in group.runs),
        "counts": [(figures.shape(name), figures.short(name, 20), count) for name, count in figures.counts(group.counts)],
        "facts": figures.totals(group.runs),
    }


def line_state(line: Line) -> Any:
    """A line as JSON: its text when it is plain stdout, else ``[stream, [[classes, text], …]]``."""
    if line.stream == "stdout" and not any(classes for classes, _ in line.spans):
        return line.text
    return [line.stream, [list(span) for span in line.spans]]


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


class Picture:
    """What a view shows now, and what changed since it was last told. Used by the loop thread only."""

    def __init__(self, source: ViewSource) -> None:
        """Read `source` for the first time."""
        self.source = source
        self.snapshot = source.snapshot()
        self.n = 0
        self.parts: Json = {}
        self.rows: dict[str, Json] = {}
        self.log: LogFeed | None = None
        self.opened: str | None = None
        self._keys: dict[str, tuple[object, ...]] = {}
        self._watched: set[str] = set()
        if isinstance(self.snapshot, RunSnapshot):
            self._open_log(self.snapshot).delta()
        self._compare()

    def open(self, run_id: str | None) -> None:
        """Show the log of this run of a group; None: of none."""
        self.opened = run_id
        if isinstance(self.snapshot, GroupSnapshot):
            self.log = None
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
        return {"n": self.n, **self.parts, "rows": list(self.rows.values())}, {"n": self.n, **tail}

    def watch(self) -> None:
        """Ask for the live output of what is shown, and for no other."""
        shown = [self.snapshot] if isinstance(self.snapshot, RunSnapshot) else self.snapshot.runs
        live = [run.id for run in shown if not run.done]
        wanted = set(live) if len(live) <= WATCHED_ROWS else {run_id for run_id in live if run_id == self.opened}
        self._watch(wanted)

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
            new: Json = {"view": "run", "run": run_state(snapshot)}
        else:
            new = {"view": snapshot.kind, "head": head_state(snapshot), "run": None, "opened": self.opened}
            new["run"] = next((run_state(run) for run in snapshot.runs if run.id == self.opened), None) if self.opened else None
            delta = self._compare_rows(snapshot)
        delta.update((key, part) for key, part in new.items() if key not in self.parts or self.parts[key] != part)
        self.parts = new
        return delta

    def _row(self, run: RunSnapshot, position: int) -> Json:
        """The row of `run`: the one from before when nothing that a row shows has changed."""
        key = (position, run.name, run.status, run.error, run.started_at, run.elapsed_s if run.done else None, run.tail_seq, len(run.tail))
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
