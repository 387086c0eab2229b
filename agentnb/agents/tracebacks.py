"""Exceptions as data: what failed where, as text for people and as frames for programs. Everything in it is bounded."""

from __future__ import annotations

import os
import traceback
from types import TracebackType
from typing import Any

from agentnb.agents.context import describe
from agentnb.agents.jsonable import clean

_MAX_TEXT = 20_000
#: Of more frames than twice this the ones in the middle are left out; a line of code has at most so many characters.
_FRAMES = 20
_MAX_CODE = 300
_MAX_CAUSES = 5

Json = dict[str, Any]


def failure(bad: BaseException, kind: str = "execution_failed") -> Json:
    """The error report for an exception.

    Its details: `type`; `traceback`, the text; `frames`, the agent's own frames, outermost first, each with `file`, `line`, `function` and
    `code`; and `causes`, if there are any: what it was raised from, nearest first, each with `relation` (cause, context, or part, of a
    group), `type`, `message` and `frames`.
    """
    details: Json = {"type": type(bad).__qualname__, "traceback": text(bad), "frames": frames(bad)}
    if causes := _causes(bad):
        details["causes"] = causes
    return {"t": "error", "kind": kind, "message": describe(bad), "details": details}


def text(bad: BaseException) -> str:
    """The traceback as Python prints it, without the frames of this package at its start."""
    whole = clean("".join(traceback.format_exception(type(bad), bad, _own(bad.__traceback__))))
    half = _MAX_TEXT // 2
    if len(whole) <= _MAX_TEXT:
        return whole
    return f"{whole[:half]}\n... ({len(whole) - 2 * half} characters left out) ...\n{whole[-half:]}"


def frames(bad: BaseException) -> list[Json]:
    """The frames of an exception, outermost first; where some are left out, one with only `omitted`, their number, stands for them."""
    whole = list(traceback.walk_tb(_own(bad.__traceback__)))
    first, last = (whole, []) if len(whole) <= 2 * _FRAMES else (whole[:_FRAMES], whole[-_FRAMES:])
    told = [_frame(*found) for found in traceback.StackSummary.extract(first)]
    if last:
        told.append({"omitted": len(whole) - 2 * _FRAMES})
        told += [_frame(*found) for found in traceback.StackSummary.extract(last)]
    return told


def _frame(file: str, line: int | None, function: str, code: str | None) -> Json:
    return {"file": clean(file), "line": line, "function": clean(function), "code": clean((code or "").strip())[:_MAX_CODE]}


def _causes(bad: BaseException) -> list[Json]:
    found: list[Json] = []
    seen, now = {id(bad)}, bad
    while len(found) < _MAX_CAUSES:
        if now.__cause__ is not None:
            relation, after = "cause", now.__cause__
        elif now.__context__ is not None and not now.__suppress_context__:
            relation, after = "context", now.__context__
        else:
            break
        if id(after) in seen:
            break
        seen.add(id(after))
        found.append(_cause(relation, after))
        now = after
    if isinstance(bad, BaseExceptionGroup):
        found += [_cause("part", part) for part in bad.exceptions[: _MAX_CAUSES - len(found)]]
    return found


def _cause(relation: str, bad: BaseException) -> Json:
    return {"relation": relation, "type": type(bad).__qualname__, "message": describe(bad), "frames": frames(bad)}


def _own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this package at its start."""
    first = trace
    here = os.path.dirname(__file__)  # noqa: PTH120 - importing pathlib would cost every child some milliseconds
    while first is not None and os.path.dirname(first.tb_frame.f_code.co_filename) == here:  # noqa: PTH120
        first = first.tb_next
    return first
