"""A validated spec and config become the engine's Work: plain data that needs no more checking."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from agentnb.agents.adapters import Asked, adapter_of
from agentnb.agents.input_files import find_inputs
from agentnb.agents.python import is_async
from agentnb.agents.shell import shell_argv
from agentnb.agents.workspaces import Known, place, plan_of
from agentnb.commands import Command, Python, Shell, Spec
from agentnb.data import Secret, field_names
from agentnb.declared import Agent
from agentnb.engine import condition
from agentnb.engine.cgroups import LEAST_MEMORY
from agentnb.engine.limits import means
from agentnb.engine.work import CheckPlan, HandlerPlan, RetryPlan, Work, WorkspacePlan
from agentnb.errors import ConfigError, InvalidLimits
from agentnb.execution import Capture, ExecutionConfig, Handler, Limits
from agentnb.replay import Replay
from agentnb.states import TargetKind
from agentnb.swarms import Swarm

DEFAULT_GRACE_S = 5.0
#: What may run after the last attempt, in this order.
HANDLERS = ("on_success", "on_failure", "rollback", "cleanup")

#: Of a launch outside of a session; it cannot be changed.
_NO_DEFAULTS = ExecutionConfig()
_KINDS = {kind.value: kind for kind in TargetKind}
#: The specs' own names of checks.
_OWN_CHECKS = {"script": "validation_script", "json_schema": "the spec's output"}
#: What a coroutine in the notebook's process cannot have of its own, and why.
_NOT_HOSTED = {
    "stdin": "and has no stdin",
    "env": "and sees its environment",
    "working_dir": "and sees its current directory",
    "workspace": "and works in its current directory",
}


class Target(NamedTuple):
    """What a run is of, for the record: its kind, and the spec as JSON data."""

    kind: TargetKind
    spec: dict[str, Any]


def target_of(spec: Spec) -> Target:
    """The record's view of a spec."""
    if isinstance(spec, Python):
        function = spec.function
        data: dict[str, Any] = {"type": "python", "function": f"{function.__module__}.{getattr(function, '__qualname__', function)}"}
        return Target(TargetKind.PYTHON, data)
    data = {name: _plain(value) for name in field_names(type(spec)) if (value := getattr(spec, name)) is not None}
    kind = str(getattr(spec, "type", ""))
    return Target(_KINDS.get(kind, TargetKind.OTHER), data)


def _plain(value: Any) -> Any:
    if type(value) is str:
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: "***" if isinstance(item, Secret) else _plain(item) for name, item in value.items()}
    return value


def compile_work(
    spec: Spec,
    given: ExecutionConfig,
    *,
    defaults: ExecutionConfig | None = None,
    env_id: int,
    params: Mapping[str, Any],
    run_id: str,
    known: Known | None = None,
    secrets: list[str] | None = None,
) -> Work:
    """The Work of one run: `given` at the launch wins over what the spec says, that over the session's `defaults`.

    `known`: workspaces that were looked at for the same launch. `secrets`: what `secrets_of` these gave, if that was asked before.
    Raises ConfigError, InvalidLimits or RuntimeUnavailable for what cannot work here.
    """
    defaults = defaults or _NO_DEFAULTS
    config = settled(spec, given, defaults)
    cwd, space = work_folder(config, known)
    if config.inputs:
        find_inputs(config.inputs, params, inputs_folder(cwd, space))
    work: Work = {
        "kind": "process",
        "argv": [],
        "cwd": cwd,
        "env_id": env_id,
        "env": _environment(config.env),
        "secrets": secrets_of(spec, given, defaults) if secrets is None else list(secrets),
        "capture": (config.capture or Capture.BOTH).value,
        "grace_s": DEFAULT_GRACE_S if config.grace is None else config.grace,
        "expected_exit_code": 0,
    }
    if config.stdin is not None:
        work["stdin"] = config.stdin
    if config.timeout is not None:
        work["timeout_s"] = config.timeout
    _aim(work, spec, _check(config), Asked(run_id, params, cwd, work["env"], defaults, work["grace_s"]))
    _check_texts(work)
    if space is not None:
        work["workspace"] = space
    _options(work, config, cwd)
    return work


def _aim(work: Work, spec: Spec, check: CheckPlan, asked: Asked) -> None:
    """Put into `work`, and for its own checks into `check`, what the spec's adapter makes of it; the checks into `work`."""
    parts = adapter_of(spec).work(spec, asked)
    own: Mapping[str, Any] = parts.pop("check") if "check" in parts else {}
    for name, value in own.items():
        if name in check:
            raise ConfigError(f"{_OWN_CHECKS.get(name, name)} and validation.{name} are both given; give one of them")
        check[name] = value  # type: ignore[literal-required]
    if "stdin" in parts and work.get("stdin") is not None:
        raise ConfigError(f"stdin: a target of type {getattr(spec, 'type', '')!r} gets its prompt there; put the text into the prompt")
    if "env" in parts:
        work["env"] = parts.pop("env") | work["env"]
    if "secrets" in parts:
        work["secrets"] += parts.pop("secrets")
    work |= parts  # type: ignore[typeddict-item]
    if check:
        work["check"] = check


def work_folder(config: ExecutionConfig, known: Known | None = None) -> tuple[str, WorkspacePlan | None]:
    """Where a run with this config starts, and the plan of its workspace, if it has one. Raises ConfigError, RuntimeUnavailable."""
    space = plan_of(config.workspace, known) if config.workspace is not None else None
    return (_folder(config.working_dir) if space is None else place(space, config.working_dir)), space


def inputs_folder(cwd: str, space: WorkspacePlan | None) -> str | None:
    """What `inputs` are relative to; None when the run's files are those of a commit, whatever lies in the checkout."""
    return None if space is not None and space["kind"] == "worktree" else cwd


def settled(spec: Spec, given: ExecutionConfig, defaults: ExecutionConfig) -> ExecutionConfig:
    """What holds for one run: `given` at the launch wins over what the spec says, that over the session's `defaults`."""
    if isinstance(spec, Python) and is_async(spec.function):
        _check_hosted(given)
        dropped = dict.fromkeys(("stdin", "working_dir", "workspace", "capture", "limits"))
        return given.over(defaults.model_copy(update=dropped | {"env": {}}))
    if isinstance(spec, Replay):
        return _replay_config(given, defaults)
    if isinstance(spec, Swarm):
        from agentnb.agents import swarm  # it imports this module, for its workers

        return swarm.settled(spec, given, defaults)
    if isinstance(spec, Agent):
        return settled(spec.bound.command, given, spec.bound.config.over(defaults))
    own = {name: value for name in ("working_dir", "env") if (value := getattr(spec, name, None))}
    return given.over(ExecutionConfig(**own).over(defaults) if own else defaults)


def _replay_config(given: ExecutionConfig, defaults: ExecutionConfig) -> ExecutionConfig:
    """Time is all that can be asked of a replay; the session's other defaults are for processes."""
    if refused := sorted(name for name in given.model_fields_set - {"timeout", "grace"} if getattr(given, name)):
        raise ConfigError(f"{', '.join(refused)}: a replay starts no process, it shows what was recorded; leave it out")
    whole = given.over(defaults)
    return ExecutionConfig(**{name: value for name in ("timeout", "grace") if (value := getattr(whole, name)) is not None})


def _check_hosted(given: ExecutionConfig) -> None:
    for name, why in _NOT_HOSTED.items():
        if getattr(given, name):
            raise ConfigError(f"{name}: an `async def` agent runs in the notebook's process {why}; write it as `def`, or pass arguments")
    if given.capture in {Capture.NONE, Capture.STDOUT, Capture.STDERR}:
        raise ConfigError(
            f"capture: what an `async def` agent logs is always kept, so capture={given.capture.value!r} cannot be; leave it out"
        )
    bounds = given.limits.model_dump(exclude_none=True, exclude={"max_output_bytes"}) if given.limits else {}
    if bounds:
        raise InvalidLimits(
            f"limits: {', '.join(bounds)} cannot bound an `async def` agent, a part of the notebook's process; write it as `def`"
        )


def _options(work: Work, config: ExecutionConfig, cwd: str) -> None:
    if not config.model_fields_set:
        return
    if config.retry is not None:
        retry = config.retry
        work["retry"] = RetryPlan(
            max_attempts=retry.max_attempts,
            strategy=retry.strategy,
            initial_delay=retry.initial_delay,
            max_delay=retry.max_delay,
            jitter=retry.jitter,
            on_exit_codes=list(retry.on_exit_codes),
        )
    if config.limits is not None:
        work["limits"] = _limits(config.limits)
    if config.artifacts:
        work["artifacts"] = list(config.artifacts)
    handlers = [(when, getattr(config, when)) for when in HANDLERS]
    if plans := [_handler(when, spec, work, cwd) for when, spec in handlers if spec is not None]:
        work["handlers"] = plans


def _limits(limits: Limits) -> dict[str, Any]:
    given = {name: value for name in Limits.model_fields if (value := getattr(limits, name)) is not None}
    how = means()
    if refused := [f"{name} ({how[name].why_not})" for name in given if not how[name].by]:
        raise InvalidLimits(f"limits: this machine cannot keep {', '.join(refused)}; leave it out")
    if (memory := given.get("max_memory_bytes", LEAST_MEMORY)) < LEAST_MEMORY:
        raise InvalidLimits(f"limits: max_memory_bytes={memory} is less than any program needs; give {LEAST_MEMORY} (256KiB) or more")
    if not given:
        raise InvalidLimits("limits: no limit is given; write nb.Limits(max_memory_bytes='2GiB')")
    return given


def _handler(when: Any, given: Shell | Command | Handler, work: Work, cwd: str) -> HandlerPlan:
    spec = given.command if isinstance(given, Handler) else given
    env = _environment(spec.env)
    argv = shell_argv(spec.shell, spec.command) if isinstance(spec, Shell) else list(spec.argv)
    folder = cwd
    if spec.working_dir:
        folder = place(work["workspace"], spec.working_dir) if "workspace" in work else _folder(spec.working_dir)
    plan = HandlerPlan(when=when, argv=argv, display=spec.display, cwd=folder, env=work["env"] | env)
    if isinstance(given, Handler) and given.condition is not None:
        condition.check(given.condition)
        plan["condition"] = given.condition
    if isinstance(given, Handler) and given.timeout is not None:
        plan["timeout_s"] = given.timeout
    return plan


def _check(config: ExecutionConfig) -> CheckPlan:
    check = CheckPlan()
    if (wanted := config.validation) is not None:
        for name in ("expected_pattern", "json_schema"):
            if (value := getattr(wanted, name)) is not None:
                check[name] = value
        if wanted.forbidden_patterns:
            check["forbidden_patterns"] = list(wanted.forbidden_patterns)
        if wanted.script is not None:
            check["script"] = shell_argv("sh", wanted.script)
        if not check:
            raise ConfigError("validation: it checks nothing; give expected_pattern, forbidden_patterns, json_schema or script")
        check["streams"] = list(wanted.streams)
        _check_streams(check, (config.capture or Capture.BOTH).value)
    return check


def _check_streams(check: CheckPlan, capture: str) -> None:
    kept = {"stdout", "stderr"} if capture in {"both", "structured"} else {capture}
    needed = set(check["streams"]) if check.get("expected_pattern") or check.get("forbidden_patterns") else set()
    needed |= {"stdout"} if check.get("json_schema") or check.get("script") else set()
    if lacking := sorted(needed - kept):
        raise ConfigError(f"validation needs {' and '.join(lacking)}, but capture={capture!r} does not keep it; use capture='both'")


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - pathlib would do the same, slower, for each launch
    except FileNotFoundError:
        advice = "os.chdir(...) to another one, or give an absolute working_dir"
        raise ConfigError(f"the current directory of the notebook was deleted; {advice}") from None


def _folder(given: str | Path | None) -> str:
    if given is None:
        return _here()
    folder = os.path.expanduser(given)  # noqa: PTH111
    if not os.path.isabs(folder):  # noqa: PTH117
        folder = os.path.join(_here(), folder)  # noqa: PTH118
    if not os.path.isdir(folder):  # noqa: PTH112
        what = "is no directory" if os.path.exists(folder) else "does not exist"  # noqa: PTH110
        raise ConfigError(f"working_dir: {folder!r} {what}; create it or give another one")
    return os.path.normpath(folder)


def _check_texts(work: Work) -> None:
    """What a process is given has to have bytes; what came from the system (surrogateescape) has."""
    for word in work["argv"]:
        check_text("the command", word)
    for name, value in work["env"].items():
        check_text(f"env[{name!r}]", value)
    if isinstance(stdin := work.get("stdin"), str):
        check_text("stdin", stdin)


def check_text(what: str, text: str) -> None:
    """Raise ConfigError for half a character, which no process can be given."""
    try:
        if not text.isascii():
            text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as bad:
        half = text[bad.start : bad.end]
        raise ConfigError(f"{what}: it contains {half!r}, a half of a surrogate pair, which has no bytes; remove it") from None


def _environment(env: Mapping[str, str | Secret]) -> dict[str, str]:
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in env.items()}


def secrets_of(*given: Spec | ExecutionConfig) -> list[str]:
    """Every secret in the environments of specs and configs and of their handlers, also those that another one overrides."""
    found: list[Secret] = []
    for one in given:
        parts: list[Any] = [one]
        if isinstance(one, Spec):
            found += one.secrets
        elif not one.model_fields_set:
            continue
        else:
            handlers = [getattr(one, when) for when in HANDLERS]
            parts += [handler.command if isinstance(handler, Handler) else handler for handler in handlers]
        for part in parts:
            if env := getattr(part, "env", None):
                found += [value for value in env.values() if isinstance(value, Secret)]
    return list(dict.fromkeys([secret.reveal() for secret in found])) if found else []
