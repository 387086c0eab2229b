"""Recorded runs as targets: the file is read through before anything starts, then the engine plays it (engine/replay.py)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agentnb.agents import filling
from agentnb.agents.adapters import Asked, Features
from agentnb.history.recordings.recording import Recording
from agentnb.replay import Replay


def check_recording(path: Path) -> dict[str, Any]:
    """Read the recording to its end; returns its head. Raises ConfigError that names file and line of what is wrong."""
    with closing(Recording(path)) as recording:
        while recording.batch():
            pass
        return recording.head


class _ReplayAdapter:
    features = Features(steps=True, tokens=True, cost=True)

    def missing(self) -> str:
        return ""

    def fill(self, spec: Replay, params: Mapping[str, Any]) -> Replay:
        path = filling.text(spec.path, params, f"path {filling.short(spec.path)}")
        return filling.again(spec, {"path": path} | filling.options(spec, params, ("speed",)))

    def work(self, spec: Replay, _: Asked) -> dict[str, Any]:
        path = Path(spec.path).expanduser().absolute()
        run = check_recording(path)["run"]
        record = {"replay_of": run["id"]} | {name: run[name] for name in ("name", "command", "input", "params", "tags") if run.get(name)}
        return {"kind": "replay", "stdin": None, "replay": {"path": str(path), "speed": spec.speed}, "record": record}


REPLAY = _ReplayAdapter()
