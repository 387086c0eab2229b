"""Judging the runs of a group: ``nb.score(group, judge)`` adds columns by a Python function, or by another agent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentnb.agents.context import describe
from agentnb.agents.jsonable import jsonable
from agentnb.agents.python import is_async
from agentnb.commands import Python, Spec
from agentnb.errors import ConfigError
from agentnb.notebook.group import RunGroup
from agentnb.notebook.handles import RunHandle
from agentnb.notebook.targets import spec_of
from agentnb.states import RunStatus

if TYPE_CHECKING:
    import pandas as pd

#: A judge is shown at most so much of an output, in characters.
MAX_SHOWN = 100_000
_NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w])")
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)

Judge = Callable[[RunHandle], Any] | Spec


@dataclass(slots=True)
class _Verdict:
    """What the judge said of one run: cells by column, or why there are none. `run`: the judge's own run."""

    cells: dict[str, Any]
    error: str | None = None
    run: str | None = None


def score(group: RunGroup, judge: Judge, *, name: str = "score", max_parallel: int | None = None, **options: Any) -> pd.DataFrame:
    """``group.df()``, in its order and with its index, with the judge's columns added; waits for the group, and for the judge.

    `judge`: a Python function of a RunHandle (``lambda run: len(run.output)``), called here for one run after the other; or a target,
    which becomes a run for each judged run, in the group's session: ``nb.LocalModel("Rate from 1 to 5: {{output}}")``, nb.Python(f),
    nb.Shell(...), an ``async def`` function. Its templates (or a function's parameters) get ``output`` (the judged run's output, or its
    stdout where it has none; at most 100,000 characters), ``param`` (its parameters, as in ``{{param.prompt}}``) and ``run`` (its id;
    of a reused run that of the run that really ran). `max_parallel` and `options` (see Session.launch) are for such runs.

    A judge gives a number (True counts as 1), a text, or a dict, whose items become columns ``<name>.<key>`` (the item that is called
    `name`: the column `name`). What a model writes is read as a number or as JSON, also in a fenced block, else its first number
    counts. Columns: `name` (Float64, or string when no verdict is a number), ``<name>_error`` (why a completed run has no score, as when
    the judge raised) and, for targets, ``<name>_run`` (the id of the judge's run). Only completed runs are judged; the others have NA.

    Raises ConfigError for what is no group or judge, for a `name` that is a column already, and for bad options.
    """
    target = _target(judge)
    _check(group, name, target, max_parallel, options)
    group.wait()
    df = group.df()
    _refuse_taken([name, f"{name}_error", *([f"{name}_run"] if target is not None else [])], df)
    places = [place for place, run in enumerate(group) if run.status is RunStatus.COMPLETED]
    runs = [group[place] for place in places]
    asked = options | {"max_parallel": max_parallel}
    found = _asked(group, target, runs, name, asked) if target is not None else [_called(judge, run, name) for run in runs]  # type: ignore[arg-type]
    verdicts: list[_Verdict | None] = [None] * len(df)
    for place, verdict in zip(places, found, strict=True):
        verdicts[place] = verdict
    return _with_columns(df, name, verdicts, runs=target is not None)


def _target(judge: Any) -> Spec | None:
    """The judge as a target; None for a plain function, which is called here."""
    if isinstance(judge, Spec):
        return judge
    if not callable(judge) or (isinstance(judge, type) and issubclass(judge, Spec)):
        raise ConfigError(
            f"score: {judge!r} is no judge; give a function of a run, or a target such as nb.LocalModel('Rate {{{{output}}}}')"
        )
    return spec_of(judge) if is_async(judge) else None


def _check(group: Any, name: Any, target: Spec | None, max_parallel: int | None, options: dict[str, Any]) -> None:
    if not isinstance(group, RunGroup):
        raise ConfigError(f"score: {type(group).__name__} is no group of runs; give what session.map(...) returned")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"score: name={name!r} must be a text with something in it")
    if target is None and (options or max_parallel is not None):
        given = ", ".join([*options, *(["max_parallel"] if max_parallel is not None else [])])
        raise ConfigError(
            f"score: {given}: a plain function is called here, one run after the other; write nb.Python(judge) to make it runs"
        )


def _refuse_taken(names: Iterable[str], df: pd.DataFrame) -> None:
    if taken := [name for name in names if name in df.columns]:
        raise ConfigError(f"score: the group has a column {taken[0]!r} already; give the score another name=")


def _called(judge: Callable[[RunHandle], Any], run: RunHandle, name: str) -> _Verdict:
    try:
        return _verdict(judge(run), name)
    except Exception as bad:  # noqa: BLE001 - one run that cannot be judged must not hide the others
        return _Verdict({}, describe(bad))


def _asked(group: RunGroup, target: Spec, runs: Sequence[RunHandle], name: str, options: dict[str, Any]) -> list[_Verdict]:
    rows = [{"output": _shown(run), "param": run.params, "run": run.reused_from or run.id} for run in runs]
    named = {"name": f"{name} of {group.name}"} | options
    judges = group.session.map(target, rows, **named).wait()  # type: ignore[arg-type]
    return [_said(judge, name, is_text=not isinstance(target, Python)) for judge in judges]


def _shown(run: RunHandle) -> Any:
    output = run.output if run.output is not None else run.stdout.strip()
    return output[:MAX_SHOWN] if isinstance(output, str) else output


def _said(judge: RunHandle, name: str, *, is_text: bool) -> _Verdict:
    if judge.status is not RunStatus.COMPLETED:
        why = judge.error.message if judge.error else "no reason is known"
        return _Verdict({}, f"the judge's run {judge.status.value}: {why}", judge.id)
    said = judge.output if judge.output is not None else judge.stdout
    try:
        verdict = _verdict(_read(said) if is_text and isinstance(said, str) else said, name)
    except ConfigError as bad:
        return _Verdict({}, str(bad), judge.id)
    verdict.run = judge.id
    return verdict


def _read(text: str) -> Any:
    """The number or JSON object that a text holds; else the text."""
    fenced = _FENCED.search(text)
    for part in (text, fenced[1] if fenced else ""):
        try:
            found = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, int | float | dict):
            return found
    number = _NUMBER.search(text)
    return float(number[0]) if number else text.strip()


def _verdict(said: Any, name: str) -> _Verdict:
    """Raises ConfigError for what is no verdict."""
    value = jsonable(said, "the judge's verdict")
    if value is None:
        return _Verdict({}, "the judge gave nothing")
    if isinstance(value, dict):
        return _Verdict({name if key == name else f"{name}.{key}": _cell(item) for key, item in value.items()})
    if isinstance(value, list):
        raise ConfigError("the judge's verdict is a list; give a number, a text or a dict of columns")
    return _Verdict({name: _cell(value)})


def _cell(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return float(value) if math.isfinite(value) else None
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)


def _with_columns(df: pd.DataFrame, name: str, verdicts: Sequence[_Verdict | None], *, runs: bool) -> pd.DataFrame:
    import pandas as pd

    names = list(dict.fromkeys(column for verdict in verdicts if verdict for column in verdict.cells)) or [name]
    errors = [verdict.error if verdict else None for verdict in verdicts]
    made: dict[str, pd.Series[Any]] = {}
    for column in names:
        cells = [verdict.cells.get(column) if verdict else None for verdict in verdicts]
        made[column] = pd.Series(_numbers(cells, column, errors), index=df.index, dtype="Float64" if _any_number(cells) else "string")
    if not any(cell is not None for verdict in verdicts if verdict for cell in verdict.cells.values()):
        made = {column: pd.Series(pd.NA, index=df.index, dtype="Float64") for column in names}
    made[f"{name}_error"] = pd.Series(errors, index=df.index, dtype="string")
    if runs:
        made[f"{name}_run"] = pd.Series([verdict.run if verdict else None for verdict in verdicts], index=df.index, dtype="string")
    _refuse_taken(made, df)
    joined = pd.concat([df, pd.DataFrame(made, index=df.index)], axis="columns")
    joined.attrs = dict(df.attrs)
    return joined


def _any_number(cells: Sequence[Any]) -> bool:
    return any(isinstance(cell, float) for cell in cells)


def _numbers(cells: Sequence[Any], column: str, errors: list[str | None]) -> list[Any]:
    """The cells of one column; among numbers a text is none, and the error says what it was."""
    if not _any_number(cells):
        return list(cells)
    for place, cell in enumerate(cells):
        if isinstance(cell, str):
            errors[place] = errors[place] or f"{column}: no number in {cell[:80]!r}"
    return [None if isinstance(cell, str) else cell for cell in cells]
