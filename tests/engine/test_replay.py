"""Playing recordings in a real supervisor: what is recorded comes back, at its pace, and nothing is started."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from agentnb.events import Json
from tests.engine.driver import Engine, Watched, children, peak_memory, wait_until
from tests.history.recordings.lines import HEAD, artifact, entry, output, whole, write


def play(engine: Engine, lines: list[Json] | Path, speed: float | None = None, **work: Any) -> Watched:
    """Launch the replay of these lines."""
    path = lines if isinstance(lines, Path) else write(lines, f"{time.monotonic_ns()}.jsonl")
    return engine.launch("", kind="replay", argv=[], replay={"path": str(path), "speed": speed}, **work)


def row(engine: Engine, run: Watched, columns: str) -> tuple[Any, ...]:
    """Columns of the run in the history."""
    engine.settle()
    return engine.rows(f"SELECT {columns} FROM runs WHERE id = ?", run.id)[0]


def test_all_that_was_recorded_is_there_again(engine: Engine) -> None:
    lines = whole(
        entry(0.1, "step_started", step=2, parent=1, kind="turn", name="turn 1", input={"q": [1, None]}),
        output(0.2, "thinking\n"),
        output(0.3, b"\xff\xfe", "stderr"),
        entry(0.4, "usage_reported", input_tokens=7, output_tokens=3, cost_usd=0.5, model="m", turns=2, cache_read_tokens=5),
        entry(0.5, "step_finished", step=2, status="failed", error={"kind": "timeout", "message": "slow"}, tokens={"input": 7}, run_s=0.4),
        entry(0.5, "step_used", step=2, cost_usd=0.25),
        *artifact(0.6, "../../etc/passwd", b"data\0" * 100, step=2),
        status="failed",
        exit_code=3,
        error={"kind": "execution_failed", "message": "no", "details": {"a": 1}},
        output={"x": [1]},
        usage={"cpu_time": 0.25, "peak_memory_bytes": 1000},
        stderr={"size": 2},
        detail={"reason": "non_zero_exit", "warnings": ["careful"], "output_source": "json"},
    )
    run = play(engine, lines)
    end = run.wait()
    assert (end.status, end.exit_code, end.output, end.run_s, end.attempts) == ("failed", 3, {"x": [1]}, 1.0, 1)
    assert end.error == {"kind": "execution_failed", "message": "no", "details": {"a": 1}}
    assert (run.stdout(), run.stderr()) == (b"thinking\n", "\ufffd\ufffd".encode())  # small output is kept as text, as of any run
    assert end.usage == {"cpu_time": 0.25, "peak_memory_bytes": 1000}
    assert (end.detail["reason"], end.detail["warnings"], end.detail["output_source"]) == ("non_zero_exit", ["careful"], "json")
    assert row(engine, run, "input_tokens, output_tokens, cost_usd, cpu_s") == (7, 3, 0.5, 0.25)
    assert row(engine, run, "model, turns, cache_read_tokens, target_kind") == ("m", 2, 5, "command")
    steps = engine.rows(
        "SELECT id, parent_id, kind, status, input, tokens, cost_usd, run_s, error_kind FROM steps WHERE run_id = ?", run.id
    )
    assert steps == [
        (f"{run.id}-1", None, "attempt", "failed", None, None, None, 1.0, None),
        (f"{run.id}-2", f"{run.id}-1", "turn", "failed", '{"q":[1,null]}', '{"input":7}', 0.25, 0.4, "timeout"),
    ]
    [(name, size, location, step)] = engine.rows("SELECT name, size, location, source_step FROM artifacts WHERE source_run = ?", run.id)
    assert (name, size, step) == ("../../etc/passwd", 500, f"{run.id}-2")
    assert (engine.store / json.loads(location)["path"]).read_bytes() == b"data\0" * 100
    assert json.loads(location)["path"].startswith("blobs/")


def test_attempts_have_outputs_of_their_own(engine: Engine) -> None:
    lines = [
        *whole(output(0.1, "one\n"))[:4],
        entry(0.2, "step_finished", step=1, status="failed", kept=True),
        entry(0.2, "run_retrying", attempt=2, delay_s=0.1),
        entry(0.3, "step_started", step=2, kind="attempt", name="attempt 2", attempt=2),
        output(0.4, "two\n"),
        entry(0.5, "step_finished", step=2, status="completed"),
        entry(0.5, "run_finished", status="completed", attempts=2, stdout={"size": 4}),
    ]
    run = play(engine, lines)
    assert (run.wait().status, run.stdout()) == ("completed", b"two\n")
    assert len(run.of("run_retrying")) == 1
    [(first,)] = engine.rows("SELECT output FROM steps WHERE run_id = ? AND attempt = 1", run.id)
    assert json.loads(first)["stdout"] == {"size": 4, "text": "one\n"}
    assert row(engine, run, "attempts") == (2,)


@pytest.mark.parametrize(("speed", "least", "most"), [(None, 0.0, 20.0), (2.0, 0.5, 20.0), (0.5, 2.0, 30.0)])
def test_the_speed_is_kept(engine: Engine, speed: float | None, least: float, most: float) -> None:
    began = time.monotonic()
    end = play(engine, whole(output(0.5, "x")), speed).wait()
    assert least <= time.monotonic() - began < most
    assert end.run_s == 1.0


def test_output_comes_live_before_the_end(engine: Engine) -> None:
    run = play(engine, whole(output(0.1, "early\n"), length_s=1000.0), 1.0).started()
    run.watch()
    wait_until(lambda: "early" in run.seen(), "the output")
    assert not run.done.done()
    run.cancel()
    assert run.wait().status == "cancelled"


def test_a_cancelled_replay_ends_at_once_and_keeps_what_it_came_to(engine: Engine) -> None:
    lines = whole(output(0.0, "part\n"), entry(0.0, "usage_reported", cost_usd=0.5), output(500.0, "never\n"), length_s=1000.0)
    run = play(engine, lines, 1.0).started()
    wait_until(lambda: run.of("usage_reported"), "the first events")
    asked = time.monotonic()
    run.cancel("enough")
    end = run.wait()
    assert time.monotonic() - asked < 5
    assert (end.status, end.error, run.stdout()) == ("cancelled", {"kind": "cancelled", "message": "enough"}, b"part\n")
    assert engine.steps(run.id) == [("attempt", "attempt 1", "cancelled")]


def test_the_timeout_of_a_replay_is_its_own(engine: Engine) -> None:
    end = play(engine, whole(length_s=1000.0), 1.0, timeout_s=0.2).wait()
    assert (end.status, end.error and end.error["kind"]) == ("timeout", "timeout")
    at_once = play(engine, [HEAD, entry(0, "usage_reported"), *whole(length_s=1000.0)[1:]], 1e-9, timeout_s=0.05)
    assert at_once.wait().status == "timeout"
    assert engine.status(at_once.id) == "timeout"


def test_nothing_is_started_and_nobody_is_asked(engine: Engine) -> None:
    engine.settle()
    before = children(engine.pid)
    run = play(engine, whole(length_s=1000.0), 1.0).started()
    assert (children(engine.pid), children(engine.spawner), run.pids()) == (before, [], [])
    run.cancel()
    metadata = run.wait().detail["metadata"]
    assert set(metadata) == {"started_at", "completed_at", "trace_id"}


def test_replays_wait_for_their_turn(engine: Engine) -> None:
    session = engine.open(max_parallel=1)
    path = write(whole(length_s=1000.0))
    first = engine.launch("", kind="replay", argv=[], replay={"path": str(path), "speed": 1.0}, session=session).started()
    second = engine.launch("", kind="replay", argv=[], replay={"path": str(path), "speed": None}, session=session)
    assert engine.status(second.id) == "pending"
    first.cancel()
    assert second.wait().status == "completed"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (whole()[:-1], "cut off"),
        (whole(entry(0.1, "step_finished", step=44, status="completed")), "step 44 is not open"),
        ([], "no recording"),
        (whole(*artifact(0.1, "a", b"1234")[1:]), "not what was recorded"),
    ],
)
def test_a_file_that_was_spoilt_after_the_launch_fails_the_run(engine: Engine, lines: list[Json], says: str) -> None:
    run = play(engine, lines)
    end = run.wait()
    assert (end.status, end.error and end.error["kind"]) == ("failed", "execution_failed")
    assert says in str(end.error)
    assert engine.status(run.id) == "failed"
    assert engine.run("echo fine").status == "completed"


def test_a_file_that_is_gone_fails_the_run(engine: Engine) -> None:
    end = play(engine, Path("nowhere.jsonl").absolute()).wait()
    assert end.status == "failed"
    assert "cannot be read" in str(end.error)


@pytest.mark.parametrize("data", [b"\0\xff" * 100, b'{"agentnb_export": 1, "run": {"id": "x"}}\n' + b"[" * 5000, b"{}" * 5000])
def test_garbage_fails_the_run_and_nothing_else(engine: Engine, data: bytes) -> None:
    file = Path("garbage").absolute()
    file.write_bytes(data)
    assert play(engine, file).wait().status == "failed"
    assert engine.run("echo fine").status == "completed"


def test_an_artifact_that_is_not_in_the_file_is_named_in_a_warning(engine: Engine) -> None:
    _, _, saved = artifact(0.1, "big.bin", b"12345")
    run = play(engine, whole(saved | {"inline": False}))
    assert any("'big.bin'" in warning and "not in the recording" in warning for warning in run.wait().detail["warnings"])
    known = engine.store / "blobs"
    assert not [path for path in known.rglob("*") if path.is_file()]


def test_an_artifact_that_this_store_has_is_found_by_its_checksum(engine: Engine) -> None:
    lines = artifact(0.1, "a.bin", b"12345")
    play(engine, whole(*lines)).wait()
    run = play(engine, whole(lines[-1] | {"inline": False}))
    assert run.wait().detail.get("warnings", []) == []
    engine.settle()
    assert engine.rows("SELECT name FROM artifacts WHERE source_run = ?", run.id) == [("a.bin",)]


def test_the_secrets_of_a_session_are_masked_in_what_it_replays(engine: Engine) -> None:
    word = "hunter2-and-more"
    lines = whole(
        output(0.1, f"a {word[:5]}"),
        output(0.2, f"{word[5:]} b {base64.b64encode(word.encode()).decode()}\n"),
        entry(0.3, "step_started", step=2, kind="tool", name=word, input={word: [word]}),
        status="failed",
        error={"kind": "execution_failed", "message": word},
        output=[word],
    )
    run = play(engine, lines, secrets=[word])
    assert word not in str(run.wait())
    assert run.stdout().startswith(b"a *** b ***")
    engine.settle()
    assert word not in str(engine.rows("SELECT * FROM steps")) + str(engine.rows("SELECT * FROM events"))


def test_a_long_recording_costs_the_supervisor_no_memory_and_delays_nobody(engine: Engine) -> None:
    engine.run("echo warm")
    play(engine, whole()).wait()
    file, lines = Path("long.jsonl").absolute(), [json.dumps(line) + "\n" for line in whole()]
    with file.open("w", encoding="utf-8") as out:
        out.writelines(lines[:3])
        piece = json.dumps(output(0.1, "x" * 9_999 + "\n")) + "\n"
        for _ in range(6000):
            out.write(piece)
        data = json.dumps(entry(0.1, "artifact_data", base64=base64.b64encode(b"y" * 100_000).decode())) + "\n"
        for _ in range(200):
            out.write(data)
        out.write(json.dumps(entry(0.1, "run_finished", status="completed", stdout={"size": 60_000_000})) + "\n")
    before = peak_memory(engine.pid)
    run = play(engine, file)
    assert engine.run("echo hi").status == "completed"
    end = run.wait()
    assert (end.status, end.stdout and end.stdout["size"]) == ("completed", 60_000_000)
    assert peak_memory(engine.pid) - before < 32 << 20
