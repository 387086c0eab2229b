from __future__ import annotations

import io
import json
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from agentnb.errors import ConfigError, StoreError
from agentnb.events import ArtifactSaved, RunQueued, SessionEnded, StepFinished, StepStarted
from agentnb.history.exporting.jsonl import lines, stream_jsonl, table_of, write_jsonl
from agentnb.history.exporting.selection import snapshot
from agentnb.history.frames import frames
from agentnb.history.frames.columns import FRAMES
from agentnb.history.store import Store
from agentnb.printing import plain
from tests.history.making import SECOND, T0, queued, started_session, table, whole_run


def fill(root: Path) -> Path:
    with Store.open(root) as store:
        store.apply([started_session(), started_session("S2", "second", at=T0 + 1)])
        for number, status in enumerate(["completed", "failed", "timeout"]):
            params = {"n": number, "w": "grün ⏎\n"} if number else {}
            store.apply(whole_run(f"r{number}", status, at=T0 + number * 10 * SECOND, params=params, tags={"t": "x"}))
        store.apply(whole_run("other", at=T0 + 50 * SECOND, session_id="S2", group_id="G"))
        location = {"type": "inline", "data": "aGk="}
        store.apply(
            [ArtifactSaved("other", {"id": "A", "name": "a", "size": 2, "location": location, "checksum": "x"}, at=T0 + 51 * SECOND)]
        )
        store.apply([SessionEnded("S2", "ended", at=T0 + 60 * SECOND)])
    return root


def read(root: Path, name: str = "events", **given: Any) -> list[dict[str, Any]]:
    with snapshot(root) as db:
        return [json.loads(line) for line in lines(db, root, table_of(name), given)]


def test_every_event_is_a_line_with_all_that_it_says(store: Path) -> None:
    found = read(fill(store))
    rows = table(store, "events")
    assert [line["seq"] for line in found] == [row["seq"] for row in rows]
    assert [line["data"] for line in found] == [json.loads(row["data"]) for row in rows]
    assert list(found[0]) == ["seq", "at", "type", "session_id", "group_id", "run_id", "step_id", "data"]
    assert found[0]["at"] == "2026-01-01T00:00:00.000000Z"
    assert found[0]["run_id"] is None


@pytest.mark.parametrize("name", [frame.name for frame in FRAMES])
def test_a_line_is_the_row_of_the_frame(store: Path, name: str) -> None:
    fill(store)
    frame = getattr(frames, f"{name}_df")(store, full=name == "events")
    grows = {"total_s"} if name == "sessions" else set()  # of one that goes on
    rows = {
        tuple(sorted((k, json.dumps(v)) for k, v in plain(row).items() if v is not None and k not in grows))
        for row in frame.to_dict("records")
    }
    found = read(store, name)
    assert len(found) == len(frame) > 0
    assert {tuple(sorted((k, json.dumps(v)) for k, v in line.items() if v is not None and k not in grows)) for line in found} == rows


def test_filters_are_those_of_the_frames(store: Path) -> None:
    fill(store)
    for given in ({"run": "r1"}, {"session": "second"}, {"where": "type = 'run_started'"}, {"limit": 3}, {"since": "2026-01-01T00:00:30Z"}):
        assert [line["seq"] for line in read(store, **given)] == frames.events_df(store, **given)["seq"].tolist(), given
    assert [line["id"] for line in read(store, "runs", where={"param.n": 2}, status="timeout")] == ["r2"]
    assert read(store, "runs", columns=["param.n", "id"], limit=1, until="2026-01-01T00:00:11Z") == [{"id": "r1", "param.n": 1}]


def test_output_is_there_when_all_is_asked_for(store: Path) -> None:
    assert [line["stdout"] for line in read(fill(store), "runs", full=True)] == ["hi\n"] * 4


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("events", {"colour": 1}, "events_df has no filter 'colour'"),
        ("events", {"columns": ["sequence"]}, "events have no column 'sequence'"),
        ("events", {"columns": "seq"}, "is one text; write a list"),
        ("events", {"status": "failed"}, "events have no status"),
        ("events", {"limit": -1}, "limit: -1 must be a whole number"),
        ("runs", {"where": "stat = 1"}, "where: runs_df has no column 'stat'; did you mean 'status'?"),
        ("runs", {"where": "((("}, "where: SQLite does not take this condition"),
        ("artifacts", {"full": True}, "JSON has no bytes"),
        ("artifacts", {"columns": ["content"]}, "JSON has no bytes"),
        ("things", {}, "there is no table 'things'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_there_is_a_file(store: Path, tmp_path: Path, name: str, given: Any, message: str) -> None:
    fill(store)
    with pytest.raises(ConfigError) as told:
        write_jsonl(store, tmp_path / "out" / "x.jsonl", name, given, overwrite=False)
    assert message in str(told.value)
    assert not (tmp_path / "out").exists()


def test_a_file_is_written_whole_and_says_how_many(store: Path, tmp_path: Path) -> None:
    fill(store)
    target = tmp_path / "out" / "events.jsonl"
    assert write_jsonl(store, target, "events", {}, overwrite=False) == len(table(store, "events"))
    assert target.read_bytes().count(b"\n") == len(table(store, "events"))
    with pytest.raises(ConfigError, match="is there already"):
        write_jsonl(store, target, "events", {}, overwrite=False)
    assert write_jsonl(store, target, "events", {"run": "nobody"}, overwrite=True) == 0
    assert target.read_bytes() == b""
    assert len(pd.read_json(io.StringIO(target.read_text()), lines=True)) == 0


def test_an_empty_store_has_no_lines_and_none_at_all_is_told(store: Path) -> None:
    with pytest.raises(StoreError, match="there is no history"):
        read(store)
    Store.open(store).close()
    assert {frame.name: read(store, frame.name) for frame in FRAMES} == {frame.name: [] for frame in FRAMES}


def test_events_that_come_while_it_is_read_are_not_in_it(store: Path) -> None:
    fill(store)
    number = len(table(store, "events"))
    seen: list[bytes] = []

    def write(line: bytes) -> None:
        if not seen:
            with Store.open(store) as other:
                other.apply(whole_run("late", at=T0 + 100 * SECOND))
        seen.append(line)

    stream_jsonl(store, write, "events", {})
    assert len(seen) == number < len(table(store, "events"))


def test_a_store_that_was_tampered_with_gives_valid_lines(store: Path) -> None:
    fill(store)
    db = sqlite3.connect(store / "history.db")
    bad = ['{"x":NaN}', '{"a":\n1}', '{"x":1e999,"y":"\\ud800"}', b"\xff\xfe", '{"a":' * 50_000]
    with db:
        for number, text in enumerate(bad, 1):
            db.execute("UPDATE events SET data = ? WHERE seq = ?", (text, number))
        db.execute("UPDATE events SET at = ? WHERE seq = 6", (2**62,))
        db.execute("UPDATE runs SET name = CAST(? AS TEXT), run_s = 9e999, params = 'no', exit_code = 'x' WHERE id = 'r0'", (b"a\xff",))
    db.close()
    found = read(store)
    assert [line["data"] for line in found[:3]] == ['{"x":NaN}', {"a": 1}, {"x": None, "y": "?"}]
    assert found[3]["data"] == "\ufffd\ufffd"
    assert isinstance(found[4]["data"], str)
    assert found[5]["at"] is None
    [run] = read(store, "runs", run="r0")
    assert (run["name"], run["run_s"], run["exit_code"]) == ("a\ufffd", None, "x")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_whatever_agents_say_comes_out_as_json_on_one_line(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    root = tmp_path_factory.mktemp("store")
    with Store.open(root) as store:
        store.apply(
            [
                queued("r", params={"x": value}),
                StepStarted("r", "s", "tool", "t", input=value),
                StepFinished("r", "s", "completed", output=value),
            ]
        )
    with snapshot(root) as db:
        for name in ("events", "runs", "steps"):
            for line in lines(db, root, table_of(name), {}):
                assert line.count(b"\n") == 1
                json.dumps(json.loads(line), allow_nan=False)


def test_a_queued_run_alone_is_a_line(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([RunQueued({"id": "r"})])
    assert [line["status"] for line in read(store, "runs")] == ["pending"]


def test_memory_does_not_grow_with_the_number_of_events(store: Path, tmp_path: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([queued(f"r{number}", input="x" * 3000) for number in range(1500)])
    tracemalloc.start()
    try:
        assert write_jsonl(store, tmp_path / "x", "events", {}, overwrite=False) == 1500
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (tmp_path / "x").stat().st_size / 5
