"""The SQL text of a `where`: names in it stand for the frame's columns, its parameters and its tags, and for nothing else."""

from __future__ import annotations

import re

from agentnb.history.frames.columns import Frame

_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | --[^\n]* | /\*.*?(?:\*/|\Z)
    | (?P<name> (?:"(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | [^\W\d][\w$]*)
                (?:\s*\.\s* (?:"(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | [\w$]+))* )
    | [\d.][\w.]*""",
    re.VERBOSE | re.DOTALL,
)
_PART = re.compile(r'"((?:[^"]|"")*)"|`((?:[^`]|``)*)`|\[([^\]]*)\]|([\w$]+)')


def condition(frame: Frame, text: str) -> str:
    """`text` with ``param.x`` and ``tag.x`` (quoted or not) as what they stand for, and ``"name"`` as `` `name` ``.

    The two mean the same, but for an unknown name: SQLite takes a double-quoted one for text, so that a typing error finds no row.
    """
    return _TOKEN.sub(lambda token: _name(frame, token["name"]) if token["name"] else token[0], text)


def double_quoted(text: str, name: str) -> bool:
    """Whether `name` stands in double quotes in `text`, where SQL has names only."""
    quoted = '"{}"'.format(name.replace('"', '""'))
    return any(token["name"] and quoted in token["name"] for token in _TOKEN.finditer(text))


def value_of(prefix: str, key: str = "?") -> str:
    """The SQL of one parameter's (tag's) value; `key`: SQL too. A path in json_extract could not name every key."""
    return f'(SELECT value FROM json_each("{prefix}s") WHERE key = {key})'  # noqa: S608 - our own column; the key is bound or quoted


def _name(frame: Frame, written: str) -> str:
    parts = [_part(part) for part in _PART.finditer(written)]
    prefix, _, key = ".".join(parts).partition(".")
    if key and prefix in frame.maps and frame.column(".".join(parts)) is None:
        return value_of(prefix, "'{}'".format(key.replace("'", "''")))
    return _PART.sub(lambda part: part[0] if part[1] is None else "`{}`".format(_part(part).replace("`", "``")), written)


def _part(part: re.Match[str]) -> str:
    double, tick, bracket, plain = part.groups()
    if double is not None:
        return double.replace('""', '"')
    return tick.replace("``", "`") if tick is not None else bracket or plain or ""
