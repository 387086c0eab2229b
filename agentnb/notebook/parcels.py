"""Launches in messages of a size that a frame takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentnb import requests

#: A message has at most about so many bytes of payloads, and so many runs.
_MESSAGE_BYTES = 16 * 1024 * 1024
_MESSAGE_RUNS = 1000


def parcels(launches: list[requests.Launch]) -> Iterator[list[requests.Launch]]:
    """The launches in messages of a size that a frame takes, and that the supervisor can begin with before the last one is there."""
    if len(launches) == 1:
        yield launches
        return
    part, size = list[requests.Launch](), 0
    for launch in launches:
        part.append(launch)
        size += _weight(launch)
        if size > _MESSAGE_BYTES or len(part) == _MESSAGE_RUNS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _weight(launch: requests.Launch) -> int:
    """About how many characters of a message it takes: what can be large is counted."""
    work = launch.work
    stdin = work.get("stdin")
    size = len(work.get("payload", "")) + (len(stdin) if isinstance(stdin, str) else 0) + 3 * sum(map(len, work.get("argv", ())))
    return size + sum(map(len, work.get("env", {}).values())) + _size(launch.run.get("params"))


def _size(data: Any) -> int:
    if isinstance(data, str):
        return len(data)
    if isinstance(data, dict):
        return sum(len(name) + _size(value) for name, value in data.items())
    return sum(map(_size, data)) if isinstance(data, list) else 8
