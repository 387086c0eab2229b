"""What it costs that a run's start and end are on the disk before anybody hears of them: launches with synchronous="full".

The limit is a C program that spawns N runs of /bin/true, P at a time, and waits for them (posix_spawn, waitpid: no pipes, no record);
without a C compiler it is the same loop in Python, which is slower. Beside it are plain asyncio subprocesses with pipes, ordinary launches,
and ones with synchronous="full", with capture, usage and history. Cases run round by round, the first one rotating; `ratio` is the median
of the per-round ratios to the limit, `best` the fastest round to its fastest. `wall_us` is per run; `full_to_...` is of rounds, too;
`sync_us` is what one fdatasync of an appended page takes in the store's folder. Prints one JSON line.
Usage: python tests/benchmarks/bench_durable.py [ROUNDS [RUNS [PARALLEL]]]
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import agentnb as nb

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bench_launch import ARGV, Case, plain_asyncio, spawn_loop

LIMIT = 1.6
LOOP = r"""
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
extern char **environ;
int main(int argc, char **argv) {
    int runs = atoi(argv[1]), parallel = atoi(argv[2]), live = 0;
    char *command[] = {"/bin/true", NULL};
    for (int n = 0; n < runs; n++) {
        pid_t pid;
        if (live == parallel) { waitpid(-1, NULL, 0); live--; }
        if (posix_spawn(&pid, command[0], NULL, NULL, command, environ)) return 1;
        live++;
    }
    while (live--) waitpid(-1, NULL, 0);
    return 0;
}
"""


def c_loop(parallel: int, folder: Path) -> Case:
    """The limit in C."""
    (folder / "loop.c").write_text(LOOP, encoding="ascii")
    subprocess.run(["cc", "-O2", "-o", str(folder / "loop"), str(folder / "loop.c")], check=True)

    def run(runs: int) -> None:
        subprocess.run([str(folder / "loop"), str(runs), str(parallel)], check=True)

    return run


def launches(store: Path, parallel: int, synchronous: str, stack: ExitStack) -> Case:
    """Launches of ours."""
    session = stack.enter_context(nb.Session("bench", store=store, max_parallel=parallel, synchronous=synchronous))
    session.command(ARGV).wait()

    def run(runs: int) -> None:
        handles = [session.command(ARGV) for _ in range(runs)]
        session.wait()
        if {handle.status for handle in handles} != {nb.RunStatus.COMPLETED}:
            raise SystemExit("not all completed")

    return run


def sync_us(folder: Path) -> float:
    """Microseconds of one fdatasync of an appended page, median of 100."""
    times = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(1e6 * (time.perf_counter() - start))
    return round(statistics.median(times), 1)


def timed(case: Case, runs: int) -> float:
    """Microseconds of wall time a run."""
    start = time.perf_counter()
    case(runs)
    return 1e6 * (time.perf_counter() - start) / runs


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the per-round ratios."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


def main() -> None:
    rounds, runs, parallel = ([int(word) for word in sys.argv[1:]] + [7, 500, 8][len(sys.argv) - 1 :])[:3]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("AGENTNB_BENCH_DIR"))))
        limit = c_loop(parallel, folder) if shutil.which("cc") else spawn_loop(parallel)
        cases = {"limit": limit, "asyncio": plain_asyncio(parallel)} | {
            name: launches(folder / name, parallel, name, stack) for name in ("normal", "full")
        }
        walls: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(rounds):
            for name in [*cases, *cases][turn % len(cases) :][: len(cases)]:
                walls[name].append(timed(cases[name], runs))
        head = {
            "bench": "durable",
            "runs": runs,
            "parallel": parallel,
            "rounds": rounds,
            "limit_is": "C" if shutil.which("cc") else "Python",
        }
        figures = {
            name: {
                "wall_us": round(statistics.median(found), 1),
                "ratio": ratio(found, walls["limit"]),
                "best": round(min(found) / min(walls["limit"]), 3),
            }
            for name, found in walls.items()
        }
        beside = {f"full_to_{name}": ratio(walls["full"], walls[name]) for name in ("normal", "asyncio")} | {"sync_us": sync_us(folder)}
        peak = {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    ok = figures["full"]["ratio"] <= LIMIT
    print(json.dumps(head | {"ok": ok, "limits": {"full_ratio": LIMIT}} | figures | beside | peak))


if __name__ == "__main__":
    main()
