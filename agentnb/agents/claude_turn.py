"""One message of the model in the claude CLI's stream, while it is put together; standard library only."""

from __future__ import annotations

from typing import Any

from agentnb.events import Json


class Turn:
    """One message of the model that is being made."""

    __slots__ = ("extra", "id", "length", "message", "model", "text", "thinking", "told", "tools", "usage")

    def __init__(self, step: str, message: str, model: str) -> None:
        """`step`: the report's id; `message`: the message's."""
        self.id = step
        self.message = message
        self.model = model
        self.tools = 0
        self.length = 0
        self.told: Json = {}
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.extra: list[Any] = []
        self.usage: dict[str, int] = {}

    def output(self) -> Json:
        """What it said, for its step."""
        parts: Json = {"text": "\n".join(self.text), "thinking": "\n".join(self.thinking), "other": self.extra}
        return {name: value for name, value in parts.items() if value}

    def tokens(self, *, final: bool) -> Json:
        """By kind; the number of those written is right only once the message is complete."""
        names = {"input_tokens": "input", "output_tokens": "output", "cache_read_tokens": "cache_read", "cache_write_tokens": "cache_write"}
        return {short: self.usage[name] for name, short in names.items() if name in self.usage and (final or name != "output_tokens")}
