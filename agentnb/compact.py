"""Compact ASCII JSON, by orjson as long as that says what the standard library's json says, else by json.

Numbers may be written differently (1e-7, 1e-07), and orjson knows enums and UUIDs, which it writes as their values. The supervisor lives
by this module: where orjson is not there, or broken, json does it all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

try:
    import orjson

    #: Where it was found: an interpreter that looks there finds it too.
    FOLDER: str | None = os.path.dirname(os.path.dirname(orjson.__file__))  # noqa: PTH120 - pathlib is slow to import
    _OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME  # json refuses these
    _dumps: Callable[[Any, None, int], bytes] | None = orjson.dumps
    loads: Callable[[bytes], Any] = orjson.loads
except Exception:  # noqa: BLE001 - something else of this name may lie in the user's environment
    FOLDER, _OPTIONS = None, 0
    _dumps, loads = None, json.loads


def fast_or(otherwise: Callable[[Any], str]) -> Callable[[Any], str]:
    """What makes JSON of a value.

    `otherwise` does it for what orjson cannot write, or would change: NaN, numbers beyond 64 bits, keys that are no text, text that
    is not ASCII. A null anywhere is such a case, too, since that is what orjson makes of NaN.
    """
    dumps = _dumps
    if dumps is None:
        return otherwise

    def encode(value: Any) -> str:
        try:
            text = dumps(value, None, _OPTIONS).decode("ascii")
            if "null" not in text:
                return text
        except (TypeError, UnicodeDecodeError):  # whatever orjson refuses is a TypeError
            pass
        return otherwise(value)

    return encode


def exactly(*, allow_nan: bool) -> Callable[[Any], str]:
    """The same by json: raises TypeError, RecursionError, and, unless `allow_nan`, ValueError for numbers that JSON has not."""
    return json.JSONEncoder(separators=(",", ":"), allow_nan=allow_nan, check_circular=False).encode
