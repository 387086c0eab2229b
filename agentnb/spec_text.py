"""What a spec file comes to (agents/spec_inspection.py) as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentnb.printing import one_line, table

Json = dict[str, Any]
_INDENT = "  "
_WIDE = 100


def text_of(found: Json) -> str:
    """The whole of it."""
    head = [f"{found['kind']} {found['id']}  ({found['file']})"]
    if found["description"]:
        head.append(one_line(found["description"], _WIDE))
    parts = ["\n".join(head) + "\n", _input(found["input"])]
    parts.append(_swarm(found) if found["kind"] == "Swarm" else _agent(found))
    if found["data"]:
        parts.append("data\n" + "".join(f"{_INDENT}{line}\n" for line in _data(found["data"])))
    warnings = [f"{_INDENT}{w['file']}:{w['line']}:{w['column']}: {w['path']}: {w['message']}\n" for w in found["warnings"]]
    parts.append("warnings\n" + "".join(warnings) if warnings else "no warnings\n")
    return "\n".join(part for part in parts if part)


def _input(fields: list[Json] | None) -> str:
    if fields is None:
        return f"input\n{_INDENT}anything\n"
    lines = [f"{_INDENT}{field['name']}: {_type(field['type'])}{'' if field['required'] else ' (optional)'}\n" for field in fields]
    return "input\n" + ("".join(lines) or f"{_INDENT}nothing\n")


def _type(kind: Any) -> str:
    return " or ".join(map(str, kind)) if isinstance(kind, list) else str(kind or "anything")


def _agent(found: Json) -> str:
    lines = [f"{found['type']}: {one_line(found['command'], _WIDE)}", f"runtime: {found['runtime']}"]
    lines += [f"timeout: {_seconds(found['timeout_s'])}"] if found["timeout_s"] is not None else []
    lines += ["output: checked against a JSON Schema"] if found["output"] is not None else []
    return "command\n" + "".join(f"{_INDENT}{line}\n" for line in lines)


def _swarm(found: Json) -> str:
    header = ["worker", "type", "what", "timeout"]
    rows = [[w["name"], w["type"], w["spec"] or w["command"] or w["id"], _seconds(w["timeout_s"])] for w in found["workers"]]
    workers = "workers\n" + "".join(f"{_INDENT}{line}\n" for line in table(rows, header).splitlines())
    flow = "flow\n" + "".join(f"{_INDENT}{line}\n" for line in _flow(found["flow"]))
    limits = f"on_failure: {found['on_failure']}" + (f", timeout: {_seconds(found['timeout_s'])}" if found["timeout_s"] is not None else "")
    return f"{workers}\n{flow}{_INDENT}({limits})\n"


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:g} s"


def _flow(flow: Any, label: str = "", indent: str = "") -> Iterator[str]:
    """A flow as a tree: one line for each flow and worker."""
    head = f"{indent}{label}"
    if not isinstance(flow, dict):
        yield f"{head}{flow}"
        return
    items = list(_items(flow))
    about = ", ".join(f"{key}: {one_line(str(value))}" for key, value in flow.items() if key not in {"type", *(key for key, _, _ in items)})
    yield f"{head}{flow['type']}{f' ({about})' if about else ''}"
    for _, name, item in items:
        yield from _flow(item, name, indent + _INDENT)


def _items(flow: Json) -> Iterator[tuple[str, str, Any]]:
    """Key, label and item of each of its items."""
    from agentnb.agents.spec_checks import items_of

    for place, item in items_of(flow):
        key = str(place[0])
        many = isinstance(flow[key], list) and key in {"steps", "branches", "workers"}
        yield key, "" if many else f"{key}: ", item


def _data(links: list[Json]) -> Iterator[str]:
    """Whose output goes where: a line for each source."""
    for source in dict.fromkeys(link["source"] for link in links):
        yield f"{source} -> {', '.join(link['to'] for link in links if link['source'] == source)}"
