"""JSON Schemas that people write: everything that is wrong with one, before anything is held against it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
#: Keywords whose values are data, not schemas.
_DATA = frozenset({"const", "default", "enum", "examples"})
_REQUIRED = re.compile(r"'(.*)' is a required property", re.DOTALL)

Place = tuple[str | int, ...]


def faults(schema: dict[str, Any]) -> list[tuple[Place, str]]:
    """What is wrong with a schema: where in it, and what. An empty list when nothing is; never raises."""
    from jsonschema import FormatChecker  # imported late: it costs more than all the rest of agentnb's specs
    from jsonschema.validators import validator_for

    if not isinstance(schema.get("$schema", ""), str):
        return [(("$schema",), f"{schema['$schema']!r} is no text")]
    cls: Any = validator_for(schema)
    try:
        patterns = FormatChecker(formats=("regex",))
        faults = cls(cls.META_SCHEMA, format_checker=patterns).iter_errors(schema)
        found = [(tuple(fault.absolute_path), _words(fault)) for fault in faults]
        return found or list(_references(schema, schema, ()))
    except RecursionError:
        return [((), "it nests too deeply")]


def _words(fault: ValidationError) -> str:
    if fault.validator == "format":
        return f"{fault.instance!r} is not a regular expression"
    if fault.absolute_path and fault.absolute_path[-1] == "type" and isinstance(fault.instance, str):
        near = get_close_matches(fault.instance, _TYPES, n=1)
        return f"there is no type {fault.instance!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_TYPES)}")
    return str(fault.message)


def _references(schema: Any, root: dict[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
    """References that lead nowhere; other documents are not looked for."""
    if isinstance(schema, list):
        for number, item in enumerate(schema):
            yield from _references(item, root, (*place, number))
    if not isinstance(schema, dict) or "$id" in schema:  # what has an address of its own may be meant by it
        return
    reference = schema.get("$ref")
    if isinstance(reference, str) and (why := _broken(reference, root)):
        yield (*place, "$ref"), f"{reference!r} {why}"
    for key, item in schema.items():
        if key not in _DATA:
            yield from _references(item, root, (*place, key))


def _broken(reference: str, root: dict[str, Any]) -> str:
    address, _, pointer = reference.partition("#")
    if address:
        return "" if "json-schema.org" in address else "is in another document, which is not read; put it under $defs: '#/$defs/name'"
    if pointer and not pointer.startswith("/"):
        return ""  # an anchor
    here: Any = root
    for part in unquote(pointer).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        inner = here.get(key) if isinstance(here, dict) else None
        if isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            inner = here[int(key)]
        if inner is None:
            return f"leads nowhere: there is no {key!r}"
        here = inner
    return ""


def misfits(schema: dict[str, Any], value: Any) -> list[tuple[Place, str]]:
    """Where a value does not fit a schema (that has no faults), and why; an empty list when it does."""
    from jsonschema.validators import validator_for  # imported late, as above

    try:
        found = [misfit for fault in validator_for(schema)(schema).iter_errors(value) for misfit in _misfit(fault)]
    except RecursionError:
        return [((), "the schema refers to itself without end")]
    except Exception as bad:  # noqa: BLE001 - a reference that cannot be followed raises what the library of references has
        return [((), f"the schema cannot be used: {type(bad).__name__}: {bad}")]
    return sorted(found, key=lambda pair: [str(part) for part in pair[0]])


def _misfit(fault: ValidationError) -> Iterator[tuple[Place, str]]:
    place, message = tuple(fault.absolute_path), str(fault.message)
    if fault.validator == "required" and (lacking := _REQUIRED.fullmatch(message)):
        yield (*place, lacking[1]), "it is missing"
    elif fault.validator == "additionalProperties" and fault.validator_value is False and isinstance(fault.schema, dict):
        known = fault.schema.get("properties") or {}
        patterns = fault.schema.get("patternProperties") or {}
        for name in fault.instance if isinstance(fault.instance, dict) else ():
            if name not in known and not any(re.search(pattern, name) for pattern in patterns):
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(known) or 'nothing'}"
                yield (*place, name), f"there is no such value; {hint}"
    else:
        yield place, message
