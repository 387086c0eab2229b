"""Which texts of a spec are templates, and where they stand. Pure: what is looked at are the data of the file, whatever their shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agentnb.json_schemas import Place

Json = dict[str, Any]

HANDLERS = ("on_success", "on_failure", "rollback", "cleanup")
#: The fields of commands that are templates, by type.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "shell": ("command",),
    "test": ("command", "validation_script"),
    "command": ("argv",),
    "json_lines": ("argv",),
    "claude": ("command", "context", "system_prompt", "append_system_prompt"),
    "local_model": ("prompt", "system"),
    "openai_compatible": ("prompt", "system", "model"),
    "a2a": ("message", "data"),
    "python": ("kwargs",),
}
#: The types whose templates are lines for a shell.
LINES = frozenset({"shell", "test"})
#: The options of a launch that are templates in a spec, beside handlers.
OPTIONS = ("env", "stdin", "working_dir", "inputs", "artifacts")


class Text(NamedTuple):
    """One template: where it stands, and whether a shell reads it."""

    place: Place
    text: str
    shell: bool = False


def agent_texts(spec: Mapping[str, Any]) -> Iterator[Text]:
    """The templates of an agent."""
    if isinstance(spec.get("command"), dict):
        yield from command_texts(spec["command"], ("command",))
    for name in OPTIONS:
        yield from texts_of(spec.get(name), (name,))
    for name in HANDLERS:
        yield from _handler(spec.get(name), (name,))


def command_texts(command: Json, place: Place) -> Iterator[Text]:
    """The templates of a command."""
    kind = command.get("type")
    for name in TEMPLATES.get(kind, ()) if isinstance(kind, str) else ():
        yield from texts_of(command.get(name), (*place, name), kind in LINES)
    for name in ("env", "working_dir"):
        yield from texts_of(command.get(name), (*place, name))


def _handler(value: Any, place: Place) -> Iterator[Text]:
    if isinstance(value, dict):
        yield from _handler(value.get("command"), (*place, "command"))
        for name in ("argv", "env", "working_dir"):
            yield from texts_of(value.get(name), (*place, name))
    else:
        yield from texts_of(value, place, True)  # noqa: FBT003


def texts_of(value: Any, place: Place, shell: bool = False) -> Iterator[Text]:  # noqa: FBT001, FBT002 - a keyword of this name means another thing to linters
    """All texts in data, as templates."""
    if isinstance(value, str):
        yield Text(place, value, shell)
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts_of(item, (*place, key), shell)


def worker_texts(worker: Json, place: Place) -> Iterator[Text]:
    """The templates of a worker, but for those in a spec of its own."""
    for name in ("input", "env", "working_dir", "a2a"):
        value = worker.get(name)
        if name == "a2a":
            value = {key: value[key] for key in ("message", "data") if key in value} if isinstance(value, dict) else None
        yield from texts_of(value, (*place, name))
    if isinstance(worker.get("command"), dict):
        yield from command_texts(worker["command"], (*place, "command"))
