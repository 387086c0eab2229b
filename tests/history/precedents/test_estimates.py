"""Estimates: from the history of the same command, or from built-in defaults."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.events import StepFinished, StepStarted
from agentnb.history.precedents import estimates
from agentnb.history.precedents.estimates import DEFAULTS, default_kind, estimate
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, whole_run

MB = 1_000_000


def history(
    store: Path, durations: list[float], *, status: str = "completed", command: str = "make", kind: str = "shell", at: int = T0
) -> None:
    target = {"kind": kind, "display": command, "spec": {}}
    with Store.open(store) as opened:
        for n, run_s in enumerate(durations):
            opened.apply(whole_run(f"{status}-{command}-{kind}-{at}-{n}", status, run_s=run_s, target=target, at=at + n * SECOND))


async def coroutine() -> None:
    """A function for nb.Python."""


@pytest.mark.parametrize(
    ("spec", "kind", "need"),
    [
        (nb.Shell("git status"), "git", (5, 128 * MB, 20)),
        (nb.Command(["/usr/bin/git", "log"]), "git", (5, 128 * MB, 20)),
        (nb.Shell("  gitk"), "shell", (10, 256 * MB, 50)),
        (nb.Shell("echo 'unclosed"), "shell", (10, 256 * MB, 50)),
        (nb.Shell("# nothing"), "shell", (10, 256 * MB, 50)),
        (nb.Command(["ls"]), "shell", (10, 256 * MB, 50)),
        (nb.Test("pytest"), "test", (30, 512 * MB, 80)),
        (nb.Handler("rm -rf tmp"), "handler", (2, 64 * MB, 10)),
        (nb.Python(print, "x"), "python", (10, 128 * MB, 100)),
        (nb.Python(coroutine), "coroutine", (10, None, None)),
        (nb.LocalModel("x", max_tokens=60, threads=2), "local_model", (2, 320 * MB, 200)),
    ],
)
def test_without_history_it_is_the_built_in_default(store: Path, spec: Any, kind: str, need: tuple[Any, ...]) -> None:
    history(store, [1.0])
    found = estimate(store, spec)
    assert default_kind(spec) == kind
    assert (found.source, found.n, found.confidence, found.duration_p90) == ("default", 0, 0.0, None)
    assert (found.duration, found.peak_memory_bytes, found.cpu_percent) == need
    assert kind in found.basis


def test_the_defaults_are_those_of_the_contract() -> None:
    wanted = {"git": (5, 128, 20), "shell": (10, 256, 50), "test": (30, 512, 80), "handler": (2, 64, 10), "claude": (None, 512, 10)}
    assert {
        name: (need.duration, (need.memory or 0) // MB, need.cpu_percent) for name, need in DEFAULTS.items() if name in wanted
    } == wanted


def test_history_gives_median_and_p90_of_completed_runs_of_the_same_command_only(store: Path) -> None:
    history(store, [float(n) for n in range(1, 12)])
    history(store, [1000.0] * 5, status="failed")
    history(store, [1000.0] * 5, command="make all")
    history(store, [1000.0] * 5, kind="test")
    found = estimate(store, nb.Shell("make"))
    assert (found.source, found.n, found.duration, found.duration_p90) == ("history", 11, 6.0, 10.0)
    assert (found.peak_memory_bytes, found.peak_memory_p90_bytes) == (1000, 1000)
    assert found.cpu_percent == pytest.approx(100 * 0.5 / 6)
    assert found.cpu_percent_p90 == pytest.approx(25.0)
    assert "11 completed runs" in found.basis


def test_confidence_grows_with_the_number_of_runs(store: Path) -> None:
    seen = []
    for n in range(5):
        seen.append(estimate(store, nb.Shell("make")).confidence if n else 0.0)
        history(store, [1.0], at=T0 + n * 100 * SECOND)
    assert seen == [n / (n + 4) for n in range(5)]


def test_only_the_latest_runs_count(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "MAX_RUNS", 3)
    history(store, [100.0] * 5)
    history(store, [1.0] * 3, at=T0 + 1000 * SECOND)
    found = estimate(store, nb.Shell("make"))
    assert (found.n, found.duration) == (3, 1.0)


def test_figures_that_were_not_measured_are_left_out(store: Path) -> None:
    history(store, [2.0, 4.0])
    with closing(sqlite3.connect(store / "history.db")) as db:
        db.execute("UPDATE runs SET cpu_s = NULL, peak_memory_bytes = NULL, run_s = CASE run_s WHEN 4.0 THEN 0 ELSE NULL END")
        db.commit()
    found = estimate(store, nb.Shell("make"))
    assert (found.n, found.duration, found.peak_memory_bytes, found.cpu_percent) == (2, 0.0, None, None)


def test_a_handler_is_known_by_its_steps(store: Path) -> None:
    history(store, [1.0])
    run = f"completed-make-shell-{T0}-0"
    with Store.open(store) as opened:
        for n, status in enumerate(["completed", "completed", "skipped", "failed"]):
            opened.apply([
                StepStarted(run, f"h{n}", "handler", "cleanup", input={"command": "rm tmp"}, at=T0),
                StepFinished(run, f"h{n}", status, usage={"cpu_time": 0.5, "peak_memory_bytes": 7}, at=T0 + (n + 1) * SECOND),
            ])  # fmt: skip
    found = estimate(store, nb.Handler("rm tmp"))
    assert (found.source, found.n, found.duration, found.peak_memory_bytes) == ("history", 2, 1.5, 7)


def test_odd_command_lines_are_only_text(store: Path) -> None:
    history(store, [1.0], command="it's; DROP TABLE runs --")
    assert estimate(store, nb.Shell("it's; DROP TABLE runs --")).n == 1
    assert estimate(store, nb.Shell("%")).n == 0
    assert estimate(store, nb.Shell("\udcff")).n == 0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_lies_among_its_values(values: list[float], q: float) -> None:
    found = estimates._quantile(values, q)
    assert found is not None
    assert min(values) <= found <= max(values)
    assert estimates._quantile([], q) is None
