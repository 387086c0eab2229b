"""Results as JSON data: what a Python agent returns, made fit for the history.

Only the standard library is imported: pandas, numpy and pydantic objects are recognised if their package is loaded already.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from math import isfinite
from typing import Any

from agentnb.errors import ConfigError

#: Largest value, in bytes of JSON.
MAX_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 100
_ADVICE = "return text, numbers, lists, dicts, dataclasses or DataFrames; keep anything else with ctx.artifact(name, data_or_path)"


def jsonable(value: Any, what: str) -> Any:
    """`value` as JSON data; `what` names it in messages.

    Sets become lists (sorted where they can be), dates ISO text, timedeltas seconds, paths text, enums their values,
    named tuples, dataclasses and pydantic models dicts, a DataFrame a list of row dicts, a Series with its default index a list
    and otherwise a dict. JSON has no NaN and no infinity: they become None, as NaT and NA do. Raises ConfigError that says where the
    value is and what to return instead, also past 4 MiB of JSON.
    """
    data = _convert(value, what, 0)
    size = len(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))
    if size > MAX_BYTES:
        raise ConfigError(
            f"{what} is {size / 2**20:.1f} MiB of JSON, more than the {MAX_BYTES / 2**20:.0f} MiB that the history keeps of one value; "
            "write it to a file, keep that with ctx.artifact(name, path), and return a summary",
        )
    return data


def clean(text: str) -> str:
    """`text` with what UTF-8 cannot hold (lone surrogates) replaced by question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _convert(value: Any, where: str, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return clean(value)
    if kind is int:
        return value
    if kind is float:
        return _number(value)
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{where[:200]}... is nested more than {_MAX_DEPTH} deep, or contains itself; {_ADVICE}")
    if isinstance(value, Mapping):
        return _mapping(value, where, depth)
    if isinstance(value, list | tuple) and not hasattr(value, "_asdict"):
        return [_convert(item, f"{where}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, AbstractSet):
        return _set(value, where, depth)
    return _object(value, where, depth)


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


def _mapping(value: Mapping[Any, Any], where: str, depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, item in value.items():
        plain = _convert(key, f"{where}: key", depth + 1) if not isinstance(key, str | bytes | tuple) else key
        if isinstance(plain, bool | float | int) or plain is None:
            plain = json.dumps(plain)
        if not isinstance(plain, str):
            raise ConfigError(f"{where}: the key {key!r} is a {type(key).__name__}; keys must be text; {_ADVICE}")
        if clean(plain) in data:
            raise ConfigError(f"{where}: two keys read {plain!r} as text; {_ADVICE}")
        data[clean(plain)] = _convert(item, f"{where}[{key!r}]", depth + 1)
    return data


def _set(value: AbstractSet[Any], where: str, depth: int) -> list[Any]:
    items = list(value)
    try:
        items.sort()
    except TypeError:
        items.sort(key=repr)  # of mixed types: still the same order every time
    return [_convert(item, where, depth + 1) for item in items]


def _object(value: Any, where: str, depth: int) -> Any:
    known, data = _known(value)
    if known:
        return _convert(data, where, depth + 1)
    detail = ""
    if isinstance(value, bytes | bytearray | memoryview):
        detail = " (bytes: decode them to text)"
    elif hasattr(value, "__next__") or hasattr(value, "__anext__"):
        detail = " (a generator: return a list)"
    elif callable(value):
        detail = " (is a call missing its parentheses?)"
    raise ConfigError(f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which JSON cannot hold{detail}; {_ADVICE}")


def _known(value: Any) -> tuple[bool, Any]:
    """Whether the type is known, and the value as something simpler."""
    for look in (_pandas, _numpy, _standard):  # NaT of pandas is a datetime, of sorts
        known, data = look(value)
        if known:
            return known, data
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return True, value.model_dump(mode="python")
    return False, None


def _standard(value: Any) -> tuple[bool, Any]:
    """Types of the standard library; their modules are looked up, not imported: without them there is no value of theirs."""
    loaded = sys.modules
    if (enum := loaded.get("enum")) and isinstance(value, enum.Enum):
        return True, value.value
    if hasattr(type(value), "__dataclass_fields__"):
        return True, {name: getattr(value, name) for name in type(value).__dataclass_fields__}
    if hasattr(value, "_asdict"):
        return True, value._asdict()
    if isinstance(value, str | int | float):  # a subclass
        base = next(base for base in (str, int, float) if isinstance(value, base))
        return True, base(value)
    if hasattr(type(value), "__fspath__"):
        return True, str(value)
    if (dates := loaded.get("datetime")) is not None:
        if isinstance(value, dates.date | dates.time):
            return True, value.isoformat()
        if isinstance(value, dates.timedelta):
            return True, value.total_seconds()
    exact = [(loaded.get("decimal"), "Decimal"), (loaded.get("uuid"), "UUID"), (loaded.get("fractions"), "Fraction")]
    if any(module is not None and isinstance(value, getattr(module, name)) for module, name in exact):
        return True, str(value)
    return False, None


def _numpy(value: Any) -> tuple[bool, Any]:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return False, None
    if isinstance(value, numpy.datetime64 | numpy.timedelta64):
        if numpy.isnat(value):
            return True, None
        unit = "datetime64[us]" if isinstance(value, numpy.datetime64) else "timedelta64[us]"
        return True, value.astype(unit).item()
    if isinstance(value, numpy.ndarray) and value.dtype.kind in "mM":
        return True, list(value)
    if isinstance(value, numpy.ndarray) or (isinstance(value, numpy.generic) and value.dtype.kind in "biufSU"):
        return True, value.tolist()
    return False, None


def _pandas(value: Any) -> tuple[bool, Any]:
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return False, None
    if value is pandas.NA or value is pandas.NaT:
        return True, None
    if isinstance(value, pandas.DataFrame):
        return True, value.to_dict("records")
    if isinstance(value, pandas.Series):
        return True, value.tolist() if value.index.equals(pandas.RangeIndex(len(value))) else dict(value.items())
    if isinstance(value, pandas.Index | pandas.api.extensions.ExtensionArray):
        return True, value.tolist()
    if isinstance(value, pandas.Interval | pandas.Period):
        return True, str(value)
    return False, None
