"""Resource limits of a run's whole tree: which can be kept here and how precisely, and whether one was crossed."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agentnb.engine import sampler
from agentnb.engine.cgroups import Group, backend
from agentnb.engine.stop import Stop
from agentnb.events import Json

#: CPU percent is the mean over this long.
CPU_WINDOW_S = 1.0
_SAMPLED = "sampled ten times a second"


@dataclass(frozen=True, slots=True)
class Means:
    """How a limit is kept. `by` is "" when it cannot be; `precision` and `why_not` are for people."""

    by: str
    precision: str
    why_not: str = ""


def means() -> dict[str, Means]:
    """For each limit how this machine keeps it, and why not better."""
    group = backend()
    exact = {"max_memory_bytes": "exact; page cache counts", "max_processes": "exact: a fork beyond it fails"}
    found = {name: Means(group.name, text if group.version else _SAMPLED, group.why_not) for name, text in exact.items()}
    found["max_cpu_percent"] = Means("sampling", f"mean over {CPU_WINDOW_S:g} s, {_SAMPLED}")
    found["max_cpu_time_s"] = Means("sampling", f"{_SAMPLED}, exact at the end")
    readable = os.access("/proc/self/io", os.R_OK)
    found["max_disk_io_bytes"] = Means(
        "sampling" if readable else "", f"{_SAMPLED}, exact at the end", "" if readable else "/proc/PID/io cannot be read"
    )
    found["max_file_descriptors"] = Means("sampling", f"{_SAMPLED}; opening fails beyond four times the bound")
    found["max_output_bytes"] = Means("counting", "exact to one read (256 KiB)")
    found["max_network_bytes"] = Means("", "", "processes of this machine share its network; use a container runtime")
    return found


@dataclass(slots=True)
class Sample:
    """One reading of a tree: CPU seconds and disk bytes so far, memory bytes, processes and descriptors now."""

    at: float
    cpu_s: float
    memory: int
    processes: int
    disk: int
    descriptors: int


@dataclass(slots=True)
class LimitWatch:
    """Keeps the limits of one attempt. `bounds`: the given limits by name."""

    bounds: dict[str, Any]
    group: Group | None = None
    _window: deque[tuple[float, float]] = field(default_factory=deque)

    @classmethod
    def of(cls, run_id: str, bounds: dict[str, Any]) -> LimitWatch:
        """Make the control group that the bounds call for; without one, sampling keeps them."""
        memory, processes = bounds.get("max_memory_bytes"), bounds.get("max_processes")
        group = None
        if backend().version and (memory is not None or processes is not None):
            with suppress(OSError):
                group = Group(run_id, memory=memory, processes=processes)
        return cls(bounds, group)

    @property
    def flags(self) -> int:
        """What the sampler has to look at (sampler.REPORT ...)."""
        if not set(self.bounds) - {"max_output_bytes"}:
            return 0
        disk = sampler.DISK if "max_disk_io_bytes" in self.bounds else 0
        return sampler.REPORT | disk | (sampler.DESCRIPTORS if "max_file_descriptors" in self.bounds else 0)

    @property
    def descriptors(self) -> int:
        """RLIMIT_NOFILE for the command; 0 for what it has anyway. Above the bound, so that a sample can see it crossed."""
        bound = self.bounds.get("max_file_descriptors")
        return 4 * int(bound) + 256 if bound is not None else 0

    def check(self, sample: Sample) -> Stop | None:
        """The limit that this sample crosses, if any."""
        readings = {
            "max_cpu_time_s": sample.cpu_s,
            "max_cpu_percent": self._percent(sample),
            "max_disk_io_bytes": sample.disk,
            "max_file_descriptors": sample.descriptors,
        }
        if self.group is None:
            readings |= {"max_memory_bytes": sample.memory, "max_processes": sample.processes}
        return self._crossed(readings) or self._group_says()

    def check_end(self, usage: Json) -> Stop | None:
        """The limit that the final usage shows to have been crossed, if any."""
        disk = (usage.get("disk_read_bytes") or 0) + (usage.get("disk_write_bytes") or 0)
        readings: dict[str, float] = {"max_cpu_time_s": usage.get("cpu_time") or 0.0, "max_disk_io_bytes": disk}
        if not usage.get("peak_memory_is_bound") and (self.group is None or self.group.memory is None):
            readings["max_memory_bytes"] = usage.get("peak_memory_bytes") or 0
        return self._group_says() or self._crossed(readings)

    def close(self) -> None:
        """Remove the control group."""
        if self.group is not None:
            self.group.remove()

    def _percent(self, sample: Sample) -> float:
        """Percent of one processor over the last second; 0 until there is a second to look at."""
        self._window.append((sample.at, sample.cpu_s))
        while len(self._window) > 2 and sample.at - self._window[1][0] >= CPU_WINDOW_S:
            self._window.popleft()
        at, cpu_s = self._window[0]
        span = sample.at - at
        return 100 * (sample.cpu_s - cpu_s) / span if span >= CPU_WINDOW_S else 0.0

    def _crossed(self, readings: dict[str, float]) -> Stop | None:
        for name, reading in readings.items():
            bound = self.bounds.get(name)
            if bound is not None and reading > bound:
                return _stop(name, bound, reading, means()[name])
        return None

    def _group_says(self) -> Stop | None:
        if self.group is None:
            return None
        if self.group.memory is not None and self.group.memory_kills():
            bound = self.bounds["max_memory_bytes"]
            return _stop("max_memory_bytes", bound, self.group.memory_peak() or bound, means()["max_memory_bytes"])
        if self.group.pids is not None and self.group.refused_forks():
            bound = self.bounds["max_processes"]
            return _stop("max_processes", bound, bound + 1, means()["max_processes"])
        return None


def _stop(name: str, bound: float, reading: float, how: Means) -> Stop:
    shown = f"{reading:.3g}" if isinstance(reading, float) else str(reading)
    message = f"it crossed the limit {name}={bound:g}: {shown} ({how.by}, {how.precision})"
    details = {"limit": name, "bound": bound, "reading": reading, "measured_by": how.by}
    return Stop("failed", "resource_limit_exceeded", message.replace(f"={bound:g}", f"={bound}"), details)
