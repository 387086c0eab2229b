"""A stream of bytes cut into lines, and lines into JSON objects: fast, bounded, whatever comes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from agentnb.engine.reports import MAX_DEPTH, MAX_LINE, too_deep
from agentnb.events import Json

#: The scanner below json.loads, which goes straight for the value: a third of the time of short lines is spent above it.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
#: Stands for an object that is left out.
_LEFT_OUT: Json = {}


class EventLines:
    """Bytes in; out come the JSON objects, and, as text with its line ends, whatever is none.

    `overlong` counts lines of more than MAX_LINE bytes, and those nested more than MAX_DEPTH deep: both are left out.
    """

    def __init__(self) -> None:
        """Start with nothing read."""
        self._rest = bytearray()
        self._skipping = False
        self.overlong = 0

    def feed(self, data: bytes, *, last: bool = False) -> list[Json | str]:
        """Take the next bytes; return what is complete now. With `last`, all that is left."""
        cut = len(data) if last else data.rfind(b"\n") + 1
        if not cut and not last:
            self._hold(data)
            return []
        if self._skipping:
            start = data.find(b"\n") + 1
            self._skipping = not start
            data, cut = data[start:] if start else b"", cut - start
        whole = data[:cut]
        if self._rest:
            whole = bytes(self._rest) + whole
            self._rest.clear()
        if cut < len(data):
            self._hold(data[cut:])
        return self._objects(whole.decode("utf-8", "replace")) if whole else []

    def _hold(self, data: bytes) -> None:
        if self._skipping:
            return
        self._rest += data
        if len(self._rest) > MAX_LINE:
            self.overlong += 1
            self._rest.clear()
            self._skipping = True

    def _objects(self, text: str) -> list[Json | str]:
        if "{" not in text:
            return [text]
        found: list[Json | str] = []
        others: list[str] = []
        for line in text.split("\n"):
            event = self._object(line) if line[:1] == "{" else self._indented(line)
            if event is None:
                if line and not line.isspace():
                    others.append(line)
                continue
            if others:
                found.append("\n".join(others) + "\n")
                others.clear()
            if event is not _LEFT_OUT:
                found.append(event)
        if others:
            found.append("\n".join(others) + "\n")
        return found

    def _object(self, line: str) -> Json | None:
        """The object that the line is; None when it is none, _LEFT_OUT when it is not to be had."""
        if line[-1] != "}" and not line.endswith("}\r") and line.rstrip()[-1] != "}":
            return None  # told without the scanner, whose errors are dear
        try:
            event, end = _scan(line, 0)
        except (ValueError, StopIteration):
            return None
        except RecursionError:
            self.overlong += 1
            return _LEFT_OUT
        if end != len(line) and not line[end:].isspace():
            return None
        if line.count("{") + line.count("[") > MAX_DEPTH and too_deep(event):
            self.overlong += 1
            return _LEFT_OUT
        found: Json = event
        return found

    def _indented(self, line: str) -> Json | None:
        stripped = line.strip()
        return self._object(stripped) if stripped[:1] == "{" else None
