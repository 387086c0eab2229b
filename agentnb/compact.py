"""Compact ASCII JSON, by an encoder that is made once: ``json.dumps`` makes one for each value, which costs as much as a small value.

Only the standard library is imported, because the supervisor lives by this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, cast


def _refuse(value: Any) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def encoder(*, allow_nan: bool) -> Callable[[Any], str]:
    """What makes JSON of a value; raises TypeError, RecursionError, and, unless `allow_nan`, ValueError for numbers that JSON has not."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    with suppress(TypeError):  # it is private: another Python may have none, or one that takes something else
        pieces = cast(
            "Callable[[Any, int], Iterable[str]]",
            make(None, _refuse, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, allow_nan),  # noqa: FBT003
        )
        return lambda value: "".join(pieces(value, 0))
    return json.JSONEncoder(separators=(",", ":"), allow_nan=allow_nan, check_circular=False).encode
