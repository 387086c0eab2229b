"""What `import agentnb` costs: CPU milliseconds in a bare interpreter and inside a Jupyter kernel, against their limits.

Both sides of a pair (with and without the import) run round by round, the first side alternating; a figure is the median of
the per-round differences. Prints one JSON line. Usage: python tests/benchmarks/bench_import.py [ROUNDS]
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BARE_MS = 30.0
LIMIT_KERNEL_MS = 10.0
#: What a kernel has loaded before the first cell runs.
KERNEL = "import ipykernel.ipkernel, ipykernel.kernelapp, IPython.core.interactiveshell"


def child_cpu_ms(code: str) -> float:
    """CPU time of a whole interpreter that runs `code`, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def in_kernel_ms(code: str) -> float:
    """CPU time of `code` alone, in an interpreter that has loaded what a kernel loads."""
    script = f"{KERNEL}; import time; start = time.process_time(); {code}; print(1000 * (time.process_time() - start))"
    return float(subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def paired(measure: object, rounds: int) -> dict[str, float]:
    """Medians of `measure("pass")`, of the import, and of their difference, interleaved."""
    assert callable(measure)
    without: list[float] = []
    with_import: list[float] = []
    for turn in range(rounds):
        for code, into in [("pass", without), ("import agentnb", with_import)][:: 1 if turn % 2 else -1]:
            into.append(measure(code))
    more = statistics.median(b - a for a, b in zip(without, with_import, strict=True))
    return {"base_ms": round(statistics.median(without), 2), "with_ms": round(statistics.median(with_import), 2), "more_ms": round(more, 2)}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    measure = {"bare": (child_cpu_ms, LIMIT_BARE_MS), "kernel": (in_kernel_ms, LIMIT_KERNEL_MS)}
    measure["bare"][0]("import agentnb")  # byte code is compiled once, before the first round
    figures = {}
    for place, (function, limit) in measure.items():
        figures[place] = paired(function, rounds) | {"limit_ms": limit}
        figures[place]["ratio"] = round(figures[place]["more_ms"] / limit, 3)
    print(json.dumps({"bench": "import", "rounds": rounds, "ok": all(f["ratio"] <= 1 for f in figures.values())} | figures))


if __name__ == "__main__":
    main()
