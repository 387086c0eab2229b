"""The child process that asks a server of chat completions: streams the answer to stdout, says what went wrong in words."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Mapping
from typing import Any

import httpx

from agentnb.agents import refusals
from agentnb.agents.answer import MAX_TEXT, Answer, Asked, NoAnswer, end_at_signals, told
from agentnb.agents.channel import Channel
from agentnb.agents.sse import Events, TooLarge

#: Seconds until a connection has to be there. An answer may take any time: the run's timeout bounds it.
CONNECT_S = 30.0
#: After the last word of an answer its figures are waited for so long (seconds), and the event that says that it is done.
DONE_S = 5.0
#: After a minute of silence the other end is asked for a sign of life, every 20 s, and is given up when five of those stay without one.
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5),
)
#: So much of an error's body is read.
_MAX_ERROR = 64 * 1024
#: A stream may have so many bytes for each character of an answer that is allowed.
_MAX_BYTES = 16 * MAX_TEXT


def main(body: bytes, channel: Channel) -> int:
    """Ask the question in `body`; return the exit code."""
    end_at_signals()
    question = json.loads(body)
    prices = tuple(question["prices"]) if question["prices"] else None
    answer = Answer(channel, Asked(question["model"], question["shown"], question["schema"], question["max_tokens"], prices))
    answer.open()
    try:
        _ask(question, answer)
    except NoAnswer as bad:
        return answer.fail(bad)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError, OSError) as bad:
        return answer.fail(_unreached(bad, question["url"], answer))
    return answer.close()


def _ask(question: dict[str, Any], answer: Answer) -> None:
    timeout = httpx.Timeout(None, connect=CONNECT_S)
    # compressed answers could unfold to any size; a redirect would carry the key elsewhere
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Content-Type": "application/json"} | question["headers"]
    if question["loopback"]:
        refusals.forget_proxies()
    with httpx.Client(timeout=timeout, follow_redirects=False) as client:
        data = json.dumps(question["body"]).encode()
        with client.stream("POST", question["url"], content=data, headers=headers, extensions={"trace": _watch}) as response:
            if response.status_code != httpx.codes.OK:
                raise refused(response.status_code, response.headers, _start_of(response), question)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise NoAnswer("runtime_error", f"{question['url']} sent a compressed answer, though it was asked not to")
            if response.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
                _whole(response, answer, question["url"])
            else:
                _stream(response, answer, question["url"])


def _watch(event: str, info: Mapping[str, Any]) -> None:
    """Have the system look whether the other end of a connection is still there: no answer comes from a machine that is gone."""
    if event.endswith("connect_tcp.complete"):
        connection = info["return_value"].get_extra_info("socket")
        for level, option, value in _KEEP_ALIVE:
            connection.setsockopt(level, option, value)


class _Enough(Exception):
    """The answer is there, and its server does not say that it is done."""


def _enough(*_: Any) -> None:
    raise _Enough


def _stream(response: httpx.Response, answer: Answer, url: str) -> None:
    """Take the events until the one that says that it is done, or that does not come."""
    signal.signal(signal.SIGALRM, _enough)
    try:
        _take_events(response, answer, url)
    except _Enough:
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _take_events(response: httpx.Response, answer: Answer, url: str) -> None:
    events, size, count = Events(), 0, 0
    for piece in response.iter_raw():
        size += len(piece)
        if size > _MAX_BYTES:
            raise NoAnswer("resource_limit_exceeded", f"{url} sent more than {_MAX_BYTES} bytes; no answer has so many")
        for event in _fed(events, piece, url):
            if event == "[DONE]":
                return
            count += 1
            answer.take(_json(event, url))
        if answer.finish is not None:
            signal.setitimer(signal.ITIMER_REAL, DONE_S)
    if not count and size and not response.headers.get("content-type", "").startswith("text/event-stream"):
        kind = response.headers.get("content-type", "data of no type")[:100]
        raise NoAnswer("invalid_config", f"{url} sent {kind} instead of a stream of events; check the url")
    if answer.finish is None:
        raise refusals.lost(url, _so_far(answer), "the stream ended before the answer did")


def _fed(events: Events, piece: bytes, url: str) -> list[str]:
    try:
        return events.feed(piece)
    except TooLarge as bad:
        raise NoAnswer("runtime_error", f"{url} sent no stream of an answer: {bad}") from None


def _whole(response: httpx.Response, answer: Answer, url: str) -> None:
    """An answer in one piece, from a server that does not stream."""
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > MAX_TEXT:
            raise NoAnswer("resource_limit_exceeded", f"{url} sent an answer of more than {MAX_TEXT} bytes")
    answer.take(_json(body.decode("utf-8", "replace"), url))
    if answer.finish is None and not answer.size:
        raise NoAnswer("runtime_error", f"{url} sent JSON that holds no answer: {body[: refusals.MAX_SHOWN].decode('utf-8', 'replace')}")


def _json(text: str, url: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NoAnswer("runtime_error", f"{url} sent what is no part of an answer: {text[:200]!r}") from None


def _start_of(response: httpx.Response) -> bytes:
    body = bytearray()
    try:
        for piece in response.iter_raw():
            body += piece
            if len(body) >= _MAX_ERROR:
                break
    except httpx.HTTPError:  # what came is enough: the status says what is wrong
        pass
    return bytes(body[:_MAX_ERROR])


# --- what went wrong


def _unreached(bad: Exception, url: str, answer: Answer) -> NoAnswer:
    return refusals.unreached(bad, url, _so_far(answer))


def _so_far(answer: Answer) -> str:
    return f"{answer.size} characters of the answer"


def refused(status: int, headers: Mapping[str, str], body: bytes, question: Mapping[str, Any]) -> NoAnswer:
    """What a status other than 200 means."""
    error = refusals.error_of(body)
    if error["type"] == "exceed_context_size_error" and status in {400, 413, 422}:
        return told(error)
    missing = f"check the model {question['model']!r}, and that the url ends where /chat/completions begins"
    return refusals.refused(status, headers, error, question["url"], missing, keyed="Authorization" in question["headers"])
