"""That runs were removed from a history, and when: one line in ``gc.jsonl`` for each gc that removed some."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentnb.events import now_us

FILE = "gc.jsonl"
_LAST_BYTES = 8192


def note_removal(root: Path, asked: dict[str, Any]) -> None:
    """Write down that runs are going to be removed, as `asked`. A full disk does without."""
    with suppress(OSError), (root / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"at": now_us()} | asked) + "\n")


def last_removal(root: Path) -> datetime | None:
    """When runs were removed last; None when that never was, or is not known."""
    with suppress(OSError, ValueError, TypeError, KeyError, OverflowError), (root / FILE).open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _LAST_BYTES))
        last = json.loads(file.read().splitlines()[-1])
        return datetime.fromtimestamp(last["at"] / 1e6, UTC)
    return None


def why_gone(root: Path) -> str:
    """Why a run that was in the history may not be there any more."""
    when = last_removal(root)
    if when is None:
        return "is not in the history any more"
    return f"is not in the history any more: `agentnb gc` removed runs, last at {when:%Y-%m-%d %H:%M:%S} UTC"
