"""Completion of the arguments of the magics: kinds, options, values of which there are few, sessions and runs of this kernel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from agentnb.errors import ConfigError
from agentnb.notebook.arguments import Option, find, options_of
from agentnb.notebook.kernel_runs import RunFilter, all_runs, callings, sessions
from agentnb.notebook.kinds import kinds

_CELL = re.compile(r"\s*%%agent[ \t]+(.*)", re.DOTALL)
_LINE = re.compile(r"\s*(?:[^\W\d]\w*\s*=\s*)?%(runs|cancel)[ \t]+(.*)", re.DOTALL)


class Arguments:
    """What may stand where the cursor is."""

    def __init__(self, namespace: Mapping[str, Any], hidden: Mapping[str, Any]) -> None:
        """`namespace`: the notebook's variables; `hidden`: those of them that are IPython's own."""
        self._namespace, self._hidden = namespace, hidden

    @context_matcher(priority=100)  # type: ignore[untyped-decorator]  # IPython's
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """The completions, in the order in which they are of use; files and variables are left to others where any text may stand."""
        before = "\n".join([*context.full_text.split("\n")[: context.cursor_line], context.text_until_cursor])
        found = self._for(before) or []
        fragment = _fragment(before)
        starts = fragment.replace("_", "-") if fragment.startswith("--") else fragment
        fitting = [SimpleCompletion(text, type=kind) for text, kind in found if text.startswith((starts, fragment))]
        return SimpleMatcherResult(completions=fitting, matched_fragment=fragment, suppress=bool(fitting), ordered=True)

    def _for(self, before: str) -> Iterable[tuple[str, str]] | None:
        """All that could stand there, as (text, what it is); None where the magics have no say."""
        if (cell := _CELL.fullmatch(before)) and "\n" not in cell[1]:
            return self._agent(cell[1])
        if line := _LINE.fullmatch(before.rpartition("\n")[2]):
            return _runs(line[2]) if line[1] == "runs" else _cancel()
        return None

    def _agent(self, text: str) -> Iterable[tuple[str, str]] | None:
        done = text.split()
        if not text.endswith((" ", "\t")):
            done = done[:-1]
        if not done:
            return [(kind.name, "kind") for kind in kinds().values()]
        if (kind := kinds().get(done[0])) is None:
            return None
        fragment = _fragment(text, whole=True)
        if kind.name == "python" and len(done) == 1 and not fragment.startswith("-"):
            return [(name, "function") for name, value in self._namespace.items() if self._is_own(name, value)]
        return _options(done[1:], fragment, kind.options)

    def _is_own(self, name: str, value: Any) -> bool:
        return isinstance(value, FunctionType) and not name.startswith("_") and name not in self._hidden


def _runs(text: str) -> Iterable[tuple[str, str]] | None:
    done = text.split()
    if not text.endswith((" ", "\t")):
        done = done[:-1]
    fragment = _fragment(text, whole=True)
    if fragment.startswith("-") or (done and done[-1].startswith("-")):
        return _options(done, fragment, options_of(RunFilter))
    return [(name, status) for name, status in callings(all_runs()[::-1]).items()]


def _cancel() -> Iterable[tuple[str, str]]:
    live = callings([run for run in all_runs()[::-1] if not run.done])
    return [*live.items(), ("all", "all live runs")]


def _fragment(text: str, *, whole: bool = False) -> str:
    """The word before the cursor; of ``--option=value`` the value, unless the `whole` word is asked for."""
    word = re.split(r"\s", text)[-1]
    return word.partition("=")[2] if not whole and re.match(r"--?[\w.-]+=", word) else word


def _options(done: list[str], fragment: str, options: Mapping[str, Option]) -> Iterable[tuple[str, str]] | None:
    """What may follow: the values of an option that waits for one, else the options."""
    name, equals, _ = fragment.partition("=")
    asked = name if equals else done[-1] if done and done[-1].startswith("-") and "=" not in done[-1] else ""
    if asked:
        try:
            option = find(asked, options)
        except ConfigError:
            return None
        if option.shape not in {"flag", "maybe"} or equals:
            return _values(option)
    head = fragment.replace("-", "_").lstrip("_").partition(".")[0] if "." in fragment else ""
    shown = [o for o in options.values() if (o.name.startswith(f"{head}.") if head else "." not in o.name)]
    given = {word.partition("=")[0] for word in done}
    return [(text, "option") for option in shown for text in _written(option) if option.repeats or text not in given]


def _written(option: Option) -> list[str]:
    """How the option may be begun: data without a name of its own goes on with a dot."""
    if option.models:
        return ([option.shown] if option.choices else []) + [f"{option.shown}."]
    return [option.shown.removesuffix("s") if option.name == "params" else option.shown]


def _values(option: Option) -> Iterable[tuple[str, str]]:
    if option.name == "session":
        return [(session.name, "session") for session in sessions()]
    return [(choice, "value") for choice in option.choices]
