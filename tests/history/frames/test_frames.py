from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agentnb.errors import ArtifactCorrupted, ConfigError, StoreError
from agentnb.events import ArtifactSaved, RunStarted, SessionEnded, StepFinished, StepStarted, now_us
from agentnb.history.comparing.compare import compare
from agentnb.history.frames import columns, frames
from agentnb.history.frames.condition import condition
from agentnb.history.reader import reading
from agentnb.history.store import Store
from agentnb.states import ErrorKind, RunStatus
from tests.history.making import SECOND, T0, finished, queued, started_session, whole_run

ALL = {frame.name: getattr(frames, f"{frame.name}_df") for frame in columns.FRAMES}


@pytest.fixture
def filled(store: Path) -> Path:
    with Store.open(store) as opened:
        opened.apply([started_session(), started_session("S2", "second", at=T0 + 1)])
        for number, status in enumerate(["completed", "failed", "timeout", "completed"]):
            at = T0 + number * 10 * SECOND
            opened.apply(
                whole_run(f"r{number}", status, at=at, run_s=float(number), params={"n": number, "w": "ab"[number % 2]}, tags={"t": "x"})
            )
        opened.apply(whole_run("other", at=T0 + 50 * SECOND, session_id="S2", group_id="G"))
        data = b"\x00bytes"
        (store / "blob").write_bytes(data)
        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
        artifact = {
            "id": "A",
            "name": "a.bin",
            "content_type": "x/y",
            "size": 6,
            "location": {"type": "local", "path": "blob"},
            "checksum": checksum,
        }
        inline = artifact | {"id": "B", "location": {"type": "inline", "data": "AGJ5dGVz"}}
        opened.apply([ArtifactSaved("r0", artifact, at=T0), ArtifactSaved("r0", inline, at=T0 + 1)])
        remote = artifact | {"id": "C", "location": {"type": "http", "url": "http://x/"}}
        opened.apply([ArtifactSaved("r1", remote, at=T0 + 2), SessionEnded("S2", "ended", at=T0 + 60 * SECOND)])
    return store


@pytest.fixture
def empty(store: Path) -> Path:
    Store.open(store.with_name("empty")).close()
    return store.with_name("empty")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("full", [False, True])
def test_dtypes_are_those_declared_and_the_same_when_empty(filled: Path, empty: Path, name: str, full: bool) -> None:
    declared = {
        column.name: column.dtype for column in next(f for f in columns.FRAMES if f.name == name).columns if full or not column.full
    }
    some, none = ALL[name](filled, full=full), ALL[name](empty, full=full)
    assert len(some)
    assert not len(none)
    assert {c: str(t) for c, t in none.dtypes.items()} == declared
    mapped = [c for c in some.columns if str(c).startswith(("param.", "tag."))]
    pd.testing.assert_series_equal(some.drop(columns=mapped).dtypes, none.dtypes)
    assert isinstance(some.index, pd.RangeIndex)
    assert isinstance(none.index, pd.RangeIndex)


@pytest.mark.parametrize("name", ALL)
def test_two_reads_are_equal(filled: Path, name: str) -> None:
    done = {"until": "2026-01-02", "columns": [c for c in ALL[name](filled).columns if c != "total_s"]}
    pd.testing.assert_frame_equal(ALL[name](filled, **done), ALL[name](filled, **done))


def test_categories_are_all_that_the_state_model_knows(filled: Path) -> None:
    runs = frames.runs_df(filled)
    assert list(runs["status"].cat.categories) == [str(status) for status in RunStatus]
    assert list(runs["error_kind"].cat.categories) == [str(kind) for kind in ErrorKind]


def test_runs_read_as_they_went(filled: Path) -> None:
    runs = frames.runs_df(filled)
    assert list(runs["id"]) == ["r0", "r1", "r2", "r3", "other"]
    assert list(runs["status"]) == ["completed", "failed", "timeout", "completed", "completed"]
    assert list(runs["queued_s"]) == [1.0] * 5
    assert list(runs["run_s"]) == [0.0, 1.0, 2.0, 3.0, 2.0]
    assert list(runs["total_s"]) == [1.0, 2.0, 3.0, 4.0, 3.0]
    assert list(runs["session"]) == ["first"] * 4 + ["second"]
    assert runs["created_at"][1] == pd.Timestamp("2026-01-01T00:00:10Z")
    assert list(runs["param.n"].astype(object))[:4] == [0, 1, 2, 3]
    assert runs["param.n"].isna().to_list() == [False] * 4 + [True]


def test_durations_of_live_rows_count_up_to_now(store: Path) -> None:
    now = now_us()
    with Store.open(store) as opened:
        opened.apply(
            [queued("waiting", at=now - 7 * SECOND), queued("running", at=now - 9 * SECOND), RunStarted("running", at=now - 5 * SECOND)]
        )
    running, waiting = (row for _, row in frames.runs_df(store).iterrows())
    assert running["queued_s"] == 4.0
    assert 5.0 <= running["run_s"] < 30
    assert 7.0 <= waiting["queued_s"] == waiting["total_s"] < 30
    assert np.isnan(waiting["run_s"])


def test_how_long_a_run_ran_whose_supervisor_died_is_not_known(store: Path) -> None:
    lost = {"discovered_at": T0 + 900 * SECOND}
    with Store.open(store) as opened:
        opened.apply([
            queued("lost"), RunStarted("lost", at=T0 + SECOND), StepStarted("lost", "1", "turn", "t", at=T0 + SECOND),
            StepFinished("lost", "1", "completed", at=T0 + 2 * SECOND), StepStarted("lost", "2", "turn", "t", at=T0 + 2 * SECOND),
            StepFinished("lost", "2", "interrupted", at=T0 + 2 * SECOND), finished("lost", "interrupted", at=T0 + 2 * SECOND, detail=lost),
            queued("never", at=T0 + 1), finished("never", "cancelled", at=T0 + 1, detail=lost),
            queued("stopped", at=T0 + 2), RunStarted("stopped", at=T0 + SECOND),
            finished("stopped", "interrupted", at=T0 + 4 * SECOND, run_s=2.5),
        ])  # fmt: skip
    runs = frames.runs_df(store).set_index("id")
    assert runs["run_s"].isna().to_dict() == {"lost": True, "never": True, "stopped": False}
    assert runs["total_s"].isna().to_dict() == {"lost": True, "never": True, "stopped": False}
    assert runs["queued_s"].isna().to_dict() == {"lost": False, "never": True, "stopped": False}
    assert runs["run_s"]["stopped"] == 2.5
    assert runs["finished_at"]["lost"] == pd.Timestamp(T0 + 2 * SECOND, unit="us", tz="UTC"), "the last thing known"
    assert frames.steps_df(store)["run_s"].fillna(-1).to_list() == [1.0, -1]
    table = compare(runs, "status")
    assert (table["n"]["interrupted"], table["failures"]["interrupted"]) == (2, 2)


def test_sessions_count_their_runs(filled: Path) -> None:
    sessions = frames.sessions_df(filled)
    assert sessions[["n_runs", "live", "completed", "failed", "cancelled"]].to_numpy().tolist() == [[4, 0, 2, 2, 0], [1, 0, 1, 0, 0]]
    assert sessions["total_s"][1] == pytest.approx(60, abs=0.001)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"session": "first"}, "r0 r1 r2 r3"),
        ({"session": "S2"}, "other"),
        ({"session": "nobody"}, ""),
        ({"status": "failed"}, "r1"),
        ({"status": ["failed", RunStatus.TIMEOUT]}, "r1 r2"),
        ({"status": []}, ""),
        ({"since": "2026-01-01T00:00:20Z"}, "r2 r3 other"),
        ({"since": "2026-01-01T01:00:20+01:00", "until": pd.Timestamp(T0 + 30 * SECOND, unit="us", tz="UTC")}, "r2"),
        ({"since": "7d"}, ""),
        ({"until": "2026-01-01"}, ""),
        ({"limit": 2}, "r3 other"),
        ({"limit": 0}, ""),
        ({"where": "run_s > 1 AND status = 'completed' -- comment"}, "r3 other"),
        ({"where": ("name = ? OR name = ?", ["r0", "r3"])}, "r0 r3"),
        ({"where": {"param.n": 1}}, "r1"),
        ({"where": {"param.n": [1, 2], "tag.t": "x"}}, "r1 r2"),
        ({"where": {"param.n": None}}, "other"),
        ({"where": {"exit_code": np.int64(0), "name": "r1"}}, "r1"),
        ({"where": {"created_at": pd.Timestamp(T0, unit="us", tz="UTC")}}, "r0"),
        ({"where": {'param.a"b': 1}}, ""),
        ({"group": "G"}, "other"),
        ({"run": ["r1", "other"]}, "r1 other"),
        ({"run": "r0", "session": "first", "status": "completed", "since": "2026-01-01", "limit": 5}, "r0"),
        ({"where": {"name": "'; DROP TABLE runs; --"}}, ""),
        ({"session": "\ud800"}, ""),
    ],
)
def test_filters_choose_rows(filled: Path, filters: dict, found: str) -> None:
    assert " ".join(frames.runs_df(filled, **filters)["id"]) == found


class Named:
    """What has an id, as a Session, a RunHandle or a record has."""

    def __init__(self, name: str) -> None:
        self.id = name


class Several(Named):
    """A group: an id, and the runs in it."""

    def __init__(self, name: str, *runs: str) -> None:
        super().__init__(name)
        self.runs = runs

    def __iter__(self) -> Iterator[Named]:
        return map(Named, self.runs)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"session": Named("S2")}, "other"),
        ({"session": [Named("S"), "second"]}, "r0 r1 r2 r3 other"),
        ({"session": ["nobody"]}, ""),
        ({"session": []}, ""),
        ({"run": Named("r1")}, "r1"),
        ({"run": [Named("r1"), "r2"]}, "r1 r2"),
        ({"run": (Named(name) for name in ("r1", "r3"))}, "r1 r3"),
        ({"run": Several("G", "other")}, "other"),
        ({"run": Several("none")}, ""),
        ({"run": pd.Series(["r0", "r2"])}, "r0 r2"),
        ({"run": pd.Series({"id": "r2", "status": "failed"})}, "r2"),
        ({"group": Several("G", "other")}, "other"),
        ({"group": [Named("G"), "H"]}, "other"),
        ({"where": '"param.n" = 1'}, "r1"),
        ({"where": "param.n > 1 AND \"tag.t\" = 'x' AND status <> 'failed'"}, "r2 r3"),
        ({"where": ("[param.n] = ? OR `param.n` = ?", [0, 3])}, "r0 r3"),
        ({"where": 'param."n" = 2'}, "r2"),
        ({"where": '"param.n" IS NULL'}, "other"),
        ({"where": '"param.it\'s ""odd"" é" = 1'}, ""),
        ({"where": '"name" = \'"param.n"\' OR "id" = \'r1\' /* "no such" */ -- "either"'}, "r1"),
        ({"where": 'name IN (SELECT "name" FROM runs WHERE "session_id" = \'S2\')'}, "other"),
    ],
)
def test_filters_take_objects_and_quoted_names_for_what_they_are(filled: Path, filters: dict, found: str) -> None:
    assert " ".join(frames.runs_df(filled, **filters)["id"]) == found


@pytest.mark.parametrize("key", ["a.b", "it's", 'a"b', "a\\b", "é", "a b", "a`b", "[0]", "'); DROP TABLE runs; --"])
def test_a_parameter_is_found_by_any_name_in_both_forms_of_where(store: Path, key: str) -> None:
    with Store.open(store) as opened:
        opened.apply([queued("r1", params={key: 1, "z": 2}), queued("r2", params={key: 2})])
    quoted = '"param.{}" = 1'.format(key.replace('"', '""'))
    assert list(frames.runs_df(store, where={f"param.{key}": 1})["id"]) == ["r1"]
    assert list(frames.runs_df(store, where=quoted)["id"]) == ["r1"]
    assert list(frames.runs_df(store, where=("`status` = ? AND " + quoted, ["pending"]))["id"]) == ["r1"]


@given(st.text(st.sampled_from("'\"`[]-/*.? \nparm1x;")))
def test_text_without_names_in_double_quotes_stays_as_it_was(text: str) -> None:
    assume('"' not in text and "param" not in text)
    assert condition(columns.EVENTS, text) == text


@given(st.text(st.sampled_from("'\"`[]-/*.? \nparm1x;")))
def test_any_where_is_rows_or_a_config_error(text: str) -> None:
    with TemporaryDirectory() as folder:
        Store.open(Path(folder) / "s").close()
        with suppress(ConfigError):
            frames.runs_df(Path(folder) / "s", where=text)


@pytest.mark.parametrize("name", ["steps", "artifacts", "events"])
def test_other_frames_filter_by_run_session_and_group(filled: Path, name: str) -> None:
    read = ALL[name]
    assert set(read(filled, run="r0")["run_id"]) == {"r0"}
    assert set(read(filled, session="first", where="run_id IS NOT NULL")["run_id"].dropna()) <= {"r0", "r1", "r2", "r3"}
    assert set(read(filled, group="G")["run_id"]) <= {"other"}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"statsu": "failed"}, "no filter 'statsu'; did you mean 'status'"),
        ({"status": "faild"}, "did you mean 'failed'"),
        ({"columns": ["exit"]}, "did you mean 'exit_code'"),
        ({"columns": "id"}, r"write a list, \['id'\]"),
        ({"columns": ["param.zzz"]}, "no row has 'param.zzz'"),
        ({"where": {"run_ss": 1}}, "did you mean 'run_s'"),
        ({"where": "run_ss > 1"}, "no column 'run_ss'; did you mean 'run_s'"),
        ({"where": "this is no sql ("}, "SQLite does not take this condition"),
        ({"where": "1=1; DROP TABLE runs"}, "SQLite does not take this condition"),
        ({"where": ("id = ?", [])}, "SQLite does not take this condition"),
        ({"where": {"id": object()}}, "cannot be compared with"),
        ({"where": 5}, "must be SQL text"),
        ({"since": "yesterday"}, "since: 'yesterday' is no time"),
        ({"limit": -1}, "whole number"),
        ({"limit": "5"}, "whole number"),
        ({"where": '"no_such" = 1'}, "runs_df has no column 'no_such'"),
        ({"where": '"statsu" = 1'}, "did you mean 'status'"),
        ({"where": '"status" = "failed"'}, "no column 'failed'.*single quotes: 'failed'"),
        ({"where": ('"no such" = ?', [1])}, "no column 'no such'"),
        ({"where": ("id = ?", 5)}, "must be SQL text"),
        ({"where": ("id = ?", "r0")}, "must be SQL text"),
        ({"session": 5}, "session: 5 is no session; write its id or name, the Session itself"),
        ({"session": [None]}, "session: None is no session"),
        ({"session": b"S"}, "is no session"),
        ({"session": {"S": 1}}, "is no session"),
        ({"session": Named("r1")}, "'r1' is the id of a run; write run= instead"),
        ({"run": object()}, "is no run; write its id, the RunHandle itself"),
        ({"run": ["r1", 2]}, "run: 2 is no run"),
        ({"run": pd.DataFrame({"id": ["r1"]})}, "is no run"),
        ({"run": pd.DataFrame({"name": ["r1"]})}, "is no run"),
        ({"run": Named("S")}, "'S' is the id of a session; write session= instead"),
        ({"run": "G"}, "'G' is the id of a group; write group= instead"),
        ({"group": 5}, "group: 5 is no group"),
        ({"group": Named("r1")}, "'r1' is the id of a run"),
        ({"status": 5}, "status: 5 is no status; write one of"),
        ({"columns": 5}, "columns: 5 is no list"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_with_what_would(filled: Path, filters: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        frames.runs_df(filled, **filters)
    assert len(frames.runs_df(filled)) == 5


def test_a_frame_says_which_filters_it_does_not_have(filled: Path) -> None:
    with pytest.raises(ConfigError, match="events have no status"):
        frames.events_df(filled, status="failed")
    with pytest.raises(ConfigError, match="sessions_df cannot be filtered by run="):
        frames.sessions_df(filled, run="r0")


def test_columns_come_in_the_order_asked_for(filled: Path) -> None:
    frame = frames.runs_df(filled, columns=["param.w", "status", "id", "id"])
    assert list(frame.columns) == ["param.w", "status", "id"]
    assert list(frames.runs_df(filled, columns=["stdout"], run="r0")["stdout"]) == ["hi\n"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "Int64"), ([1, 2.5], "Float64"), ([True, False], "boolean"), ([True, 1], "string"), (["a", None], "string"),
        ([1, "a"], "string"), ([[1], {"a": 2}], "string"), ([None, None], "string"), ([10**30, 1], "string"), ([1, None], "Int64"),
        ([float("inf"), float("nan")], "Float64"), ([b"x", 1], "string"),
    ],
)  # fmt: skip
def test_a_parameter_has_the_dtype_of_all_its_values(store: Path, values: list, dtype: str) -> None:
    with Store.open(store) as opened:
        opened.apply([queued(f"r{n}", params={"x": value}, at=T0 + n) for n, value in enumerate(values)])
    assert str(frames.runs_df(store)["param.x"].dtype) == dtype


def test_full_adds_output_bytes_and_data(filled: Path) -> None:
    assert list(frames.runs_df(filled, full=True)["stdout"]) == ["hi\n"] * 5
    assert frames.runs_df(filled, full=True)["stderr"].isna().all()
    assert list(frames.artifacts_df(filled, full=True)["content"]) == [b"\x00bytes", b"\x00bytes", None]
    assert frames.events_df(filled, full=True, limit=1)["data"][0] == {"status": "ended"}
    (filled / "blob").write_bytes(b"other")
    with pytest.raises(ArtifactCorrupted, match="blob"):
        frames.artifacts_df(filled, full=True)
    assert len(frames.artifacts_df(filled)) == 3, "without full no bytes are read"


def test_meanings_and_units_travel_with_the_frame(filled: Path) -> None:
    runs = frames.runs_df(filled)
    about = runs.attrs["agentnb"]
    assert list(about) == list(runs.columns)
    assert about["cpu_s"] == {"meaning": "processor time of the whole process tree", "unit": "s"}
    assert about["run_s"]["unit"] == "s"
    assert "supervisor died" in about["run_s"]["meaning"]
    assert about["param.n"]["meaning"] == "value of parameter n"
    assert runs.copy().attrs == runs.attrs == json.loads(json.dumps(runs.attrs))
    assert pd.concat([runs, runs]).attrs == runs.attrs


def test_the_documentation_is_made_from_the_declarations() -> None:
    text = frames.column_docs()
    for frame in columns.FRAMES:
        assert f"### `{frame.name}_df`" in text
        for column in frame.columns:
            assert f"| `{column.name}` | {column.dtype} | {column.unit} | {column.meaning}" in text


@pytest.mark.parametrize("name", ALL)
def test_parquet_gives_the_same_frame_back(filled: Path, tmp_path: Path, name: str) -> None:
    frame = ALL[name](filled)
    frame.to_parquet(tmp_path / "f.parquet")
    back = pd.read_parquet(tmp_path / "f.parquet")
    pd.testing.assert_frame_equal(back, frame)
    assert back.attrs == frame.attrs


@pytest.mark.parametrize("name", ALL)
def test_csv_gives_the_same_frame_back_when_told_the_dtypes(filled: Path, name: str) -> None:
    frame = ALL[name](filled)
    stamps = [c for c in frame.columns if isinstance(frame[c].dtype, pd.DatetimeTZDtype)]
    text = frame.to_csv(index=False)
    back = pd.read_csv(io.StringIO(text), dtype={c: t for c, t in frame.dtypes.items() if c not in stamps})
    for c in stamps:
        back[c] = pd.to_datetime(back[c], format="ISO8601", utc=True).astype("datetime64[us, UTC]")
    pd.testing.assert_frame_equal(back, frame)


def test_a_group_comes_in_launch_order_beside_its_dataframe(filled: Path) -> None:
    base = pd.DataFrame({"name": ["x", "y"], "size": [1, 2], ("a", 1): [0, 0]}, index=["i", "j"])
    joined = frames.group_df(filled, ["r3", "r0", "r1"], base, rows=[1, 0, 1])
    assert list(joined.index) == ["j", "i", "j"]
    assert list(joined.columns[:4]) == ["base.name", "size", "a.1", "id"]
    assert list(joined["base.name"]) == ["y", "x", "y"]
    assert list(joined["id"]) == ["r3", "r0", "r1"]
    assert joined.columns.is_unique
    assert list(frames.group_df(filled, ["r1", "r0"])["id"]) == ["r1", "r0"]
    assert len(frames.group_df(filled, [])) == 0
    assert len(frames.group_df(filled, [], base.iloc[:0])) == 0


def test_a_group_that_does_not_match_is_refused(filled: Path) -> None:
    with pytest.raises(ConfigError, match="3 runs, the DataFrame 2 rows"):
        frames.group_df(filled, ["r0", "r1", "r2"], pd.DataFrame({"x": [1, 2]}))
    with pytest.raises(ConfigError, match="nobody"):
        frames.group_df(filled, ["r0", "nobody"])


def test_garbage_in_the_rows_is_missing_in_the_frame_and_never_fatal(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([queued("R", timeout_s="soon", name=5, params={"x": float("nan")}), RunStarted("R")])
        opened.apply([finished("R", exit_code="x", usage={"cpu_time": "?", "processes": 1.5}, error={"kind": "odd", "message": "\ud800"})])
    (run,) = (row for _, row in frames.runs_df(store).iterrows())
    assert pd.isna(run["exit_code"])
    assert np.isnan(run["cpu_s"])
    assert np.isnan(run["timeout_s"])
    assert pd.isna(run["error_kind"])
    assert isinstance(run["error"], str)


def test_a_store_that_is_not_there_is_said(store: Path) -> None:
    with pytest.raises(StoreError, match="there is no history"):
        frames.runs_df(store)


def test_filters_use_the_indexes(filled: Path) -> None:
    with reading(filled) as db:
        inner = ", ".join(f'{c.sql.replace(":now", "0")} AS "{c.name}"' for c in columns.RUNS.columns)
        for condition, index in (
            ("session_id IN (SELECT value FROM json_each('[]'))", "runs_by_session"),
            ("created_at >= 5", "runs_by_creation"),
        ):
            plan = db.execute(f"EXPLAIN QUERY PLAN SELECT id, run_s FROM (SELECT {inner} FROM {columns.RUNS.source}) WHERE {condition}")
            assert index in " ".join(row[3] for row in plan)
