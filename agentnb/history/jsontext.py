"""Values as SQLite can hold them.

JSON columns hold ASCII JSON that every reader accepts: a lone surrogate is kept as its escape, an infinity is written as
``1e999`` (which reads back as infinity), NaN becomes null, and what is no JSON value at all becomes its text.
Plain columns hold values that SQLite can bind: see `bindable`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from agentnb.compact import exactly, fast_or

_exact = exactly(allow_nan=False)
_plain = json.JSONEncoder(default=str).encode

_INT64 = 2**63 - 1


def _any(value: Any) -> str:
    try:
        return _exact(value)
    except (ValueError, TypeError, RecursionError):
        try:
            return _tolerant(value)
        except (ValueError, TypeError, RecursionError) as bad:
            return _plain(f"<not storable: {type(bad).__name__}>")


def _fields(data: dict[str, Any]) -> str:
    return "{" + ",".join(f"{_plain(name)}:{dumps(value)}" for name, value in data.items()) + "}"


#: Compact JSON of a value; never raises (see the module's rules).
dumps = fast_or(_any)
#: The same of an object with text for keys; a field that cannot be stored spoils no other.
dumps_fields = fast_or(_fields)


def _tolerant(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_plain(str(key))}:{_tolerant(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_tolerant, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    return _plain(value)


def bindable(value: Any) -> Any:
    """`value` as something that SQLite can bind.

    Lone surrogates become visible escapes, integers are clamped to 64 bits, anything else becomes JSON text.
    """
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, int):
        return max(-_INT64 - 1, min(_INT64, value))
    return value if value is None or isinstance(value, float | bytes) else dumps(value)


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def raw(text: str) -> str | bytes:
    """`text` as output that SQLite can hold: text, or the bytes it was decoded from (surrogateescape) when it is no Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            return _unicode(text)
    return text
