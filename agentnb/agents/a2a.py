"""Agents that speak A2A: the conversation goes on in a child process, through the A2A SDK, whose types never leave it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from agentnb.a2a import A2A, Conversation
from agentnb.agents import filling, template
from agentnb.agents.adapters import Asked, Features, Finished
from agentnb.agents.launch import child_work
from agentnb.agents.openai import headers_of, is_loopback, key_of
from agentnb.errors import ConfigError, RuntimeUnavailable

_INSTALL = 'run: pip install "agentnb[a2a]"'


class _A2AAdapter:
    features = Features(steps=True, reply=True, agent=True)

    def missing(self) -> str:
        try:
            version = metadata.version("a2a-sdk")
        except metadata.PackageNotFoundError:
            return f"the package a2a-sdk, which talks to A2A agents, is not installed in {sys.prefix}; {_INSTALL}"
        if version.startswith("0."):
            return f"a2a-sdk {version} in {sys.prefix} is too old; 1.0 or later is needed; {_INSTALL}"
        return ""

    def fill(self, spec: A2A, params: Mapping[str, Any]) -> A2A:
        changes: dict[str, Any] = {"message": None, "data": None}
        if spec.message is not None:
            changes["message"] = filling.text(spec.message, params, f"message {filling.short(spec.message)}")
        if spec.data is not None:
            changes["data"] = _filled(spec.data, params, "data")
        return filling.again(spec, changes)

    def work(self, spec: A2A, asked: Asked) -> dict[str, Any]:
        if lacking := self.missing():
            raise RuntimeUnavailable(lacking)
        key = key_of(spec, asked.env)
        question = {
            "url": spec.url,
            "loopback": is_loopback(spec.url),
            "key": key,
            "headers": headers_of(spec, None),
            "message": spec.message,
            "data": spec.data,
            "output_modes": list(spec.output_modes),
            "context_id": spec.context_id,
            "task_id": spec.task_id,
            "refers_to": list(spec.refers_to),
        }
        work = child_work("agentnb.agents.a2a_child", json.dumps(question).encode())
        return work | ({"secrets": [key]} if key else {})

    def reply(self, spec: A2A, text: str, finished: Finished) -> A2A:
        context_id, task_id, waits = Conversation.read(finished.agent_session or "")
        if context_id is None and task_id is None:
            raise ConfigError("reply: the agent named no conversation that could go on; launch the task again")
        refers_to = (task_id,) if task_id and not waits else ()
        changes = {"message": text, "data": None, "context_id": context_id, "task_id": task_id if waits else None, "refers_to": refers_to}
        return filling.again(spec, changes)


A2A_AGENT = _A2AAdapter()


def _filled(value: Any, params: Mapping[str, Any], what: str) -> Any:
    """JSON data whose texts are templates, filled."""
    if isinstance(value, dict):
        return {name: _filled(item, params, f"{what}[{name!r}]") for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, params, f"{what}[{number}]") for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    found = template.render_value(value, params, what=f"{what} {filling.short(value)}")
    return found.item() if hasattr(found, "item") else found  # a number of numpy is no JSON
