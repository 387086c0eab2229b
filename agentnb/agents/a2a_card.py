"""Who an A2A agent is and how it is asked, in the child process: its card, read with suspicion, and a client for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
from a2a.client import A2ACardResolver, AgentCardResolutionError, Client, ClientConfig, ClientFactory
from google.protobuf.json_format import ParseError

from agentnb.a2a import CARD_PATH
from agentnb.agents import refusals
from agentnb.agents.answer import NoAnswer
from agentnb.agents.openai import is_loopback

if TYPE_CHECKING:
    from a2a.types import AgentCard, AgentInterface

#: Seconds until a connection has to be there, and until the card has to be. A task may take any time: the run's timeout bounds it.
CONNECT_S = 30.0
#: A response may have so many bytes.
MAX_BYTES = 64 * 1024 * 1024
#: So much of an error's body is read.
_MAX_ERROR = 64 * 1024
_BINDINGS = ("JSONRPC", "HTTP+JSON")
_HERE = "this machine"
_MAX_NAME, _MAX_URL = 200, 2000


@asynccontextmanager
async def agent(question: dict[str, Any]) -> AsyncIterator[tuple[AgentCard, Client]]:
    """The card of the agent in question, with only the interface that is used, and a client for that. Raises NoAnswer."""
    card_url = question["url"] + CARD_PATH
    headers = dict(question["headers"])
    if question["key"]:
        headers = {"Authorization": f"Bearer {question['key']}"} | headers
    async with _http(card_url, headers) as http:
        card = await _fetched(http, question["url"], card_url)
    used = _interface(card)
    _same_house(question, used.url)
    del card.supported_interfaces[:]
    card.supported_interfaces.append(used)
    async with _http(used.url, _key_header(card, question["key"]) | question["headers"]) as http:
        # a task that waits for this message is not looked at before it went on: its state would be the old one
        config = ClientConfig(polling=question["task_id"] is None, httpx_client=http, supported_protocol_bindings=list(_BINDINGS))
        config.accepted_output_modes = question["output_modes"]
        yield card, ClientFactory(config).create(card)


def _http(url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    # compressed answers could unfold to any size; a redirect would carry the key elsewhere; no proxy leads to this machine
    return httpx.AsyncClient(
        headers={"Accept-Encoding": "identity"} | headers,
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        follow_redirects=False,
        mounts={f"all://{_host(url)}": None} if is_loopback(url) else None,
        event_hooks={"response": [_checked]},
    )


def _host(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host


@dataclass
class _Bounded(httpx.AsyncByteStream):
    """The body of a response; too much of it is cut off, or no answer at all."""

    inner: httpx.AsyncByteStream
    url: str
    most: int
    cut: bool
    size: int = field(default=0)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self.inner:
            self.size += len(piece)
            if self.size > self.most:
                if self.cut:
                    return
                raise NoAnswer("resource_limit_exceeded", f"{self.url} sent more than {self.most} bytes in one response")
            yield piece

    async def aclose(self) -> None:
        await self.inner.aclose()


async def _checked(response: httpx.Response) -> None:
    """Bound each response, and raise NoAnswer for a status that is no success, unless the protocol says more about it."""
    url, failed = str(response.url), not response.is_success
    assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - an AsyncClient has no others
    response.stream = _Bounded(response.stream, url, _MAX_ERROR if failed else MAX_BYTES, cut=failed)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise NoAnswer("runtime_error", f"{url} sent a compressed answer, though it was asked not to")
    if not failed:
        return
    body = await _rest(response)
    if _of_protocol(body):
        return
    missing = "check the url: it is the address that the agent's card is found below"
    keyed = bool({"authorization", "x-api-key"} & set(response.request.headers))
    raise refusals.refused(response.status_code, response.headers, refusals.error_of(body), url, missing, keyed=keyed)


async def _rest(response: httpx.Response) -> bytes:
    try:
        return await response.aread()
    except httpx.HTTPError:  # the status says what is wrong
        return b""


def _of_protocol(body: bytes) -> bool:
    """Whether an error's body is one of the protocol (HTTP+JSON), which the SDK makes an exception of."""
    try:
        return any("reason" in detail for detail in json.loads(body)["error"]["details"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return False


async def _fetched(http: httpx.AsyncClient, url: str, card_url: str) -> AgentCard:
    try:
        card = await A2ACardResolver(http, url).get_agent_card(http_kwargs={"timeout": CONNECT_S})
    except AgentCardResolutionError as bad:
        if isinstance(bad.__cause__, httpx.TimeoutException) and not isinstance(bad.__cause__, httpx.ConnectTimeout):
            raise NoAnswer("runtime_error", f"{card_url} did not answer within {CONNECT_S:g} s") from None
        if isinstance(bad.__cause__, httpx.HTTPError | httpx.InvalidURL):
            raise refusals.unreached(bad.__cause__, card_url, "0 bytes of the agent's card", "agent") from None
        raise _no_card(card_url, str(bad.__cause__ or bad)) from None
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, ParseError) as bad:
        raise _no_card(card_url, f"{type(bad).__name__}: {bad}") from None
    if not card.name or not card.supported_interfaces:
        raise _no_card(card_url, "it has no name" if not card.name else "it says nowhere how the agent is asked (supportedInterfaces)")
    card.name = card.name[:_MAX_NAME]
    return card


def _no_card(card_url: str, why: str) -> NoAnswer:
    said = why[: refusals.MAX_SHOWN]
    return NoAnswer("invalid_config", f"{card_url} is no card of an A2A agent: {said}; check the url, and that an agent is there")


def _interface(card: AgentCard) -> AgentInterface:
    """The first interface that can be used here, one of protocol 1 before one of 0.3. Raises NoAnswer when there is none."""
    able = [one for one in card.supported_interfaces if one.protocol_binding in _BINDINGS and _major(one.protocol_version) is not None]
    able.sort(key=lambda one: _major(one.protocol_version) != 1)
    if able:
        return able[0]
    has = ", ".join(f"{one.protocol_binding or '?'} {one.protocol_version}".strip() for one in card.supported_interfaces)
    able_here = f"what can be spoken here is {' and '.join(_BINDINGS)}, protocol 1.x or 0.3"
    raise NoAnswer("invalid_config", f"the agent {card.name!r} speaks {has[: refusals.MAX_SHOWN]}; {able_here}")


def _major(version: str) -> int | None:
    """1 or 0 for a version of the protocol that is spoken here; None for another one."""
    parts = version.strip().removeprefix("v").split(".")
    if parts == [""] or parts[0] == "1":
        return 1
    return 0 if parts[:2] == ["0", "3"] else None


def _same_house(question: dict[str, Any], url: str) -> None:
    """Hold back what goes to another server than the user named: keys always, and everything that a distant card sends to this machine."""
    told = _server(url)
    if told is None or len(url) > _MAX_URL:
        raise NoAnswer("invalid_config", f"the agent's card says that it is asked at {url[: refusals.MAX_SHOWN]!r}, which is no address")
    here = told[1] == _HERE
    if here and not question["loopback"]:
        raise NoAnswer("invalid_config", f"the card of {question['url']} sends what is asked to {url}, this machine; that is not followed")
    if (question["key"] or question["headers"]) and told != _server(question["url"]):
        raise NoAnswer(
            "invalid_config",
            f"the card of {question['url']} sends what is asked to {url}, another server, which would get the key and the headers;"
            " leave them out, or give the address of that server as the url",
        )


def _server(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address; None for what is none. All names of this machine are one."""
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]
        host = _HERE if is_loopback(url) or parts.hostname == "0.0.0.0" else parts.hostname  # noqa: S104 - nothing is bound to it
    except (ValueError, KeyError):
        return None
    return (parts.scheme, host, port) if host and port and parts.scheme in {"http", "https"} else None


def _key_header(card: AgentCard, key: str | None) -> dict[str, str]:
    """The header that carries the key: the one the card names for API keys, when it knows no other way, else a bearer token."""
    if not key:
        return {}
    schemes = list(card.security_schemes.values())
    names = [one.api_key_security_scheme.name for one in schemes if one.api_key_security_scheme.location == "header"]
    if names and len(names) == len(schemes) and names[0].isascii() and names[0].replace("-", "").replace("_", "").isalnum():
        return {names[0]: key}
    return {"Authorization": f"Bearer {key}"}
