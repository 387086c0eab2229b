"""A store of any size for benchmarks: finished runs with steps and artifacts as real ones have them, written with SQL in batches."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from agentnb.history.store import DATABASE, Store

T0 = 1_767_225_600_000_000
SECOND = 1_000_000
BATCH = 20_000
SESSION_RUNS = 1000
USAGE = json.dumps({"cpu_time": 0.25, "peak_memory_bytes": 12_500_000, "disk_read_bytes": 4096, "disk_write_bytes": 8192, "processes": 3})
TOKENS = json.dumps({"input": 1200, "output": 340, "cache_read": 900, "cache_write": 0})
FAILURE = json.dumps({"kind": "execution_failed", "message": "the command ended with exit code 1", "details": {"exit_code": 1}})
KINDS = ("attempt", "turn", "tool", "turn", "tool")


def key(kind: str, number: int) -> str:
    """An id as long as real ones, in order."""
    return f"{kind}_01K{number:023d}"


def _sessions(runs: int) -> Iterator[dict[str, Any]]:
    for number in range(-(-runs // SESSION_RUNS)):
        at = T0 + number * SESSION_RUNS * SECOND
        yield {
            "id": key("ses", number), "name": f"session {number}", "status": "ended", "created_at": at,
            "ended_at": at + SESSION_RUNS * SECOND, "tags": '{"team":"bench"}', "owner": "gone", "schema_version": 1,
        }  # fmt: skip


def _runs(runs: int) -> Iterator[dict[str, Any]]:
    for number in range(runs):
        at, bad = T0 + number * SECOND, number % 20 == 0
        params = {"model": "small" if number % 2 else "large", "temperature": number % 5 / 4, "seed": number % 10, "depth": 7, "p": 0.5}
        command = f"work --seed {number % 10}"
        target = {"kind": "shell", "display": command, "spec": {"type": "shell", "command": command}}
        yield {
            "id": key("run", number), "session_id": key("ses", number // SESSION_RUNS), "group_id": key("grp", number // 100),
            "name": f"work-{number}", "status": "failed" if bad else "completed", "target_kind": "shell", "target": json.dumps(target),
            "command": command, "runtime_kind": "local", "created_at": at, "started_at": at + 1500, "timeout_s": 600.0,
            "finished_at": at + 2 * SECOND + number % 977, "exit_code": int(bad), "reason": "exit code 1" if bad else None,
            "error_kind": "execution_failed" if bad else None, "error": FAILURE if bad else None,
            "output": None if bad else '{"score": 0.5}',
            "params": json.dumps(params), "tags": '{"suite":"nightly"}', "attempts": 1, "run_s": 1.9985 + number % 977 / 1e6,
            "cpu_s": 0.25, "peak_memory_bytes": 12_500_000 + number, "disk_read_bytes": 4096, "disk_write_bytes": 8192, "processes": 3,
            "input_tokens": 1200, "output_tokens": 340, "cost_usd": 0.0123, "tokens_per_s": 170.0, "stdout_bytes": 120, "stderr_bytes": 0,
            "detail": '{"reason":null}', "usage": USAGE, "trace_id": f"{number:032x}", "schema_version": 1, "owner": "gone",
        }  # fmt: skip


def _steps(runs: int, each: int) -> Iterator[dict[str, Any]]:
    for number, place in itertools.product(range(runs), range(each)):
        at = T0 + number * SECOND + place * 100_000
        yield {
            "run_id": key("run", number), "id": f"{place + 1}", "parent_id": "1" if place else None, "kind": KINDS[place % 5],
            "name": f"{KINDS[place % 5]} {place}", "status": "completed", "attempt": 1, "created_at": at, "started_at": at,
            "finished_at": at + 90_000 + number % 977, "exit_code": 0 if place == 0 else None, "usage": USAGE if place == 0 else None,
            "cpu_s": 0.25 if place == 0 else None, "peak_memory_bytes": 12_500_000 if place == 0 else None,
            "tokens": TOKENS if place % 2 else None, "input_tokens": 1200 if place % 2 else None,
            "output_tokens": 340 if place % 2 else None, "cost_usd": 0.0012 if place % 2 else None,
            "input": f'{{"path": "file-{number % 50}.py"}}' if place else None,
            "output": f'"answer {number % 1000} of step {place}"' if place else None, "run_s": 0.09 + number % 977 / 1e6,
        }  # fmt: skip


def _artifacts(runs: int, each: int) -> Iterator[dict[str, Any]]:
    for number, place in itertools.product(range(runs), range(each)):
        digest = f"{number * each + place:064x}"
        yield {
            "id": key("art", number * each + place), "name": f"part-{place}.json", "content_type": "application/json",
            "size": 200 + number % 100, "location": f'{{"type":"local","path":"blobs/{digest[-2:]}/{digest}"}}',
            "checksum": f"sha256:{digest}",
            "created_at": T0 + number * SECOND + place * 1000, "source_run": key("run", number), "source_step": "1", "schema_version": 1,
        }  # fmt: skip


def build(root: Path, runs: int, each: int = 10) -> Path:
    """A store at `root` with `runs` finished runs, each with `each` steps and artifacts; one that is there is used as it is."""
    done = root / f"built-{runs}-{each}"
    if done.exists():
        return root
    Store.open(root).close()
    with closing(sqlite3.connect(root / DATABASE, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        tables = {"sessions": _sessions(runs), "runs": _runs(runs), "steps": _steps(runs, each), "artifacts": _artifacts(runs, each)}
        for table, rows in tables.items():
            while batch := list(itertools.islice(rows, BATCH)):
                names = list(batch[0])
                db.execute("BEGIN")
                db.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})", batch)
                db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    done.touch()
    return root
