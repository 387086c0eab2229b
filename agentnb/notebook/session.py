"""Sessions: where runs are launched from."""

from __future__ import annotations

import concurrent.futures
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentnb import requests
from agentnb.agents.compile import secrets_of
from agentnb.agents.fill import fill
from agentnb.commands import Python, Spec
from agentnb.engine.client import Client
from agentnb.engine.interrupts import Deferred
from agentnb.engine.masking import Masker
from agentnb.errors import ConfigError, StoreError
from agentnb.events import Json, now_us
from agentnb.execution import AnySpec, ExecutionConfig, Handler
from agentnb.history.store import Store
from agentnb.ids import new_id
from agentnb.notebook import loop as loops
from agentnb.notebook.grid import points
from agentnb.notebook.group import RunGroup
from agentnb.notebook.handles import RunHandle, live_runs
from agentnb.notebook.history import SessionHistory
from agentnb.notebook.launching import Batch, connect
from agentnb.notebook.live import LiveRun
from agentnb.notebook.nesting import warn_about_old_nesting
from agentnb.notebook.options import LaunchOptions, clean_tags, parallel, session_defaults, split
from agentnb.notebook.snapshot import GroupSnapshot
from agentnb.notebook.verbs import Verbs
from agentnb.notebook.waiting import OnInterrupt, Timeout, await_all, call_after_all, cancel_all, patience, wait_all
from agentnb.states import SessionStatus

if TYPE_CHECKING:
    import pandas as pd

    from agentnb.results import Estimate, Issue


class Session(Verbs, SessionHistory):
    """A named stretch of work: launches runs, waits for them, shows them, reads their history.

    `store`: the folder of the history; default AGENTNB_HOME, else ``./.agentnb``. `max_parallel`: how many of its runs work at
    once; default the number of processors. `tags`: texts kept with it and its runs. Other options (timeout, env, capture, retry,
    grace, working_dir ...: see ExecutionConfig) are defaults for its runs: what a spec says wins over them, and what a launch says
    over both; `env`, `working_dir`, `stdin` and `capture` are for processes, not for ``async def`` agents.
    Raises ConfigError for a bad option, StoreError or StoreTooNew when the store cannot be used.
    """

    def __init__(
        self,
        name: str = "session",
        *,
        store: str | os.PathLike[str] | None = None,
        max_parallel: int | None = None,
        tags: Mapping[str, str] | None = None,
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
        self._defaults = session_defaults(defaults)
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

    # --- launching

    def launch(self, target: AnySpec | Callable[..., Any], **options: Any) -> RunHandle:
        """Launch any target (Shell, Command, Test, Python, LocalModel, or a Python function); returns at once.

        Options: `name`; `params` (a mapping: fills the target's templates and is kept with the run); `tags`; and how to run:
        `timeout`, `env`, `working_dir`, `capture`, `stdin`, `retry`, `limits`, `validation`, `grace`, `artifacts`, `on_success`,
        `on_failure`, `rollback`, `cleanup` (see ExecutionConfig). Raises ConfigError before anything is started.

        ``detach=True``: the run outlives this process and the session, under a supervisor of its own (which has the session's
        `max_parallel` for detached runs alone); ``nb.attach(run_id)`` shows it again in any process. Not for ``async def`` agents.
        """
        return self._launch(_spec_of(target), *self._options(options))

    def _launch_spec(self, cls: type[Any], first: Any, options: dict[str, Any]) -> RunHandle:
        own = set(cls.model_fields) - set(ExecutionConfig.model_fields) - {"type", "command", "argv", "prompt"}
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
        batch = self._batch(given, config)
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
        group = {"group": new_id(), "group_parallel": bound or self.max_parallel}
        batch, origin = self._batch(given, config, group), []
        name = batch.title(spec, given.name)
        for number, row in enumerate(rows):
            filled = fill(spec, given.params | row) if repeats == 1 else None
            for repeat in range(repeats):
                params = given.params | row | ({"repeat": repeat} if repeats > 1 else {})
                batch.add(filled or fill(spec, params), params, f"{name} [{len(batch)}]")
                origin.append(number)
        base = items if hasattr(items, "columns") else None
        return RunGroup(group["group"], name, self._send(batch), self.store, base=base, rows=origin)  # type: ignore[arg-type]

    def _options(self, options: Mapping[str, Any], also: Iterable[str] = ()) -> tuple[LaunchOptions, ExecutionConfig]:
        self._check_active()
        return split(options, tuple(also))

    def _check_active(self) -> None:
        if self.status is not SessionStatus.ACTIVE:
            raise ConfigError(f"session {self.name!r} has {_ENDING[self.status]}; start a new one with nb.Session({self.name!r})")

    def _batch(self, given: LaunchOptions, config: ExecutionConfig, group: Mapping[str, Any] | None = None) -> Batch:
        with Deferred():  # one for all that is deferred in there
            client = self._connect()
            if given.detach:
                client = self._connect_detached()
            tags = self.tags | given.tags
            return Batch(client, self.store, self.id, config=config, defaults=self._defaults, tags=tags, group=group, detach=given.detach)

    def _send(self, batch: Batch) -> list[RunHandle]:
        with Deferred():  # runs that are launched are known to the session
            handles = batch.send()
            self._runs += handles
            self._live += live_runs(handles)
        return handles

    def _connect(self) -> Client:
        """The live supervisor, which knows this session."""
        if self._pid != os.getpid():  # a forked copy is a session of its own: the parent's record is the parent's
            self._pid, self.id, self._created, self._runs, self._live = os.getpid(), new_id(), now_us(), [], []
        with Deferred():
            client = connect()
            if self._engine is not client:
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
        client.send([requests.OpenSession(session | said, str(self.store), self.max_parallel)])

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

    if not TYPE_CHECKING:  # type checkers shall go on to refuse unknown names

        def __getattr__(self, name: str) -> object:
            """Say what is there instead of a name of a later version."""
            from agentnb.absent import of_session

            raise AttributeError(of_session(name) or f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def snapshot(self) -> GroupSnapshot:
        """Its state now, as views show it."""
        return GroupSnapshot(self.id, self.name, "session", [run.snapshot() for run in list(self._live)], self.status.value)

    def _when_done(self, callback: Callable[[], None]) -> None:
        if self.status is not SessionStatus.ACTIVE:
            call_after_all(self._bound(), callback)
        else:
            self._ended.append(callback)

    def _ipython_display_(self) -> None:
        from agentnb.notebook.display import show
        from agentnb.notebook.sources import RunsSource

        show(RunsSource(lambda: list(self._live), self.snapshot, self.cancel, self._when_done), loops.engine_loop())

    def __repr__(self) -> str:
        """One line: name, status, counts, where the history is."""
        statuses = [run.shown_status for run in self._live]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)) or "no runs"
        return f"<Session {self.name!r} {self.status.value}: {counts}; history in {self.store}>"


_ENDING = {SessionStatus.ENDED: "ended", SessionStatus.CANCELLED: "been cancelled"}


def _spec_of(target: AnySpec | Callable[..., Any]) -> AnySpec:
    if isinstance(target, Spec):
        return target
    if isinstance(target, type) and issubclass(target, Spec):
        raise ConfigError(f"launch: {target.__name__} is a class of targets; write nb.{target.__name__}(...)")
    if callable(target):
        return Python(target)
    hint = "nb.Shell(...)" if isinstance(target, str) else "nb.Command([...])" if isinstance(target, list | tuple) else "a spec"
    if inspect.isawaitable(target):
        raise ConfigError(f"launch: {target!r} is what an async function returned; pass the function itself: session.python(function, ...)")
    raise ConfigError(f"launch: {target!r} is no target; write {hint}, or pass a Python function")
