"""What adapters of chat models share: filling, the request, and the next question of a conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from agentnb.agents import filling
from agentnb.agents.adapters import Finished
from agentnb.errors import ConfigError
from agentnb.prompts import Chat

#: Options that a parameter of the same name sets, unless the spec sets them itself.
OPTIONS = ("system", "temperature", "top_p", "seed", "max_tokens")

ChatT = TypeVar("ChatT", bound=Chat)


def fill(spec: ChatT, params: Mapping[str, Any], **more: str) -> ChatT:
    """The spec with prompt, system prompt and `more` filled, and options set by parameters. What was said before stays as it is."""
    changes: dict[str, Any] = {"prompt": filling.text(spec.prompt, params, f"prompt {filling.short(spec.prompt)}")}
    if spec.system is not None:
        changes["system"] = filling.text(spec.system, params, f"system prompt {filling.short(spec.system)}")
    changes |= {name: filling.text(text, params, f"{name} {filling.short(text)}") for name, text in more.items()}
    return filling.again(spec, changes | filling.options(spec, params, OPTIONS))


def request(spec: Chat) -> dict[str, Any]:
    """The part of a chat completion's body that all servers understand."""
    body: dict[str, Any] = {"messages": spec.conversation(), "stream": True, "stream_options": {"include_usage": True}}
    for name in ("temperature", "top_p", "max_tokens", "seed"):
        if (value := getattr(spec, name)) is not None:
            body[name] = value
    if spec.json_schema is not None:
        named = {"name": "answer", "schema": spec.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body


def shown(spec: Chat) -> dict[str, Any]:
    """What was asked, for the record of the turn."""
    names = ("prompt", "system", "messages", "temperature", "top_p", "seed", "max_tokens", "json_schema")
    return {name: value for name in names if (value := getattr(spec, name)) not in (None, ())}


def reply(spec: ChatT, text: str, finished: Finished) -> ChatT:
    """The spec of the next question: the conversation so far, with the answer, comes before it.

    Raises ConfigError when there was no answer to go on from.
    """
    said = finished.output if isinstance(finished.output, str) else json.dumps(finished.output, ensure_ascii=False)
    if finished.output is None or not said.strip():
        raise ConfigError("reply: the run gave no answer to go on from; launch the question again")
    history = [*spec.conversation(), {"role": "assistant", "content": said}]
    return filling.again(spec, {"prompt": text, "system": None, "messages": history})
