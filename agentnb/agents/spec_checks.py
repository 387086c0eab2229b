"""What the shape of a spec cannot say: whether its templates and names make sense together.

Looked at are the data of the file, whatever is wrong with their shape otherwise, so that all faults are told at once. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, NamedTuple, get_args

from agentnb.agents.quoting import POSIX_SHELLS
from agentnb.agents.spec_texts import Json, Text, agent_texts, texts_of, worker_texts
from agentnb.agents.swarm_file import FLOWS, NO_ITEMS, SwarmFile
from agentnb.agents.template_reads import Reads, is_template, reads
from agentnb.errors import TemplateError
from agentnb.json_schemas import Place

Fault = tuple[Place, str]

#: Names that templates of a swarm may take beside those of loops.
ROOTS = frozenset({"input", "steps", "params"})

#: The keys of each flow that hold flow items.
ITEMS: dict[str, tuple[str, ...]] = {
    get_args(cls.model_fields["type"].annotation)[0]: tuple(
        field.alias or name for name, field in cls.model_fields.items() if name not in NO_ITEMS
    )
    for cls in FLOWS
}


# --- an agent -------------------------------------------------------------------------------------------------------


def agent_faults(spec: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with an agent of a file of its own, and where."""
    allowed = declared(spec.get("input"))
    for text in agent_texts(spec):
        found = _read(text)
        if isinstance(found, str):
            yield text.place, found
            continue
        for name in sorted(found.roots - {"input"}):
            yield text.place, f"there is no value {name!r}; an agent knows its input only: {{{{input.{name}}}}}"
        yield from ((text.place, message) for message in _unknown_input(found, allowed))
    yield from _command_faults(spec.get("command"), ("command",))
    if _schema_twice(spec):
        yield ("output",), "output and validation.json_schema are both given; they check the same, so give one of them"


def _schema_twice(spec: Mapping[str, Any]) -> bool:
    checks = spec.get("validation")
    return spec.get("output") is not None and isinstance(checks, dict) and checks.get("json_schema") is not None


def _command_faults(command: Any, place: Place) -> Iterator[Fault]:
    if not isinstance(command, dict) or command.get("type") != "shell":
        return
    shell, line = command.get("shell"), command.get("command")
    if isinstance(shell, str) and isinstance(line, str) and is_template(line):
        program = PurePath((shell.split() or [""])[0]).name
        if program and program not in POSIX_SHELLS:
            yield (*place, "shell"), f"values cannot be quoted safely for the shell {program!r}; use sh or bash, or pass them in env"


def declared(schema: Any) -> frozenset[str] | None:
    """The only names that a schema lets an input have; None when it may have others."""
    if not isinstance(schema, dict) or schema.get("additionalProperties") is not False or "patternProperties" in schema:
        return None
    properties = schema.get("properties")
    return frozenset(properties) if isinstance(properties, dict) else frozenset()


def _unknown_input(found: Reads, allowed: frozenset[str] | None) -> Iterator[str]:
    for name in sorted(found.input - allowed) if allowed is not None else ():
        yield f"the input has no {name!r}{near(name, allowed or ())}"


def _read(text: Text) -> Reads | str:
    """What a template reads, or what is wrong with it."""
    try:
        return reads(text.text, shell=text.shell)
    except TemplateError as bad:
        return str(bad).removeprefix(": ")


def near(name: str, known: Iterable[str]) -> str:
    """What was perhaps meant, as the end of a message."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there is {', '.join(names[:20])}" if names else ""


# --- a swarm --------------------------------------------------------------------------------------------------------


class Use(NamedTuple):
    """A worker's name in a flow: where, and the loops around it (the names that they give)."""

    name: str
    place: Place
    loops: frozenset[str]


def uses(flow: Any, place: Place = ("flow",), loops: frozenset[str] = frozenset()) -> Iterator[Use]:
    """The names of workers in a flow, in the order of the file."""
    if isinstance(flow, str):
        yield Use(flow, place, loops)
    for key, item in items_of(flow):
        yield from uses(item, (*place, *key), _inside(flow, loops))


def items_of(flow: Any) -> Iterator[tuple[Place, Any]]:
    """The items of a flow, and where they stand in it."""
    kind = flow.get("type") if isinstance(flow, dict) else None
    for name in ITEMS.get(kind, ()) if isinstance(kind, str) else ():
        value = flow.get(name)
        if isinstance(value, list):
            yield from (((name, number), item) for number, item in enumerate(value))
        elif value is not None:
            yield (name,), value


def _inside(flow: Json, loops: frozenset[str]) -> frozenset[str]:
    if flow.get("type") != "loop":
        return loops
    name = flow.get("as")
    return loops | {"loop"} | ({name} if isinstance(name, str) else set())


def flow_texts(flow: Any, place: Place = ("flow",), loops: frozenset[str] = frozenset()) -> Iterator[tuple[Text, frozenset[str]]]:
    """The templates of a flow itself, and the names of the loops around them."""
    if not isinstance(flow, dict):
        return
    inside = _inside(flow, loops)
    for name, names in (("condition", loops), ("over", loops), ("while", inside)):
        yield from ((text, names) for text in texts_of(flow.get(name), (*place, name)))
    for key, item in items_of(flow):
        yield from flow_texts(item, (*place, *key), inside)


def swarm_faults(swarm: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with a swarm, and where, but for what its workers are."""
    workers = workers_of(swarm)
    names = list(dict.fromkeys(name for _, worker in workers if isinstance(name := worker.get("name"), str)))
    yield from _doubles(workers)
    flow = swarm.get("flow")
    found = list(uses(flow)) if flow is not None else [Use(name, ("workers",), frozenset()) for name in names]
    for use in found:
        if use.name not in names:
            yield use.place, f"there is no worker {use.name!r}{near(use.name, names)}"
    yield from _conditions(flow)
    check = _Checker(frozenset(names), declared(swarm.get("input")))
    for text, loops in flow_texts(flow):
        yield from check(text, loops)
    for number, worker in workers:
        around = [use.loops for use in found if use.name == worker.get("name")]
        loops = frozenset[str]().union(*around)
        for text in worker_texts(worker, ("workers", number)):
            yield from check(text, loops)
        yield from _command_faults(worker.get("command"), ("workers", number, "command"))
    for text in texts_of(swarm.get("output"), ("output",)):
        yield from check(text, frozenset())


def workers_of(swarm: Mapping[str, Any]) -> list[tuple[int, Json]]:
    """The workers that are mappings, with their numbers."""
    given = swarm.get("workers")
    return [(number, item) for number, item in enumerate(given) if isinstance(item, dict)] if isinstance(given, list) else []


def _doubles(workers: list[tuple[int, Json]]) -> Iterator[Fault]:
    seen: dict[str, int] = {}
    for number, worker in workers:
        name = worker.get("name")
        if isinstance(name, str) and seen.setdefault(name, number) != number:
            yield ("workers", number, "name"), f"there is a worker {name!r} already: workers[{seen[name]}]"


def _conditions(flow: Any, place: Place = ("flow",)) -> Iterator[Fault]:
    if not isinstance(flow, dict):
        return
    for name in ("condition", "while"):
        if isinstance(text := flow.get(name), str) and not is_template(text):
            yield (*place, name), f"{text!r} is no template, so it is never true or false; write {{{{ ... }}}}, such as {{{{input.x > 3}}}}"
    if isinstance(text := flow.get("over"), str) and not is_template(text):
        yield (*place, "over"), f"{text!r} is no template, so it is no list; write {{{{input.items}}}}, or a list"
    for key, item in items_of(flow):
        yield from _conditions(item, (*place, *key))


class _Checker:
    """Says what is wrong with templates of one swarm."""

    def __init__(self, workers: frozenset[str], allowed: frozenset[str] | None) -> None:
        self._workers, self._allowed = workers, allowed

    def __call__(self, text: Text, loops: frozenset[str]) -> Iterator[Fault]:
        found = _read(text)
        if isinstance(found, str):
            yield text.place, found
            return
        for name in sorted(found.roots - ROOTS - loops):
            yield text.place, self._no_value(name, loops)
        for name in sorted(found.steps - self._workers):
            yield text.place, f"steps.{name}: there is no worker {name!r}{near(name, self._workers)}"
        if "input" not in text.place:  # where a worker has an input of its own, that is meant elsewhere
            return
        yield from ((text.place, message) for message in _unknown_input(found, self._allowed))

    def _no_value(self, name: str, loops: frozenset[str]) -> str:
        if name == "loop":
            return "there is no value 'loop' here; it is there in what a loop does"
        dashed = [worker for worker in self._workers if "-" in worker and name in worker.split("-")]
        if dashed:
            return f"there is no value {name!r}; a name with '-' is written in brackets: steps[{dashed[0]!r}]"
        return f"there is no value {name!r}; there is {', '.join(sorted(ROOTS | loops))}"


def input_faults(swarm: SwarmFile) -> Iterator[Fault]:
    """Where a worker is not given what its spec says that it needs."""
    for number, worker in enumerate(swarm.workers):
        schema = getattr(swarm.agents.get(worker.name), "input", None)
        if worker.input is None or not isinstance(schema, dict):
            continue
        place: Place = ("workers", number, "input")
        required = schema.get("required")
        for name in required if isinstance(required, list) else ():
            if name not in worker.input:
                yield place, f"it has no {name!r}, which the input of its spec requires"
        allowed = declared(schema)
        for name in sorted(worker.input.keys() - allowed) if allowed is not None else ():
            yield (*place, name), f"the input of its spec has no {name!r}{near(name, allowed or ())}"
