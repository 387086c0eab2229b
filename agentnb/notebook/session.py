"""Sessions: where runs are launched from."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import WeakMethod

from agentnb import requests
from agentnb.agents.compile import DEFAULT_GRACE_S, secrets_of
from agentnb.agents.fill import fill, named
from agentnb.agents.filling import again
from agentnb.engine.client import Client
from agentnb.engine.interrupts import Deferred
from agentnb.engine.masking import Masker
from agentnb.errors import BudgetExceeded, ConfigError, StoreError
from agentnb.events import BudgetSpent, Json, now_us
from agentnb.execution import AnySpec, ExecutionConfig, Handler
from agentnb.history.store import Store
from agentnb.ids import new_id
from agentnb.notebook import loop as loops
from agentnb.notebook.budget import Budget, bounds_of, budget_at
from agentnb.notebook.grid import points
from agentnb.notebook.group import RunGroup
from agentnb.notebook.handles import RunHandle, live_runs
from agentnb.notebook.history import SessionHistory
from agentnb.notebook.hosting import current_run
from agentnb.notebook.kernel_runs import remember
from agentnb.notebook.launching import Batch, connect
from agentnb.notebook.live import LiveRun
from agentnb.notebook.nesting import warn_about_old_nesting
from agentnb.notebook.options import LaunchOptions, clean_tags, parallel, session_defaults, split
from agentnb.notebook.options import synchronous as when_on_disk
from agentnb.notebook.replying import TAG
from agentnb.notebook.snapshot import GroupSnapshot
from agentnb.notebook.targets import fields_of
from agentnb.notebook.targets import spec_of as _spec_of
from agentnb.notebook.verbs import Verbs
from agentnb.notebook.waiting import OnInterrupt, Timeout, await_all, call_after_all, cancel_all, patience, wait_all
from agentnb.states import SessionStatus

if TYPE_CHECKING:
    import pandas as pd

    from agentnb.data import Secret
    from agentnb.results import Estimate, Issue


class Session(Verbs, SessionHistory):
    """A named stretch of work: launches runs, waits for them, shows them, reads their history.

    `store`: the folder of the history; default AGENTNB_HOME, else ``./.agentnb``. `max_parallel`: how many of its runs work at
    once; default the number of processors. `tags`: texts kept with it and its runs. Other options (timeout, env, capture, retry,
    grace, working_dir ...: see ExecutionConfig) are defaults for its runs: what a spec says wins over them, and what a launch says
    over both; `env`, `working_dir`, `stdin` and `capture` are for processes, not for ``async def`` agents.

    `budget_usd`, `budget_tokens`, `budget_time`: what all its runs together may spend; time (seconds, or text such as "1h") runs from the
    start of the first. The report that crosses one stops what is live (error kind budget_exceeded), and nothing starts any more: launches
    raise BudgetExceeded. Only what agents report counts (input, output and cached tokens, of every attempt); a run without a cost, such
    as one of the local model, costs 0 dollars. Replays are free. `launch` bounds a run by the same options, `map` a group.

    `synchronous`: what a run's start and end survive once a handle or an await tells of them. "normal": the death of any process;
    "full": a power cut as well, for which each commit waits for the disk. Default AGENTNB_SYNCHRONOUS, else "normal". All sessions
    of a process on one store share its writer, so that "full" of one holds for all of them from then on. It is about the history's
    rows; the system decides when output beyond 16 KiB and artifacts, which are files, reach the disk.
    Raises ConfigError for a bad option, StoreError or StoreTooNew when the store cannot be used.
    """

    def __init__(
        self,
        name: str = "session",
        *,
        store: str | os.PathLike[str] | None = None,
        max_parallel: int | None = None,
        tags: Mapping[str, str] | None = None,
        budget_usd: float | None = None,
        budget_tokens: int | None = None,
        budget_time: float | str | timedelta | None = None,
        synchronous: Literal["normal", "full"] | None = None,
        **defaults: Any,
    ) -> None:
        """Check the store and start the engine in the background."""
        if not isinstance(name, str):
            raise ConfigError(f"Session: the name {name!r} is of type {type(name).__name__}, not text; write Session('first-look')")
        if not name.strip():
            raise ConfigError(f"Session: the name {name!r} is empty; write Session('first-look')")
        self.name = name
        self.id = new_id()
        self.max_parallel = parallel("max_parallel", max_parallel) or os.cpu_count() or 1
        self.tags = clean_tags(tags)
        self._synchronous = when_on_disk(synchronous)
        self._defaults = session_defaults(defaults)
        self._bounds = bounds_of({"budget_usd": budget_usd, "budget_tokens": budget_tokens, "budget_time": budget_time})
        self._spent: BudgetSpent | None = None
        self._ended_at: float | None = None
        if not isinstance(store, str | os.PathLike | None):
            raise ConfigError(f"Session: store={store!r} is no path; give the folder of the history as text or a pathlib.Path")
        self.store = Store.locate(store)
        self.status = SessionStatus.ACTIVE
        self._runs: list[RunHandle] = []
        self._live: list[LiveRun] = []
        self._engine: Client | None = None
        self._detached: Client | None = None
        self._created = now_us()
        self._pid = os.getpid()
        self._ended: list[Callable[[], None]] = []
        Store.open(self.store).close()  # here, so that what is wrong with it is raised in the cell
        warn_about_old_nesting(stacklevel=3)
        self._connect()
        remember(self)

    # --- launching

    def launch(self, target: AnySpec | Callable[..., Any], **options: Any) -> RunHandle:
        """Launch any target (Shell, Command, Test, Python, LocalModel, or a Python function); returns at once.

        Options: `name`; `params` (a mapping: fills the target's templates and is kept with the run); `tags`; and how to run:
        `timeout`, `env`, `working_dir`, `capture`, `stdin`, `retry`, `limits`, `validation`, `grace`, `artifacts`, `inputs`, `on_success`,
        `on_failure`, `rollback`, `cleanup` (see ExecutionConfig). Raises ConfigError before anything is started.

        ``detach=True``: the run outlives this process and the session, under a supervisor of its own (which has the session's
        `max_parallel` for detached runs alone); ``nb.attach(run_id)`` shows it again in any process. Not for ``async def`` agents.

        ``reuse=True``: when the history has a completed run of the same work, launched with it too, the new one is that again, at once: its
        output, artifacts, steps and figures, marked and linked by `reused_from`; nothing starts (no handlers either), no budget is spent.
        The same are: the target, its templates filled; `params`; the folder; the environment (but for variables of terminal, login and
        Jupyter server); the contents of `inputs`; a worktree's commit, or the content of a folder to copy; for a Python function also
        its code, that of all it calls, and its arguments; `stdin`, `capture`, `validation` and `artifacts`. No other option counts. Equal
        runs at the same time both run; one whose files are gone or damaged runs again, with a warning. Raises ConfigError for what
        cannot be told from other work (an open file, a lock, stdin=True, nb.Shared, a replay).
        """
        return self._launch(_spec_of(target), *self._options(options))

    def _launch_spec(self, cls: type[Any], first: Any, options: dict[str, Any]) -> RunHandle:
        own = fields_of(cls)
        sorted_out = self._options({name: value for name, value in options.items() if name not in own}, own)
        return self._launch(cls(first, **{name: value for name, value in options.items() if name in own}), *sorted_out)

    def validate(self, target: AnySpec | Callable[..., Any], **options: Any) -> list[Issue]:
        """Everything that is wrong with such a launch, at once; an empty list when nothing is. Starts nothing, never raises.

        Also looks for the programs on the PATH that the processes will have. Options: as `launch`.
        """
        from agentnb.notebook.planning import issues_of

        return issues_of(self._check_active, lambda: _spec_of(target), options, self._defaults)

    def estimate(self, target: AnySpec | Handler | Callable[..., Any], **options: Any) -> Estimate:
        """What such a launch will probably need, by this store's history of the same command, else by built-in defaults.

        Options: as `launch`; `params` fill the target's templates, `timeout` bounds the durations, the others make no difference.
        Raises ConfigError for a bad target or option, StoreError.
        """
        from agentnb.notebook.planning import estimate_of

        return estimate_of(self.store, target if isinstance(target, Handler) else _spec_of(target), options)

    def _launch(self, spec: AnySpec, given: LaunchOptions, config: ExecutionConfig) -> RunHandle:
        if given.params or spec.asks:
            spec = fill(spec, given.params)
        if not given.reuse:  # else once it is known what has to run
            self.check_budget(spec)
        batch = self._batch(given, config, {"budget": given.budget} if given.budget else None)
        batch.add(spec, given.params, given.name)
        return self._send(batch)[0]

    def _go_on(self, spec: Any, config: ExecutionConfig, run: RunHandle, options: dict[str, Any]) -> RunHandle:
        """Launch the filled `spec` as a reply to `run`: with its `config` and params, laid over by `options`."""
        own = fields_of(type(spec))
        given, changed = self._options({name: value for name, value in options.items() if name not in own}, own)
        if fields := {name: value for name, value in options.items() if name in own}:
            spec = again(spec, fields)
        if not given.reuse:
            self.check_budget(spec)
        given.params, given.tags = run.params | given.params, {TAG: run.id} | given.tags
        batch = self._batch(given, changed.over(config), {"budget": given.budget} if given.budget else None)
        batch.add(spec, given.params, given.name)
        return self._send(batch)[0]

    def map(
        self,
        target: AnySpec | Callable[..., Any],
        items: Iterable[Mapping[str, Any]] | pd.DataFrame,
        *,
        repeats: int = 1,
        max_parallel: int | None = None,
        **options: Any,
    ) -> RunGroup:
        """Launch `target` once for each of `items` (a list of mappings, nb.grid(...), the rows of a DataFrame), each `repeats` times.

        Keys are template variables of the target (values are quoted where a shell sees them) and become columns ``param.x``; with
        `repeats` there is one more, ``param.repeat``. `max_parallel`: how many of the group work at once; default the session's.
        Options: see `launch`. Every point is checked before the first one starts.
        """
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
            raise ConfigError(f"map: repeats={repeats!r} must be a whole number, 1 or more")
        rows = points(items, reserved=("repeat",) if repeats > 1 else ())
        bound = parallel("max_parallel", max_parallel)
        given, config = self._options(options, ("repeats", "max_parallel"))
        spec = _spec_of(target)
        if not given.reuse:
            self.check_budget(spec)
        group: Json = {"group": new_id(), "group_parallel": bound or self.max_parallel}
        if given.budget:
            group["group_budget"] = given.budget
        batch, origin = self._batch(given, config, group), []
        name = batch.title(named(spec), given.name)
        for number, row in enumerate(rows):
            filled = fill(spec, given.params | row) if repeats == 1 else None
            for repeat in range(repeats):
                params = given.params | row | ({"repeat": repeat} if repeats > 1 else {})
                batch.add(filled or fill(spec, params), params, f"{name} [{len(batch)}]", named=given.name is not None)
                origin.append(number)
        base = items if hasattr(items, "columns") else None
        return RunGroup(group["group"], name, self._send(batch), self.store, base=base, rows=origin, session=self, budget=given.budget)  # type: ignore[arg-type]

    def resume(
        self,
        session: str | None = None,
        *,
        env: Mapping[str, str | Secret] | None = None,
        max_parallel: int | None = None,
        skip: bool = False,
    ) -> RunGroup:
        """Launch again what was cut off because its kernel or supervisor ended; returns at once, with the new runs as a group.

        Without `session`: runs of this session, and of the latest earlier one of the same name that has any, so that in a new kernel
        ``nb.Session("night").resume()`` goes on. `session`: the id, or the name, of another one. A run counts once, waiting ones count,
        too, and what an agent launched does not: the agent launches it again. Each new run has target, options, parameters, name, tags and
        folder of its `resumed_from`; it starts from the beginning (an agent's conversation, too), and one launched with ``reuse=True`` is
        not run again if it was done meanwhile. `max_parallel`: how many of them work at once; default the session's.

        Values of variables and secrets are never stored: `env` gives them (default: those of this session). A Python function is taken
        from its module or the notebook, and must have the code it had. What cannot be launched again raises ConfigError, which names it,
        and nothing is launched; with `skip`, the others are, with a warning. Raises StoreError, BudgetExceeded.
        """
        from agentnb.notebook.resuming import resume

        self._check_active()
        bound = parallel("max_parallel", max_parallel) or self.max_parallel
        return resume(self, session, env or {}, max_parallel=bound, skip=skip)

    def launch_child(self, parent: str, target: AnySpec | Callable[..., Any], options: Mapping[str, Any]) -> RunHandle:
        """Launch a run for the agent that is run `parent`; it ends with that one. Also while the session waits for its end."""
        given, config = split(options)
        if given.detach:
            raise ConfigError("detach: a child run ends with the run that launched it; launch it with session.launch(...)")
        spec = _spec_of(target)
        if not given.reuse:
            self.check_budget(spec)
        if given.params or spec.asks:
            spec = fill(spec, given.params)
        bound: Json = {"bound": True} | ({"budget": given.budget} if given.budget else {})
        batch = self._batch(given, config, bound, parent)
        batch.add(spec, given.params, given.name)
        return self._send(batch)[0]

    def _adopt(self, run: Json) -> LiveRun | None:
        """A run was launched by an agent in a child process: it is one of this session's, too."""
        if self._engine is None:
            return None
        live = LiveRun(self._engine, self.store, run, grace_s=DEFAULT_GRACE_S)
        self._runs.append(RunHandle(live, self.store, run))
        self._live.append(live)
        return live

    def _options(self, options: Mapping[str, Any], also: Iterable[str] = ()) -> tuple[LaunchOptions, ExecutionConfig]:
        self._check_active()
        return split(options, tuple(also))

    def _check_active(self) -> None:
        if self.status is not SessionStatus.ACTIVE and not self._is_at_work():
            raise ConfigError(f"session {self.name!r} has {_ENDING[self.status]}; start a new one with nb.Session({self.name!r})")

    def _is_at_work(self) -> bool:
        """Whether the caller is an agent of this session, which waits for its end."""
        here = current_run()
        return here is not None and any(run.id == here and not run.done for run in self._live)

    @property
    def budget(self) -> Budget | None:
        """Its budget: what is spent, what remains; None when it has none."""
        if self._bounds is None:
            return None
        if self._engine is not None:
            self._spent = self._engine.budgets.get(self.id, self._spent)
        return budget_at("session", self._bounds, self._spent, self._ended_at)

    def check_budget(self, spec: AnySpec) -> None:
        """Raise BudgetExceeded when nothing is left for a run of `spec`."""
        if self._bounds and (budget := self.budget) is not None and budget.exhausted and spec.type != "replay":
            advice = f"start a new session with a larger one: nb.Session({self.name!r}, {next(iter(self._bounds))}=...)"
            raise BudgetExceeded(f"session {self.name!r} has spent its budget ({budget}); {advice}")

    def _batch(
        self,
        given: LaunchOptions,
        config: ExecutionConfig,
        group: Mapping[str, Any] | None = None,
        parent: str | None = None,
        *,
        defaults: ExecutionConfig | None = None,
    ) -> Batch:
        client = self._connect()
        if given.detach:
            if self._bounds:
                raise ConfigError("detach: a detached run outlives the session and its budget; launch it from a session without one")
            client = self._connect_detached()
        return Batch(
            client,
            self.store,
            self.id,
            config=config,
            defaults=self._defaults if defaults is None else defaults,
            tags=self.tags | given.tags,
            group=group,
            detach=given.detach,
            session=self,
            parent=parent,
            reuse=given.reuse,
        )

    def _send(self, batch: Batch) -> list[RunHandle]:
        batch.decide()  # it may read much: an interrupt ends it
        with Deferred():  # runs that are launched are known to the session
            handles = batch.send()
            self._runs += handles
            self._live += live_runs(handles)
        return handles

    def _connect(self) -> Client:
        """The live supervisor, which knows this session."""
        if self._pid != os.getpid():  # a forked copy is a session of its own: the parent's record is the parent's
            self._pid, self.id, self._created, self._runs, self._live = os.getpid(), new_id(), now_us(), [], []
        client = connect()
        if self._engine is client:
            return client
        with Deferred():
            if self._engine is not client:
                if self._engine is not None:  # it died: what it told of last counts
                    self._spent = self._engine.budgets.get(self.id, self._spent)
                self._engine = client
                self._open(client)
        return client

    def _connect_detached(self) -> Client:
        """The detached supervisor of this process, which knows this session, too."""
        with Deferred():
            client = connect(detached=True)
            if self._detached is not client:
                self._detached = client
                self._open(client)
        return client

    def _open(self, client: Client) -> None:
        said: Json = {"name": self.name, "tags": self.tags}
        if secrets := secrets_of(self._defaults):
            masker = Masker(secrets)
            said = {key: masker.clean_data(value) for key, value in said.items()}
        session: Json = {"id": self.id, "status": "active", "created_at": self._created, "ended_at": None}
        client.adopt_for(self.id, _weakly(self._adopt))
        budget = None
        if self._bounds is not None and client is self._engine:
            told = self._spent
            spent = {"cost_usd": told.cost_usd, "tokens": told.tokens, "began": told.began} if told is not None else None
            budget = self._bounds | {"spent": spent}
        client.send([requests.OpenSession(session | said, str(self.store), self.max_parallel, budget, self._synchronous)])

    # --- waiting and ending

    @property
    def runs(self) -> list[RunHandle]:
        """Its runs of this process, in the order of their launch."""
        return list(self._runs)

    def wait(self, timeout: Timeout = None, *, on_interrupt: OnInterrupt = "cancel") -> Session:
        """Block until all its runs but detached ones have ended; timeout and interrupts as in RunHandle.wait, for all of them."""
        wait_all(self._bound(), timeout, on_interrupt)
        return self

    def __await__(self) -> Any:
        """``await session``: as `wait`."""
        return self._wait_async().__await__()

    async def _wait_async(self) -> Session:
        await await_all(self._bound())
        return self

    def _bound(self) -> list[LiveRun]:
        """Its runs that end with this process."""
        return [run for run in self._live if not run.detached]

    def cancel(self, reason: str = "the session was cancelled") -> None:
        """Ask for the end of all its runs, waiting, live and detached; returns at once. The session goes on."""
        cancel_all(self._live, reason)

    def end(self, *, cancel: bool = False, reason: str = "the session ended") -> None:
        """Refuse new runs, wait for the live ones (or, with `cancel`, cancel them first), and close the session's record.

        Detached runs are left alone. Ending twice is fine. An interrupt cancels what is left, waits for its end and is raised again.
        Raises StoreError if its history could not be written.
        """
        loops.refuse_to_block("end()")
        if self.status is not SessionStatus.ACTIVE:
            return
        self.status = SessionStatus.CANCELLED if cancel else SessionStatus.ENDED
        try:
            trouble = self._end(cancel=cancel, reason=reason)
        finally:
            self._ended_at = now_us() / 1e6
            callbacks, self._ended = self._ended, []
            for callback in callbacks:
                callback()
        if trouble:
            raise StoreError(f"the history of session {self.name!r} is not complete: {trouble}")

    def _end(self, *, cancel: bool, reason: str) -> str | None:
        client = self._engine
        if client is None or not client.alive or self._pid != os.getpid():
            return None
        done = client.request(lambda number: requests.EndSession(number, self.id, cancel, reason))
        try:
            reply = done.result()
        except KeyboardInterrupt:
            cancel_all(self._bound(), "interrupted by the user")
            concurrent.futures.wait([done], patience([run for run in self._bound() if not run.done]))
            raise
        except RuntimeError:  # the supervisor died: its successor sees to the record
            return None
        trouble: str | None = reply.get("trouble")
        return trouble

    def __enter__(self) -> Self:
        """The session; it ends with the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """End it: wait for its runs, or cancel them when the block raised."""
        self.end(cancel=kind is not None, reason="the session's block raised" if kind else "the session ended")

    # --- how it shows itself

    def snapshot(self) -> GroupSnapshot:
        """Its state now, as views show it."""
        return GroupSnapshot(self.id, self.name, "session", [run.snapshot() for run in list(self._live)], self.status.value, self.budget)

    def _is_open(self) -> bool:
        return self.status is SessionStatus.ACTIVE

    def _when_done(self, callback: Callable[[], None]) -> None:
        if self.status is not SessionStatus.ACTIVE:
            call_after_all(self._bound(), callback)
        else:
            self._ended.append(callback)

    def _ipython_display_(self) -> None:
        from agentnb.notebook.display import show
        from agentnb.notebook.sources import RunsSource

        look = (lambda: list(self._live), self.snapshot, self.cancel, self._when_done, lambda: self.budget)
        show(RunsSource(*look, is_open=self._is_open), loops.engine_loop())

    def __repr__(self) -> str:
        """One line: name, status, counts, where the history is."""
        statuses = [run.shown_status for run in self._live]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)) or "no runs"
        return f"<Session {self.name!r} {self.status.value}: {counts}; history in {self.store}>"


_ENDING = {SessionStatus.ENDED: "ended", SessionStatus.CANCELLED: "been cancelled"}


def _weakly(adopter: Callable[[Json], LiveRun | None]) -> Callable[[Json], LiveRun | None]:
    """The same, without keeping its session alive."""
    kept = WeakMethod(adopter)

    def adopt(run: Json) -> LiveRun | None:
        session = kept()
        return session(run) if session is not None else None

    return adopt
