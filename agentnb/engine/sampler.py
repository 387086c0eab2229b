"""Samples of whole process trees, ten a second. Imported by the spawner: nothing heavier than `os` may be imported here."""

from __future__ import annotations

from agentnb.engine.proc import Kept, fds_of, io_of

PERIOD_S = 0.1
#: What to sample beyond CPU, memory and the number of processes; `REPORT`: send each sample to the supervisor.
REPORT, DISK, DESCRIPTORS = 1, 2, 4


class Tree:
    """One run's tree: what is live in it, and the highest readings so far."""

    __slots__ = ("_kept", "ended_cpu_s", "ended_disk", "flags", "peak_rss", "seen")

    def __init__(self, flags: int) -> None:
        """Nothing seen yet."""
        self.flags = flags
        self.peak_rss = 0
        self.seen = 0
        self.ended_cpu_s = 0.0
        self.ended_disk = 0
        self._kept: dict[int, Kept] = {}

    def ended(self, cpu_s: float, disk: int) -> None:
        """A process of the tree was reaped by the spawner itself: no live one counts it any more."""
        self.ended_cpu_s += cpu_s
        self.ended_disk += disk

    def sample(self, roots: list[int]) -> tuple[float, int, int, int, int]:
        """(CPU seconds so far, memory now, processes now, disk bytes so far, descriptors now) of the tree below `roots`."""
        cpu, rss, disk, fds = self.ended_cpu_s, 0, self.ended_disk, 0
        live: dict[int, Kept] = {}
        while roots:
            process = self._get(roots.pop())
            if process is None or process.pid in live:
                continue
            if not process.read():
                process.close()
                self._kept.pop(process.pid, None)
                continue
            live[process.pid] = process
            cpu += process.cpu_s
            rss += process.rss
            roots += process.children()
            if self.flags & DISK:
                disk += sum(part or 0 for part in io_of(process.pid))
            if self.flags & DESCRIPTORS:
                fds += fds_of(process.pid)
        for pid in [pid for pid in self._kept if pid not in live]:
            self._kept.pop(pid).close()
        self.peak_rss = max(self.peak_rss, rss)
        return cpu, rss, len(live), disk, fds

    def _get(self, pid: int) -> Kept | None:
        process = self._kept.get(pid)
        if process is None:
            try:
                process = self._kept[pid] = Kept(pid)
            except OSError:
                return None
            self.seen += 1
        return process

    def close(self) -> None:
        """Close what is open."""
        for process in self._kept.values():
            process.close()
        self._kept.clear()
