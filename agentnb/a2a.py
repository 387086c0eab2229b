"""Agents of other processes and machines that speak A2A: the spec of a task for one, as validated data."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote, urlunsplit

from pydantic import BeforeValidator, Field

from agentnb.commands import Spec, some_text
from agentnb.data import Secret
from agentnb.errors import ConfigError
from agentnb.prompts import OPEN_PROMPT, ApiKey, Headers, address, secrets_of

#: Where the card of an agent is, below its address.
CARD_PATH = "/.well-known/agent-card.json"
#: The largest whole number that arrives unchanged: JSON numbers travel as doubles.
_EXACT = 2**53


def _url(value: object) -> str:
    parts = address(value, "write the agent's address as 'http://127.0.0.1:9000'")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/").removesuffix(CARD_PATH).rstrip("/")))


def _message(value: object) -> str | None:
    return None if value is None else some_text("message", value, "write what the agent is to do as text")  # type: ignore[arg-type]


def _data(value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ConfigError(f"data: {value!r} is no mapping; write data={{'path': 'src'}}")
    try:
        found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as bad:
        raise ConfigError(f"data: it is no JSON data: {bad}") from None
    _travels(found)
    return found


def _travels(value: Any) -> None:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _travels(item)
    if isinstance(value, int) and abs(value) > _EXACT:
        raise ConfigError(f"data: {value} would not arrive unchanged, as numbers travel with 53 bits; give it as text")


def _modes(value: object) -> object:
    modes = tuple(value) if isinstance(value, list | tuple) else (value,)
    for mode in modes:
        if not isinstance(mode, str) or mode.count("/") != 1 or not mode.isascii() or not mode.isprintable():
            raise ConfigError(f"output_modes: {mode!r} is no media type; write output_modes=['text/plain', 'application/json']")
    return modes


def _id(value: object) -> object:
    if value is not None and (not isinstance(value, str) or not value.strip() or not value.isprintable()):
        raise ConfigError(f"{value!r} is no id of a context or a task; take it from run.agent_session of an earlier run")
    return value


AgentUrl = Annotated[str, BeforeValidator(_url)]
Message = Annotated[str | None, BeforeValidator(_message)]
JsonPart = Annotated[dict[str, Any] | None, BeforeValidator(_data)]
Modes = Annotated[tuple[str, ...], BeforeValidator(_modes)]
Id = Annotated[str | None, BeforeValidator(_id)]


class A2A(Spec):
    """A task for an agent that speaks A2A, by its address: ``nb.A2A("http://127.0.0.1:9000", "Summarise {{path}}")``.

    `url`: where the agent's card is (``/.well-known/agent-card.json`` below it). `message`: what it is to do; a template. `data`: a
    mapping that is sent along as a JSON part; its texts are templates, too, and one that is only ``{{x}}`` becomes the value itself.
    With `data`, `message` may be left out. `output_modes`: media types of answers that are accepted; default all. `api_key`:
    nb.Secret(...), or the name of an environment variable; sent as the agent's card asks, else as a bearer token, never stored.
    `headers`: more headers; secret ones as nb.Secret(...). `context_id`, `task_id`: go on in that conversation, or with that task, which
    waits for an answer; ``run.reply("...")`` sets them. `refers_to`: ids of tasks that the message is about.
    """

    type: Literal["a2a"] = "a2a"
    url: AgentUrl
    message: Message = OPEN_PROMPT
    data: JsonPart = None
    output_modes: Modes = ()
    api_key: ApiKey = None
    headers: Headers = Field(default_factory=dict)
    context_id: Id = None
    task_id: Id = None
    refers_to: tuple[str, ...] = ()

    def __init__(self, url: str = "", message: str | None = None, /, **fields: Any) -> None:
        """Take address and message positionally; without a message, a mapped run takes it from its parameter ``prompt``."""
        given = {"url": url, "message": message} | fields
        if given["message"] is None and given.get("data") is None:
            given["message"] = OPEN_PROMPT
        super().__init__(**given)

    @property
    def display(self) -> str:
        """The message, else the data."""
        return self.message or json.dumps(self.data, ensure_ascii=False)

    @property
    def asks(self) -> bool:
        """Whether its message is the parameter ``prompt``."""
        return self.message == OPEN_PROMPT

    @property
    def secrets(self) -> list[Secret]:
        """The key, also when it is named by its variable, and the headers that must not be seen."""
        return secrets_of(self.api_key, self.headers)


class Conversation:
    """Context and task of a run as one text, ``context/task``, with a ``?`` behind it while the task waits for an answer."""

    @staticmethod
    def write(context_id: str, task_id: str, *, waits: bool) -> str:
        """The text for these ids, which may hold anything."""
        return f"{quote(context_id, safe='')}/{quote(task_id, safe='')}{'?' * waits}"

    @staticmethod
    def read(text: str) -> tuple[str | None, str | None, bool]:
        """Context, task, and whether the task waits."""
        context_id, _, task_id = text.removesuffix("?").partition("/")
        return unquote(context_id) or None, unquote(task_id) or None, text.endswith("?")
