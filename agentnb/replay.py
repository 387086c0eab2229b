"""A recorded run as a target: its spec, as validated data."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from agentnb.commands import Spec
from agentnb.errors import ConfigError


def _path(value: object) -> str:
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ConfigError(f"path: {value!r} is no path; give the file that run.export('recorded/run.jsonl') made")
    return str(value)


def _speed(value: object) -> float | None:
    if value is None:
        return None
    sane = isinstance(value, int | float) and not isinstance(value, bool)
    if not sane or not (0 < value <= sys.float_info.max or value == math.inf):  # type: ignore[operator]
        raise ConfigError(f"speed: {value!r} must be a number above 0 (10: ten times faster), or None for no waiting at all")
    return None if value == math.inf else float(value)  # type: ignore[arg-type]


class Replay(Spec):
    """A run that was exported, played again: the same events, output and artifacts, with no key, no network and no process.

    `path`: the file that ``run.export(path)`` made. `speed`: how many times faster than it was recorded; default 1.0, as it was;
    None for no waiting at all.
    """

    type: Literal["replay"] = "replay"
    path: Annotated[str, BeforeValidator(_path)]
    speed: Annotated[float | None, BeforeValidator(_speed)] = 1.0

    def __init__(self, path: str | Path = "", /, **fields: Any) -> None:
        """Take the path positionally: ``nb.Replay("recorded/run.jsonl", speed=10)``."""
        super().__init__(**({"path": path} | fields))

    @property
    def display(self) -> str:
        """The file's path; a replay's record shows the command that was recorded instead."""
        return f"replay {self.path}"
