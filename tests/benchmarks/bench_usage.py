"""Usage against the operating system's own account, for processes that samplers get wrong.

Each workload joins a cgroup of its own and is run by agentnb; CPU time is compared with the cgroup's cpu.stat, peak memory with what
the largest process says of itself, disk writes with the bytes that were synced. CPU is good within 1 % or 1.5 ms (the shell that joins
the cgroup has started before). Needs root and a cgroup v2 mount. Prints one JSON line.
Usage: python tests/benchmarks/bench_usage.py [ROUNDS]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import agentnb as nb

PYTHON = f"{sys.executable} -I -S"
SAY = "; import resource; print('rss', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)"
BURN = "import time\nwhile time.process_time() < {}: pass"
WORKLOADS = {
    "short_200_mb": f'{PYTHON} -c "x = bytearray(200 * 2**20){SAY}"',
    "15_ms": f"{PYTHON} -c '{BURN.format(0.015)}'",
    "tree_of_five": f"for i in 1 2 3 4 5; do {PYTHON} -c '{BURN.format(0.2)}' & done; wait",
    "five_daemons": f"for i in 1 2 3 4 5; do setsid {PYTHON} -c '{BURN.format(0.2)}' & done; wait",
    "burn_2_s": f"{PYTHON} -c '{BURN.format(2)}'",
    "disk_5_mb": "dd if=/dev/zero of=file bs=1000000 count=5 conv=fsync 2>/dev/null",
}


def mount() -> Path:
    """The cgroup v2 hierarchy."""
    root = Path("/sys/fs/cgroup")
    return root if (root / "cgroup.controllers").exists() else root / "unified"


def measure(session: nb.Session, line: str, folder: Path) -> dict[str, float]:
    """One run of a workload: how far its figures are off."""
    group = mount() / f"agentnb-bench-{os.getpid()}"
    group.mkdir()
    try:
        run = session.shell(f"echo $$ > {group}/cgroup.procs; {line}", working_dir=folder)
        usage = run.wait(60).raise_for_status().usage
        account = dict(entry.split() for entry in (group / "cpu.stat").read_text().splitlines())
    finally:
        group.rmdir()
    truth = int(account["usage_usec"]) / 1e6
    off = (usage.cpu_time or 0) - truth
    figures = {"cpu_s": truth, "cpu_off_ms": 1000 * off, "cpu_off_percent": 100 * off / truth}
    said = [int(word.split()[1]) for word in run.stdout.splitlines() if word.startswith("rss")]
    if said:
        figures["memory_off_percent"] = 100 * ((usage.peak_memory_bytes or 0) / max(said) - 1)
    if "dd " in line:
        figures["disk_off_bytes"] = (usage.disk_write_bytes or 0) - 5_000_000
    return figures


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if os.geteuid() or not mount().exists():
        print(json.dumps({"bench": "usage", "skipped": "needs root and a cgroup v2 mount"}))
        return
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=".") as name, nb.Session("bench", store=Path(name) / "store") as session:
        for workload, line in WORKLOADS.items():
            rows = [measure(session, line, Path(name)) for _ in range(rounds)]
            found[workload] = {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
    ok = all(abs(row["cpu_off_percent"]) <= 1 or abs(row["cpu_off_ms"]) <= 1.5 for row in found.values())
    print(json.dumps({"bench": "usage", "rounds": rounds, "ok": ok} | found))


if __name__ == "__main__":
    main()
