"""Compact ASCII JSON, fast where it can be: by orjson, as long as that says the very thing that the standard library's json says.

The supervisor lives by this module: where orjson is not found, or is broken, json does it all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

try:
    import orjson
except ImportError:
    dumps: Callable[[Any, None, int], bytes] | None = None
    loads: Callable[[bytes], Any] = json.loads
    FOLDER, _OPTIONS = None, 0
else:
    dumps, loads = orjson.dumps, orjson.loads
    #: Where it was found: an interpreter that looks there finds it too.
    FOLDER = os.path.dirname(os.path.dirname(orjson.__file__))  # noqa: PTH120 - pathlib is slow to import
    #: What json refuses is refused here as well.
    _OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def fast_or(otherwise: Callable[[Any], str]) -> Callable[[Any], str]:
    """What makes JSON of a value, by `otherwise` where orjson has none or another than json: NaN, numbers beyond 64 bits, no ASCII ..."""
    make = dumps
    if make is None:
        return otherwise

    def encode(value: Any) -> str:
        try:
            text = make(value, None, _OPTIONS).decode("ascii")
            if "null" not in text:  # it is written for NaN and the infinities too
                return text
        except (TypeError, UnicodeDecodeError):  # keys that are no text, lone surrogates, too deep, no JSON value: all are TypeErrors
            pass
        return otherwise(value)

    return encode


def exactly(*, allow_nan: bool) -> Callable[[Any], str]:
    """The same by json: raises TypeError, RecursionError, and, unless `allow_nan`, ValueError for numbers that JSON has not."""
    return json.JSONEncoder(separators=(",", ":"), allow_nan=allow_nan, check_circular=False).encode
