"""YAML read as plain data whose every part knows its line and column; what is unclear or dangerous in YAML is refused.

Read is what YAML 1.2 and JSON agree on, by PyYAML's parser: of plain scalars only ``true``, ``false``, ``null`` and decimal numbers are
anything but text, so that ``yes``, ``on``, ``010``, ``0x1F``, ``1_000``, ``1:30`` and ``2026-01-31`` stay what is written. Keys are text.
Anchors, aliases and merge keys (``<<``) work while what they stand for stays small. Tags but the plain ones (``!!str`` ...) are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from agentnb.agents.marked_nodes import MAX_DEPTH, Complaint, Mark, Node

#: Largest text that is read, in bytes; most values, each alias counted with all that it stands for.
MAX_BYTES = 512 * 1024
MAX_NODES = 20_000

_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("map", "seq", "str", "int", "float", "bool", "null")}
_SCALARS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
#: Most digits of a number: what is longer is no number that anything could use.
_DIGITS = 300
_MERGE = "<<"


class _Unreadable(Exception):
    """A text that is no YAML, or more than is read."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.complaint = Complaint(mark, message)


def parse(raw: bytes | str) -> tuple[Node | None, list[Complaint]]:
    """The document in `raw`, and all that is wrong with it as YAML; None for the document when it cannot be read at all."""
    try:
        text = _text(raw)
        builder = _Builder()
        builder.build(yaml.parse(text, Loader=yaml.SafeLoader))
    except _Unreadable as bad:
        return None, [bad.complaint]
    except yaml.reader.ReaderError as bad:
        position = int(bad.position)
        code = int(bad.character)  # of text, of which no decoding is left to do
        written = f"x{code:02x}" if code < 256 else f"u{code:04x}"
        message = f"the character {chr(code)!r} cannot be in YAML; in double quotes it is written as \\{written}"
        return None, [Complaint(_place(text, position), message)]
    except yaml.MarkedYAMLError as bad:
        return None, [*builder.complaints, _explain(bad)]
    return builder.root, builder.complaints


def _text(raw: bytes | str) -> str:
    data = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    if len(data) > MAX_BYTES:
        raise _Unreadable(Mark(), f"it has more than {MAX_BYTES // 1024} KiB, which no spec needs; keep large texts in files of their own")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        before = data[: bad.start].decode("utf-8", "replace")
        message = f"the byte 0x{data[bad.start]:02x} is no UTF-8; save the file as UTF-8"
        raise _Unreadable(_place(before, len(before)), message) from None


def _place(text: str, position: int) -> Mark:
    return Mark(text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1)


def _mark(mark: Any) -> Mark:
    return Mark() if mark is None else Mark(mark.line + 1, mark.column + 1)


def _explain(bad: yaml.MarkedYAMLError) -> Complaint:
    problem = str(bad.problem or bad.context or "it is no YAML")
    mark = _mark(bad.problem_mark or bad.context_mark)
    if "'\\t'" in problem:
        return Complaint(mark, "a tab cannot indent in YAML; use spaces")
    if "mapping values are not allowed" in problem:
        return Complaint(mark, "a ': ' is not possible here; put a text that contains one into quotes")
    if "expected <block end>" in problem or "could not find expected ':'" in problem:
        problem += "; look at the indentation, and put texts with special signs into quotes"
    if "'%'" in problem or "'@'" in problem or "'`'" in problem:
        problem += "; put the text into quotes"
    if bad.context and bad.context_mark is not None and bad.problem:
        problem += f" ({bad.context}, line {bad.context_mark.line + 1})"
    return Complaint(mark, f"it is no YAML: {problem}")


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is being read. `merges`: what ``<<`` brings in.

    `key`: the key whose value comes next, None for one that is no text; `merging`: it is ``<<``.
    """

    node: Node
    key: tuple[str | None, Mark] | None = None
    merging: bool = False
    anchor: str | None = None
    merges: list[tuple[Mark, Node]] = field(default_factory=list)


class _Builder:
    """Puts nodes together from the events of the parser."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.complaints: list[Complaint] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._documents = 0

    def build(self, events: Iterator[Any]) -> None:
        """Read them all. Raises _Unreadable."""
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    raise _Unreadable(_mark(event.start_mark), "a second document begins here; one file has one spec")
            elif isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
                node = self._alias(event) if isinstance(event, yaml.AliasEvent) else self._scalar(event)
                self._add(node, _mark(event.start_mark), plain=getattr(event, "style", "'") is None)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close()

    def _complain(self, mark: Mark, message: str) -> None:
        self.complaints.append(Complaint(mark, message))

    def _open(self, event: Any) -> None:
        mark = _mark(event.start_mark)
        if len(self._stack) >= MAX_DEPTH:
            raise _Unreadable(mark, f"it nests more than {MAX_DEPTH} levels deep, which no spec needs")
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag is not None and _TAGS.get(event.tag) != ("map" if is_mapping else "seq"):
            self._complain(mark, f"the tag {_tag(event.tag)} is not read; leave it out")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(Node({} if is_mapping else [], mark), anchor=event.anchor))

    def _close(self) -> None:
        frame = self._stack.pop()
        node = frame.node
        for mark, merged in frame.merges:
            self._merge(node, mark, merged)
        if frame.anchor is not None:
            self._anchors[frame.anchor] = node
        self._add(node, node.mark, plain=False)

    def _scalar(self, event: Any) -> Node:
        mark = _mark(event.start_mark)
        text = self._whole(str(event.value), mark)
        kind = None if event.tag is None else _TAGS.get(event.tag)
        is_key = bool(self._stack) and isinstance(self._stack[-1].node.value, dict) and self._stack[-1].key is None
        quoted = is_key or (event.style is not None and event.tag is None)
        node = Node(text if quoted or kind == "str" else self._resolved(text, mark), mark, text)
        if (event.tag is not None and event.tag != "!" and kind in {None, "map", "seq"}) or (
            kind in _SCALARS and not isinstance(node.value, _SCALARS[kind])
        ):
            self._complain(mark, f"the tag {_tag(event.tag)} is not read here; leave it out")
        if event.tag == "!":
            node.value = text
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _whole(self, text: str, mark: Mark) -> str:
        """The text with characters joined that are escaped as two halves, as JSON does."""
        if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._complain(mark, "it has half of a character (\\ud800 to \\udfff) without the other half")
            return ""

    def _resolved(self, text: str, mark: Mark) -> Any:
        """What a scalar without quotes is."""
        if text in _WORDS:
            return _WORDS[text]
        if text in _NULLS:
            return None
        if not _DECIMAL.fullmatch(text):
            return text
        if len(text) > _DIGITS:
            self._complain(mark, f"the number has {len(text)} digits; put it into quotes if it is a text")
            return 0
        if _NUMBER.fullmatch(text):
            return int(text)
        value = float(text)
        if not math.isfinite(value):
            self._complain(mark, f"the number {text} is too large; put it into quotes if it is a text")
            return 0
        return value

    def _alias(self, event: Any) -> Node:
        mark, name = _mark(event.start_mark), event.anchor
        if name not in self._anchors:
            raise _Unreadable(mark, f"there is no anchor &{name} before this alias; write what is meant")
        node = self._anchors[name]
        if node is None:
            raise _Unreadable(mark, f"the alias *{name} is inside of what it stands for; it would never end")
        return node

    def _add(self, node: Node, mark: Mark, *, plain: bool) -> None:
        """Put a finished value where it belongs."""
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        into = frame.node
        into.weight += node.weight
        if into.weight > MAX_NODES:
            raise _Unreadable(mark, f"it has more than {MAX_NODES:,} values, counting what aliases stand for, which no spec needs")
        if isinstance(into.value, list):
            into.value.append(node)
        elif frame.key is None:
            frame.key, frame.merging = (node.text, mark), plain and node.text == _MERGE
            if node.text is None:
                self._complain(mark, "a key is a text, not a list or a mapping; a template is put into quotes")
        else:
            (key, at), frame.key = frame.key, None
            self._pair(frame, key, at, node)

    def _pair(self, frame: _Frame, key: str | None, mark: Mark, node: Node) -> None:
        into = frame.node
        if frame.merging:
            frame.merges.append((mark, node))
        elif key in into.keys:
            self._complain(mark, f"{_path_key(key)} is given twice; the first is in line {into.keys[key].line}")
        elif key is not None:
            into.value[key], into.keys[key] = node, mark

    def _merge(self, into: Node, mark: Mark, merged: Node) -> None:
        """Lay in what ``<<`` names: what the mapping says itself wins."""
        parts = merged.value if isinstance(merged.value, list) else [merged]
        for part in parts:
            if not isinstance(part.value, dict):
                self._complain(mark, "<<: it merges a mapping, or a list of mappings, into this one; this is none")
                continue
            for key, node in part.value.items():
                if key not in into.value:
                    into.value[key], into.keys[key] = node, part.keys.get(key, mark)


def _path_key(key: str) -> str:
    return repr(key if len(key) <= 60 else key[:57] + "...")


def _tag(tag: str) -> str:
    short = tag.removeprefix("tag:yaml.org,2002:")
    return f"!!{short}" if short != tag else tag
