"""What the values in a recording may be: checks of single fields, by the events they belong to (only the standard library)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

from agentnb import events as ev
from agentnb.states import ErrorKind, RunStatus, StepKind, StepStatus

#: Deepest nesting of JSON data.
MAX_DEPTH = 100
REASONS = frozenset(
    {"non_zero_exit", "signalled", "startup", "validation_failed", "security_violation", "resource_exhaustion", "internal_error"}
)

#: Of a workspace, what is no path: a recording must not send anybody to folders of this machine.
WORKSPACE = ("kind", "commit", "commits", "complete", "masked")

Json = dict[str, Any]
Check = Callable[[Any], bool]

_MAX_NUMBER = 1e15
_INT64 = 2**63

_STEP_ENDS = frozenset(StepStatus) - {StepStatus.PENDING, StepStatus.RUNNING}
_RUN_ENDS = frozenset(RunStatus) - {RunStatus.PENDING, RunStatus.RUNNING}
_OF_STEPS = frozenset({ev.StepStarted, ev.StepFinished, ev.StepUsed})
#: Events that a recording may hold, by type: those of one run, after its launch.
PLAYED: dict[str, type[ev.Message]] = {
    cls.type: cls
    for cls in ev.RECORDED
    if "run_id" in (names := {field.name for field in fields(cls)}) and "session_id" not in names
    if "step_id" not in names or cls in _OF_STEPS
}
_NOT_OURS = frozenset({"run_id", "at", "step_id", "parent_id"})
_FIELDS = {name: tuple(field for field in fields(cls) if field.name not in _NOT_OURS) for name, cls in PLAYED.items()}


def is_text(value: Any) -> bool:
    """Whether it is a text."""
    return isinstance(value, str)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number that SQLite can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64


def is_count(value: Any) -> bool:
    """Whether it is a whole number, zero or more, of a sensible size."""
    return is_whole(value) and 0 <= value < _MAX_NUMBER


def is_number(value: Any) -> bool:
    """Whether it is a finite number, zero or more, of a sensible size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MAX_NUMBER


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether JSON data is nested no deeper than `depth`."""
    level = [value]
    while level and depth:
        level = [item for part in level if isinstance(part, dict | list) for item in (part.values() if isinstance(part, dict) else part)]
        depth -= 1
    return not level


def is_mapping(value: Any) -> bool:
    """Whether it is a JSON object, not too deep."""
    return isinstance(value, dict) and is_shallow(value)


def _error(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"kind", "message", "details"}
        and value.get("kind") in set(ErrorKind)
        and is_text(value.get("message"))
        and isinstance(value.get("details", {}), dict)
        and is_shallow(value)
    )


def _tokens(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_count, value.values()))


def _usage(value: Any) -> bool:
    checks: dict[str, Check] = {"cpu_time": is_number, "wall_time": is_number, "peak_memory_is_bound": _flag, "measured_by": is_texts}
    return isinstance(value, dict) and all(item is None or checks.get(name, is_count)(item) for name, item in value.items())


def is_texts(value: Any) -> bool:
    """Whether it is a JSON object that has only texts."""
    return isinstance(value, dict) and all(map(is_text, value.values()))


def _issue(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"severity", "check", "message"}
        and all(map(is_text, value.values()))
        and value["severity"] in {"error", "warning", "info"}
    )


def _detail(value: Any) -> bool:
    def each(check: Check, items: Any) -> bool:
        return isinstance(items, list) and len(items) <= 1000 and all(map(check, items))

    return (
        isinstance(value, dict)
        and (value.get("reason") is None or value["reason"] in REASONS)
        and each(_issue, value.get("validation") or [])
        and each(is_text, value.get("warnings") or [])
        and (value.get("output_source") is None or is_text(value["output_source"]))
        and is_shallow(value)
    )


def _stream(value: Any) -> bool:
    return isinstance(value, dict) and is_count(value.get("size"))


def _artifact(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_text(value.get("name"))
        and (value.get("content_type") is None or is_text(value["content_type"]))
        and is_count(value.get("size"))
        and is_text(value.get("checksum"))
        and (value.get("location") is None or _location(value["location"]))
    )


def _workspace(value: Any) -> bool:
    return isinstance(value, dict) and is_text(value.get("kind"))


def _location(value: Any) -> bool:
    """Addresses elsewhere only: a recording names no file of the machine that it is replayed on."""
    return isinstance(value, dict) and any(
        value.get("type") == kind and set(value) == {"type", name} and is_text(value[name])
        for kind, name in (("http", "url"), ("cloud", "uri"))
    )


def _one_of(values: frozenset[Any] | type[Any]) -> Check:
    known = {str(value.value) for value in values}
    return lambda value: isinstance(value, str) and value in known


#: By the annotation of an event's field; anything else is JSON data that is not too deep.
_BY_TYPE: dict[str, Check] = {"str": is_text, "int": is_count, "float": is_number, "bool": _flag}
_SPECIAL: dict[tuple[str, str], Check] = {
    ("step_started", "kind"): _one_of(StepKind),
    ("step_started", "attempt"): lambda value: is_count(value) and value >= 1,
    ("step_finished", "status"): _one_of(_STEP_ENDS),
    ("run_finished", "status"): _one_of(_RUN_ENDS),
    ("run_finished", "signal"): is_whole,
    ("run_finished", "detail"): _detail,
    ("run_finished", "stdout"): _stream,
    ("run_finished", "stderr"): _stream,
    ("artifact_saved", "artifact"): _artifact,
    ("workspace_changed", "workspace"): _workspace,
}
_BY_NAME: dict[str, Check] = {"exit_code": is_whole, "error": _error, "tokens": _tokens, "usage": _usage}


def _check_of(kind: str, name: str, annotation: Any) -> Check:
    plain = str(annotation).removesuffix(" | None")
    return _SPECIAL.get((kind, name)) or _BY_NAME.get(name) or _BY_TYPE.get(plain, is_shallow)


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


CHECKS = {
    kind: [(field.name, _check_of(kind, field.name, field.type), _needed(field)) for field in found] for kind, found in _FIELDS.items()
}
