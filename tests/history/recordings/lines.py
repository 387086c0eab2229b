"""Recordings for tests, as lines that may be changed before they are written."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

HEAD: Json = {
    "agentnb_export": 1,
    "agentnb": "0.1.0",
    "run": {"id": "origin", "name": "reviewer", "command": "review src"},
    "circumstances": {},
}


def entry(t: float, kind: str, /, **fields: Any) -> Json:
    """One line."""
    return {"t": t, "type": kind} | fields


def output(t: float, text: str | bytes, stream: str = "stdout") -> Json:
    """A piece of output."""
    told = {"text": text} if isinstance(text, str) else {"base64": base64.b64encode(text).decode()}
    return entry(t, "output", stream=stream, **told)


def artifact(t: float, name: str, data: bytes, **more: Any) -> list[Json]:
    """An artifact and its bytes, in two pieces."""
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    half = len(data) // 2
    pieces = [entry(t, "artifact_data", base64=base64.b64encode(part).decode()) for part in (data[:half], data[half:])]
    return [*pieces, entry(t, "artifact_saved", artifact={"name": name, "size": len(data), "checksum": checksum}, inline=True, **more)]


def whole(*between: Json, status: str = "completed", length_s: float = 1.0, **end: Any) -> list[Json]:
    """A run of one attempt with these entries in it."""
    return [
        HEAD,
        entry(0.0, "step_started", step=1, kind="attempt", name="attempt 1", attempt=1),
        entry(0.0, "run_started"),
        *between,
        entry(length_s, "step_finished", step=1, status=status, run_s=length_s),
        entry(length_s, "run_finished", **({"status": status, "attempts": 1, "run_s": length_s, "stdout": {"size": 0}} | end)),
    ]


def write(lines: list[Json], path: str | Path = "run.jsonl") -> Path:
    """The file of these lines."""
    file = Path(path).absolute()
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file
