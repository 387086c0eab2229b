from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from agentnb.events import RunStarted, SessionEnded, StepFinished, StepStarted
from agentnb.history import reader
from agentnb.history.frames import arrays, blocks, bulk, columns, frames, snapshots, sources
from agentnb.history.frames.query import Query, query
from agentnb.history.store import Store
from tests.history.frames.complete import artifact, complete_store
from tests.history.making import SECOND, T0, finished, queued, started_session, whole_run

pytest.importorskip("adbc_driver_sqlite", reason="the extra `arrow` is not installed")
ALL = {frame.name: getattr(frames, f"{frame.name}_df") for frame in columns.FRAMES}
NOW = T0 + 10_000 * SECOND


def by_rows(root: Path, asked: Query, facts: dict[str, str]) -> Any:
    """What bulk.read gives, without a child process."""
    with reader.reading(root) as db:
        return by_row(asked, db), {name: db.execute(sql).fetchone()[0] for name, sql in facts.items()}


by_row = blocks.read


@pytest.fixture
def real() -> None:
    """For tests that read by way of ADBC really; the others only look at what is done with that."""


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A clock that stands, so that live rows read the same twice; no table is too small for Arrow or a snapshot."""
    if "real" not in request.fixturenames:
        monkeypatch.setattr(bulk, "read", by_rows)
    monkeypatch.setattr(frames, "now_us", lambda: NOW)
    monkeypatch.setattr(bulk, "WORTH", 1)
    monkeypatch.setattr(snapshots, "LEAST", 1)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The way of each read, in order: rows, arrow, snapshot."""
    taken: list[str] = []

    def noting(name: str, read: Any) -> Any:
        def noted(*given: Any) -> Any:
            block = read(*given)
            if block is not None:
                taken.append(name)
            return block

        return noted

    monkeypatch.setattr(sources, "_kept", noting("snapshot", sources._kept))
    monkeypatch.setattr(sources, "_whole", noting("arrow", sources._whole))
    monkeypatch.setattr(blocks, "read", noting("rows", by_row))
    return taken


def plainly(name: str, root: Path, **given: Any) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "able", lambda: False)
        frame: pd.DataFrame = ALL[name](root, **given)
    return frame


def kept(root: Path, *names: str) -> None:
    """Have the frames kept as snapshots."""
    for name in names:
        for _ in range(2):
            ALL[name](root)


def assert_right(name: str, root: Path) -> None:
    """The frame is what the rows of the database say, and its cells may be written to."""
    frame, expected = ALL[name](root), plainly(name, root)
    pd.testing.assert_frame_equal(frame, expected)
    assert frame.attrs == expected.attrs
    frame.iloc[0] = frame.iloc[-1]
    pd.testing.assert_series_equal(frame.iloc[0], frame.iloc[-1], check_names=False)


def change(root: Path, sql: str, *values: Any) -> None:
    with closing(sqlite3.connect(root / "history.db")) as db:
        db.execute(sql, values)
        db.commit()


@pytest.mark.parametrize("name", ALL)
def test_every_way_gives_the_same_frame(real: None, store: Path, ways: list[str], name: str) -> None:
    complete_store(store)
    expected = plainly(name, store)
    for _ in range(3):
        pd.testing.assert_frame_equal(ALL[name](store), expected)
    assert_right(name, store)
    wanted = [str(column) for column in expected.columns[::-3]]
    pd.testing.assert_frame_equal(ALL[name](store, columns=wanted), expected[wanted])
    assert ways[:4] == ["rows", "arrow", "arrow", "snapshot" if name in {"runs", "steps", "artifacts"} else "arrow"]
    empty = store.with_name("empty")
    Store.open(empty).close()
    pd.testing.assert_frame_equal(ALL[name](empty).astype(object), expected.iloc[:0][list(ALL[name](empty).columns)].astype(object))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", "CAST(x'ff41' AS TEXT)"),  # no UTF-8
        ("name", "x'4142ff'"),  # bytes
        ("command", "char(55296)"),  # a surrogate, alone
        ("exit_code", "'x'"),
        ("exit_code", "1.5"),
        ("timeout_s", "'soon'"),
        ("cost_usd", "'much'"),
    ],
)
def test_cells_that_are_no_value_of_their_column_are_read_by_rows(
    real: None, store: Path, ways: list[str], column: str, value: str
) -> None:
    with Store.open(store) as opened:
        opened.apply([started_session(), *(event for n in range(5) for event in whole_run(f"r{n}", at=T0 + n))])
    change(store, f"UPDATE runs SET {column} = {value} WHERE id = 'r3'")
    pd.testing.assert_frame_equal(frames.runs_df(store), plainly("runs", store))
    assert ways == ["rows", "rows"]


ODD = [
    ("name", "'a' || char(0) || 'b'"),
    ("name", "''"),
    ("name", "char(0xfeff, 0x202e, 0x10ffff)"),
    ("error", """'{"message": 5}'"""),
    ("error", """'{"message": 1e20}'"""),
    ("error", """'{"message": {"a": [1]}}'"""),
    ("exit_code", "9223372036854775807"),
    ("exit_code", "-9223372036854775808"),
    ("exit_code", "-9223372036854775807"),
    ("cost_usd", "9e999"),
    ("cost_usd", "-9e999"),
    ("started_at", "NULL"),
    ("started_at", "-9223372036854775807"),
    ("status", "'odd'"),
    ("status", "7"),
    ("params", """'{"x": 100000000000000000000}'"""),
    ("params", """'{"x": 1e999, "é": null}'"""),
]


def test_odd_cells_read_the_same_by_every_way(real: None, store: Path, ways: list[str]) -> None:
    with Store.open(store) as opened:
        opened.apply([started_session(), *(event for n in range(2 * len(ODD)) for event in whole_run(f"r{n:02d}", at=T0 + n))])
    for place, (column, value) in enumerate(ODD):  # the rows before it have nothing, or something else
        change(store, f"UPDATE runs SET {column} = {value} WHERE id = 'r{2 * place:02d}'")
    expected = plainly("runs", store)
    for _ in range(3):
        pd.testing.assert_frame_equal(frames.runs_df(store), expected)
    assert ways == ["rows", "arrow", "arrow", "snapshot"]


def test_rows_out_of_order_and_with_gaps_read_in_order(real: None, store: Path, ways: list[str]) -> None:
    with Store.open(store) as opened:
        opened.apply([started_session()])
        for n in (5, 3, 9, 1, 7):
            opened.apply(whole_run(f"r{n}", at=T0 + n // 4))
        opened.apply([StepStarted("r5", f"s{n}", "turn", "t", at=T0) for n in range(9)])
    change(store, "DELETE FROM runs WHERE id = 'r9'")
    change(store, "UPDATE runs SET rowid = rowid + 1000000 WHERE id = 'r3'")
    change(store, "UPDATE runs SET created_at = NULL WHERE id = 'r7'")
    for name in ("runs", "steps"):
        for _ in range(3):
            pd.testing.assert_frame_equal(ALL[name](store), plainly(name, store))
    assert list(frames.runs_df(store)["id"]) == ["r7", "r1", "r3", "r5"]
    assert {"arrow", "snapshot"} <= set(ways)


def test_when_arrow_cannot_the_rows_are_read(real: None, store: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    complete_store(store)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    assert len(frames.steps_df(store))
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert len(frames.steps_df(store))
    assert ways == ["rows", "rows"]


def test_small_histories_and_filtered_ones_are_read_by_rows(store: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    complete_store(store)
    frames.runs_df(store, session="first")
    frames.runs_df(store, limit=3)
    frames.events_df(store, full=True)
    monkeypatch.setattr(bulk, "WORTH", 1000)
    frames.runs_df(store)
    assert ways == ["rows"] * 4


def test_late_rows_and_late_changes_stand_beside_a_snapshot(store: Path, ways: list[str]) -> None:
    complete_store(store)
    kept(store, "runs", "steps", "artifacts")
    ways.clear()
    with Store.open(store) as opened:
        opened.apply([RunStarted("waiting", at=T0 + 5 * SECOND), finished("running", at=T0 + 8 * SECOND)])
        opened.apply([StepFinished("full", "late", "failed", at=T0 + 11 * SECOND), StepStarted("r1", "later", "handler", "h", at=T0)])
        opened.apply([artifact("full", "E", at=T0 + 5), SessionEnded("S", "ended", at=T0 + 99 * SECOND)])
        opened.apply([started_session(at=T0 + 100 * SECOND), *whole_run("again", at=T0 - SECOND), queued("new", at=T0)])
    for name in ("runs", "steps", "artifacts"):
        assert_right(name, store)
    assert ways == ["snapshot", "rows"] * 3


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs WHERE id = 'r1'",
        "DELETE FROM steps WHERE run_id = 'r1'",
        "DELETE FROM artifacts WHERE id = 'C'",
        "DELETE FROM sessions WHERE id = 'S2'",
        "UPDATE runs SET name = 'renamed' WHERE id = 'r1'",
        "UPDATE runs SET tags = '{\"a\": 1}' WHERE id = 'r1'",
        "UPDATE sessions SET name = 'renamed'",
        "UPDATE steps SET name = 'renamed'",
        "UPDATE artifacts SET location = '{}'",
        "INSERT INTO runs (rowid, id, status, created_at, params, tags) VALUES (-5, 'x', 'failed', 5, '{}', '{}')",
    ],
)
def test_a_snapshot_is_not_read_after_its_rows_were_changed(store: Path, sql: str) -> None:
    complete_store(store)
    kept(store, "runs", "steps", "artifacts")
    change(store, sql)
    for name in ("runs", "steps", "artifacts"):
        assert_right(name, store)
        assert_right(name, store)


def test_a_snapshot_that_was_dropped_is_gone_and_comes_again(store: Path, ways: list[str]) -> None:
    complete_store(store)
    kept(store, "runs")
    [file] = (store / "snapshots").glob("*.arrow")
    change(store, "UPDATE runs SET workspace = NULL")
    snapshots.drop(store)
    assert not file.exists()
    ways.clear()
    assert_right("runs", store)
    assert ways == ["arrow", "rows"]
    assert_right("runs", store)
    assert ways[2:] == ["snapshot", "rows"]


def test_dropping_leaves_a_store_without_snapshots_as_it_is(store: Path) -> None:
    complete_store(store)
    snapshots.drop(store)
    assert not (store / "snapshots").exists()


def spoil(how: str, path: Path) -> None:
    data = path.read_bytes()
    middle = len(data) // 2
    spoilt = {
        "gone": None,
        "empty": b"",
        "truncated": data[:middle],
        "longer": data + b"\0",
        "a flipped bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "garbage": b"\xff" * len(data),
        "of something else": b"",
    }[how]
    path.unlink()
    if how == "of something else":
        path.mkdir()
    elif spoilt is not None:
        path.write_bytes(spoilt)


@pytest.mark.parametrize("how", ["gone", "empty", "truncated", "longer", "a flipped bit", "garbage", "of something else"])
def test_a_damaged_snapshot_is_not_read_and_made_anew(store: Path, ways: list[str], how: str) -> None:
    complete_store(store)
    kept(store, "steps")
    [file] = (store / "snapshots").glob("*.arrow")
    spoil(how, file)
    ways.clear()
    assert_right("steps", store)
    assert_right("steps", store)
    assert ways == ["arrow", "rows", "snapshot", "rows"]


def test_a_snapshot_of_another_layout_is_not_read(store: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    complete_store(store)
    kept(store, "steps")
    ways.clear()
    monkeypatch.setattr(snapshots, "_FORMAT", 2)
    assert_right("steps", store)
    assert ways == ["arrow", "rows"]
    assert len(list((store / "snapshots").glob("*.arrow"))) == 1, "the other one is replaced"


def test_a_file_that_was_written_while_rows_were_deleted_is_not_recorded(
    store: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    complete_store(store)
    write = snapshots._write

    def slow(*given: Any) -> None:
        write(*given)
        change(store, "DELETE FROM runs WHERE id = 'r1'")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "_write", slow)
        kept(store, "runs")
    assert list((store / "snapshots").glob("*.arrow")) == []
    ways.clear()
    assert_right("runs", store)
    assert ways == ["arrow", "rows"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), sqlite3.OperationalError("locked"), KeyboardInterrupt()])
def test_a_snapshot_that_cannot_be_written_leaves_nothing(store: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
    complete_store(store)

    def failing(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise fault

    frames.steps_df(store)
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "_write", failing)
        if isinstance(fault, Exception):
            pd.testing.assert_frame_equal(frames.steps_df(store), plainly("steps", store))
            assert list((store / "snapshots").glob("*.arrow")) == []
        else:
            with pytest.raises(KeyboardInterrupt):  # killed in the middle
                frames.steps_df(store)
    kept(store, "steps")
    assert len(list((store / "snapshots").glob("*.arrow"))) == 1, "what was left over is swept away"
    assert_right("steps", store)


def test_a_full_disk_gets_no_snapshot(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_store(store)
    monkeypatch.setattr("agentnb.history.frames.snapshots.shutil.disk_usage", lambda _: type("", (), {"free": 100}))
    kept(store, "steps")
    assert list((store / "snapshots").glob("*.arrow")) == []
    assert_right("steps", store)


def test_one_process_at_a_time_writes_snapshots(store: Path) -> None:
    complete_store(store)
    with snapshots._alone(store) as first, snapshots._alone(store) as second:
        assert (first, second) == (True, False)
        kept(store, "steps")
        assert list((store / "snapshots").glob("*.arrow")) == []
        assert_right("steps", store)


def test_where_nothing_may_be_written_frames_are_read_all_the_same(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_store(store)
    (store / "snapshots").write_text("a file, where the folder should be")
    for _ in range(3):
        assert_right("steps", store)


def test_with_many_open_rows_only_what_is_before_them_is_kept(store: Path, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_OPEN", 2)
    monkeypatch.setattr(snapshots, "GROWN", 2)
    with Store.open(store) as opened:
        opened.apply([started_session()])
        for place, name in enumerate("abcdefgh"):
            opened.apply([queued(name, at=T0 + place)] if name in "cdfh" else whole_run(name, at=T0 + place))
    kept(store, "runs")
    with reader.reading(store) as db:
        found = snapshots.find(db, columns.RUNS, sources._columns(columns.RUNS))
    assert found is not None
    assert (found.rows, found.last, found.open) == (3, 5, [3, 4])
    ways.clear()
    assert_right("runs", store)
    assert ways == ["snapshot", "rows"]


def test_a_snapshot_grows_when_much_has_come_since(store: Path, ways: list[str]) -> None:
    complete_store(store)
    kept(store, "runs")
    with Store.open(store) as opened:
        for n in range(30):
            opened.apply(whole_run(f"more{n:02d}", at=T0 + n))
    ways.clear()
    assert_right("runs", store)
    assert_right("runs", store)
    assert ways == ["arrow", "rows", "snapshot", "rows"]
    assert len(list((store / "snapshots").glob("*.arrow"))) == 1


def test_without_arrow_the_dtypes_and_values_are_the_same(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_store(store)
    expected = {name: ALL[name](store, full=True) for name in ALL}
    with pd.option_context("mode.string_storage", "python"):
        for name, frame in expected.items():
            found = ALL[name](store, full=True)
            assert {str(c): str(t) for c, t in found.dtypes.items()} == {str(c): str(t) for c, t in frame.dtypes.items()}
            assert found.astype(object).fillna("-").to_numpy().tolist() == frame.astype(object).fillna("-").to_numpy().tolist()
            assert ALL[name](store)["id" if "id" in found else "seq"].tolist() == found["id" if "id" in found else "seq"].tolist()
    assert arrays.array(columns.RUNS.columns[0], [None, "a"]).isna().tolist() == [True, False]


def steps_taken(root: Path, frame: columns.Frame, **given: Any) -> int:
    """How much the database works for a filtered frame, in hundreds of its machine's steps."""
    wanted = [column for column in frame.columns if not column.full]
    taken = []
    with reader.reading(root) as db:
        asked = query(frame, db, given, wanted, NOW)
        db.set_progress_handler(lambda: taken.append(1), 100)
        db.execute(asked.sql, asked.values).fetchall()
    return len(taken)


def test_a_filter_reads_only_what_it_chooses(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([started_session(), started_session("S2", "second")])

    def add(names: range, session: str) -> None:
        events = [event for n in names for event in whole_run(f"r{n:04d}", at=T0 + n, session_id=session)]
        with Store.open(store) as opened:
            opened.apply([*events, *(artifact(f"r{n:04d}", f"a{n}", at=T0 + n) for n in names)])

    def work() -> list[int]:
        made = [steps_taken(store, frame, session="S2") for frame in (columns.RUNS, columns.STEPS, columns.ARTIFACTS)]
        made += [steps_taken(store, frame, run="r0003") for frame in columns.FRAMES if frame.run]
        return [*made, steps_taken(store, columns.RUNS, limit=5), steps_taken(store, columns.RUNS, since=_moment(T0 + 195), limit=5)]

    add(range(190), "S")
    add(range(190, 200), "S2")
    before = work()
    add(range(200, 210), "S2")
    add(range(210, 800), "S")
    after = work()
    assert all(more <= 2.5 * few + 5 for few, more in zip(before, after, strict=True)), (before, after)


def _moment(us: int) -> pd.Timestamp:
    return pd.Timestamp(us, unit="us", tz="UTC")
