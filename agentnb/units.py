"""Durations and sizes as people write them: ``"1h30m"``, ``"90s"``, ``"2GiB"``, ``"5MB"``."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from agentnb.errors import ConfigError

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_BYTES = {"": 1, "B": 1} | {
    f"{prefix}{tail}": base**power for power, prefix in enumerate("KMGT", start=1) for tail, base in (("", 1000), ("B", 1000), ("iB", 1024))
}
_BYTES |= {"k": 1000, "kB": 1000}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def _place(what: str) -> str:
    return f"{what}: " if what else ""


def seconds(value: float | str | timedelta, *, what: str = "") -> float:
    """Seconds from a number, a timedelta or text such as ``"1h30m"``.

    Units: ms, s, m, h, d, w; a bare number is seconds. Raises ConfigError, naming `what`, for anything
    else, for negative values and for values that are not finite.
    """
    if isinstance(value, bool):
        raise ConfigError(f"{_place(what)}{value!r} is not a duration; write seconds (90) or text ('1h30m', '250ms')")
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, int | float):
        result = math.inf if abs(value) > 1e300 else float(value)  # an int too long for a float is not finite either
    else:
        result = _duration_text(value, what)
    if not math.isfinite(result) or result < 0:
        raise ConfigError(f"{_place(what)}{value!r} must be a finite number of seconds, zero or more")
    return result


def _duration_text(text: object, what: str) -> float:
    if isinstance(text, str):
        bare = text.strip()
        if re.fullmatch(r"-?\d+(\.\d+)?", bare):
            return float(bare)
        if bare and _DURATION_PART.sub("", bare) == "":
            return sum(float(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(bare))
    raise ConfigError(f"{_place(what)}{text!r} is not a duration; write seconds (90) or text ('1h30m', '250ms'; units ms s m h d w)")


def bytes_(value: float | str, *, what: str = "") -> int:
    """Bytes from a number or text such as ``"2GiB"`` or ``"5MB"``.

    KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB powers of 1000. Raises ConfigError, naming `what`,
    for anything else, for negative values, fractions of a byte and sizes of 8 EiB or more.
    """
    result: float = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        result = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)) and match[2] in _BYTES:
        result = float(match[1]) * _BYTES[match[2]]
    if not 0 <= result < 2**63 or result != int(result):  # false for nan; what is larger fits no column
        raise ConfigError(f"{_place(what)}{value!r} is not a size; write whole bytes (1048576) or text ('2GiB', '5MB')")
    return int(result)
