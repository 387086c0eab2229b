"""The kinds of runs that ``%%agent`` launches: one for each spec, called as its verb of Session, with the options of spec and launch."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast, get_args, get_type_hints

from agentnb.commands import Python, Spec
from agentnb.declared import Declared
from agentnb.errors import ConfigError
from agentnb.execution import AnySpec, ExecutionConfig
from agentnb.notebook.arguments import Option, option_of, options_of
from agentnb.notebook.options import RECORD, LaunchOptions
from agentnb.notebook.verbs import Verbs

#: Options of the magic itself.
OWN = {"as": Option("as"), "session": Option("session"), "wait": Option("wait", "flag")}
#: The field of a spec that the cell's body is, whichever it has.
_BODIES = ("command", "prompt", "message", "argv", "path")


@dataclass(frozen=True)
class Kind:
    """One kind. `spec`: what is launched; `body`: what of it the cell becomes, mostly a field; `options`: by their names in Python."""

    name: str
    spec: type[Spec]
    body: str
    options: Mapping[str, Option]

    def target(self, body: str, words: list[str], values: dict[str, Any], namespace: Mapping[str, Any]) -> AnySpec:
        """The spec; takes what belongs to it out of `values`. Raises ConfigError for what cannot be one."""
        text = body.strip("\n")
        if self.spec is Python:
            return _python(text, words, namespace)
        if words:
            raise ConfigError(f"{words[0]!r} is no option; the {self.body} of the {self.name} run goes into the cell, below the first line")
        if not text.strip():
            raise ConfigError(f"the cell is empty; write the {self.body} of the {self.name} run below the first line")
        fields = self.spec.model_fields.keys() - ExecutionConfig.model_fields.keys()
        own = {name: values.pop(name) for name in fields & values.keys()}
        if issubclass(self.spec, Declared):
            return cast("AnySpec", self.spec(_file_or_spec(body, self.name), **own))
        cell = _argv(text) if self.body == "argv" else text.strip() if self.body == "path" else text
        return cast("AnySpec", self.spec(**own | {self.body: cell}))


def _argv(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as bad:
        raise ConfigError(f"the cell is no list of words: {bad}") from None


def _file_or_spec(text: str, kind: str) -> str | dict[str, Any]:
    """The path that the cell holds, or the spec itself, as data; its faults are told with the lines of the cell."""
    if "\n" not in text.strip() and ": " not in text:
        return text.strip()
    from agentnb.agents.spec_file import text_data  # reading YAML is for cells that hold some

    return text_data(f"\n{text}", "cell", cast("Any", kind.capitalize()))


def _python(text: str, words: list[str], namespace: Mapping[str, Any]) -> Python:
    """A call of the function that the line names, with the cell's text, if there is any."""
    if len(words) != 1:
        raise ConfigError("name one function of the notebook: %%agent python my_agent; the cell's text becomes its argument")
    function = namespace.get(words[0])
    if not callable(function):
        near = get_close_matches(words[0], [name for name, value in namespace.items() if callable(value)], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "define it in a cell first"
        raise ConfigError(f"{words[0]!r} is no function of the notebook; {hint}")
    return Python(function, *([text] if text.strip() else []))


@functools.cache
def kinds() -> dict[str, Kind]:
    """All kinds by name: those with a verb first."""
    hints = get_type_hints(LaunchOptions)
    launch = {name: option_of(name, hints.get(name, float)) for name in RECORD} | options_of(ExecutionConfig)
    found = [_kind(spec, launch) for spec in get_args(AnySpec)]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: not hasattr(Verbs, kind.name))}


def _kind(spec: type[Spec], launch: dict[str, Option]) -> Kind:
    type_ = str(spec.model_fields["type"].default)
    verbs = [name for name in vars(Verbs) if not name.startswith("_") and name != "launch"]
    body = next((name for name in _BODIES if name in spec.model_fields), "argument")
    fields = [] if spec is Python else [name for name in spec.model_fields if name != body]
    if issubclass(spec, Declared):
        fields = ["input", "sha256"]
    name = next((verb for verb in verbs if verb == type_ or type_.startswith(f"{verb}_")), type_)
    return Kind(name, spec, body, OWN | options_of(spec, fields) | launch)


def kind_of(name: str) -> Kind:
    """The kind with this name. Raises ConfigError, with what was perhaps meant, when there is none."""
    known = kinds()
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known)}"
    raise ConfigError(f"there is no kind of run {name!r}; {hint}")
