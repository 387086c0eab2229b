"""What the templates of a swarm see: its input, what its workers gave so far, and the loop that they stand in.

``{{input.path}}``, ``{{steps.NAME.output.key}}``, ``{{steps.NAME.status}}``, ``{{loop.index}}``, ``{{loop.item}}``, ``{{params.x}}``. A
text that is exactly one template becomes the value itself, of any JSON type. What a value holds is never read as a template again. A worker
that completed has an output; one that failed, or was skipped, has a status, and its output is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentnb.agents import template
from agentnb.agents.failures import Failure, FlowFailed
from agentnb.errors import TemplateError

Json = dict[str, Any]
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Scope:
    """The values that templates may name. `steps` is shared by a whole swarm and grows; `local` holds those of the loops around."""

    input: Any
    steps: Json = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    def inside(self, index: int, item: Mapping[str, Any], name: str | None) -> Scope:
        """The scope of one iteration. `item`: {"item": ...}, or {} where there is none; `name`: what it is called beside ``loop.item``."""
        named = {name: item["item"]} if name and item else {}
        return Scope(self.input, self.steps, {**self.local, **named, "loop": {"index": index, **item}}, self.params)

    @property
    def item(self) -> Json | None:
        """The item of the loop around, by its name there; None where there is none."""
        loop = self.local.get("loop", {})
        return {"item": loop["item"]} if "item" in loop else None

    def values(self) -> Json:
        """All values by name."""
        return {**self.local, "input": self.input, "steps": self.steps, "params": self.params}

    def fill(self, value: Any, where: str) -> Any:
        """JSON data with its templates filled. Raises FlowFailed, of kind invalid_config, that names what is missing."""
        if isinstance(value, Mapping):
            return {name: self.fill(item, f"{where}.{name}") for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.fill(item, f"{where}[{number}]") for number, item in enumerate(value)]
        return self._text(value, where) if isinstance(value, str) else value

    def _text(self, text: str, where: str) -> Any:
        try:
            found = template.render_value(text, self.values(), what=shown(text))
        except TemplateError as bad:
            raise FlowFailed([Failure(where, "invalid_config", str(bad))]) from None
        if callable(found) or not _is_json(found):
            said = f"{shown(text)} gives a {type(found).__name__}, which is no JSON data"
            raise FlowFailed([Failure(where, "invalid_config", said)])
        return found

    def holds(self, condition: Any, where: str) -> bool:
        """Whether a condition holds. Raises FlowFailed for one that gives no boolean (pattern_error), or names what is missing."""
        found = self.fill(condition, where)
        if not isinstance(found, bool):
            said = f"the condition {shown(condition)} gives {shown(found)}, which is no boolean; write a comparison: {{{{ a == b }}}}"
            raise FlowFailed([Failure(where, "pattern_error", said)])
        return found


def shown(value: Any) -> str:
    """A value for messages, cut."""
    text = value if isinstance(value, str) and "{{" in value else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | bool | int | float)
