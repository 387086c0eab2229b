"""What sampling costs: CPU of the spawner while 50 processes live, sampled ten times a second, in percent of one core.

Beside it psutil's way (children(recursive=True) of each, in this process). Prints one JSON line.
Usage: python tests/benchmarks/bench_sampling.py [SECONDS]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

import agentnb as nb
from agentnb.engine.proc import children_of

PROCESSES, LIMIT = 50, 1.5


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, to the nanosecond, from its scheduler statistics."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory() as folder, nb.Session("bench", store=Path(folder) / "store", max_parallel=PROCESSES) as session:
        runs = [session.command(["sleep", "600"]) for _ in range(PROCESSES)]
        while any(run.status is not nb.RunStatus.RUNNING for run in runs):
            time.sleep(0.05)
        supervisor = session._engine.process.pid  # type: ignore[union-attr]
        spawner = children_of(supervisor)[0]
        before = cpu_s(spawner), cpu_s(supervisor)
        time.sleep(seconds)
        ours = [100 * (now - then) / seconds for now, then in zip((cpu_s(spawner), cpu_s(supervisor)), before, strict=True)]
        children = psutil.Process(spawner).children()
        start, ticks = time.process_time(), 10
        for _ in range(ticks):
            for child in children:
                child.children(recursive=True)
        theirs = 100 * (time.process_time() - start) / ticks * 10
        session.cancel()
    figures = {"spawner_percent": round(ours[0], 2), "supervisor_percent": round(ours[1], 2), "psutil_percent": round(theirs, 1)}
    print(json.dumps({"bench": "sampling", "processes": PROCESSES, "limit_percent": LIMIT, "ok": sum(ours) <= LIMIT} | figures))


if __name__ == "__main__":
    main()
