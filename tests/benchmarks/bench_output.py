"""Output: a child that writes lines of 100 bytes as fast as it can, captured, against a bare readv loop that writes the same file.

Cases: one child; one child with live output asked for ("watched"); eight children at once. The limit reads a 1 MiB pipe with readv
into one buffer of 256 KiB and writes a file. `ratio` is the median over rounds of throughput against the limit of that round (eight
children: the sum). `growth_mib`: how much the supervisor's peak memory grew. Prints one JSON line.
Usage: python tests/benchmarks/bench_output.py [ROUNDS [MIB]]
"""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import agentnb as nb
from agentnb import requests

LIMITS = {"one": 0.5, "watched": 0.4, "eight": 0.5}
SOURCE = """
import os, sys
block = (b"x" * 99 + b"\\n") * 2621
left = int(sys.argv[1])
while left > 0:
    left -= os.write(1, block[:left])
"""


def bare(folder: Path, size: int) -> float:
    """Seconds that the bare loop takes."""
    ours, theirs = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 1 << 20)
    buffer = bytearray(256 * 1024)
    view = memoryview(buffer)
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", SOURCE, str(size)], stdout=theirs)
    os.close(theirs)
    with (folder / "bare").open("wb", buffering=0) as file:
        while got := os.readv(ours, [buffer]):
            file.write(view[:got])
    child.wait()
    os.close(ours)
    took = time.perf_counter() - start
    (folder / "bare").unlink()
    return took


def captured(session: nb.Session, size: int, children: int, *, watched: bool) -> float:
    """Seconds that `children` runs take."""
    start = time.perf_counter()
    runs = [session.command([sys.executable, "-I", "-S", "-c", SOURCE, str(size)]) for _ in range(children)]
    if watched and session._engine is not None:
        session._engine.send([requests.Watch([run.id for run in runs])])
    session.wait()
    took = time.perf_counter() - start
    for run in runs:
        if run.result is None or run.result.raise_for_status().stdout_bytes != size:
            raise SystemExit("output was lost")
        for file in (session.store / "runs" / run.id).iterdir():
            file.unlink()
    return took


def peak_mib(pid: int) -> float:
    """Peak memory of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    rounds, mib = ([int(word) for word in sys.argv[1:]] + [3, 1024][len(sys.argv) - 1 :])[:2]
    size = mib << 20
    found: dict[str, list[float]] = {name: [] for name in LIMITS}
    speeds: list[float] = []
    with tempfile.TemporaryDirectory(dir=".") as folder, nb.Session("bench", store=Path(folder) / "store", max_parallel=8) as session:
        session.shell("true").wait()
        supervisor = session._engine.process.pid  # type: ignore[union-attr]
        before = peak_mib(supervisor)
        for _ in range(rounds):
            limit = bare(Path(folder), size)
            speeds.append(mib / limit)
            found["one"].append(limit / captured(session, size, 1, watched=False))
            found["watched"].append(limit / captured(session, size, 1, watched=True))
            found["eight"].append(8 * limit / captured(session, size // 8, 8, watched=False) / 8)
        growth = peak_mib(supervisor) - before
    ratios = {name: round(statistics.median(values), 3) for name, values in found.items()}
    ok = all(ratios[name] >= limit for name, limit in LIMITS.items()) and growth < 64
    figures = {"limit_mib_s": round(statistics.median(speeds)), "ratio": ratios, "limits": LIMITS, "growth_mib": round(growth, 1)}
    print(json.dumps({"bench": "output", "mib": mib, "rounds": rounds, "ok": ok} | figures))


if __name__ == "__main__":
    main()
