"""What a live run uses, sample by sample, for views."""

from __future__ import annotations

from collections import deque
from typing import Any

from agentnb.events import UsageSample

#: So many samples of a run are kept, about one a second.
KEPT = 60


class Load:
    """The latest samples of one run."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._last: UsageSample | None = None
        self._percents: deque[float] = deque(maxlen=KEPT)
        self._memories: deque[int] = deque(maxlen=KEPT)

    def taken(self, sample: UsageSample) -> Load:
        """The same with one more sample. Another attempt begins with no CPU time again."""
        last, self._last = self._last, sample
        self._memories.append(sample.memory_bytes)
        if last is not None and sample.at > last.at and sample.cpu_s >= last.cpu_s:
            self._percents.append(100 * (sample.cpu_s - last.cpu_s) / (sample.at - last.at))
        return self

    def shown(self) -> dict[str, Any]:
        """As fields of RunSnapshot."""
        return {"cpu_percents": tuple(self._percents), "memories": tuple(self._memories)}
