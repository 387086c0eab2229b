"""Getting runs to the engine: the supervisor of this process, and the launch of one run or many in one message."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb import requests, wire
from agentnb.agents.adapters import adapter_of
from agentnb.agents.compile import compile_work, secrets_of, target_of
from agentnb.agents.python import host
from agentnb.agents.workspaces import Known
from agentnb.commands import Python
from agentnb.engine.client import Client
from agentnb.engine.interrupts import Deferred
from agentnb.engine.masking import Masker
from agentnb.engine.work import Work, no_work
from agentnb.errors import ConfigError, StoreError
from agentnb.events import Json, RunFinished, now_us
from agentnb.execution import AnySpec, ExecutionConfig
from agentnb.history.store import DATABASE, READER_BUSY_MS, Store
from agentnb.ids import new_id
from agentnb.notebook import loop as loops
from agentnb.notebook.handles import RunHandle
from agentnb.notebook.hosting import Make, current_run
from agentnb.notebook.live import LiveRun
from agentnb.notebook.parcels import parcels
from agentnb.notebook.remote import RemoteRun
from agentnb.notebook.replying import Origin
from agentnb.notebook.run_record import lay_in, mask_again, masked_spec, short
from agentnb.notebook.tracing import trace_of

if TYPE_CHECKING:
    from agentnb.notebook.reuse import Reuse, Wanted
    from agentnb.notebook.session import Session

_SETTLE_S = 10.0
_lock = threading.Lock()
#: This process's supervisors: the one that ends with it, and (True) the detached one.
_shared: dict[bool, Client] = {}


def connect(*, detached: bool = False) -> Client:
    """This process's supervisor, or its detached one; a new one when there is none or it died. Raises RuntimeUnavailable."""
    client = _shared.get(detached)
    if client is not None and client.usable:
        return client
    with Deferred(), _lock:
        client = _shared.get(detached)
        if client is None or not client.usable:
            client = _shared[detached] = Client(loops.engine_loop().loop, detached=detached)
        return client


def settle(root: Path) -> None:
    """Bring the history at `root` up to date: all that was asked for so far is in it, and what dead supervisors left reads interrupted."""
    _flush()
    if (root / DATABASE).exists():
        with suppress(StoreError), Store.open(root, busy_ms=READER_BUSY_MS) as store:  # one that cannot be written to is read as it is
            store.recover()


def _flush() -> None:
    if loops.on_loop_thread():
        return
    for client in list(_shared.values()):
        if client.alive and client.owner_pid == os.getpid():
            with suppress(RuntimeError, TimeoutError):  # it died: what is in the history is all there is
                client.request(requests.Ping).result(_SETTLE_S)


def _forget() -> None:
    """In a forked copy of the process: the supervisors are the parent's."""
    global _lock  # noqa: PLW0603 - it may be held by a thread that was not copied
    _lock = threading.Lock()
    _shared.clear()


os.register_at_fork(after_in_child=_forget)


class Batch:
    """Runs that are checked one by one and then sent together, so that nothing starts when one of them is wrong."""

    def __init__(
        self,
        client: Client,
        store: Path,
        session_id: str,
        *,
        config: ExecutionConfig,
        defaults: ExecutionConfig,
        tags: Mapping[str, str],
        group: Mapping[str, Any] | None = None,
        detach: bool = False,
        session: Session | None = None,
        parent: str | None = None,
        reuse: bool = False,
    ) -> None:
        """`config`: given at the launch; `defaults`: the session's. `group`: what comes to each Work.

        `parent`: the run that they are launched by; default: the one that the caller is part of.

        `detach`: the runs outlive this process; `client` leads to its detached supervisor then. `reuse`: what the history has is not run.
        """
        self._client = client
        self._detach = detach
        self._session = session
        self._store = store
        self._session_id = session_id
        self._config = config
        self._defaults = defaults
        self._configured = bool(config.model_fields_set or defaults.model_fields_set)
        self._tags = dict(tags)
        self._group = dict(group or {})
        self._parent = parent or current_run()
        self._env_id = client.environment(os.environ)
        self._maskers: dict[tuple[str, ...], Masker] = {}
        self._workspaces: Known = {}
        self._handles: list[RunHandle] = []
        self._listeners: list[LiveRun] = []
        self._launches: list[requests.Launch] = []
        self._written: Json | None = None
        self._reuse = _reuse(store, config, defaults) if reuse else None

    def __len__(self) -> int:
        """How many runs."""
        return len(self._launches) + (0 if self._reuse is None else len(self._reuse))

    def title(self, spec: AnySpec, name: str | None = None) -> str:
        """`name`, or the start of the command; without secrets."""
        mask = self._mask(self._secrets(spec))
        return str(mask(name)) if name else short(spec.shown(mask))

    def _mask(self, secrets: list[str]) -> Callable[[Any], Any]:
        """What takes JSON data and gives it back without these secrets."""
        if not secrets:
            return _as_it_is
        if (known := tuple(secrets)) not in self._maskers:
            self._maskers[known] = Masker(known)
        return self._maskers[known].clean_data

    def _secrets(self, spec: AnySpec) -> list[str]:
        """What a run of `spec` will have of them."""
        return secrets_of(spec, self._config, self._defaults) if self._configured else secrets_of(spec)

    def add(
        self, spec: AnySpec, params: dict[str, Any], name: str | None = None, *, named: bool = True, resumed_from: str | None = None
    ) -> None:
        """Check one run; its record will hold no secrets. Raises ConfigError, InvalidLimits or RuntimeUnavailable for what cannot work.

        `named`: whether somebody chose `name`: else the name in a recording is better.
        """
        if self._reuse is not None:
            self._reuse.want(spec, params, name, named=named, resumed_from=resumed_from)
        else:
            self._add(spec, params, name, named=named, resumed_from=resumed_from)

    def _add(
        self,
        spec: AnySpec,
        params: dict[str, Any],
        name: str | None,
        *,
        named: bool,
        resumed_from: str | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        run_id, target, secrets = new_id(), target_of(spec), self._secrets(spec)
        mask = self._mask(secrets)
        display = spec.shown(mask)
        reused = wanted is not None and wanted.reused_from is not None
        work = no_work() if reused else self._work(spec, params, run_id, secrets)
        run: Json = {
            "id": run_id,
            "session_id": self._session_id,
            "name": str(mask(name)) if name else short(display),
            "target": {"kind": target.kind.value, "display": display, "spec": masked_spec(target.spec, mask) if secrets else target.spec},
            "runtime_kind": "local",
            "created_at": now_us(),
            "params": mask(params),
            "tags": mask(self._tags),
        }
        for key, value in ("group_id", self._group.get("group")), ("timeout_s", work.get("timeout_s")), ("parent_run_id", self._parent):
            if value is not None:
                run[key] = value
        if resumed_from is not None:
            run["resumed_from"] = resumed_from
        if wanted is not None:
            wanted.mark(run, work)
        if self._parent is None:  # what an agent launches is launched again by the agent
            run["again"] = self._again(spec, work, wanted)
            if self._maskers:
                mask_again(run, target.spec, params, mask)
        self._send_later(spec, params, run, work, named=bool(name) and named)

    def _work(self, spec: AnySpec, params: dict[str, Any], run_id: str, secrets: list[str]) -> Work:
        return compile_work(
            spec,
            self._config,
            defaults=self._defaults,
            env_id=self._env_id,
            params=params,
            run_id=run_id,
            known=self._workspaces,
            secrets=secrets,
        )

    def _send_later(self, spec: AnySpec, params: dict[str, Any], run: Json, work: Work, *, named: bool) -> None:
        """Make the handle of a run, and keep both for `send`."""
        if "budget" in self._group:
            run["budget"] = self._group["budget"]
        if self._detach:
            check_detached(work["kind"])
            run["detached"] = True
        if (recorded := work.pop("record", None)) is not None:
            lay_in(run, self._mask(self._secrets(spec))(recorded), named=named)
        kind = RemoteRun if self._detach else LiveRun
        hosted = _maker(spec, params, run["id"], self._session) if work["kind"] == "hosted" and isinstance(spec, Python) else None
        live = kind(self._client, self._store, run, grace_s=work["grace_s"], hosted=hosted)
        self._listeners.append(live)
        origin = Origin(self._session, spec, self._config) if self._session is not None and adapter_of(spec).features.reply else None
        self._handles.append(RunHandle(live, self._store, run, origin))  # without one it keeps little: there may be very many
        if hosted is not None:
            work["pid"] = os.getpid()
        whole: Any = work | self._group if self._group else work
        self._launches.append(requests.Launch(run, whole))

    def _again(self, spec: AnySpec, work: Work, wanted: Wanted | None) -> Json:
        """What is put down so that it can be launched again (agents/again.py): little, for a plain launch."""
        found: Json = {"cwd": work["cwd"]} if work["kind"] == "process" else {}
        if wanted is not None and wanted.folder is not None:
            found["cwd"] = wanted.folder
        if self._configured or isinstance(spec, Python):
            from agentnb.agents.again import call_of, written

            if self._written is None:
                self._written = {"config": written(self._config), "defaults": written(self._defaults)}
            found |= {name: record for name, record in self._written.items() if record}
            if isinstance(spec, Python):
                found["call"] = call_of(spec)
        if (commit := work.get("workspace", {}).get("commit")) is not None:
            found["commit"] = commit
        return found

    def _trace(self) -> None:
        """Give each run its place in a trace, and, where there is a tracer, its span as an observer."""
        for launch, live in zip(self._launches, self._listeners, strict=True):
            trace = trace_of(launch.run)
            launch.run["trace_id"], launch.work["traceparent"] = trace.trace_id, trace.parent
            if trace.span is not None:
                live.observe(trace.span, trace.span.activate)

    def decide(self) -> None:
        """With reuse: look for them in the history, and check those that are not there.

        Raises what `add` raises of these, BudgetExceeded and StoreError.
        """
        for wanted in self._reuse.decided() if self._reuse is not None else ():
            if wanted.reused_from is None and self._session is not None:
                self._session.check_budget(wanted.spec)
            self._add(wanted.spec, wanted.params, wanted.name, named=wanted.named, resumed_from=wanted.resumed_from, wanted=wanted)

    def send(self) -> list[RunHandle]:
        """Launch them all; returns at once. Raises ConfigError when an option is no JSON data, or one of them is too large; as `decide`."""
        self.decide()
        self._trace()
        for live in self._listeners:
            self._client.listen(live.id, live)
        sent = 0
        try:
            for part in parcels(self._launches):
                self._client.send(part)
                sent += len(part)
        except (TypeError, ValueError) as bad:
            self._withdraw(sent, bad)
            if isinstance(bad, wire.TooLarge):
                raise ConfigError(f"launch: {bad}; put the large part of its stdin or parameters into a file and pass its path") from None
            raise ConfigError(f"launch: an option or parameter is no JSON data: {bad}") from None
        if not self._client.alive:  # it died at this moment, and may not have told these
            for live in self._listeners:
                if not live.done:
                    live.on_lost("the supervisor process ended while the run was launched; launch it again")
        return self._handles

    def _withdraw(self, sent: int, bad: Exception) -> None:
        """One of them cannot be sent: end those that were, and say so of the others."""
        if sent:
            self._client.send([requests.Cancel([live.id for live in self._listeners[:sent]], f"another run of the launch is wrong: {bad}")])
        for live in self._listeners[sent:]:
            self._client.ignore(live.id)
            live.on_event(RunFinished(live.id, "failed", error={"kind": "invalid_config", "message": str(bad)}))


def _as_it_is(data: Any) -> Any:
    return data


def _reuse(root: Path, given: ExecutionConfig, defaults: ExecutionConfig) -> Reuse:
    from agentnb.notebook.reuse import Reuse  # most launches need none

    return Reuse(root, given, defaults)


def check_detached(kind: str) -> None:
    """Raise ConfigError for work that cannot outlive this process."""
    if kind == "hosted":
        raise ConfigError("detach: an `async def` agent lives in the notebook's process and ends with it; write it as `def`")


def _maker(spec: Python, params: dict[str, Any], run_id: str, session: Session | None) -> Make:
    child = None if session is None else partial(session.launch_child, run_id)
    return lambda send, attempt: host(spec, params, send, run_id, attempt, launch=child)
