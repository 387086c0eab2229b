"""Durable append: events through Store.apply, against the bare insertion of the very rows that they add up to.

RUNS runs of an agent go on at a time: each has an attempt with STEPS turns and tool calls, usage, an artifact, output; their events come in
turn, K to a batch, and each batch is one transaction. The peer `sqlite3` has the rows ready as tuples, inserts them by one executemany per
table and batch into a database of the same schema and settings (WAL), and never updates; `sqlite3_json` does the same, but has to write its
JSON columns, with json.dumps. Rounds alternate; `cpu_ratio` and `wall_ratio` (to `sqlite3`), `cpu_ratio_json` and `wall_ratio_json` are the
medians of the per-round ratios of rows per second, ours to the peer's: at 1 it would cost nothing to make rows of events. The limit is
for `wall_ratio` with eight runs at a time. With 200 nearly every step ends in a later batch than it began in: its row is written twice,
where the peers, who know how it will end, write it once. The shape that ends in `_full` has synchronous=FULL on all sides. Prints one
JSON line. Usage: python tests/benchmarks/bench_append.py [ROUNDS [EVENTS]]
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any

from agentnb.events import ArtifactSaved, Message, RunFinished, RunQueued, RunStarted, StepFinished, StepStarted, UsageReported, now_us
from agentnb.history.store import Store
from agentnb.ids import new_id

LIMIT = 0.7
STEPS = 20
#: (runs at a time, events in a batch, whether each batch is synced)
SHAPES = ((8, 100, False), (8, 1000, False), (200, 100, False), (8, 100, True))
JSON = {"target", "params", "tags", "input", "output", "error", "usage", "detail", "tokens", "location", "data"}
TABLES = ("sessions", "runs", "steps", "artifacts", "events", "logs")
USAGE = {"wall_time": 2.5, "cpu_time": 0.5, "peak_memory_bytes": 10_514_432, "disk_read_bytes": 0, "disk_write_bytes": 4096, "processes": 2}
Batches = list[list[Message]]
#: Table -> its rows, for each batch.
Rows = list[dict[str, list[tuple[Any, ...]]]]


def life_of_a_run(number: int) -> Iterator[Message]:
    """The events of an agent's run, one by one."""
    run, attempt = new_id(), new_id()
    target = {"kind": "python", "display": "agent", "spec": {"type": "python", "function": "agents.answer"}}
    record = {"id": run, "session_id": "S", "name": f"agent [{number}]", "target": target, "runtime_kind": "local", "created_at": now_us()}
    yield RunQueued(record | {"params": {"n": number, "model": "small"}, "tags": {"topic": "bench"}})
    yield RunStarted(run, f"pid:{number}")
    yield StepStarted(run, attempt, "attempt", "attempt 1", 1)
    for turn in range(STEPS):
        step, kind = new_id(), "turn" if turn % 2 else "tool"
        yield StepStarted(
            run, step, kind, f"{kind} {turn}", 1, parent_id=attempt, input={"path": f"src/module_{turn}.py", "lines": [1, 80]}
        )
        tokens = {"input": 900 + turn, "output": 40 + turn}
        yield StepFinished(
            run, step, "completed", tokens=tokens, cost_usd=0.001, output={"text": "def answer():\n    return 42\n" * 3}, run_s=0.1
        )
        if turn % 10 == 9:
            yield UsageReported(run, input_tokens=900 * turn, output_tokens=40 * turn, cost_usd=0.001 * turn)
    artifact = {"id": new_id(), "name": "answer.txt", "content_type": "text/plain", "size": 12, "checksum": f"sha256:{number:064x}"}
    yield ArtifactSaved(run, artifact | {"location": {"type": "local", "path": f"blobs/{number:064x}"}, "source_step": attempt})
    yield StepFinished(run, attempt, "completed", exit_code=0, usage=USAGE)
    output = {"size": 12, "text": "all is well\n", "path": None}
    yield RunFinished(run, "completed", exit_code=0, stdout=output, usage=USAGE, attempts=1, run_s=2.5, detail={"reason": None})


def batches_of(events: int, parallel: int, size: int) -> Batches:
    """So many events of runs that go on in turn, cut into batches."""
    numbers = count()
    lives = [life_of_a_run(next(numbers)) for _ in range(parallel)]

    def stream() -> Iterator[Message]:
        while True:
            for place, life in enumerate(lives):
                event = next(life, None)
                if event is None:
                    lives[place] = life_of_a_run(next(numbers))
                    event = next(lives[place])
                yield event

    flow = stream()
    return [list(islice(flow, size)) for _ in range(events // size)]


def rows_of(batches: Batches, folder: Path) -> tuple[Rows, int]:
    """The rows that the batches add up to in the end, by the batch that brought them; and how many they are."""
    with Store.open(folder) as store, closing(sqlite3.connect(folder / "history.db")) as db:
        seen = dict.fromkeys(TABLES, 0)
        bounds = []
        for batch in batches:
            store.apply(batch)
            last = {table: db.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchone()[0] for table in TABLES}
            bounds.append({table: (seen[table], last[table]) for table in TABLES})
            seen = last
        query = "SELECT * FROM {} WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
        rows = [{table: db.execute(query.format(table), bound).fetchall() for table, bound in batch.items()} for batch in bounds]
    return rows, sum(len(found) for batch in rows for found in batch.values())


def unwritten(rows: Rows, folder: Path) -> Rows:
    """The same rows with their JSON columns as values."""
    with closing(sqlite3.connect(folder / "history.db")) as db:
        is_json = {table: [column[1] in JSON for column in db.execute(f"PRAGMA table_info({table})")] for table in TABLES}

    def row_of(table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(json.loads(cell) if here and cell is not None else cell for cell, here in zip(row, is_json[table], strict=True))

    return [{table: [row_of(table, row) for row in found] for table, found in batch.items()} for batch in rows]


def written(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What sqlite3 can bind of such rows."""
    return [tuple([json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in row]) for row in found]


def ours(batches: Batches, *, full: bool) -> Callable[[Path], None]:
    """Through the store."""

    def run(folder: Path) -> None:
        with Store.open(folder, owner="bench") as store:
            if full:
                store.sync()
            start_clock()
            for batch in batches:
                store.apply(batch)
            stop_clock()

    return run


def bare(rows: Rows, *, full: bool, write: Callable[[list[tuple[Any, ...]]], list[tuple[Any, ...]]] = list) -> Callable[[Path], None]:
    """Through sqlite3 alone; `write` makes rows that it can bind."""

    def run(folder: Path) -> None:
        Store.open(folder).close()
        with closing(sqlite3.connect(folder / "history.db", isolation_level=None, cached_statements=64)) as db:
            for pragma in (f"synchronous = {'FULL' if full else 'NORMAL'}", "wal_autocheckpoint = 4000", "cache_size = -4000"):
                db.execute(f"PRAGMA {pragma}")
            statements = {
                table: f"INSERT INTO {table} VALUES ({', '.join('?' * len(db.execute(f'PRAGMA table_info({table})').fetchall()))})"
                for table in TABLES
            }
            start_clock()
            for batch in rows:
                db.execute("BEGIN IMMEDIATE")
                for table, found in batch.items():
                    if found:
                        db.executemany(statements[table], write(found))
                db.execute("COMMIT")
            stop_clock()

    return run


_clock: list[tuple[float, float]] = []


def start_clock() -> None:
    """The part that counts begins. What lies ready for all cases is hidden from the garbage collector: no supervisor has it."""
    gc.freeze()
    _clock[:] = [(time.perf_counter(), time.process_time())]


def stop_clock() -> None:
    """It is over."""
    _clock.append((time.perf_counter(), time.process_time()))


def measure(case: Callable[[Path], None]) -> tuple[float, float]:
    """Seconds of wall and CPU time, in a new store."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("AGENTNB_BENCH_DIR")) as folder:
        case(Path(folder) / "store")
    (wall, cpu), (wall_end, cpu_end) = _clock
    return wall_end - wall, cpu_end - cpu


def race(rounds: int, batches: Batches, *, full: bool) -> dict[str, float]:
    """Rows per second of all, and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        rows, total = rows_of(batches, Path(folder) / "store")
        values = unwritten(rows, Path(folder) / "store")
    cases = {"agentnb": ours(batches, full=full), "sqlite3": bare(rows, full=full), "sqlite3_json": bare(values, full=full, write=written)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name in [*cases, *cases][turn % len(cases) :][: len(cases)]:
            times[name].append(measure(cases[name]))
    figures: dict[str, float] = {"rows": total}
    for name, found in times.items():
        figures[f"{name}_rows_s"] = round(total / statistics.median(wall for wall, _ in found))
    for name, suffix in (("sqlite3", ""), ("sqlite3_json", "_json")):
        for place, what in enumerate(("wall_ratio", "cpu_ratio")):
            ratios = [theirs[place] / mine[place] for mine, theirs in zip(times["agentnb"], times[name], strict=True)]
            figures[what + suffix] = round(statistics.median(ratios), 3)
    return figures


def main() -> None:
    rounds, events = ([int(word) for word in sys.argv[1:]] + [7, 40_000][len(sys.argv) - 1 :])[:2]
    figures = {
        f"{parallel}_runs_{size}_events{'_full' * full}": race(rounds, batches_of(events, parallel, size), full=full)
        for parallel, size, full in SHAPES
    }
    ok = all(found["wall_ratio"] >= LIMIT for name, found in figures.items() if name.startswith("8_"))
    head = {"bench": "append", "rounds": rounds, "events": events, "ok": ok, "limits": {"wall_ratio": LIMIT}}
    peak = {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    print(json.dumps(head | figures | peak))


if __name__ == "__main__":
    main()
