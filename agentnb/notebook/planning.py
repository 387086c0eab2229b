"""Looking at a launch before it is made: everything that is wrong with it, and what it will probably need. Nothing is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from agentnb import requests, wire
from agentnb.agents.compile import compile_work, target_of
from agentnb.agents.fill import fill
from agentnb.engine.finding import find_program
from agentnb.engine.work import Work
from agentnb.errors import AgentnbError
from agentnb.execution import AnySpec, ExecutionConfig, Handler
from agentnb.history.precedents.estimates import estimate
from agentnb.notebook.launching import check_detached
from agentnb.notebook.options import LaunchOptions, split
from agentnb.results import Estimate, Issue

_T = TypeVar("_T")


class _Notes:
    """Issues by their messages: each is told once."""

    def __init__(self) -> None:
        self.issues: dict[str, Issue] = {}

    def add(self, check: str, message: str) -> None:
        for line in message.splitlines():
            self.issues.setdefault(line, Issue(severity="error", check=check, message=line))

    def of(self, check: str, call: Callable[..., _T], *args: Any) -> _T | None:
        """What the call returns; None, and an issue, when it raises: what a launch would raise."""
        try:
            return call(*args)
        except Exception as bad:  # noqa: BLE001 - also a fault in the user's own objects
            self.add(check, str(bad) if isinstance(bad, AgentnbError) else f"{type(bad).__name__}: {bad}")
            return None


def issues_of(
    active: Callable[[], object], spec_of: Callable[[], AnySpec], options: Mapping[str, Any], defaults: ExecutionConfig
) -> list[Issue]:
    """Everything that would keep a launch with `options` from being made, and programs that are not there; never raises.

    `active` raises when the session takes no launches, `spec_of` gives the target or raises.
    """
    notes = _Notes()
    notes.of("session", active)
    spec = notes.of("target", spec_of)
    good = {name: value for name, value in options.items() if notes.of("options", split, {name: value}) is not None}
    given, config = notes.of("options", split, good) or (LaunchOptions(), ExecutionConfig())
    if spec is not None:
        spec = notes.of("template", filled, spec, given)
    if spec is not None:
        works = [notes.of("launch", _dry, spec, config, defaults, given)]
        if works == [None]:  # a launch tells its first fault only: look at each option by itself
            works = [notes.of("launch", _dry, spec, part, defaults, given) for part in _parts(config)]
        for message in (message for work in works if work is not None for message in _missing_programs(work)):
            notes.add("program", message)
    return list(notes.issues.values())


def filled(spec: AnySpec, given: LaunchOptions) -> AnySpec:
    """The spec with its templates filled, if it is launched with parameters. Raises TemplateError, ConfigError."""
    return fill(spec, given.params) if given.params or spec.asks else spec


def _dry(spec: AnySpec, config: ExecutionConfig, defaults: ExecutionConfig, given: LaunchOptions) -> Work:
    """The work that a launch would send. Raises what it would raise."""
    work = compile_work(spec, config, defaults=defaults, env_id=0, params=given.params, run_id="")
    if given.reuse:
        from agentnb.agents.cache_key import CacheKeys

        CacheKeys(config, defaults).key(spec, given.params)
    if given.detach:
        check_detached(work["kind"])
    target = target_of(spec)
    wire.encode([requests.Launch({"target": target.spec, "params": given.params, "tags": given.tags}, dict(work))])
    return work


def _parts(config: ExecutionConfig) -> Iterator[ExecutionConfig]:
    """The config without anything, then each of its options alone."""
    yield ExecutionConfig()
    for name in config.model_fields_set:
        yield ExecutionConfig(**{name: getattr(config, name)})


def _missing_programs(work: Work) -> Iterator[str]:
    """What could not be started of the work and its handlers, with their own PATH."""
    plans = [(work["argv"], work["cwd"], work["env"])] if work["kind"] == "process" else []
    plans += [(handler["argv"], handler["cwd"], handler["env"]) for handler in work.get("handlers", [])]
    for argv, cwd, env in plans:
        if (why := _missing(argv[0], cwd, dict(os.environ) | env)) is not None:
            yield why


def _missing(program: str, cwd: str, env: Mapping[str, str]) -> str | None:
    """Why the program cannot be started, if so."""
    try:
        found = find_program(program, env, cwd)
    except PermissionError as bad:
        found = str(bad.filename)
    except OSError:
        return f"the program {program!r} is not on the PATH ({env.get('PATH', '')}); install it, or give its path"
    if not os.path.isfile(found):  # noqa: PTH113
        return f"the program {found!r} is not there; install it, or give its right path"
    if not os.access(found, os.X_OK):
        return f"the program {found!r} is not executable; make it so (chmod +x), or run it with its interpreter"
    return None


def estimate_of(root: Path, spec: AnySpec | Handler, options: Mapping[str, Any]) -> Estimate:
    """What `spec` will probably need with these options. Raises ConfigError for bad ones, StoreError."""
    given, config = split(options)
    found = estimate(root, spec if isinstance(spec, Handler) else filled(spec, given))
    if config.timeout is None:
        return found
    bounded = {name: min(value, config.timeout) for name in ("duration", "duration_p90") if (value := getattr(found, name)) is not None}
    return found.model_copy(update=bounded)
