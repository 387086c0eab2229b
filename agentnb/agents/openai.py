"""Any server that speaks the chat completions of OpenAI: the question goes out from a child process, through httpx."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from agentnb.agents import chat
from agentnb.agents.adapters import Asked, Features, Finished
from agentnb.agents.launch import child_work
from agentnb.data import Secret
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.prompts import OpenAICompatible


class Keyed(Protocol):
    """A spec of what is asked over HTTP."""

    @property
    def api_key(self) -> str | Secret | None:
        """The key, or its variable."""

    @property
    def headers(self) -> Mapping[str, str | Secret]:
        """More headers."""


class _OpenAIAdapter:
    features = Features(steps=True, tokens=True, cost=True, reply=True, agent=True)

    def missing(self) -> str:
        if find_spec("httpx") is None:
            return f'the package httpx, which talks to model servers, is not installed in {sys.prefix}; run: pip install "agentnb[openai]"'
        return ""

    def fill(self, spec: OpenAICompatible, params: Mapping[str, Any]) -> OpenAICompatible:
        return chat.fill(spec, params, model=spec.model)

    def work(self, spec: OpenAICompatible, asked: Asked) -> dict[str, Any]:
        if lacking := self.missing():
            raise RuntimeUnavailable(lacking)
        key = key_of(spec, asked.env)
        question = {
            "url": spec.url,
            "loopback": is_loopback(spec.url),
            "headers": headers_of(spec, key),
            "body": _body(spec),
            "model": spec.model,
            "shown": chat.shown(spec),
            "schema": spec.json_schema,
            "max_tokens": spec.max_tokens,
            "prices": [spec.usd_per_million_input, spec.usd_per_million_output] if spec.usd_per_million_input is not None else None,
        }
        work = child_work("agentnb.agents.openai_child", json.dumps(question).encode())
        return work | ({"secrets": [key]} if key else {})

    def reply(self, spec: OpenAICompatible, text: str, finished: Finished) -> OpenAICompatible:
        return chat.reply(spec, text, finished)


OPENAI_COMPATIBLE = _OpenAIAdapter()


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine, so that no proxy can lead there."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def key_of(spec: Keyed, env: Mapping[str, str]) -> str | None:
    """The key itself. Raises ConfigError when its variable is not set, or it can be no part of a header."""
    if spec.api_key is None:
        return None
    if isinstance(spec.api_key, Secret):
        key, where = spec.api_key.reveal(), "the secret"
    else:
        key, where = env.get(spec.api_key) or os.environ.get(spec.api_key, ""), f"the environment variable {spec.api_key}"
        if not key:
            raise ConfigError(f"api_key: {where} is not set; set it before the launch, or give nb.Secret(...)")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(f"api_key: {where} has spaces around it, line breaks or other characters that no key has")
    return key


def headers_of(spec: Keyed, key: str | None) -> dict[str, str]:
    """All headers of the spec, with the key as a bearer token; secrets revealed."""
    bearer = {"Authorization": f"Bearer {key}"} if key else {}
    return bearer | {name: value.reveal() if isinstance(value, Secret) else value for name, value in spec.headers.items()}


def _body(spec: OpenAICompatible) -> dict[str, Any]:
    body = {"model": spec.model} | chat.request(spec) | spec.extra
    return {name: value for name, value in body.items() if value is not None}
