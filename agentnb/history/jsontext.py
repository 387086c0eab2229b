"""Values as SQLite can hold them.

JSON columns hold ASCII JSON that every reader accepts: a lone surrogate is kept as its escape, an infinity is written as
``1e999`` (which reads back as infinity), NaN becomes null, and what is no JSON value at all becomes its text.
Plain columns hold values that SQLite can bind: see `bindable`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias, cast

Encoder: TypeAlias = Callable[[Any, int], Iterable[str]]


def _refuse(value: Any) -> Any:
    raise TypeError(type(value).__name__)


def _encoder() -> Encoder:
    """What JSONEncoder.encode makes anew for each value (in C, which it calls private), made once: twice as fast for small ones."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    with suppress(TypeError):  # another Python may have none, or one that takes something else
        return cast("Encoder", make(None, _refuse, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False))  # noqa: FBT003
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode
    return lambda value, _: encode(value)


_fast = _encoder()
#: JSON of a text, whatever is in it.
dumps_text = json.encoder.encode_basestring_ascii
_plain = json.JSONEncoder(default=str).encode

_INT64 = 2**63 - 1


def dumps(value: Any) -> str:
    """Compact JSON of `value`; never raises (see the module's rules)."""
    try:
        return "".join(_fast(value, 0))
    except (ValueError, TypeError, RecursionError):
        try:
            return _tolerant(value)
        except (ValueError, TypeError, RecursionError) as bad:
            return _plain(f"<not storable: {type(bad).__name__}>")


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
