"""The Parquet dataset, read back with real duckdb and polars."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from agentnb.errors import ConfigError, RuntimeUnavailable, StoreError
from agentnb.events import ArtifactSaved, RunFinished, RunStarted, SessionEnded, StepFinished, StepStarted
from agentnb.history.exporting import parquet
from agentnb.history.exporting.dataset import write_parquet
from agentnb.history.frames import frames
from agentnb.history.frames.columns import FRAMES, STAMP
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, queued, started_session, table, whole_run

DAY = 86_400 * SECOND
TABLES = [frame.name for frame in FRAMES]


def fill(root: Path) -> Path:
    with Store.open(root) as store:
        store.apply([started_session(), started_session("S2", "größe ⏎", at=T0 + DAY)])
        for number, status in enumerate(["completed", "failed", "timeout"]):
            store.apply(whole_run(f"r{number}", status, at=T0 + number * 10 * SECOND, params={"lr": number / 3, "word": "grün"}))
        store.apply(whole_run("other", at=T0 + DAY, session_id="S2", params={"depth": [1, 2]}, tags={"t": "x"}))
        location = {"type": "local", "path": "blobs/ab/cd"}
        store.apply([ArtifactSaved("other", {"id": "A", "name": "a", "size": 2, "location": location, "checksum": "x"}, at=T0 + DAY)])
    return root


def export(root: Path, **given: Any) -> tuple[Path, dict[str, int]]:
    folder = root.parent / "dataset"
    return folder, write_parquet(root, folder, given)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def in_duckdb(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as db:
        for name in TABLES:
            found = f"read_parquet('{folder}/{name}/**/*.parquet', hive_partitioning = {name != 'sessions'})"
            db.execute(f"CREATE VIEW {name} AS SELECT * FROM {found}")
        return db.sql(sql).fetchall()


def in_polars(folder: Path, name: str) -> pl.DataFrame:
    return pl.scan_parquet(f"{folder}/{name}/**/*.parquet", hive_partitioning=name != "sessions").collect()


def test_duckdb_and_polars_read_sessions_with_other_parameters_as_one_table(store: Path) -> None:
    folder, counts = export(fill(store))
    assert counts == {"sessions": 2, "runs": 4, "steps": 4, "artifacts": 1, "events": len(table(store, "events"))}
    rows = in_duckdb(folder, "SELECT id, session, CAST(day AS TEXT), CAST(params->>'lr' AS DOUBLE), params->>'depth' FROM runs ORDER BY id")
    assert rows == [
        ("other", "größe ⏎", "2026-01-02", None, "[1,2]"),
        ("r0", "first", "2026-01-01", 0.0, None),
        ("r1", "first", "2026-01-01", 1 / 3, None),
        ("r2", "first", "2026-01-01", 2 / 3, None),
    ]
    frame = in_polars(folder, "runs")
    assert frame.sort("id")["params"].str.json_path_match("$.word").to_list() == [None, "grün", "grün", "grün"]
    assert frame.schema["created_at"] == pl.Datetime("us", "UTC")
    joined = "SELECT runs.status, count(*) FROM steps JOIN runs ON runs.id = steps.run_id GROUP BY 1 ORDER BY 1"
    assert in_duckdb(folder, joined) == [("completed", 2), ("failed", 1), ("timeout", 1)]


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_is_that_of_the_frame(store: Path, name: str) -> None:
    folder, _ = export(fill(store))
    expected = getattr(frames, f"{name}_df")(store, full=name == "events")
    key = {"events": "seq"}.get(name, "id")
    order = [str(one) for one in expected[key]]
    rows = {str(row[key]): row for row in in_polars(folder, name).to_dicts()}
    assert sorted(rows) == sorted(order)
    for column in expected.columns:
        if column.startswith(("param.", "tag.")) or (name, column) == ("sessions", "total_s"):
            continue
        for one, cell in zip(order, expected[column], strict=True):
            found = rows[one][column]
            if column == "data":
                assert json.loads(found) == cell
            else:
                assert found is None if str(cell) in {"<NA>", "nan", "NaT", "None"} else found == cell, column


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_store_has_every_table_with_its_types(store: Path, name: str) -> None:
    Store.open(store).close()
    folder, counts = export(store)
    assert set(counts.values()) == {0}
    assert in_duckdb(folder, f"SELECT count(*) FROM {name}") == [(0,)]
    empty = in_polars(folder, name).schema
    full = Store.open(store)
    full.close()
    fill(store)
    export(store)
    assert in_polars(folder, name).schema == empty
    assert "day=1970-01-01" not in "".join(files(folder))


def test_the_schema_says_what_each_column_means(store: Path) -> None:
    folder, _ = export(fill(store))
    for frame in FRAMES:
        path = next((folder / frame.name).rglob("*.parquet"))
        schema = pq.read_schema(path)
        for column in frame.columns:
            if not column.full:
                told = schema.field(column.name)
                assert told.metadata == {b"meaning": column.meaning.encode(), b"unit": column.unit.encode()}
                assert (str(told.type) == "timestamp[us, tz=UTC]") == (column.dtype == STAMP)
        assert json.loads(schema.metadata[b"agentnb"])["table"] == frame.name


def test_only_days_on_which_something_changed_are_written_again(store: Path) -> None:
    folder, before = export(fill(store))
    stamps = {name: os.stat(folder / name).st_ino for name in files(folder) if not name.startswith("sessions")}
    assert export(store)[1] == before
    assert {name: os.stat(folder / name).st_ino for name in stamps} == stamps
    with Store.open(store) as opened:
        opened.apply(whole_run("new", at=T0 + DAY + SECOND))
    assert export(store)[1]["runs"] == 5
    changed = {name for name in stamps if os.stat(folder / name).st_ino != stamps[name]}
    assert changed == {f"{name}/day=2026-01-02/{name}.parquet" for name in ("runs", "steps", "artifacts", "events")}
    assert in_duckdb(folder, "SELECT count(*) FROM runs") == [(5,)]


def test_a_live_run_is_there_as_it_is_and_brought_up_to_date(store: Path) -> None:
    fill(store)
    with Store.open(store) as opened:
        opened.apply(
            [
                queued("live", at=T0 + 5 * DAY),
                RunStarted("live", at=T0 + 5 * DAY),
                StepStarted("live", "s", "attempt", "a", at=T0 + 5 * DAY),
            ]
        )
        folder, _ = export(store)
        assert in_duckdb(folder, "SELECT status FROM runs WHERE id = 'live'") == [("running",)]
        opened.apply([StepFinished("live", "s", "completed", at=T0 + 6 * DAY), RunFinished("live", "completed", at=T0 + 6 * DAY)])
    export(store)
    assert in_duckdb(folder, "SELECT status, CAST(day AS TEXT), total_s FROM runs WHERE id = 'live'") == [
        ("completed", "2026-01-06", 86400.0)
    ]
    assert in_duckdb(folder, "SELECT status FROM steps WHERE run_id = 'live'") == [("completed",)]


def test_runs_are_chosen_and_all_that_belongs_to_them_comes_along(store: Path) -> None:
    folder, counts = export(fill(store), where={"param.word": "grün"}, status="failed")
    assert counts == {"sessions": 1, "runs": 1, "steps": 1, "artifacts": 0, "events": 6}
    assert in_duckdb(folder, "SELECT run_id FROM steps") == [("r1",)]
    _, counts = export(store, session="größe ⏎")
    assert counts == {"sessions": 1, "runs": 1, "steps": 1, "artifacts": 1, "events": 7}
    assert "runs/day=2026-01-01/runs.parquet" not in files(folder)
    assert in_duckdb(folder, "SELECT DISTINCT run_id FROM events ORDER BY 1") == [("other",), (None,)]
    for given, message in (
        ({"columns": ["id"]}, "an export has the columns"),
        ({"full": True}, "an export has the columns"),
        ({"x": 1}, "no filter 'x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(store, **given)


def test_huge_texts_and_odd_values_are_kept(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_TEXT", 1_000_000)
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 1_500_000)
    with Store.open(store) as opened:
        opened.apply([started_session(), queued("r"), RunStarted("r", at=T0)])
        for number in range(8):
            opened.apply(
                [StepStarted("r", f"s{number}", "tool", "\x00", at=T0), StepFinished("r", f"s{number}", "completed", output="ü" * 400_000)]
            )
        opened.apply([SessionEnded("S", "ended", at=-5), queued("late", at=2**62), queued("early", at=-(2**62))])
    db = sqlite3.connect(store / "history.db")
    with db:
        db.execute(
            "UPDATE runs SET exit_code = 'x', run_s = 'y', name = CAST(? AS TEXT), error_kind = ? WHERE id = 'r'", (b"a\xff", b"\xfe")
        )
    db.close()
    folder, counts = export(store)
    assert counts["steps"] == 8
    assert in_duckdb(folder, "SELECT DISTINCT length(output) FROM steps") == [(len('"' + "\\u00fc" * 400_000 + '"'),)]
    assert pq.read_metadata(next((folder / "steps").rglob("*.parquet"))).num_row_groups > 1
    assert in_duckdb(folder, "SELECT name, exit_code, run_s, error_kind FROM runs WHERE id = 'r'") == [("a\ufffd", None, None, "\ufffd")]
    assert in_duckdb(folder, "SELECT id, CAST(day AS TEXT) FROM runs WHERE id != 'r' ORDER BY 1") == [
        ("early", "1970-01-01"),
        ("late", "9999-12-31"),
    ]


def test_a_folder_with_other_things_is_left_alone(store: Path, tmp_path: Path) -> None:
    fill(store)
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds other things \(notes.txt\)"):
        export(store)
    assert files(tmp_path / "dataset") == ["notes.txt"]
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        write_parquet(store, tmp_path / "dataset" / "notes.txt", {})


def test_a_file_that_is_damaged_is_written_again(store: Path) -> None:
    folder, counts = export(fill(store))
    (folder / "runs/day=2026-01-01/runs.parquet").write_bytes(b"PAR1 nonsense PAR1")
    assert export(store)[1] == counts
    assert in_duckdb(folder, "SELECT count(*) FROM runs") == [(4,)]


def test_a_full_disk_leaves_what_was_there_and_no_half_file(store: Path) -> None:
    folder, _ = export(fill(store))
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    with Store.open(store) as opened:
        opened.apply([*whole_run("big", at=T0), StepStarted("big", "x", "tool", "t", input=os.urandom(200_000).hex(), at=T0)])
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
        with pytest.raises(StoreError, match="to_parquet: .* cannot be written"):
            export(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    after = {name: (folder / name).read_bytes() for name in files(folder)}
    assert {*after} == {*before}
    in_duckdb(folder, "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM steps), (SELECT count(*) FROM events)")
    left = folder / "runs/day=2026-01-01/.runs.parquet.x.part"
    left.touch()
    os.utime(left, (0, 0))  # of an export that was killed
    export(store)
    assert in_duckdb(folder, "SELECT count(*) FROM runs") == [(5,)]
    assert not left.exists()


def test_without_pyarrow_it_says_how_to_get_it(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agentnb.history.exporting.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RuntimeUnavailable, match=r'pip install "agentnb\[parquet\]"'):
        write_parquet(fill(store), tmp_path / "dataset", {})
    assert not (tmp_path / "dataset").exists()
