"""A DataFrame of 10,000 runs: agentnb's runs_df against mlflow.search_runs and inspect_ai's samples_df for as many.

mlflow's sqlite store holds the same runs (five metrics, five parameters): one logged through its API, the others copied from it, row by
row, in its tables. inspect_ai reads one log of as many samples, copied from one that it ran. Every case reads twice in a fresh process,
and the second time counts, when all is imported; CPU is user and system time, `ratio` the median of the rounds' ratios to agentnb. Prints
one JSON line.
A peer that is not installed is left out: pip install mlflow inspect-ai, best into an environment of their own that sees this one's.
Usage: python tests/benchmarks/bench_peers.py [ROUNDS [RUNS]]
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

LIMIT = 10.0
METRICS = ("run_s", "cpu_s", "cost_usd", "input_tokens", "output_tokens")


def ours(folder: Path) -> Callable[[], Any]:
    """runs_df of the store."""
    from agentnb.history.frames import frames

    return lambda: frames.runs_df(folder / "agentnb")


def build_ours(folder: Path, runs: int) -> None:
    from tests.benchmarks.big_store import build

    build(folder / "agentnb", runs, 1)


def mlflow_uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def mlflow(folder: Path) -> Callable[[], Any]:
    """search_runs of the one experiment."""
    peer = importlib.import_module("mlflow")  # not of the dev extra: a peer that is measured where it is installed
    peer.set_tracking_uri(mlflow_uri(folder))
    return lambda: peer.search_runs(experiment_names=["bench"], max_results=50_000)


def build_mlflow(folder: Path, runs: int) -> None:
    """One run by its API; the others are copies of its rows with their own ids, values and times."""
    peer = importlib.import_module("mlflow")
    peer.set_tracking_uri(mlflow_uri(folder))
    peer.set_experiment("bench")
    with peer.start_run() as run:
        peer.log_metrics(dict.fromkeys(METRICS, 0.5))
        peer.log_params({"model": "small", "temperature": 0.5, "seed": 1, "depth": 2, "p": 0.5})
    first = run.info.run_id
    with closing(sqlite3.connect(folder / "mlflow.db")) as db:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            cursor = db.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", (first,))
            names = [name for name, *_ in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
            copies = [_copy(row, number, first) for number in range(1, runs) for row in rows]
            db.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})", copies)
        db.commit()


def _copy(row: dict[str, Any], number: int, first: str) -> dict[str, Any]:
    new: dict[str, Any] = {name: f"{number:032x}" if value == first else value for name, value in row.items()}
    if "start_time" in new:
        new |= {"start_time": new["start_time"] + 1000 * number, "end_time": new["end_time"] + 1000 * number, "name": f"work-{number}"}
    if isinstance(new.get("value"), float):
        new["value"] += number
    return new


def inspect_ai(folder: Path) -> Callable[[], Any]:
    """samples_df of the one log."""
    analysis = importlib.import_module("inspect_ai.analysis")
    return lambda: analysis.samples_df(str(folder / "inspect.eval"), quiet=True)


def build_inspect_ai(folder: Path, runs: int) -> None:
    """A sample with a score, answered without a model (its mock counts tokens by what it downloads), and copies of it."""
    peer, log, data, scorer, solver, model = (
        importlib.import_module(f"inspect_ai{part}") for part in ("", ".log", ".dataset", ".scorer", ".solver", ".model")
    )

    @solver.solver
    def answer() -> Any:
        async def solve(state: Any, _: Any) -> Any:
            state.output = model.ModelOutput.from_content("mockllm/model", "hello")
            return state

        return solve

    task = peer.Task(dataset=[data.Sample(input="Say hello", target="hello")], solver=answer(), scorer=scorer.includes())
    [done] = peer.eval(task, model="mockllm/model", log_dir=str(folder / "logs"), display="none")
    [sample] = done.samples
    done.samples = [sample.model_copy(update={"id": number, "uuid": f"{number:022d}"}) for number in range(runs)]
    done.eval.dataset.samples = done.results.total_samples = done.results.completed_samples = runs
    log.write_eval_log(done, str(folder / "inspect.eval"))


CASES = {"agentnb": (ours, build_ours), "mlflow": (mlflow, build_mlflow), "inspect_ai": (inspect_ai, build_inspect_ai)}


def one_case(case: str, folder: Path) -> dict[str, float]:
    """Read twice, in this process."""
    read = CASES[case][0](folder)
    read()
    before = resource.getrusage(resource.RUSAGE_SELF)
    frame = read()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"cpu_s": cpu, "process_mb": after.ru_maxrss / 1000, "rows": len(frame), "columns": len(frame.columns)}


def child(*words: str) -> Any:
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "INSPECT_DISPLAY": "none"}
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


def figures_of(folder: Path, rounds: int, runs: int) -> dict[str, Any]:
    cases = [case for case in CASES if importlib.util.find_spec(case) is not None]
    for case in cases:
        child("--build", case, str(folder), str(runs))
    found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
    for turn in range(rounds):
        for case in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            found[case].append(child("--case", case, str(folder)))
    figures: dict[str, Any] = {}
    for case, rows in found.items():
        figures[case] = {key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]}
        ratios = [row["cpu_s"] / own["cpu_s"] for row, own in zip(rows, found["agentnb"], strict=True)]
        figures[case]["ratio"] = round(statistics.median(ratios), 1)
    missing = [case for case in CASES if case not in cases]
    peers = [figures[case]["ratio"] for case in cases if case != "agentnb"]
    head: dict[str, Any] = {"ok": min(peers) >= LIMIT if peers else None}
    if missing:
        head["left_out"] = f"pip install {' '.join(name.replace('_', '-') for name in missing)} to measure {' and '.join(missing)}"
    return head | figures


def main() -> None:
    match sys.argv[1:]:
        case ["--case", case, folder]:
            print(json.dumps(one_case(case, Path(folder))))
        case ["--build", case, folder, runs]:
            CASES[case][1](Path(folder), int(runs))
            print("{}")
        case words:
            rounds, runs = ([int(word) for word in words] + [3, 10_000][len(words) :])[:2]  # type: ignore[assignment]
            with tempfile.TemporaryDirectory() as folder:
                head = {"bench": "peers", "runs": runs, "rounds": rounds, "limit": LIMIT}
                print(json.dumps(head | figures_of(Path(folder), rounds, int(runs))))


if __name__ == "__main__":
    main()
