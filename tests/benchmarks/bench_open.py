"""How long it takes to get to work with a store of 1 GB: at most a second for each thing, also when nothing of it is in memory.

Measured in processes of their own, cold (the file's pages are dropped before) and warm: `Store.open` as the command line does it and as
a supervisor does, the same after a supervisor with live runs was killed (`recover`), `runs_df(limit=10)`, `sessions_df(limit=10)`,
`steps_df` and the record of one run, a name that is not there, a session with its first run, and the whole of `agentnb runs --limit 10`.
Prints one JSON line.

Usage: python tests/benchmarks/bench_open.py [MEGABYTES [ROUNDS]]
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.big_store import SECOND, T0, build, key  # noqa: E402 - from this checkout

LIMIT_S = 1.0
STEPS = 10
#: What a run of ten steps and artifacts takes, with its events.
RUN_BYTES = 13_700
EVENTS = 2 * STEPS + 4
CASES = {
    "open": "Store.open(root).close()",
    "open_as_owner": "Store.open(root, owner='bench').close()",
    "recover": "Store.open(root, owner='bench').close()",
    "runs_df": "frames.runs_df(root, limit=10)",
    "sessions_df": "frames.sessions_df(root, limit=10)",
    "steps_df_of_a_run": "frames.steps_df(root, run=RUN)",
    "find_run": "reader.read_run(root, RUN)",
    "find_no_run": "missing()",
    "session": "session()",
}
MEASURE = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from agentnb.errors import ConfigError
from agentnb.history import reader
from agentnb.history.store import Store
root, case, RUN = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
if "frames" in case:
    from agentnb.history.frames import frames
if "session" in case:
    import agentnb as nb
    from agentnb.notebook.session import Session
def missing():
    try:
        reader.find_run(root, "no such run")
    except ConfigError:
        pass
def session():
    with nb.Session("bench", store=root) as session:
        session.command(["true"]).wait()
start = time.perf_counter()
exec(case)
took = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps([took, int(peak.split()[1]) / 1024]))
"""


def add_events(root: Path, runs: int) -> None:
    """The events of all runs: 24 each, of the size that real ones have."""
    text = json.dumps(
        {"kind": "tool", "name": "read a file", "attempt": 1, "parent_id": "1", "input": {"path": "src/some/module.py", "lines": 240}}
    )
    types = ["run_queued", "run_started", *["step_started", "step_finished"] * STEPS, "usage_reported", "run_finished"]
    with closing(sqlite3.connect(root / "history.db", isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        if db.execute("SELECT 1 FROM events LIMIT 1").fetchone():
            return
        for start in range(0, runs, 1000):
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO events (at, type, session_id, run_id, data) VALUES (?, ?, ?, ?, ?)",
                (
                    (T0 + number * SECOND, type_, key("ses", number // 1000), key("run", number), text)
                    for number in range(start, min(start + 1000, runs))
                    for type_ in types
                ),
            )
            db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def forget(root: Path) -> None:
    """Drop the file's pages from memory."""
    descriptor = os.open(root / "history.db", os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def orphan(root: Path) -> None:
    """Three runs read as live, of a supervisor that is dead."""
    with closing(sqlite3.connect(root / "history.db")) as db, db:
        db.execute("UPDATE runs SET status = 'running', owner = 'dead' WHERE id IN (SELECT id FROM runs ORDER BY created_at DESC LIMIT 3)")


def measured(root: Path, case: str, run: str, *, cold: bool) -> tuple[float, float]:
    """(seconds, MiB of the process) of one case."""
    if case == "recover":
        orphan(root)
    if cold:
        forget(root)
    command = [sys.executable, "-c", MEASURE, str(ROOT), str(root), CASES[case], run]
    seconds, mib = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, mib


def command_line(root: Path, *, cold: bool) -> float:
    """Seconds of the whole of `agentnb runs --limit 10`, with the start of Python and pandas."""
    if cold:
        forget(root)
    command = [sys.executable, "-m", "agentnb.cli", "runs", "--limit", "10", "--store", str(root)]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - start


def figures_of(root: Path, rounds: int, run: str) -> dict[str, Any]:
    """Medians in seconds, and the most memory, of all cases."""
    figures: dict[str, Any] = {}
    for how in ("cold", "warm"):
        for case in CASES:
            samples = [measured(root, case, run, cold=how == "cold") for _ in range(rounds)]
            figures[f"{case}_{how}_s"] = round(statistics.median(seconds for seconds, _ in samples), 4)
            figures[f"{case}_mib"] = round(max(mib for _, mib in samples))
        figures[f"command_line_{how}_s"] = round(statistics.median(command_line(root, cold=how == "cold") for _ in range(rounds)), 4)
    return figures


def main() -> None:
    """Build, measure, print, remove."""
    megabytes, rounds = ([int(word) for word in sys.argv[1:]] + [1024, 5][len(sys.argv) - 1 :])[:2]
    runs = max(100, megabytes * 1_000_000 // RUN_BYTES)
    with tempfile.TemporaryDirectory(prefix="agentnb-open-") as folder:
        root = build(Path(folder) / "store", runs, STEPS)
        add_events(root, runs)
        figures = {"bytes": (root / "history.db").stat().st_size, "runs": runs, "events": runs * EVENTS}
        figures |= figures_of(root, rounds, key("run", runs // 2))
    slow = {name: value for name, value in figures.items() if name.endswith("_s") and value > LIMIT_S}
    print(json.dumps({"bench": "open", "rounds": rounds, "ok": not slow, "limit_s": LIMIT_S, **figures, "slow": slow}))


if __name__ == "__main__":
    main()
