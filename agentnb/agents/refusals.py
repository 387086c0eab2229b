"""Why a server gave no answer: what its statuses, its headers and a lost connection mean, for all that ask servers over HTTP."""

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

from agentnb.agents.answer import NoAnswer

#: Characters of a server's own words that a message repeats.
MAX_SHOWN = 1000
#: Seconds; a reset further away than that is nonsense.
_MAX_WAIT = 366 * 86_400.0
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_RESETS = ("x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")


def forget_proxies() -> None:
    """No proxy leads to this machine, whatever the environment says."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]


def unreached(bad: Exception, url: str, so_far: str, what: str = "server") -> NoAnswer:
    """What an exception of httpx means. `so_far`: what had come, such as "7 characters of the answer"; `what`: who was asked."""
    said = str(bad) or type(bad).__name__
    if isinstance(bad, httpx.ConnectError | httpx.ConnectTimeout):
        advice = f"start the {what}, or check host and port of the url"
        if "CERTIFICATE" in said.upper():
            advice = "check the server's certificate; SSL_CERT_FILE names the file of the authorities to trust"
        return NoAnswer("runtime_error", f"no connection to {url}: {said}; {advice}")
    if isinstance(bad, httpx.ProxyError):
        return NoAnswer("runtime_error", f"the proxy on the way to {url} refused: {said}; see HTTPS_PROXY and NO_PROXY")
    if isinstance(bad, httpx.TransportError) and not isinstance(bad, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        return lost(url, so_far, said)
    return NoAnswer("invalid_config", f"{url} could not be asked: {type(bad).__name__}: {said}")


def lost(url: str, so_far: str, why: str) -> NoAnswer:
    """The connection was there, and is no more."""
    return NoAnswer("runtime_error", f"the connection to {url} was lost after {so_far}: {why}")


def refused(status: int, headers: Mapping[str, str], error: Mapping[str, Any], url: str, missing: str, *, keyed: bool) -> NoAnswer:
    """What a status that is no success means. `error`: see `error_of`; `missing`: advice for a 404; `keyed`: a key was sent along."""
    said = f"{url} answered {status}" + (f": {error['message']}" if error["message"] else "")
    if status == 429 and error["code"] != "insufficient_quota":
        return _limited(said, headers)
    if 300 <= status < 400:
        target = headers.get("location", "")[:MAX_SHOWN]
        return NoAnswer("invalid_config", f"{said}, a redirect to {target!r}; redirects are not followed: give that address as the url")
    if status in {401, 403}:
        advice = "check api_key" if keyed else "give api_key=nb.Secret(...) or the name of its variable"
        return NoAnswer("execution_failed", f"{said}; the server wants a key that is allowed to do this: {advice}", status=status)
    if status == 404:
        return NoAnswer("not_found", f"{said}; {missing}")
    if status >= 500 or status in {408, 409, 425}:
        return NoAnswer("runtime_error", f"{said}; try again later, or launch with retry=nb.Retry()", status=status)
    return NoAnswer("invalid_config" if status in {400, 413, 422} else "execution_failed", said, status=status)


def error_of(body: bytes) -> dict[str, Any]:
    """Type, code and message of an error, as OpenAI and most others write it; else the start of the body as message."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    error = found.get("error", found) if isinstance(found, dict) else None
    if not isinstance(error, dict):
        error = {"message": error or text}
    message = str(error.get("message") or error.get("detail") or text)[:MAX_SHOWN]
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
