"""Sessions: where runs are launched from."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agentnb import requests
from agentnb.agents.compile import Target, compile_work, target_of
from agentnb.agents.fill import fill
from agentnb.agents.python import host
from agentnb.commands import AnySpec, Command, ExecutionConfig, LocalModel, Python, Shell, Spec, Test
from agentnb.engine.client import Client
from agentnb.errors import ConfigError, StoreError
from agentnb.events import Json, now_us
from agentnb.history.store import Store
from agentnb.ids import new_id
from agentnb.notebook import loop as loops
from agentnb.notebook.grid import points
from agentnb.notebook.group import RunGroup
from agentnb.notebook.handles import OnInterrupt, RunHandle, await_all, call_after_all, cancel_all, wait_all
from agentnb.notebook.nesting import warn_about_old_nesting
from agentnb.notebook.options import LaunchOptions, clean_tags, split
from agentnb.notebook.snapshot import GroupSnapshot
from agentnb.states import SessionStatus

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SETTLE_S = 10.0
_lock = threading.Lock()
_shared: Client | None = None
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _client() -> Client:
    """This process's supervisor; a new one when there is none or it died."""
    global _shared
    with _lock:
        if _shared is None or not _shared.alive or _shared.owner_pid != os.getpid():
            _shared = Client(loops.engine_loop().loop)
        return _shared


def settle() -> None:
    """Wait until everything that was asked for so far is in the history."""
    with _lock:
        client = _shared
    if client is not None and client.alive and not loops.on_loop_thread():
        try:
            client.request(lambda number: requests.Ping(number)).result(_SETTLE_S)
        except (RuntimeError, TimeoutError):  # it died: what is in the history is all there is
            return


class Session:
    """A named stretch of work: launches runs, waits for them, shows them, reads their history.

    `store`: the folder of the history; default AGENTNB_HOME, else ``./.agentnb``. `max_parallel`: how many of its runs work at
    once; default the number of processors. `tags`: texts kept with it. Other options (timeout, env, capture, retry, grace,
    working_dir ...: see ExecutionConfig) are defaults for its runs.
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
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"Session: the name {name!r} is empty; write Session('first-look')")
        self.name = name
        self.id = new_id()
        self.max_parallel = _parallel("max_parallel", max_parallel) or os.cpu_count() or 1
        self.tags = clean_tags(tags)
        self._defaults = ExecutionConfig(**defaults)
        self.store = Store.locate(store)
        self.status = SessionStatus.ACTIVE
        self._runs: dict[str, RunHandle] = {}
        self._groups = 0
        self._engine: Client | None = None
        self._created = now_us()
        self._version = 0
        self._ended: list[Callable[[], None]] = []
        Store.open(self.store).close()  # here, so that what is wrong with it is raised in the cell
        warn_about_old_nesting()
        self._connect()
        _sessions.add(self)

    # --- launching

    def shell(self, command: str, **options: Any) -> RunHandle:
        """Run a line in a shell (`shell`: default sh). Options: see `launch`."""
        return self._launch_spec(Shell, command, options)

    def command(self, argv: Sequence[str | Path], **options: Any) -> RunHandle:
        """Run a program with arguments, without a shell. Options: see `launch`."""
        return self._launch_spec(Command, argv, options)

    def test(self, command: str, **options: Any) -> RunHandle:
        """Run a test command; it succeeds when it exits with `expected_exit_code` (default 0). Options: see `launch`."""
        return self._launch_spec(Test, command, options)

    def python(self, function: Callable[..., Any], *args: Any, **options: Any) -> RunHandle:
        """Call a Python function: ``def`` in a child process, ``async def`` on a loop thread of this process. Options: see `launch`.

        What it returns becomes the run's `output`; it must be JSON data, or something that clearly maps to it (dataclasses,
        pydantic models, numpy and pandas values ...). Pass keyword arguments with ``session.launch(nb.Python(f, key=value))``.
        """
        return self.launch(Python(function, *args), **options)

    def local(self, prompt: str, **options: Any) -> RunHandle:
        """Ask the local model (see LocalModel for `system`, `temperature`, `seed`, `max_tokens` ...). Options: see `launch`.

        Its tokens stream to stdout; the answer is the run's `output`. Raises RuntimeUnavailable when the model is not installed.
        """
        return self._launch_spec(LocalModel, prompt, options)

    def _launch_spec(self, cls: type[Any], first: Any, options: dict[str, Any]) -> RunHandle:
        own = set(cls.model_fields) - set(ExecutionConfig.model_fields) - {"type"}
        fields = {name: options.pop(name) for name in list(options) if name in own}
        return self.launch(cls(first, **fields), **options)

    def launch(self, target: AnySpec | Callable[..., Any], **options: Any) -> RunHandle:
        """Launch any target (Shell, Command, Test, Python, LocalModel, or a Python function); returns at once.

        Options: `name`; `params` (a mapping: fills the target's templates and is kept with the run); `tags`; and how to run:
        `timeout`, `env`, `working_dir`, `capture`, `stdin`, `retry`, `limits`, `validation`, `grace`, `artifacts`, `on_success`,
        `on_failure`, `cleanup` (see ExecutionConfig). Raises ConfigError before anything is started.
        """
        launch, config = self._options(options)
        spec = self._spec(target)
        if launch.params or spec == LocalModel():  # a bare LocalModel asks for its parameter `prompt`
            spec = fill(spec, launch.params)
        return self._send([self._prepare(spec, launch.params, launch.name, launch.tags, config)])[0]

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
        rows = points(items)
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
            raise ConfigError(f"map: repeats={repeats!r} must be a whole number, 1 or more")
        bound = _parallel("max_parallel", max_parallel)
        launch, config = self._options(options)
        spec = self._spec(target)
        self._groups += 1
        name = launch.name or _short(target_of(spec).display)
        group = {"group": new_id(), "group_parallel": bound or self.max_parallel}
        prepared, origin = [], []
        for number, row in enumerate(rows):
            for repeat in range(repeats):
                params = launch.params | row | ({"repeat": repeat} if repeats > 1 else {})
                label = f"{name} [{len(prepared)}]"
                prepared.append(self._prepare(fill(spec, params), params, label, launch.tags, config, group))
                origin.append(number)
        runs = self._send(prepared)
        base = items if hasattr(items, "columns") else None
        return RunGroup(group["group"], name, runs, self.store, base, origin)  # type: ignore[arg-type]

    def _spec(self, target: AnySpec | Callable[..., Any]) -> AnySpec:
        if isinstance(target, Spec):
            return target  # type: ignore[return-value]
        if callable(target):
            return Python(target)
        hint = "nb.Shell(...)" if isinstance(target, str) else "nb.Command([...])" if isinstance(target, list | tuple) else "a spec"
        raise ConfigError(f"launch: {target!r} is no target; write {hint}, or pass a Python function")

    def _options(self, options: dict[str, Any]) -> tuple[LaunchOptions, ExecutionConfig]:
        if self.status is not SessionStatus.ACTIVE:
            raise ConfigError(f"session {self.name!r} has {self.status.value}; start a new one with nb.Session({self.name!r})")
        launch, config = split(options)
        return launch, config.over(self._defaults)

    def _prepare(
        self,
        spec: AnySpec,
        params: dict[str, Any],
        name: str | None,
        tags: dict[str, str],
        config: ExecutionConfig,
        group: dict[str, Any] | None = None,
    ) -> tuple[RunHandle, requests.Launch]:
        """The handle and the request of one run; nothing is sent yet."""
        client, run_id, target = self._connect(), new_id(), target_of(spec)
        work = compile_work(spec, config, env_id=client.environment(os.environ), params=params, run_id=run_id)
        run: Json = {
            "id": run_id,
            "session_id": self.id,
            "group_id": group["group"] if group else None,
            "name": name or _short(target.display),
            "target": {"kind": target.kind.value, "display": target.display, "spec": target.spec},
            "runtime_kind": "local",
            "created_at": now_us(),
            "timeout_s": config.timeout,
            "params": params,
            "tags": self.tags | tags,
        }
        handle = self._handle(client, run, target, spec, work["grace_s"], hosted=work["kind"] == "hosted")
        return handle, requests.Launch(run, work | (group or {}))  # type: ignore[arg-type]

    def _handle(self, client: Client, run: Json, target: Target, spec: AnySpec, grace_s: float, *, hosted: bool) -> RunHandle:
        start = None
        if hosted and isinstance(spec, Python):
            start = lambda send, attempt: host(spec, run["params"], send, run["id"], attempt)  # noqa: E731
        return RunHandle(
            client,
            self.store,
            run_id=run["id"],
            session_id=self.id,
            name=run["name"],
            target=target,
            params=run["params"],
            grace_s=grace_s,
            hosted=start,
        )

    def _send(self, prepared: list[tuple[RunHandle, requests.Launch]]) -> list[RunHandle]:
        client = self._connect()
        handles = [handle for handle, _ in prepared]
        try:
            frames = [launch for _, launch in prepared]
            for handle in handles:
                client.listen(handle.id, handle)
            client.send(frames)
        except (TypeError, ValueError) as bad:
            for handle in handles:
                client.ignore(handle.id)
            raise ConfigError(f"launch: an option or parameter is no JSON data: {bad}") from None
        for handle in handles:
            self._runs[handle.id] = handle
        if not client.alive:  # it died at this moment, and may not have told these
            for handle in handles:
                if not handle.done:
                    handle.on_lost("the supervisor process ended while the run was launched; launch it again")
        return handles

    def _connect(self) -> Client:
        """The live supervisor, which knows this session."""
        client = _client()
        if self._engine is not client:
            self._engine = client
            session = {
                "id": self.id, "name": self.name, "status": "active", "created_at": self._created, "ended_at": None, "tags": self.tags,
            }  # fmt: skip
            client.send([requests.OpenSession(session, str(self.store), self.max_parallel)])
        return client

    # --- waiting and ending

    @property
    def runs(self) -> list[RunHandle]:
        """Its runs of this process, in the order of their launch."""
        return list(self._runs.values())

    def wait(self, timeout: float | None = None, *, on_interrupt: OnInterrupt = "cancel") -> Session:
        """Block until all its runs have ended; timeout and interrupts as in RunHandle.wait, for all of them."""
        loops.refuse_to_block("wait()")
        wait_all(self.runs, timeout, on_interrupt)
        return self

    def __await__(self) -> Any:
        """``await session``: as `wait`."""
        return self._wait_async().__await__()

    async def _wait_async(self) -> Session:
        await await_all(self.runs)
        return self

    def cancel(self, reason: str = "the session was cancelled") -> None:
        """Ask for the end of all its runs, waiting and live; returns at once. The session goes on."""
        cancel_all(self.runs, reason)

    def end(self, *, cancel: bool = False, reason: str = "the session ended") -> None:
        """Refuse new runs, wait for the live ones (or, with `cancel`, cancel them first), and close the session's record.

        Ending twice is fine. Raises StoreError if its history could not be written.
        """
        loops.refuse_to_block("end()")
        if self.status is not SessionStatus.ACTIVE:
            return
        self.status = SessionStatus.CANCELLED if cancel else SessionStatus.ENDED
        try:
            trouble = self._end(cancel=cancel, reason=reason)
        finally:
            self._version += 1
            callbacks, self._ended = self._ended, []
            for callback in callbacks:
                callback()
        if trouble:
            raise StoreError(f"the history of session {self.name!r} is not complete: {trouble}")

    def _end(self, *, cancel: bool, reason: str) -> str | None:
        client = self._engine
        if client is None or not client.alive:
            return None
        try:
            reply = client.request(lambda number: requests.EndSession(number, self.id, cancel, reason)).result()
            self.wait()
        except KeyboardInterrupt:
            cancel_all(self.runs, "interrupted by the user")
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

    # --- its history

    def runs_df(self, **filters: Any) -> pd.DataFrame:
        """Its runs, one row each; `filters` as in agentnb.runs_df."""
        return self._frame("runs_df", filters)

    def steps_df(self, **filters: Any) -> pd.DataFrame:
        """The steps of its runs, one row each."""
        return self._frame("steps_df", filters)

    def artifacts_df(self, **filters: Any) -> pd.DataFrame:
        """The artifacts of its runs, one row each."""
        return self._frame("artifacts_df", filters)

    def events_df(self, **filters: Any) -> pd.DataFrame:
        """Its events, one row each."""
        return self._frame("events_df", filters)

    def sessions_df(self, **filters: Any) -> pd.DataFrame:
        """Its own row among the sessions."""
        return self._frame("sessions_df", filters)

    def _frame(self, name: str, filters: dict[str, Any]) -> pd.DataFrame:
        from agentnb.history import frames

        settle()
        result: pd.DataFrame = getattr(frames, name)(self.store, **({"session": self.id} | filters))
        return result

    def timeline(self, **options: Any) -> Figure:
        """A Gantt chart of its runs and their steps. Raises RuntimeUnavailable without matplotlib."""
        from agentnb.notebook.plots import timeline

        return timeline(self.runs_df(), self.steps_df(), **({"title": self.name} | options))

    # --- how it shows itself

    def snapshot(self) -> GroupSnapshot:
        """Its state now, as views show it."""
        return GroupSnapshot(self.id, self.name, "session", [run.snapshot() for run in self.runs], self.status.value)

    def _when_done(self, callback: Callable[[], None]) -> None:
        if self.status is not SessionStatus.ACTIVE:
            call_after_all(self.runs, callback)
        else:
            self._ended.append(callback)

    def _ipython_display_(self) -> None:
        from agentnb.notebook.display import show
        from agentnb.notebook.sources import RunsSource

        show(RunsSource(lambda: self.runs, self.snapshot, self.cancel, self._when_done), loops.engine_loop())

    def __repr__(self) -> str:
        """One line: name, status, counts, where the history is."""
        counts = ", ".join(f"{n} {status}" for status, n in self.snapshot().counts.items()) or "no runs"
        return f"<Session {self.name!r} {self.status.value}: {counts}; history in {self.store}>"


def _parallel(what: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"{what}={value!r} must be a whole number, 1 or more")
    return value


_SPACE = re.compile(r"\s+")
_NAME_CHARS = 60


def _short(text: str) -> str:
    line = _SPACE.sub(" ", text).strip()
    return line if len(line) <= _NAME_CHARS else f"{line[: _NAME_CHARS - 1]}…"

