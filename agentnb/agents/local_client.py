"""The child process of a run that asks a shared model: sends the question, streams the answer to stdout, reports tokens and speed.

It ends at once when it is told to; the model's process sees the connection close and stops working on the question.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Any

from agentnb.agents.answer import Answer, NoAnswer, end_at_signals, told
from agentnb.agents.channel import Channel
from agentnb.agents.local_child import asked
from agentnb.agents.sse import Events, TooLarge

#: Where the engine says how a service is reached: its address as JSON.
SERVICE_VARIABLE = "AGENTNB_SERVICE"
_PATH = "/v1/chat/completions"
_MAX_ERROR = 64 * 1024
_CHUNK = 1 << 16


def main(body: bytes, channel: Channel) -> int:
    """Ask the question in `body`; return the exit code."""
    end_at_signals()
    question = json.loads(body)
    address = json.loads(os.environ.pop(SERVICE_VARIABLE))
    answer = Answer(channel, asked(question))
    answer.open()
    try:
        _ask(address, question["body"], answer)
    except NoAnswer as bad:
        return answer.fail(bad)
    except (OSError, http.client.HTTPException, TooLarge) as bad:
        return answer.fail(_lost(address, question["name"], f"{type(bad).__name__}: {bad}"))
    if answer.finish is None:
        return answer.fail(_lost(address, question["name"], "its stream ended before the answer did"))
    return answer.close()


def _lost(address: dict[str, Any], model: str, why: str) -> NoAnswer:
    who = f"the shared model server of {model} (process {address['pid']})"
    return NoAnswer("runtime_error", f"{who} was lost in the middle of the answer ({why}); the next run starts another one")


def _ask(address: dict[str, Any], body: dict[str, Any], answer: Answer) -> None:
    host = address["url"].removeprefix("http://")
    connection = http.client.HTTPConnection(host)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {address['key']}"}
    connection.request("POST", _PATH, json.dumps(body).encode(), headers)
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise _refused(response.status, response.read(_MAX_ERROR))
    events = Events()
    while data := response.read1(_CHUNK):
        for event in events.feed(data):
            if event != "[DONE]":
                answer.take(_json(event))


def _json(event: str) -> Any:
    try:
        return json.loads(event)
    except (ValueError, RecursionError) as bad:
        raise NoAnswer("runtime_error", f"the model server sent what is no JSON: {bad}") from None


def _refused(status: int, body: bytes) -> NoAnswer:
    try:
        error = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return NoAnswer("execution_failed", f"the model server answered {status}: {body[:500].decode('utf-8', 'replace')}")
    bad = told(error)
    # 400: it could not be asked like this (a schema that it has no grammar for ...)
    return NoAnswer("invalid_config" if status == http.client.BAD_REQUEST else bad.kind, bad.message)
