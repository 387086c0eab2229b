"""All runs of this kernel, of whichever session: found by what they are called, filtered, shown in one live table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING
from weakref import WeakSet

from pydantic import Field

from agentnb.data import Data
from agentnb.errors import ConfigError
from agentnb.ids import new_id
from agentnb.notebook import loop as loops
from agentnb.notebook.handles import RunHandle, live_runs
from agentnb.notebook.snapshot import GroupSnapshot
from agentnb.notebook.waiting import call_after_all, cancel_all
from agentnb.states import RunStatus, TargetKind

if TYPE_CHECKING:
    from agentnb.notebook.session import Session

_sessions: WeakSet[Session] = WeakSet()
#: The last digits of an id differ between runs of the same moment; the first ones do not.
_END = 8


def remember(session: Session) -> None:
    """Count the runs of `session` among this kernel's, as long as somebody holds it or one of its runs."""
    _sessions.add(session)


def sessions() -> list[Session]:
    """The sessions of this process that somebody holds, in the order in which they were made."""
    return sorted(_sessions, key=lambda session: session.id)


class RunFilter(Data):
    """Which of this kernel's runs. `session`: of the session with this name or id; `limit`: the newest so many."""

    status: tuple[RunStatus, ...] = ()
    session: str | None = None
    kind: TargetKind | None = None
    limit: int = Field(default=100, ge=1)

    def select(self, runs: Sequence[RunHandle]) -> list[RunHandle]:
        """Those of `runs` that it means, oldest first."""
        wanted = [run for run in runs if not self.status or run.status in self.status]
        if self.kind is not None:
            wanted = [run for run in wanted if run.spec.get("type") == self.kind.value]
        if self.session is not None:
            ids = {session.id for session in sessions() if self.session in {session.name, session.id}}
            if not ids:
                names = sorted({session.name for session in sessions()})
                raise ConfigError(f"no session of this kernel is called {self.session!r}; there is {', '.join(map(repr, names)) or 'none'}")
            wanted = [run for run in wanted if run.session_id in ids]
        return wanted[-self.limit :]


def all_runs() -> list[RunHandle]:
    """The runs of this kernel, oldest first."""
    return sorted((run for session in sessions() for run in session.runs), key=lambda run: run.id)


def find_runs(words: Sequence[str], runs: Sequence[RunHandle]) -> list[RunHandle]:
    """The runs that `words` mean, each once: an id, or eight digits or more of its start or end, or a name, which may be of several.

    Raises ConfigError for a word that means none, or more than one id.
    """
    found = {run.id: run for word in words for run in _meant(word, runs)}
    return [found[run_id] for run_id in sorted(found)]


def _meant(word: str, runs: Sequence[RunHandle]) -> list[RunHandle]:
    if named := [run for run in runs if word in {run.id, run.name}]:
        return named
    parts = [run for run in runs if len(word) >= _END and (run.id.startswith(word) or run.id.endswith(word))]
    if len(parts) > 1:
        raise ConfigError(f"{word!r} is a part of {len(parts)} ids; give more of it: {', '.join(run.id for run in parts[:3])}")
    if not parts:
        near = get_close_matches(word, [run.name for run in runs], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`%runs` lists them, and nb.attach(...) finds those of other kernels"
        raise ConfigError(f"no run of this kernel is called {word!r}; {hint}")
    return parts


def callings(runs: Sequence[RunHandle]) -> dict[str, str]:
    """What can be typed for each run -> its status: the name when that is one word and of this run only, else the end of its id."""
    names = [run.name for run in runs]
    plain = {name for name in names if names.count(name) == 1 and name == shlex.quote(name) and not name.startswith("-")}
    return {run.name if run.name in plain else run.id[-_END:]: run.status.value for run in runs}


class KernelRuns:
    """Runs of this kernel, as ``%runs`` found them: a sequence of RunHandle that shows itself as a live table until all have ended."""

    def __init__(self, runs: list[RunHandle]) -> None:
        """Of these runs."""
        self._id = new_id()
        self._runs = runs
        self._live = live_runs(runs)

    def __len__(self) -> int:
        """How many runs."""
        return len(self._runs)

    def __iter__(self) -> Iterator[RunHandle]:
        """The runs, oldest first."""
        return iter(self._runs)

    def __getitem__(self, index: int) -> RunHandle:
        """A run by its place."""
        return self._runs[index]

    def cancel(self, reason: str = "cancelled by the user") -> None:
        """Ask for the end of all that have not ended; returns at once."""
        cancel_all(self._live, reason)

    def snapshot(self) -> GroupSnapshot:
        """Their state now, as views show it."""
        return GroupSnapshot(self._id, "runs of this kernel", "", [run.snapshot() for run in self._live])

    def _when_done(self, callback: Callable[[], None]) -> None:
        call_after_all(self._live, callback)

    def _ipython_display_(self) -> None:
        if not self._runs:
            sys.stdout.write("no run of this kernel is that\n")
            return
        from agentnb.notebook.display import show
        from agentnb.notebook.sources import RunsSource

        show(RunsSource(lambda: self._live, self.snapshot, self.cancel, self._when_done, lambda: None), loops.engine_loop())

    def __repr__(self) -> str:
        """One line: how many have which status."""
        statuses = [run.status.value for run in self._runs]
        told = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        return f"<KernelRuns {len(self)}{': ' if told else ''}{told}>"
