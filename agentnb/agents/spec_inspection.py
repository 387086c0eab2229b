"""What a spec file comes to, without running it: its workers, its flow, whose output goes where, and what looks like a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from agentnb.a2a import A2A
from agentnb.agents.patterns import MAX_ITERATIONS
from agentnb.agents.spec import AgentSpec, PythonFunction
from agentnb.agents.spec_checks import flow_texts, items_of, uses, workers_of
from agentnb.agents.spec_file import Opened, shown
from agentnb.agents.spec_texts import Text, agent_texts, worker_texts
from agentnb.agents.swarm_file import SwarmFile
from agentnb.agents.template_reads import is_template, reads
from agentnb.json_schemas import Place

Json = dict[str, Any]
Warned = tuple[Place, str]


class Link(NamedTuple):
    """What `to` reads of `source`: "input", "params" or a worker; `to`: a worker, "output", or a place in the flow."""

    source: str
    to: str


def inspection(opened: Opened) -> Json:
    """All of it as JSON data: kind, id, input, workers, flow, data, warnings."""
    spec, data = opened.spec, opened.data
    found: Json = {"file": opened.name, "kind": spec.kind, "id": spec.id, "description": spec.description, "sha256": spec.digest}
    found |= {"timeout_s": spec.timeout, "input": _fields(spec.input)}
    if isinstance(spec, AgentSpec):
        found |= _about(spec)
        links, warned = _agent_links(data), list(_agent_warnings(spec, data))
    else:
        found |= {"on_failure": spec.on_failure, "flow": spec.flow_data()}
        found["workers"] = [_worker(spec, worker.name) for worker in spec.workers]
        links, warned = _links(data), list(_swarm_warnings(spec, data))
    found["data"] = [link._asdict() for link in dict.fromkeys(links)]
    found["warnings"] = [_told(opened, place, message) for place, message in warned]
    return found


def _told(opened: Opened, place: Place, message: str) -> Json:
    mark = opened.root.at(place)
    return {"file": opened.name, "line": mark.line, "column": mark.column, "path": shown(place), "message": message}


def _fields(schema: Json | None) -> list[Json] | None:
    """The properties of an input; None when it may be anything."""
    if schema is None or not isinstance(schema.get("properties"), dict):
        return None
    required = schema.get("required")
    must = set(required) if isinstance(required, list) else set()
    return [
        {"name": name, "type": part.get("type") if isinstance(part, dict) else None, "required": name in must}
        for name, part in schema["properties"].items()
    ]


def _about(spec: AgentSpec) -> Json:
    return {"type": spec.command.type, "command": _line(spec), "runtime": spec.runtime.kind, "output": spec.output}


def _line(spec: AgentSpec) -> str:
    if isinstance(spec.command, PythonFunction):
        return spec.command.function
    return spec.command.url if isinstance(spec.command, A2A) else spec.command.display


def _worker(swarm: SwarmFile, name: str) -> Json:
    worker, agent = swarm.worker(name), swarm.agents[name]
    found: Json = {"name": name, "source": worker.source, "spec": worker.spec if isinstance(worker.spec, str) else None}
    found |= {"id": agent.id, "type": agent.command.type if isinstance(agent, AgentSpec) else "swarm"}
    found |= {"command": _line(agent) if isinstance(agent, AgentSpec) else None, "input": _fields(agent.input)}
    return found | {"timeout_s": worker.timeout if worker.timeout is not None else agent.timeout}


# --- whose output goes where ----------------------------------------------------------------------------------------


def _sources(texts: list[Text], given: bool) -> Iterator[str]:  # noqa: FBT001
    """What templates read: workers, and "input" or "params". `given`: nobody says what the worker's input is, so it is the swarm's."""
    if given:
        yield "input"
    for text in texts:
        found = reads(text.text, shell=text.shell)
        yield from sorted(found.steps)
        yield from sorted(found.roots & {"input", "params"})


def _agent_links(data: Json) -> list[Link]:
    return [Link(source, "command") for source in _sources(list(agent_texts(data)), given=False)]


def _links(data: Json) -> list[Link]:
    found = []
    for number, worker in workers_of(data):
        texts = [text for text in worker_texts(worker, ("workers", number)) if is_template(text.text)]
        own = [text for text in texts if worker.get("input") is None or text.place[2] == "input" or not _only_input(text)]
        takes_all = worker.get("input") is None and "spec" in worker
        found += [Link(source, worker["name"]) for source in _sources(own, takes_all)]
    found += [Link(source, shown(text.place)) for text, _ in flow_texts(data.get("flow")) for source in _sources([text], given=False)]
    return found + [Link(source, "output") for source in _sources(_output_texts(data.get("output")), given=False)]


def _only_input(text: Text) -> bool:
    """Whether a template reads nothing but ``input``, which is the worker's own where that has one."""
    return reads(text.text, shell=text.shell).roots <= {"input"}


def _output_texts(value: Any) -> list[Text]:
    if isinstance(value, str):
        return [Text(("output",), value)]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in _output_texts(item)]


# --- what looks like a mistake --------------------------------------------------------------------------------------


def _agent_warnings(spec: AgentSpec, data: Json) -> Iterator[Warned]:
    if spec.runtime.kind != "local":
        yield ("runtime",), f"the runtime {spec.runtime.kind!r} is not in this version of agentnb; it cannot be run"
    properties = (spec.input or {}).get("properties")
    if not isinstance(properties, dict):
        return
    read = [(text.place, reads(text.text, shell=text.shell)) for text in agent_texts(data)]
    for place, found in read:
        for name in sorted(found.input - properties.keys()):
            yield place, f"the input's schema says nothing of {name!r}"
    if isinstance(spec.command, PythonFunction) or getattr(spec.command, "asks", False) or any(found.whole for _, found in read):
        return  # it may take any of them
    for name in sorted(properties.keys() - frozenset[str]().union(*(found.input for _, found in read))):
        yield ("input", "properties", name), f"nothing reads {name!r}"


def _swarm_warnings(swarm: SwarmFile, data: Json) -> Iterator[Warned]:
    flow = data.get("flow")
    numbers = {worker["name"]: number for number, worker in workers_of(data)}
    if flow is not None:
        used = {use.name for use in uses(flow)}
        for name in (name for name in numbers if name not in used):
            yield ("workers", numbers[name]), f"the flow does not use the worker {name!r}"
    for name, agent in swarm.agents.items():
        if isinstance(agent, AgentSpec) and agent.runtime.kind != "local":
            yield ("workers", numbers[name]), f"its runtime {agent.runtime.kind!r} is not in this version of agentnb; it cannot be run"
    yield from _flow_warnings(flow, ("flow",))
    order = flow if flow is not None else {"type": "sequence", "steps": list(numbers)}
    wanted = {worker["name"]: _steps(list(worker_texts(worker, ()))) for _, worker in workers_of(data)}
    _, late = _before(order, ("flow",), frozenset(), wanted)
    yield from dict.fromkeys((("workers", numbers[name]) if flow is None else place, message) for name, place, message in late)
    for source in sorted(_steps(_output_texts(data.get("output"))) - {use.name for use in uses(order)}):
        yield ("output",), f"it reads steps.{source}, which never runs"


def _steps(texts: list[Text]) -> frozenset[str]:
    return frozenset(name for text in texts for name in reads(text.text, shell=text.shell).steps)


def _flow_warnings(flow: Any, place: Place) -> Iterator[Warned]:
    if not isinstance(flow, dict):
        return
    kind = flow.get("type")
    if kind == "loop" and "while" in flow and flow.get("max_iterations") is None:
        yield place, f"a loop with 'while' and without 'max_iterations' fails after {MAX_ITERATIONS} times; say how often at most"
    if kind == "loop" and flow.get("over") == []:
        yield (*place, "over"), "the list is empty, so nothing is done"
    for name in ("condition", "while"):
        if (constant := _constant(flow.get(name))) is not None:
            yield (*place, name), constant
    if kind == "parallel":
        yield from _doubles(flow, place)
    for inner, key in _ignoring(flow):
        yield (*place, *key), f"what comes after it is never reached: it ignores failures ({shown((*place, *inner))})"
    for key, item in items_of(flow):
        yield from _flow_warnings(item, (*place, *key))


def _constant(condition: Any) -> str | None:
    """What to say of a condition that is always the same."""
    if isinstance(condition, bool):
        return f"it is always {str(condition).lower()}, so {'the other branch is' if condition else 'what depends on it is'} never reached"
    if isinstance(condition, str) and is_template(condition) and not reads(condition).roots:
        return "it reads nothing, so it is always the same and one branch is never reached"
    return None


def _doubles(flow: Mapping[str, Any], place: Place) -> Iterator[Warned]:
    seen: set[str] = set()
    for key, item in items_of(flow):
        for name in {use.name for use in uses(item)}:
            if name in seen:
                yield (*place, *key), f"the worker {name!r} is in two branches at once; steps.{name} is what ends last"
            seen.add(name)


def _ignoring(flow: Mapping[str, Any]) -> Iterator[tuple[Place, Place]]:
    """Items of an escalation that cannot fail, with items after them."""
    if flow.get("type") != "escalation":
        return
    items = list(items_of(flow))
    for (key, item), _ in pairwise(items):
        if isinstance(item, dict) and item.get("on_failure") == "ignore":
            yield (*key, "on_failure"), key


Late = tuple[str, Place, str]


def _before(flow: Any, place: Place, done: frozenset[str], wanted: Mapping[str, frozenset[str]]) -> tuple[frozenset[str], list[Late]]:
    """Who may have run after a flow that begins when `done` have, and the workers in it that read what cannot be there by then."""
    if isinstance(flow, str):
        missed = sorted(wanted.get(flow, frozenset()) - done - {flow})
        return done | {flow}, [(flow, place, f"{flow!r} reads steps.{name}, which has not run by then") for name in missed]
    if not isinstance(flow, dict):
        return done, []
    inside = done | {use.name for use in uses(flow)} if flow.get("type") in {"loop", "supervisor"} else done
    one_by_one = flow.get("type") in {"sequence", "escalation", "delegate"}
    after, told = inside, list[Late]()
    for key, item in items_of(flow):
        ended, late = _before(item, (*place, *key), after if one_by_one else inside, wanted)
        after, told = after | ended, told + late
    return after, told
