"""Launching again what was cut off: the runs that a kernel or a supervisor left behind when it ended."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agentnb.agents.again import NoValues, check_values, config_of, target_again
from agentnb.data import Secret
from agentnb.engine.interrupts import Deferred
from agentnb.errors import AgentnbError, ConfigError
from agentnb.events import Json
from agentnb.execution import ExecutionConfig
from agentnb.history.precedents.interrupted import cut_off, sessions_before
from agentnb.ids import new_id
from agentnb.notebook import loop as loops
from agentnb.notebook.group import RunGroup
from agentnb.notebook.kernel_runs import sessions
from agentnb.notebook.launching import Batch, settle
from agentnb.notebook.options import LaunchOptions

if TYPE_CHECKING:
    from agentnb.notebook.handles import RunHandle
    from agentnb.notebook.session import Session

#: A supervisor whose kernel was killed just now needs a moment to end its runs.
_ENDING_S, _LOOK_S = 5.0, 0.05
_SHOWN = 5


class _Plan(NamedTuple):
    """One run to be launched again. `sort`: what runs of one batch have in common."""

    row: Json
    spec: Any
    config: ExecutionConfig
    defaults: ExecutionConfig
    given: LaunchOptions
    sort: str


def resume(session: Session, wanted: str | None, env: Mapping[str, Any], *, max_parallel: int, skip: bool) -> RunGroup:
    """Launch what was cut off, as Session.resume says."""
    loops.refuse_to_block("resume()")
    values = ExecutionConfig(env=env).env
    rows = _rows(session, wanted)
    plans, refused = list[_Plan](), list[str]()
    without, lacking = list[Json](), set[str]()
    for row in rows:
        try:
            plans.append(_plan(row, session._defaults.env | values))  # noqa: SLF001 - the other half of the session
        except NoValues as bad:
            without.append(row)
            lacking |= set(bad.names)
        except AgentnbError as bad:
            refused.append(f"run {row['name']!r} ({row['id']}): {bad}")
    if without:
        refused.insert(0, f"{len(without)} of the runs, such as {without[0]['name']!r} ({without[0]['id']}): {NoValues(lacking)}")
    group = new_id()
    batches = _batches(session, plans, {"group": group, "group_parallel": max_parallel}, refused, skip=skip)
    if refused:
        _tell(refused, skip=skip)
    handles: dict[str, RunHandle] = {}
    for batch in batches:
        handles |= {str(handle.resumed_from): handle for handle in session._send(batch)}  # noqa: SLF001
    ordered = [handles[row["id"]] for row in rows if row["id"] in handles]
    return RunGroup(group, f"resumed runs of {wanted or session.name}", ordered, session.store, base=None, rows=[], session=session)


def _tell(refused: list[str], *, skip: bool) -> None:
    """Raise ConfigError for runs that cannot be launched again; with `skip`, warn of them."""
    told = "\n".join(refused[:_SHOWN]) + (f"\n... and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else "")
    if not skip:
        raise ConfigError(f"resume: nothing was launched, since this cannot be (skip=True leaves it out):\n{told}")
    warnings.warn(f"resume: left out:\n{told}", stacklevel=4)


def _rows(session: Session, wanted: str | None) -> list[Json]:
    deadline = time.monotonic() + _ENDING_S
    while True:
        settle(session.store)
        ids, live = sessions_before(session.store, session.id, session.name, wanted, {one.id for one in sessions()})
        if not live or time.monotonic() > deadline:
            break
        time.sleep(_LOOK_S)
    if wanted is not None and (not ids or set(ids) & set(live)):
        raise ConfigError(f"resume: session {wanted!r} is live in another process, which can resume it; or end that process first")
    return cut_off(session.store, ids)


def _plan(row: Json, env: Mapping[str, str | Secret]) -> _Plan:
    launched = row["launched"]
    again = launched.get("again")
    if again is None:
        raise ConfigError("it was launched by an agentnb that kept too little of it to launch it again")
    check_values(row["target"] or {}, again, env)
    spec = target_again(row["target"] or {}, again, env)
    config, defaults = (config_of(again.get(name, {}), env) for name in ("config", "defaults"))
    changes: Json = {}
    if again.get("cwd") is not None:
        changes["working_dir"] = again["cwd"]
    if (commit := again.get("commit")) is not None and (space := config.workspace or defaults.workspace) is not None:
        changes["workspace"] = space.model_copy(update={"ref": commit})
    if changes:
        config = ExecutionConfig(**({name: getattr(config, name) for name in config.model_fields_set} | changes))
    given = LaunchOptions(row["name"], row["params"] or {}, row["tags"] or {})
    given.detach, given.reuse, given.budget = bool(launched.get("detached")), row["cache_key"] is not None, launched.get("budget")
    common = [again.get("config"), again.get("defaults"), again.get("cwd"), commit, given.tags, given.detach, given.reuse, given.budget]
    return _Plan(row, spec, config, defaults, given, json.dumps(common, sort_keys=True))


def _batches(session: Session, plans: list[_Plan], group: Json, refused: list[str], *, skip: bool) -> list[Batch]:
    """The runs in batches of equal options, checked; what is wrong with one goes to `refused`."""
    found: dict[str, Batch] = {}
    for plan in plans:
        row, given = plan.row, plan.given
        try:
            with Deferred():
                if plan.sort not in found:
                    own = {"budget": given.budget} if given.budget else {}
                    found[plan.sort] = session._batch(given, plan.config, group | own, defaults=plan.defaults)  # noqa: SLF001
                if not given.reuse:
                    session.check_budget(plan.spec)
                found[plan.sort].add(plan.spec, given.params, given.name, resumed_from=row["id"])
        except AgentnbError as bad:
            refused.append(f"run {row['name']!r} ({row['id']}): {bad}")
    batches = [batch for batch in found.values() if len(batch)]
    if not refused or skip:
        for batch in batches:
            batch.decide()
    return batches
