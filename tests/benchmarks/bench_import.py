"""What `import agentnb` and `agentnb --version` cost: CPU milliseconds more than without, against their limits.

Both sides of a pair (with and without the import) run round by round, the first side alternating; a figure is the median of
the per-round differences. Prints one JSON line. Usage: python tests/benchmarks/bench_import.py [ROUNDS]
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BARE_MS = 30.0
LIMIT_KERNEL_MS = 10.0
LIMIT_COMMAND_MS = 60.0
#: What a kernel has loaded before the first cell runs.
KERNEL = "import ipykernel.ipkernel, ipykernel.kernelapp, IPython.core.interactiveshell"


def child_cpu_ms(code: str) -> float:
    """CPU time of a whole interpreter that runs `code`, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def in_kernel_ms(code: str) -> float:
    """CPU time of `code` alone, in an interpreter that has loaded what a kernel loads."""
    script = f"{KERNEL}; import time; start = time.process_time(); {code}; print(1000 * (time.process_time() - start))"
    return float(subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def paired(measure: Callable[[str], float], code: str, rounds: int) -> dict[str, float]:
    """Medians of `measure` without `code`, with it, and of their difference, interleaved."""
    without: list[float] = []
    with_it: list[float] = []
    for turn in range(rounds):
        for text, into in [("pass", without), (code, with_it)][:: 1 if turn % 2 else -1]:
            into.append(measure(text))
    more = statistics.median(b - a for a, b in zip(without, with_it, strict=True))
    return {"base_ms": round(statistics.median(without), 2), "with_ms": round(statistics.median(with_it), 2), "more_ms": round(more, 2)}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    version = "from agentnb.cli import main; main(['--version'])"
    cases: dict[str, tuple[Callable[[str], float], str, float]] = {
        "bare": (child_cpu_ms, "import agentnb", LIMIT_BARE_MS),
        "kernel": (in_kernel_ms, "import agentnb", LIMIT_KERNEL_MS),
        "command": (child_cpu_ms, version, LIMIT_COMMAND_MS),
    }
    child_cpu_ms(version)  # byte code is compiled once, before the first round
    figures = {}
    for case, (measure, code, limit) in cases.items():
        figures[case] = paired(measure, code, rounds) | {"limit_ms": limit}
        figures[case]["ratio"] = round(figures[case]["more_ms"] / limit, 3)
    print(json.dumps({"bench": "import", "rounds": rounds, "ok": all(f["ratio"] <= 1 for f in figures.values())} | figures))


if __name__ == "__main__":
    main()
