"""Recordings are read with suspicion: what is wrong is named with file and line, and costs little."""

from __future__ import annotations

import json
import os
import tracemalloc
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.errors import ConfigError
from agentnb.history.recordings import recorded_values, recording
from agentnb.history.recordings.recording import Recording
from agentnb.results import FailureReason
from tests.history.recordings.lines import HEAD, artifact, entry, output, whole, write

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)

LOCAL = {"type": "local", "path": "/etc/passwd"}


def read(path: Path) -> list[dict[str, Any]]:
    """All entries of a recording."""
    found = []
    with closing(Recording(path)) as opened:
        while batch := opened.batch():
            found += batch
    return found


def refusal(path: Path) -> str:
    """What is said of a recording that is not right."""
    with pytest.raises(ConfigError) as caught:
        read(path)
    return str(caught.value)


def test_entries_come_in_order_with_their_bytes() -> None:
    file = write(whole(output(0.1, "hé\n"), output(0.2, b"\xff\0", "stderr"), *artifact(0.3, "a", b"12345")))
    found = read(file)
    assert [found[i]["data"] for i in (2, 3, 4, 5)] == ["hé\n".encode(), b"\xff\0", b"12", b"345"]
    assert found[-1]["status"] == "completed"


def test_types_and_fields_that_are_not_known_are_passed_over() -> None:
    file = write(whole(entry(0.1, "hologram", x=1), entry(0.2, "usage_reported", input_tokens=3, mood="good")))
    usage = read(file)[2]
    assert usage == {"t": 0.2, "type": "usage_reported", "input_tokens": 3}


def test_events_of_a_session_or_a_launch_are_not_played() -> None:
    lines = [
        entry(0.1, kind, run={"id": "x"}, session={"id": "x"}, session_id="x", run_id="x") for kind in ("run_queued", "session_started")
    ]
    assert len(read(write(whole(*lines)))) == len(read(write(whole())))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (entry(-1, "run_started"), "`t` must be the seconds since the launch"),
        (entry(1e300, "run_started"), "`t` must be the seconds"),
        ({"type": "run_started"}, "`t` must be the seconds"),
        ({"t": 1}, "the line has no `type`"),
        (entry(0.1, "output", stream="stdin", text="x"), "`stream` must be stdout or stderr"),
        (entry(0.1, "output", stream="stdout", base64="!!"), "`base64` cannot be decoded"),
        (entry(0.1, "output", stream="stdout"), "`base64` cannot be decoded"),
        (entry(0.1, "step_started", step=1, kind="tool", name="x"), "a number that no open step has"),
        (entry(0.1, "step_started", step=2, kind="dance", name="x"), "step_started: `kind` makes no sense: 'dance'"),
        (entry(0.1, "step_started", step=2, kind="tool", name=7), "`name` makes no sense"),
        (entry(0.1, "step_started", step=2, kind="tool", name="x", parent="../x"), "`parent` must be the number of a step"),
        (entry(0.1, "step_started", step=2, kind="tool", name="x", attempt=0), "`attempt` makes no sense"),
        (entry(0.1, "step_started", step=2, kind="tool"), "`name` is missing"),
        (entry(0.1, "step_finished", step=9, status="completed"), "step 9 is not open"),
        (entry(0.1, "step_used", step=1, cost_usd=1), "the number of a step that has ended, not 1"),
        (entry(0.1, "step_used", cost_usd=1), "the number of a step that has ended, not None"),
        (entry(0.1, "step_used", step=7, cost_usd=-1), "`cost_usd` makes no sense"),
        (entry(0.1, "step_finished", step=1, status="running"), "`status` makes no sense"),
        (entry(0.1, "step_finished", step=1, status="failed", error="no"), "`error` makes no sense"),
        (entry(0.1, "step_finished", step=1, status="failed", error={"kind": "bad", "message": "x"}), "`error` makes no sense"),
        (entry(0.1, "step_finished", step=1, status="failed", tokens={"input": -1}), "`tokens` makes no sense"),
        (entry(0.1, "step_finished", step=1, status="failed", usage={"cpu_time": "x"}), "`usage` makes no sense"),
        (entry(0.1, "usage_reported", cost_usd=-3), "`cost_usd` makes no sense"),
        (entry(0.1, "usage_reported", input_tokens=2.5), "`input_tokens` makes no sense"),
        (entry(0.1, "artifact_saved", artifact={"name": "x"}), "`artifact` makes no sense"),
        (entry(0.1, "artifact_saved", artifact={"name": "x", "size": 1, "checksum": "", "location": LOCAL}), "`artifact`"),
        (entry(0.1, "run_finished", status="running"), "`status` makes no sense"),
        (entry(0.1, "run_finished", status="failed", detail={"reason": "moon"}), "`detail` makes no sense"),
        (entry(0.1, "run_finished", status="failed", detail={"warnings": [1]}), "`detail` makes no sense"),
        (entry(0.1, "run_finished", status="failed", stdout={"size": -1}), "`stdout` makes no sense"),
    ],
)  # fmt: skip
def test_a_line_that_makes_no_sense_is_named(bad: dict[str, Any], why: str) -> None:
    said = refusal(write(whole(bad)))
    assert said.startswith(f"{Path('run.jsonl').absolute()}:4: ")
    assert why in said


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("", "this is no recording of agentnb"),
        ("hello\n", "it is no JSON"),
        ("[]\n", "it is no JSON object"),
        ('{"a": 1}\n', "this is no recording of agentnb"),
        ('{"agentnb_export": "1"}\n', "which is no version"),
        (
            '{"agentnb_export": 2, "run": {"id": "x"}}\n',
            "a newer agentnb wrote this recording (version 2, this one reads 1); upgrade agentnb",
        ),
        ('{"agentnb_export": 1}\n', "the head does not say which run"),
        ('{"agentnb_export": 1, "run": {"id": "x", "params": []}}\n', "run.params of the head makes no sense"),
        ('{"agentnb_export": 1, "run": {"id": "x"}, "x": NaN}\n', "NaN is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("\0\1\2\n", "it is no JSON"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_by_its_first_line(head: str, why: str) -> None:
    file = Path("x.jsonl").absolute()
    file.write_text(head, encoding="utf-8")
    said = refusal(file)
    assert said.startswith(f"{file}:1: ")
    assert why in said


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo("pipe")
    for path, why in (("pipe", "no plain file"), (".", "no plain file"), ("nowhere", "No such file"), ("a\0b", "null byte")):
        assert why in refusal(tmp_path / path)


@pytest.mark.parametrize("cut", range(1, 400, 13))
def test_a_file_that_was_cut_off_anywhere_is_refused(cut: int) -> None:
    file = write(whole(output(0.1, "x" * 50), entry(0.1, "usage_reported", input_tokens=1)))
    file.write_bytes(file.read_bytes()[:-cut])
    said = refusal(file) if cut > 1 else "cut off"  # without its last line end the file is whole
    assert "cut off" in said or "no recording" in said


def test_a_run_that_never_started_can_only_have_been_cancelled_or_failed() -> None:
    assert read(write([HEAD, entry(0.1, "run_finished", status="cancelled")]))
    assert "had to start" in refusal(write([HEAD, entry(0.1, "run_finished", status="completed")]))


def test_an_artifact_whose_bytes_were_changed_is_refused() -> None:
    lines = artifact(0.1, "a", b"12345")
    assert "is not what was recorded" in refusal(write(whole(lines[0], lines[2])))


def test_a_line_without_end_costs_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_LINE", 100_000)
    file = write(whole(output(0.1, "x" * 20_000_000)))
    tracemalloc.start()
    said = refusal(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "the line is longer than" in said
    assert peak < 5_000_000


def test_a_long_recording_costs_no_memory() -> None:
    file = Path("long.jsonl").absolute()
    lines = [json.dumps(line) + "\n" for line in whole()]
    with file.open("w", encoding="utf-8") as out:
        out.writelines(lines[:3])
        out.writelines(json.dumps(output(0.1, "x" * 10_000)) + "\n" for _ in range(2000))
        out.writelines(lines[3:])
    tracemalloc.start()
    with closing(Recording(file)) as opened:
        count = 0
        while batch := opened.batch():
            count += len(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2004
    assert peak < 5_000_000


def test_too_many_open_steps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_OPEN", 10)
    said = refusal(write(whole(*(entry(0.1, "step_started", step=n, kind="tool", name="x") for n in range(2, 20)))))
    assert "more than 10 steps are open" in said


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_refused_and_never_crashes(data: bytes) -> None:
    file = Path("garbage").absolute()
    file.write_bytes(data)
    refusal(file)
    file.write_bytes(json.dumps(HEAD).encode() + b"\n" + data)
    refusal(file)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([*recorded_values.PLAYED, "output", "artifact_data"]),
    st.dictionaries(
        st.sampled_from(["step", "parent", "status", "error", "usage", "tokens", "detail", "artifact", "t", "data", "stream"]), JSON
    ),
)
def test_entries_with_wrong_values_are_refused_or_right(kind: str, fields: dict[str, Any]) -> None:
    with suppress(ConfigError):  # anything else is a fault
        assert all(isinstance(one["type"], str) for one in read(write(whole(entry(0.1, kind) | fields))))


def test_the_reasons_are_those_of_results() -> None:
    assert {reason.value for reason in FailureReason} == recorded_values.REASONS


def test_no_path_of_a_workspace_comes_from_a_recording() -> None:
    space = {
        "kind": "worktree",
        "path": "/home/x",
        "source": "/home/y",
        "state": "/tmp/job",
        "branch": "main",
        "commit": "abc",
        "commits": [1],
    }
    file = write(whole(entry(0.1, "workspace_changed", workspace=space, files_changed=2)))
    assert read(file)[2] == {"t": 0.1, "type": "workspace_changed", "workspace": {"kind": "worktree", "commit": "abc"}, "files_changed": 2}
