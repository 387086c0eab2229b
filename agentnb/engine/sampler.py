"""Samples of whole process trees, ten a second. Imported by the spawner: nothing heavier than `os` may be imported here."""

from __future__ import annotations

from agentnb.engine.proc import Kept, fds_of, io_of

PERIOD_S = 0.1
#: What to sample beyond CPU, memory and the number of processes; `REPORT`: send each sample to the supervisor.
REPORT, DISK, DESCRIPTORS = 1, 2, 4
#: Descriptors that the spawner needs for other things than trees, and those that one kept process takes.
_OTHER_FILES, _FILES = 128, 2
_LEAST, _MOST = 16, 4096


class Room:
    """How many more processes all trees together may keep open; the files of the others are opened each time."""

    __slots__ = ("left",)

    def __init__(self, most_files: int) -> None:
        """As many as `most_files`, the limit of descriptors, leaves; a negative one is none."""
        self.left = _MOST if most_files < 0 else min(max((most_files - _OTHER_FILES) // _FILES, _LEAST), _MOST)


class Tree:
    """One run's tree: what is live in it, and the highest readings so far."""

    __slots__ = ("_kept", "_room", "ended_cpu_s", "ended_disk", "flags", "known", "peak_rss", "seen")

    def __init__(self, flags: int, room: Room) -> None:
        """Nothing seen yet."""
        self.flags = flags
        self.peak_rss = 0
        self.seen = 0
        self.ended_cpu_s = 0.0
        self.ended_disk = 0
        #: What was live in the last sample: pid -> when it started, in ticks since boot.
        self.known: dict[int, int] = {}
        self._kept: dict[int, Kept] = {}
        self._room = room

    def ended(self, cpu_s: float, disk: int) -> None:
        """A process of the tree was reaped by the spawner itself: no live one counts it any more."""
        self.ended_cpu_s += cpu_s
        self.ended_disk += disk

    def sample(self, roots: list[int]) -> tuple[float, int, int, int, int]:
        """(CPU seconds so far, memory now, processes now, disk bytes so far, descriptors now) of the tree below `roots`."""
        cpu, rss, disk, fds = self.ended_cpu_s, 0, self.ended_disk, 0
        live: dict[int, int] = {}
        while roots:
            pid = roots.pop()
            process = self._get(pid) if pid not in live else None
            if process is None:
                continue
            if process.read():
                live[pid] = process.start
                cpu += process.cpu_s
                rss += process.rss
                roots += process.children()
                if self.flags & DISK:
                    disk += sum(part or 0 for part in io_of(pid))
                if self.flags & DESCRIPTORS:
                    fds += fds_of(pid, process.place)
            if pid not in self._kept:
                process.close()
        self._note(live, rss)
        return cpu, rss, len(live), disk, fds

    def _note(self, live: dict[int, int], rss: int) -> None:
        for pid in [pid for pid in self._kept if pid not in live]:
            self._drop(pid)
        known = self.known
        self.seen += sum(known.get(pid) != start for pid, start in live.items())
        self.known = live
        self.peak_rss = max(self.peak_rss, rss)

    def _get(self, pid: int) -> Kept | None:
        process = self._kept.get(pid)
        if process is None:
            try:
                process = Kept(pid)
            except OSError:
                return None
            if self._room.left > 0:
                self._room.left -= 1
                self._kept[pid] = process
        return process

    def _drop(self, pid: int) -> None:
        self._kept.pop(pid).close()
        self._room.left += 1

    def close(self) -> None:
        """Close what is open; it is opened again when it is needed."""
        for pid in list(self._kept):
            self._drop(pid)
