"""What the history costs as DataFrames, against pandas.read_sql of the same tables: CPU and peak memory of a store with 100,000 runs.

Each run has ten steps and ten artifacts. Every case reads runs, steps and artifacts in a fresh process, round by round, the first case
rotating; CPU is user and system time of that process and its children after all imports, `ratio` the median of the rounds' ratios to
typed, which ends in the same DataFrames, `ratio_raw` to read_sql, which does not. `peak` is the growth of resident memory while reading,
the child's whole memory included; `above` is how much of it is not the frames. Cases: read_sql (SELECT *, as it comes), same (read_sql of
the SQL that makes the same columns, as it comes), typed (same, and then made into the same DataFrame), rows (agentnb without the Arrow
extra), arrow (a first read), keeping (the second, which writes snapshots), snapshot (those after), and read_sql, typed and rows once more
without pyarrow altogether. Also runs_df(limit=1000) against the bare query for the same cells made into the same DataFrame, and against
fetching them only. Prints one JSON line.
Usage: python tests/benchmarks/bench_frames.py [ROUNDS [RUNS [FOLDER]]]    (a store in FOLDER is built once and kept)
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

NAMES = ("runs", "steps", "artifacts")
LIMITS = {
    "arrow_cpu": 0.3, "snapshot_cpu": 0.1, "rows_cpu": 1.0, "peak_of_frames": 2.5, "rows_above": 1 / 3, "limit_query": 1.5,
}  # fmt: skip
LIMITED = 1000


def statements(now: int = 0) -> dict[str, str]:
    """The SQL that makes each frame's columns, joins included."""
    from agentnb.history.frames import columns

    return {
        frame.name: "SELECT "
        + ", ".join(f'{c.sql.replace(":now", str(now))} AS "{c.name}"' for c in frame.columns if not c.full)
        + "".join(f', {sql} AS "{prefix}s"' for prefix, sql in frame.maps.items())
        + f" FROM {frame.source}"
        for frame in columns.FRAMES
    }


def sql_reader(root: Path, queries: dict[str, str]) -> Callable[[str], Any]:
    """pandas.read_sql of these queries."""
    import pandas as pd

    db = sqlite3.connect(f"file:{root / 'history.db'}?mode=ro", uri=True)
    return lambda name: pd.read_sql(queries[name], db)


def same_frame(name: str, frame: Any, mapped: dict[str, str]) -> Any:
    """What read_sql gave for a frame's SQL, with the dtypes of the frame, by pandas' own means; `mapped`: those of parameters and tags."""
    import pandas as pd

    from agentnb.history.frames import columns

    declared = [c for f in columns.FRAMES if f.name == name for c in f.columns if not c.full]
    kinds: dict[str, Any] = {c.name: pd.CategoricalDtype(list(c.categories)) if c.dtype == "category" else c.dtype for c in declared}
    for stamp in [name for name, kind in kinds.items() if str(kind).startswith("datetime")]:
        frame[stamp] = pd.to_datetime(frame[stamp], unit="us", utc=True).astype(kinds.pop(stamp))
    spread = [pd.DataFrame([json.loads(text) for text in frame.pop(m)]).add_prefix(f"{m[:-1]}.") for m in ("params", "tags") if m in frame]
    return pd.concat([frame.astype(kinds), *(part.astype({n: mapped[str(n)] for n in part}) for part in spread)], axis="columns")


def our_reader(root: Path, *, arrow: bool) -> Callable[[str], Any]:
    """The *_df functions, with the Arrow extra or without."""
    from agentnb.history.frames import bulk, frames

    if arrow:
        bulk.subprocess.run = watched_run  # type: ignore[attr-defined]  # to see the child's memory
    else:
        bulk.able = lambda: False
    return lambda name: getattr(frames, f"{name}_df")(root)


class Watch:
    """The largest memory of any child, MB; and the CPU seconds that looking took, which are none of the reader's."""

    peak = 0.0
    cpu_s = 0.0


def watched_run(argv: list[str], *, input: bytes, check: bool, timeout: float, **more: Any) -> Any:  # noqa: A002 - as in subprocess
    """subprocess.run, and a look at the child's peak memory every few milliseconds."""
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, **more)
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            Watch.peak = max(Watch.peak, memory("VmHWM", child.pid))
        Watch.cpu_s += time.thread_time()

    thread = threading.Thread(target=look)
    thread.start()
    out, _ = child.communicate(input, timeout=timeout)
    over.set()
    thread.join()
    if check and child.returncode:
        raise subprocess.CalledProcessError(child.returncode, argv)
    return subprocess.CompletedProcess(argv, child.returncode, out)


def mapped_dtypes(root: Path) -> dict[str, str]:
    """Dtypes of the columns of parameters and tags."""
    from agentnb.history.frames import frames

    return {str(n): str(t) for n, t in frames.runs_df(root, limit=LIMITED).dtypes.items() if str(n).startswith(("param.", "tag."))}


def memory(what: str, pid: int | str = "self") -> float:
    """MB, by /proc; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith(what)), 0.0)


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def one_case(case: str, root: Path) -> dict[str, float]:
    """Read the three frames once, in this process."""
    if case.endswith("_bare"):
        sys.modules["pyarrow"] = None  # type: ignore[assignment]  # as if it were not installed
    kind = case.removesuffix("_bare")
    if kind in {"read_sql", "same", "typed"}:
        read = sql_reader(root, {name: f"SELECT * FROM {name}" for name in NAMES} if kind == "read_sql" else statements())
        if kind == "typed":
            plain, mapped = read, mapped_dtypes(root)
            read = lambda name: same_frame(name, plain(name), mapped)  # noqa: E731 - one of three readers
    else:
        read = our_reader(root, arrow=kind != "rows")
    before, base, start = cpu_s(), memory("VmRSS"), time.perf_counter()
    found = [read(name) for name in NAMES]
    cpu, wall = cpu_s() - before - Watch.cpu_s, time.perf_counter() - start
    peak = memory("VmHWM") - base + Watch.peak
    size = sum(float(frame.memory_usage(deep=True).sum()) for frame in found) / 1e6
    return {"cpu_s": cpu, "wall_s": wall, "peak_mb": peak, "frames_mb": size, "rows": sum(map(len, found))}


def forget(root: Path) -> None:
    """Leave the store without snapshots, and as if it was never read."""
    from agentnb.history.frames import snapshots

    snapshots.drop(root)
    for mark in (root / snapshots.FOLDER).glob("*.read"):
        mark.unlink()


def measured(case: str, root: Path) -> dict[str, float]:
    if case == "arrow":
        forget(root)
    argv = [sys.executable, __file__, "--case", case, str(root)]
    found: dict[str, float] = json.loads(subprocess.run(argv, check=True, capture_output=True, cwd=ROOT).stdout)
    return found


def race(root: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each case; the snapshot is made, unmeasured, before its case."""
    cases = ["read_sql", "same", "typed", "rows", "arrow", "keeping", "snapshot", "read_sql_bare", "typed_bare", "rows_bare"]
    if importlib.util.find_spec("adbc_driver_sqlite") is None:
        cases = [case for case in cases if case not in {"arrow", "keeping", "snapshot"}]
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    for turn in range(rounds):
        order = cases if turn % 2 == 0 else [*cases[-3:], *cases[:-3]]  # arrow, keeping and snapshot follow each other
        for case in order:
            found[case].append(measured(case, root))
    figures = {}
    for case, rows in found.items():
        bare = "_bare" if case.endswith("_bare") else ""
        figures[case] = {key: round(statistics.median(row[key] for row in rows), 2) for key in rows[0]}
        for name, peer in (("ratio", f"typed{bare}"), ("ratio_raw", f"read_sql{bare}")):
            pairs = zip(rows, found[peer], strict=True)
            figures[case][name] = round(statistics.median(row["cpu_s"] / other["cpu_s"] for row, other in pairs), 3)
        figures[case]["peak_of_frames"] = round(figures[case]["peak_mb"] / figures[case]["frames_mb"], 2)
        figures[case]["above_mb"] = round(figures[case]["peak_mb"] - figures[case]["frames_mb"], 1)
    return figures


def bare_query(root: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The newest 1000 runs by the index: fetched, and made into the same DataFrame by pandas."""
    import pandas as pd

    from agentnb.history.frames import frames

    db = sqlite3.connect(f"file:{root / 'history.db'}?mode=ro", uri=True)
    sql = f"SELECT * FROM ({statements()['runs']} ORDER BY r.created_at DESC, r.id DESC LIMIT {LIMITED}) ORDER BY created_at, id"
    names = [name for name, *_ in db.execute(sql).description]
    mapped = mapped_dtypes(root)

    def fetched() -> list[Any]:
        return db.execute(sql).fetchall()

    def made() -> Any:
        return same_frame("runs", pd.DataFrame(fetched(), columns=names), mapped)

    pd.testing.assert_frame_equal(made(), frames.runs_df(root, limit=LIMITED), check_flags=False)
    return fetched, made


def limited(root: Path, rounds: int) -> dict[str, float]:
    """CPU of runs_df(limit=1000) and of the bare query, milliseconds, round by round in one process."""
    from agentnb.history.frames import frames

    fetched, made = bare_query(root)
    cases: dict[str, Callable[[], Any]] = {"fetchall": fetched, "bare": made, "ours": lambda: frames.runs_df(root, limit=LIMITED)}
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(10 * rounds):
        for name, run in cases.items():
            start = time.process_time()
            run()
            found[name].append(1000 * (time.process_time() - start))
    figures = {f"{name}_ms": round(statistics.median(times), 2) for name, times in found.items()}
    ratio = statistics.median(a / b for a, b in zip(found["ours"], found["bare"], strict=True))
    return figures | {"ratio": round(ratio, 3), "ratio_to_fetchall": round(figures["ours_ms"] / figures["fetchall_ms"], 2)}


def figures_of(root: Path, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = race(root, rounds)
    found["limit_query"] = limited(root, rounds)
    ok = {
        "rows_cpu": max(found["rows"]["ratio"], found["rows_bare"]["ratio"]) <= LIMITS["rows_cpu"],
        "rows_above": found["rows"]["above_mb"] <= LIMITS["rows_above"] * found["read_sql"]["above_mb"],
        "limit_query": found["limit_query"]["ratio"] <= LIMITS["limit_query"],
    }
    if "arrow" in found:
        ok["arrow_cpu"] = found["arrow"]["ratio"] <= LIMITS["arrow_cpu"]
        ok["snapshot_cpu"] = found["snapshot"]["ratio"] <= LIMITS["snapshot_cpu"]
        ok["peak_of_frames"] = max(found[case]["peak_of_frames"] for case in ("rows", "arrow", "snapshot")) <= LIMITS["peak_of_frames"]
    return {"ok": all(ok.values()), "within": ok, "limits": LIMITS} | found


def main() -> None:
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(one_case(sys.argv[2], Path(sys.argv[3]))))
        return
    from tests.benchmarks.big_store import build

    rounds, runs = ([int(word) for word in sys.argv[1:3]] + [3, 100_000][len(sys.argv[1:3]) :])[:2]
    with tempfile.TemporaryDirectory() as folder:
        root = build(Path(sys.argv[3] if len(sys.argv) > 3 else folder) / "store", runs)
        with closing(sqlite3.connect(root / "history.db")) as db:
            counts = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in NAMES}
        print(json.dumps({"bench": "frames", "rounds": rounds} | counts | figures_of(root, rounds)))


if __name__ == "__main__":
    main()
