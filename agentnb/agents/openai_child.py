"""The child process that asks a server of chat completions: streams the answer to stdout, says what went wrong in words."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from agentnb.agents.answer import MAX_TEXT, Answer, Asked, NoAnswer, end_at_signals, told
from agentnb.agents.channel import Channel
from agentnb.agents.sse import Events, TooLarge

#: Seconds until a connection has to be there. An answer may take any time: the run's timeout bounds it.
CONNECT_S = 30.0
#: So much of an error's body is read.
_MAX_ERROR = 64 * 1024
#: A stream may have so many bytes for each character of an answer that is allowed.
_MAX_BYTES = 16 * MAX_TEXT
_MAX_SHOWN = 1000
#: Seconds; a reset further away than that is nonsense.
_MAX_WAIT = 366 * 86_400.0
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RESETS = ("x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")


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
        _forget_proxies()
    with httpx.Client(timeout=timeout, follow_redirects=False) as client:
        data = json.dumps(question["body"]).encode()
        with client.stream("POST", question["url"], content=data, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise refused(response.status_code, response.headers, _start_of(response), question)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise NoAnswer("runtime_error", f"{question['url']} sent a compressed answer, though it was asked not to")
            if response.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
                _whole(response, answer, question["url"])
            else:
                _stream(response, answer, question["url"])


def _forget_proxies() -> None:
    """No proxy leads to this machine, whatever the environment says."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]


def _stream(response: httpx.Response, answer: Answer, url: str) -> None:
    """Take the events until the one that says that it is done."""
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
    if not count and size:
        kind = response.headers.get("content-type", "data of no type")[:100]
        raise NoAnswer("invalid_config", f"{url} sent {kind} instead of a stream of events; check the url")
    if answer.finish is None:
        raise _cut(url, answer, "the stream ended before the answer did")


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
        raise NoAnswer("runtime_error", f"{url} sent JSON that holds no answer: {body[:_MAX_SHOWN].decode('utf-8', 'replace')}")


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
    said = str(bad) or type(bad).__name__
    if isinstance(bad, httpx.ConnectError | httpx.ConnectTimeout):
        advice = "start the server, or check host and port of the url"
        if "CERTIFICATE" in said.upper():
            advice = "check the server's certificate; SSL_CERT_FILE names the file of the authorities to trust"
        return NoAnswer("runtime_error", f"no connection to {url}: {said}; {advice}")
    if isinstance(bad, httpx.ProxyError):
        return NoAnswer("runtime_error", f"the proxy on the way to {url} refused: {said}; see HTTPS_PROXY and NO_PROXY")
    if isinstance(bad, httpx.TransportError) and not isinstance(bad, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return _cut(url, answer, said)
    return NoAnswer("invalid_config", f"{url} could not be asked: {type(bad).__name__}: {said}")


def _cut(url: str, answer: Answer, why: str) -> NoAnswer:
    return NoAnswer("runtime_error", f"the connection to {url} was lost after {answer.size} characters of the answer: {why}")


def refused(status: int, headers: Mapping[str, str], body: bytes, question: Mapping[str, Any]) -> NoAnswer:
    """What a status other than 200 means."""
    url, error = question["url"], _error_of(body)
    said = f"{url} answered {status}" + (f": {error['message']}" if error["message"] else "")
    if status == 429 and error["code"] != "insufficient_quota":
        return _limited(said, headers)
    if 300 <= status < 400:
        target = headers.get("location", "")[:_MAX_SHOWN]
        return NoAnswer("invalid_config", f"{said}, a redirect to {target!r}; redirects are not followed: give that address as the url")
    if status in {401, 403}:
        advice = "check api_key" if "Authorization" in question["headers"] else "give api_key=nb.Secret(...) or the name of its variable"
        return NoAnswer("execution_failed", f"{said}; the server wants a key that is allowed to do this: {advice}", status=status)
    if status == 404:
        return NoAnswer("not_found", f"{said}; check the model {question['model']!r}, and that the url ends where /chat/completions begins")
    if status >= 500 or status in {408, 409, 425}:
        return NoAnswer("runtime_error", f"{said}; try again later, or launch with retry=nb.Retry()", status=status)
    if error["type"] == "exceed_context_size_error":
        return told(error)
    kind = "invalid_config" if status in {400, 413, 422} else "execution_failed"
    return NoAnswer(kind, said, status=status)


def _error_of(body: bytes) -> dict[str, Any]:
    """Type, code and message of an error, as OpenAI and most others write it; else the start of the body as message."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    error = found.get("error", found) if isinstance(found, dict) else None
    if not isinstance(error, dict):
        error = {"message": error or text}
    message = str(error.get("message") or error.get("detail") or text)[:_MAX_SHOWN]
    return error | {"message": message, "code": error.get("code"), "type": error.get("type")}


def _limited(said: str, headers: Mapping[str, str]) -> NoAnswer:
    resets_at = resets(headers, time.time())
    if resets_at is None:
        return NoAnswer("rate_limited", f"{said}; it does not say when it takes more")
    at = datetime.fromtimestamp(resets_at).astimezone().isoformat(timespec="seconds")
    return NoAnswer("rate_limited", f"{said}; it takes more from {at} on", resets_at=resets_at)


def resets(headers: Mapping[str, str], now: float) -> float | None:
    """When a rate limit is over (seconds since 1970), by the headers of a 429; None when they do not say.

    ``retry-after(-ms)`` counts; else the latest of the ``x-ratelimit-reset*``, which hold a stamp, seconds, or a span such as "6m0s".
    """
    if (span := _number(headers.get("retry-after-ms"))) is not None:
        return _sane(now + span / 1000, now)
    if (given := headers.get("retry-after")) is not None:
        found = _sane(now + span if (span := _number(given)) is not None else _date(given), now)
        if found is not None:
            return found
    stamps = [_sane(_stamp(headers.get(name), now), now) for name in _RESETS]
    return max((stamp for stamp in stamps if stamp is not None), default=None)


def _sane(stamp: float | None, now: float) -> float | None:
    """Not before now, and not beyond a year."""
    return None if stamp is None or stamp - now > _MAX_WAIT else max(stamp, now)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _date(text: str) -> float | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return parse(text.strip()).timestamp()
        except (ValueError, TypeError, OverflowError, OSError):
            continue
    return None


def _stamp(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    if (value := _number(text)) is not None:
        if value > 1e11:  # milliseconds since 1970
            value /= 1000
        return value if value > 1e9 else now + value  # a small number is a time from now on
    parts = _SPAN.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        return now + sum(float(number) * _UNIT[unit] for number, unit in parts)
    return _date(text)
