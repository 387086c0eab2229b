"""Pieces of the claude CLI's events, taken as they come: nothing of them is trusted to have its type."""

from __future__ import annotations

from typing import Any

from agentnb.events import Json

_MAX_BASE64 = 1024
_SHOWN = 200
_TELLING = ("command", "file_path", "path", "pattern", "url", "query", "prompt", "description")


def mapping(value: Any) -> Json:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str | None:
    """`value` if it is text with something in it."""
    return value if isinstance(value, str) and value else None


def texts(value: str) -> str:
    """The first line of a text, cut for people."""
    line = value.strip().partition("\n")[0]
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def brief(value: Any) -> Any:
    """A block without the bytes of images and documents, which are in the raw stream."""
    if isinstance(value, dict):
        data = value.get("data")
        if value.get("type") == "base64" and isinstance(data, str) and len(data) > _MAX_BASE64:
            return value | {"data": f"({len(data)} characters of base64)"}
        return {name: brief(item) for name, item in value.items()} if any(isinstance(v, dict | list) for v in value.values()) else value
    return [brief(item) for item in value] if isinstance(value, list) else value


def length(block: Json) -> int:
    """About how many characters the model wrote for a block."""
    written = block.get("text") or block.get("thinking")
    return len(written) if isinstance(written, str) else len(str(block.get("input", "")))


def flat(content: Any) -> Any:
    """A tool's result: text when it is nothing else, else its blocks."""
    if isinstance(content, list) and all(
        isinstance(b, dict) and b.get("type") == "text" and isinstance(b.get("text"), str) for b in content
    ):
        return "\n".join(block["text"] for block in content)
    return brief(content)


def described(name: str, given: Any) -> str:
    """A tool call as a line for people: ``Bash: echo hi``."""
    told = mapping(given)
    for key in (*_TELLING, *told):
        if isinstance(text := told.get(key), str) and text.strip():
            return f"{name}: {texts(text)}"
    return name
