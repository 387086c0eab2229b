"""Data whose every part knows its place in a text: what YAML is read into (marked_yaml.py)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Deepest nesting.
MAX_DEPTH = 60


class Mark(NamedTuple):
    """A place, 1-based; zeros when there is none."""

    line: int = 0
    column: int = 0


_NOWHERE = Mark()


class Complaint(NamedTuple):
    """What is wrong with a text, and where."""

    mark: Mark
    message: str


@dataclass(slots=True)
class Node:
    """One value. `value`: a scalar, or a dict or list of nodes; `text`: a scalar as it is written; `keys`: where a mapping's keys are."""

    value: Any
    mark: Mark = _NOWHERE
    text: str | None = None
    keys: dict[str, Mark] = field(default_factory=dict)
    #: How many values it has with all that is in it.
    weight: int = 1

    def data(self, verbatim: Collection[str] = (), opaque: Collection[str] = ()) -> Any:
        """The plain data. What is below a key in `verbatim` is text as it is written; nothing below a key in `opaque` is changed."""
        if isinstance(self.value, list):
            return [node.data(verbatim, opaque) for node in self.value]
        if not isinstance(self.value, dict):
            return self.value
        found = {}
        for key, node in self.value.items():
            if key in opaque:
                found[key] = node.data()
            else:
                found[key] = node.texts() if key in verbatim else node.data(verbatim, opaque)
        return found

    def texts(self) -> Any:
        """The data with each scalar but null as it is written: ``1.10`` stays "1.10"."""
        if isinstance(self.value, list):
            return [node.texts() for node in self.value]
        if isinstance(self.value, dict):
            return {key: node.texts() for key, node in self.value.items()}
        return self.value if self.text is None or self.value is None else self.text

    def at(self, path: Collection[str | int], *, key: bool = False) -> Mark:
        """Where `path` leads: parts that are not there are passed over. `key`: rather where the last key is than its value."""
        node, mark = self, self.mark
        for part in path:
            inner = _inside(node.value, part)
            if inner is not None:
                mark = node.keys.get(str(part), inner.mark) if key else inner.mark
                node = inner
        return mark

    def known(self, path: Collection[str | int]) -> tuple[str | int, ...]:
        """The parts of `path` that lead somewhere, and the last part if it could: what a fault's place has besides is passed over."""
        node, found = self, list[str | int]()
        for part in path:
            inner = _inside(node.value, part)
            if inner is not None:
                found.append(part)
                node = inner
        return tuple(found)


def _inside(value: Any, part: str | int) -> Node | None:
    if isinstance(value, dict):
        return value.get(part)
    return value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None


def plain_node(data: Any, depth: int = 0) -> Node:
    """The node of plain data that has no places. Raises ValueError for what is no such data, or nests too deeply."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it nests more than {MAX_DEPTH} levels deep")
    if isinstance(data, dict):
        for key in data:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no text")  # noqa: TRY004 - of data, as all that is wrong with it
        return Node({key: plain_node(item, depth + 1) for key, item in data.items()})
    if isinstance(data, list | tuple):
        return Node([plain_node(item, depth + 1) for item in data])
    if not isinstance(data, str | int | float | None) or (isinstance(data, float) and not math.isfinite(data)):
        raise ValueError(f"{data!r} (of type {type(data).__name__}) is no plain data: text, number, true, false, null, list or mapping")
    return Node(data, text=data if isinstance(data, str) else None)
