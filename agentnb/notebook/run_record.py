"""The record of a run that is launched: its name, and what of it is masked, or taken from a recording."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from agentnb.events import Json

_NAME_CHARS = 60
_SPACE = re.compile(r"\s+")


def short(text: str) -> str:
    """`text` on one line, cut to a name's length."""
    line = _SPACE.sub(" ", text).strip()
    return line if len(line) <= _NAME_CHARS else f"{line[: _NAME_CHARS - 1]}…"


def lay_in(run: Json, recorded: Json, *, named: bool) -> None:
    """Put what was recorded of a run into the record of its replay; what the launch says wins."""
    run["target"]["display"] = recorded.get("command") or run["target"]["display"]
    if not named:
        run["name"] = short(recorded.get("name") or run["name"])
    for key in ("params", "tags"):
        run[key] = recorded.get(key, {}) | run[key]
    run |= {key: recorded.get(key) for key in ("input", "replay_of")}


def mask_again(run: Json, spec: Json, params: Any, mask: Callable[[Any], Any]) -> None:
    """Mask what was put down to launch it again, and note whether anything of it, or of the run, was masked."""
    again = mask(run["again"])
    if (again, run["target"]["spec"], run["params"]) != (run["again"], spec, params):
        again["masked"] = True
    run["again"] = again


def masked_spec(spec: Json, mask: Callable[[Any], Any]) -> Json:
    """Its values masked; a short secret must not spoil its type and the names of its fields."""
    return {name: value if name == "type" else mask(value) for name, value in spec.items()}
