"""What a launch costs: N runs of /bin/true, P at a time, with capture, usage and durable history, against peers that record nothing.

The limit is plain ``asyncio.create_subprocess_exec`` with pipes; joblib (loky) and dask.distributed stand beside it when they are
installed. Cases run round by round, the first one rotating; a ratio is the median of the per-round ratios to asyncio, `c_ratio` that
to a loop of posix_spawn and waitpid in C, which is there where a C compiler is. `wall_us` and `cpu_us` are per run; CPU is that of this
process, which stands for the notebook's kernel. Also the same loop by way of Python's os module. Start-up of pools is not counted.
Prints one JSON line.
Usage: python tests/benchmarks/bench_launch.py [ROUNDS [RUNS [PARALLEL]]]
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ARGV = ["/bin/true"]
LIMIT_WALL, LIMIT_CPU_US = 0.8, 60.0
#: What a case leaves to be done (a pool's idling, a database's log to be copied) shall not fall on the next one.
PAUSE_S = 0.5
Case = Callable[[int], None]
C_LOOP = r"""
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
extern char **environ;
int main(int count, char **words) {
    int left = atoi(words[1]), most = atoi(words[2]), live = 0;
    for (; left > 0; left--, live++) {
        pid_t pid;
        if (live == most) { if (waitpid(-1, 0, 0) < 0) return 1; live--; }
        if (posix_spawn(&pid, words[3], 0, 0, words + 3, environ)) return 1;
    }
    for (; live > 0; live--) if (waitpid(-1, 0, 0) < 0) return 1;
    return 0;
}
"""


def c_loop(parallel: int, stack: ExitStack) -> Case | None:
    """The same in C, where it can be compiled: no pipes, no record, no Python."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "loop.c").write_text(C_LOOP)
    subprocess.run([compiler, "-O2", "-o", folder / "loop", folder / "loop.c"], check=True)

    def run(runs: int) -> None:
        subprocess.run([folder / "loop", str(runs), str(parallel), *ARGV], check=True)

    return run


def spawn_loop(parallel: int) -> Case:
    """posix_spawn and waitpid: no pipes, no record."""

    def run(runs: int) -> None:
        live = 0
        for _ in range(runs):
            if live == parallel:
                os.waitpid(-1, 0)
                live -= 1
            os.posix_spawn(ARGV[0], ARGV, os.environ)
            live += 1
        for _ in range(live):
            os.waitpid(-1, 0)

    return run


def plain_asyncio(parallel: int) -> Case:
    """asyncio subprocesses with both pipes read."""

    async def one(gate: asyncio.Semaphore) -> None:
        async with gate:
            process = await asyncio.create_subprocess_exec(*ARGV, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            await process.communicate()

    async def many(runs: int) -> None:
        gate = asyncio.Semaphore(parallel)
        await asyncio.gather(*(one(gate) for _ in range(runs)))

    return lambda runs: asyncio.run(many(runs))


def call() -> int:
    """What pool workers run."""
    return subprocess.run(ARGV, capture_output=True, check=True).returncode


def loky(parallel: int, stack: ExitStack) -> Case:
    """joblib's default pool."""
    joblib = importlib.import_module("joblib")  # it ships no types

    pool = stack.enter_context(joblib.Parallel(n_jobs=parallel))
    pool([joblib.delayed(call)() for _ in range(parallel)])
    return lambda runs: pool([joblib.delayed(call)() for _ in range(runs)])


def dask(parallel: int, stack: ExitStack) -> Case:
    """A local dask cluster of processes."""
    distributed = importlib.import_module("distributed")  # not of the dev extra: a peer that is measured where it is installed

    options = {"dashboard_address": None, "host": "127.0.0.1", "silence_logs": logging.CRITICAL}
    cluster = stack.enter_context(distributed.LocalCluster(n_workers=2, threads_per_worker=parallel // 2, **options))
    client = stack.enter_context(distributed.Client(cluster))
    client.gather([client.submit(call, pure=False) for _ in range(parallel)])
    return lambda runs: client.gather([client.submit(call, pure=False) for _ in range(runs)])


def agentnb(parallel: int, stack: ExitStack) -> Case:
    """Capture, usage and durable history on."""
    import agentnb as nb

    folder = stack.enter_context(tempfile.TemporaryDirectory())
    session = stack.enter_context(nb.Session("bench", store=Path(folder) / "store", max_parallel=parallel))
    session.command(ARGV).wait()

    def run(runs: int) -> None:
        handles = [session.command(ARGV) for _ in range(runs)]
        session.wait()
        done = {handle.status for handle in handles}
        if done != {nb.RunStatus.COMPLETED}:
            raise SystemExit(f"not all completed: {done}")

    return run


def measure(case: Case, runs: int) -> tuple[float, float]:
    """Microseconds a run: wall, and CPU of this process without its children."""
    used, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    case(runs)
    wall, now = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
    return 1e6 * wall / runs, 1e6 * cpu / runs


def first_run_ms() -> dict[str, float]:
    """A cold process: import, session, first run; milliseconds of wall time for each, median of five processes."""
    script = (
        "import time, tempfile, json; t = [time.perf_counter()]\n"
        "import agentnb as nb; t.append(time.perf_counter())\n"
        "from agentnb.notebook import session; t.append(time.perf_counter())\n"
        "d = tempfile.mkdtemp(); s = nb.Session('cold', store=d); t.append(time.perf_counter())\n"
        "s.shell('true').wait(); t.append(time.perf_counter())\n"
        "print(json.dumps([1000 * (b - a) for a, b in zip(t, t[1:])]))\n"
    )
    rounds = [json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout) for _ in range(5)]
    names = ("import_agentnb", "import_session", "open_session", "first_run")
    figures = {name: round(statistics.median(column), 1) for name, column in zip(names, zip(*rounds, strict=True), strict=True)}
    return figures | {"total": round(statistics.median(map(sum, rounds)), 1)}


def race(cases: dict[str, Case], rounds: int, runs: int) -> dict[str, dict[str, float]]:
    """Figures of each case, round by round, the first one rotating; ratios to the case asyncio."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(rounds):
        names = list(cases)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(measure(cases[name], runs))
            time.sleep(PAUSE_S)
    figures = {}
    for name, rows in found.items():
        ratios = [(w / base_w, c / base_c) for (w, c), (base_w, base_c) in zip(rows, found["asyncio"], strict=True)]
        figures[name] = {
            "wall_us": round(statistics.median(w for w, _ in rows), 1),
            "cpu_us": round(statistics.median(c for _, c in rows), 1),
            "wall_ratio": round(statistics.median(w for w, _ in ratios), 3),
            "cpu_ratio": round(statistics.median(c for _, c in ratios), 3),
        }
        if "c_loop" in found:
            ratios_to_c = [w / base_w for (w, _), (base_w, _) in zip(rows, found["c_loop"], strict=True)]
            figures[name]["c_ratio"] = round(statistics.median(ratios_to_c), 3)
    return figures


def main() -> None:
    rounds, runs, parallel = ([int(word) for word in sys.argv[1:]] + [7, 500, 8][len(sys.argv) - 1 :])[:3]
    asyncio_case = plain_asyncio(parallel)
    with ExitStack() as stack:
        cases = {"spawn_loop": spawn_loop(parallel), "asyncio": asyncio_case, "agentnb": agentnb(parallel, stack)}
        if (limit := c_loop(parallel, stack)) is not None:
            cases["c_loop"] = limit
        figures = race(cases, rounds, runs)
    with ExitStack() as stack:  # apart: a pool's own threads would count as CPU of the others
        peers: dict[str, Case] = {}
        for name, package, make in (("joblib_loky", "joblib", loky), ("dask", "distributed", dask)):
            if importlib.util.find_spec(package):
                peers[name] = make(parallel, stack)
        if peers:
            beside = race({"asyncio": asyncio_case} | peers, 3, runs)
            figures |= {name: beside[name] for name in peers}
    ours = figures["agentnb"]
    ok = ours["wall_ratio"] <= LIMIT_WALL and ours["cpu_us"] <= LIMIT_CPU_US
    head = {"bench": "launch", "runs": runs, "parallel": parallel, "rounds": rounds, "ok": ok}
    limits = {"wall_ratio": LIMIT_WALL, "cpu_us": LIMIT_CPU_US}
    print(json.dumps(head | {"limits": limits} | figures | {"cold_ms": first_run_ms()}))


if __name__ == "__main__":
    main()
