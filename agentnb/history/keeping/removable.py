"""What of a history may go: finished runs, but none that is live, that a kept run refers to, or that is half of a whole.

Only reads. Runs go together (a *bundle*) that mean something only together: those of one group, and an agent with the runs it launched.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentnb.states import TRANSITIONS, RunStatus

LIVE = tuple(str(status.value) for status in TRANSITIONS if isinstance(status, RunStatus))
_LIVE = ", ".join(f"'{status}'" for status in LIVE)
#: Why a run that was asked for stays.
LIVE_RUN, LIVE_SESSION = "it is live, or goes together with one that is", "its session is live"
REFERRED, WORKSPACE = "a run that stays refers to it", "the folder of its workspace is still there"
TOO_NEW, ELSEWHERE = "one that it goes together with is not old enough", "one that it goes together with is of another session"

_RUNS = """SELECT id, group_id, session_id, status, coalesce(finished_at, created_at, 0), parent_run_id,
    replay_of, reused_from, resumed_from,
    CASE WHEN json_extract(workspace, '$.kept') AND json_extract(workspace, '$.kind') <> 'shared' THEN id END FROM runs"""
#: A session of no owner, as programs that write a store themselves may leave, is nobody's.
LIVE_SESSIONS = f"""SELECT id FROM sessions WHERE status = 'active' AND owner IS NOT NULL
    UNION SELECT session_id FROM runs WHERE status IN ({_LIVE}) AND session_id IS NOT NULL"""  # noqa: S608 - our own words
_WEIGHTS = (
    "SELECT run_id, count(*) * 120 + sum(length(data)) FROM events WHERE run_id IS NOT NULL GROUP BY run_id",
    "SELECT run_id, sum(size) FROM logs WHERE path IS NULL GROUP BY run_id",
)
#: Equal content is kept once, and goes with the last run that has it.
_BLOBS = """SELECT run, sum(size) FROM (
    SELECT a.source_run AS run, max(a.size) AS size, max(coalesce(r.finished_at, 9e18)) FROM artifacts a
    LEFT JOIN runs r ON r.id = a.source_run WHERE a.checksum IS NOT NULL GROUP BY a.checksum) GROUP BY run"""
_ROW_BYTES = 600


@dataclass(slots=True)
class Bundle:
    """Runs that go together. `first`, `ended`: when the first and the last ended; `held`: why they stay; `refers`: to which others."""

    runs: list[str] = field(default_factory=list)
    sessions: set[str | None] = field(default_factory=set)
    first: int = 1 << 62
    ended: int = 0
    held: str = ""
    refers: list[str] = field(default_factory=list)
    workspaces: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Choice:
    """What goes: `bundles`, each after those that refer to it, newest first; and how many runs that were asked for stay, by the reason."""

    bundles: list[Bundle]
    kept: Counter[str]

    @property
    def runs(self) -> list[str]:
        """Ids of the runs that go."""
        return [run for bundle in self.bundles for run in reversed(bundle.runs)]


class Removable:
    """The finished runs of a store, in bundles, at one moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Read which there are."""
        rows = db.execute(_RUNS).fetchall()
        live = {session for (session,) in db.execute(LIVE_SESSIONS)}
        known = {row[0] for row in rows}
        together = _Together(known)
        for run_id, group, _, _, _, parent, *_ in rows:
            together.join(run_id, f"group {group}" if group else None)
            together.join(run_id, parent if parent in known else None)
        self._bundles: dict[str, Bundle] = {}
        for row in rows:
            self._add(self._bundles.setdefault(together.of(row[0]), Bundle()), row, live)
        self._referrers: dict[str, list[str]] = {}
        for run_id, *_, replay_of, reused, resumed, _ in rows:
            for other in {replay_of, reused, resumed} & known:
                self._refer(together.of(run_id), together.of(other))

    def _add(self, bundle: Bundle, row: tuple[Any, ...], live: Collection[str]) -> None:
        run_id, _, session, status, ended, *_, workspace = row
        bundle.runs.append(run_id)
        bundle.sessions.add(session)
        bundle.first, bundle.ended = min(bundle.first, ended), max(bundle.ended, ended)
        if status in LIVE:
            bundle.held = LIVE_RUN
        elif session in live:
            bundle.held = bundle.held or LIVE_SESSION
        if workspace is not None:
            bundle.workspaces.append(workspace)

    def _refer(self, key: str, other: str) -> None:
        if key != other:
            self._bundles[key].refers.append(other)
            self._referrers.setdefault(other, []).append(key)

    def hold_workspaces(self, run_ids: Iterable[str]) -> None:
        """Let these runs stay, because of their workspaces."""
        wanted = set(run_ids)
        for bundle in self._bundles.values():
            if not bundle.held and not wanted.isdisjoint(bundle.workspaces):
                bundle.held = WORKSPACE

    @property
    def workspaces(self) -> list[str]:
        """Ids of the runs whose workspaces were left."""
        return [run for bundle in self._bundles.values() for run in bundle.workspaces]

    def choose(
        self, before: int | None = None, sessions: Collection[str] | None = None, bound: tuple[int, Counter[str]] | None = None
    ) -> Choice:
        """What goes of the runs of `sessions` that ended `before` (microseconds UTC).

        `bound`: (bytes, those of each run): only the oldest that together make so many.
        """
        asked, kept = [], Counter[str]()
        if bound is not None and bound[0] <= 0:
            return Choice([], kept)
        for key in sorted(self._bundles, key=lambda key: self._bundles[key].ended):
            bundle = self._bundles[key]
            if sessions is not None and bundle.sessions.isdisjoint(sessions):
                continue
            if not (why := bundle.held or _why_not(bundle, before, sessions)):
                asked.append(key)
            elif why != TOO_NEW or (before is not None and bundle.first < before):
                kept[why] += len(bundle.runs)
        if bound is not None:
            asked = self._enough(asked, *bound)
        going = self._closed(asked)
        left = set(asked).difference(going)
        kept[REFERRED] += sum(len(self._bundles[key].runs) for key in left)
        return Choice([self._bundles[key] for key in self._in_order(going)], +kept)

    def _in_order(self, keys: Sequence[str]) -> list[str]:
        """Each after those that refer to it, since they may name its files."""
        todo, found = list(keys), dict[str, None]()
        begun = set[str]()
        while todo:
            key = todo[-1]
            first = [other for other in self._referrers.get(key, ()) if other not in found and other not in begun]
            begun.add(key)
            if first:
                todo += first
            else:
                found[todo.pop()] = None
        return list(found)

    def _enough(self, keys: list[str], need: int, sizes: Counter[str]) -> list[str]:
        """The fewest of the oldest that free `need` bytes; all, when they do not."""

        def freed(count: int) -> int:
            return sum(sizes[run] for key in self._closed(keys[:count]) for run in self._bundles[key].runs)

        return keys[: bisect_left(range(len(keys) + 1), need, key=freed)]

    def _closed(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` that none but they refer to."""
        left, doubtful = set(keys), list(keys)
        while doubtful:
            key = doubtful.pop()
            if key in left and not left.issuperset(self._referrers.get(key, ())):
                left.discard(key)
                doubtful += self._bundles[key].refers
        return [key for key in keys if key in left]


def _why_not(bundle: Bundle, before: int | None, sessions: Collection[str] | None) -> str:
    if before is not None and bundle.ended >= before:
        return TOO_NEW
    return ELSEWHERE if sessions is not None and not bundle.sessions <= set(sessions) else ""


class _Together:
    """Which keys belong together: each names another one of its bundle, the last one itself."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._next = {key: key for key in keys}

    def of(self, key: str) -> str:
        """The key that stands for the bundle."""
        while (after := self._next.setdefault(key, key)) != key:
            self._next[key] = self._next[after]
            key = self._next[after]
        return key

    def join(self, key: str, other: str | None) -> None:
        if other is not None:
            self._next[self.of(key)] = self.of(other)


def run_sizes(db: sqlite3.Connection, used: int, folders: Counter[str]) -> Counter[str]:
    """About how many bytes each run takes: its share of the `used` bytes of the database, its `folders`, and its artifacts."""
    weights = Counter[str]({run: _ROW_BYTES for (run,) in db.execute("SELECT id FROM runs")})
    for query in _WEIGHTS:
        weights.update({run: int(weight or 0) for run, weight in db.execute(query) if run in weights})
    scale = used / max(weights.total(), 1)
    sizes = Counter({run: round(weight * scale) for run, weight in weights.items()})
    sizes.update({run: int(size) for run, size in db.execute(_BLOBS) if run in weights})
    sizes.update({run: size for run, size in folders.items() if run in weights})
    return sizes


def still_removable(db: sqlite3.Connection, run_ids: Sequence[str], since: int) -> list[str]:
    """Those of these runs that can still go: what was written meanwhile makes none of them live, and does not refer to it.

    To be asked in the transaction that removes them. `since`: before their choice, in microseconds UTC.
    """
    query = f"""SELECT id FROM runs WHERE id IN (SELECT value FROM json_each(?)) AND status NOT IN ({_LIVE})
        AND coalesce(session_id, '') NOT IN ({LIVE_SESSIONS})"""  # noqa: S608
    free = {run for (run,) in db.execute(query, (json.dumps(run_ids),))}
    new = "SELECT id, parent_run_id, replay_of, reused_from, resumed_from FROM runs WHERE created_at >= ?"
    for run_id, *refers in db.execute(new, (since,)):
        if run_id not in free:
            free.difference_update(refers)
    return [run for run in run_ids if run in free]
