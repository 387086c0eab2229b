from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from agentnb.errors import StoreError
from agentnb.events import ArtifactSaved, Ready, RunRetrying, RunStarted, SessionEnded, StepFinished, StepStarted, UsageReported
from agentnb.history.store import Store
from agentnb.model import Artifact, InlineLocation, Run, RunTarget, Session
from agentnb.states import TargetKind
from tests.disks import small_tmpfs
from tests.history.making import SECOND, T0, everything, finished, queued, started_session, table, whole_run

REPOSITORY = Path(__file__).parents[2]


def test_opening_makes_a_private_folder_that_git_ignores(store: Path) -> None:
    with Store.open(store):
        assert stat.S_IMODE(store.stat().st_mode) == 0o700
        assert (store / ".gitignore").read_text() == "*\n"
        assert {p.name for p in store.iterdir()} >= {"history.db", "runs", "blobs", "owners"}


def test_a_store_is_found_by_argument_then_environment_then_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Store.locate() == tmp_path / ".agentnb"
    monkeypatch.setenv("AGENTNB_HOME", "elsewhere")
    assert Store.locate() == tmp_path / "elsewhere"
    assert Store.locate("mine") == tmp_path / "mine"
    assert Store.locate("~/x") == Path.home() / "x"


def test_the_five_usual_events_add_up_to_their_rows(store: Path) -> None:
    with Store.open(store, owner="me") as opened:
        opened.apply([started_session(), *whole_run("R", params={"a": 1}, tags={"t": "x"})])
    (run,) = table(store, "runs")
    assert (run["status"], run["owner"], run["exit_code"], run["attempts"], run["handle"]) == ("completed", "me", 0, 1, "pid:1")
    assert (run["created_at"], run["started_at"], run["finished_at"]) == (T0, T0 + SECOND, T0 + 3 * SECOND)
    assert (run["cpu_s"], run["peak_memory_bytes"], run["processes"], run["stdout_bytes"]) == (0.5, 1000, 1, 3)
    assert (run["params"], run["tags"], run["command"], run["target_kind"]) == ('{"a":1}', '{"t":"x"}', "echo hi", "shell")
    (step,) = table(store, "steps")
    assert (step["run_id"], step["status"], step["kind"], step["finished_at"]) == ("R", "completed", "attempt", T0 + 3 * SECOND)
    assert [(log["stream"], log["size"], log["inline"]) for log in table(store, "logs")] == [("stdout", 3, "hi\n")]
    events = table(store, "events")
    assert [e["type"] for e in events] == ["session_started", "run_queued", "run_started", "step_started", "step_finished", "run_finished"]
    assert {e["session_id"] for e in events} == {"S"}
    assert "text" not in json.loads(events[-1]["data"])["stdout"], "output is kept once, in logs"


def test_records_of_the_model_are_taken_as_pydantic_writes_them(store: Path) -> None:
    session = Session(name="s")
    run = Run(session_id=session.id, name="r", target=RunTarget(kind=TargetKind.SHELL, display="ls"))
    artifact = Artifact(name="a", size=1, location=InlineLocation(data=b"\xff"), checksum="sha256:0")
    with Store.open(store) as opened:
        opened.apply([started_session(), queued("x"), ArtifactSaved(run.id, artifact.model_dump(mode="json"))])
        dumped = run.model_dump(mode="json")
        opened.apply([type(queued("x"))(dumped), ArtifactSaved(run.id, artifact.model_dump(mode="json"))])
    row = table(store, "runs")[1]
    assert row["created_at"] == round(run.created_at.timestamp() * 1e6)
    assert table(store, "artifacts")[0]["source_run"] == run.id


def test_the_first_end_of_a_run_wins_and_later_ones_are_only_recorded(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply(whole_run("R"))
        before = table(store, "runs")
        late = [finished("R", "failed", exit_code=9), RunStarted("R", "pid:2"), RunRetrying("R", 5, 0.0), UsageReported("R", 1, 2, 3.0)]
        opened.apply(late)
        assert table(store, "runs") == before
        assert len(table(store, "events")) == 9


@pytest.mark.parametrize("status", ["completed", "timeout", "interrupted", "pending", "running", "bogus", ""])
def test_a_run_that_never_started_cannot_end_in_a_way_the_state_model_forbids(store: Path, status: str) -> None:
    with Store.open(store) as opened:
        opened.apply([queued("R"), finished("R", status)])
        assert table(store, "runs")[0]["status"] == "pending"


def test_events_of_unknown_runs_are_recorded_and_nothing_else(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([event for event in whole_run("ghost") if event.type != "run_queued"])
        opened.apply([SessionEnded("nobody", "ended"), type(queued("x"))({}), type(queued("x"))({"id": 7})])
        rows = everything(store)
    assert len(rows.pop("events")) == 7
    assert not any(rows.values())


def test_a_later_batch_changes_what_an_earlier_one_began(store: Path) -> None:
    with Store.open(store) as opened:
        for event in [*whole_run("R"), SessionEnded("S", "ended", at=T0)]:
            opened.apply([event])
        one_by_one = everything(store)
    other = store.with_name("other")
    with Store.open(other) as opened:
        opened.apply([*whole_run("R"), SessionEnded("S", "ended", at=T0)])
    assert everything(other) == one_by_one


def test_the_first_end_of_a_run_wins_also_when_another_process_wrote_it(store: Path) -> None:
    with Store.open(store) as one, Store.open(store) as other:
        one.apply([queued("R"), RunStarted("R")])
        other.apply([finished("R", "cancelled")])
        one.apply([finished("R", "completed"), StepStarted("R", "late", "turn", "t")])
        assert [row["status"] for row in table(store, "runs")] == ["cancelled"]
        one.apply([queued("Q")])
        other.apply([queued("Q", name="again"), RunStarted("Q")])
        one.apply([RunStarted("Q"), finished("Q")])
    assert {row["id"]: (row["status"], row["name"]) for row in table(store, "runs")}["Q"] == ("completed", "Q")


def test_what_a_failed_batch_would_have_changed_is_not_believed(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([queued("R"), RunStarted("R")])
        with pytest.raises(TypeError, match="Ready"):
            opened.apply([finished("R"), queued("Q"), Ready(1, 1)])
        opened.apply([finished("R", "failed"), queued("Q"), RunStarted("Q")])
    assert {row["id"]: row["status"] for row in table(store, "runs")} == {"R": "failed", "Q": "running"}


def test_runs_that_are_over_are_forgotten(store: Path) -> None:
    with Store.open(store) as opened:
        for n in range(50):
            opened.apply([queued(f"R{n}"), RunStarted(f"R{n}")])
            opened.apply([finished(f"R{n}")])
        assert not opened._known


def test_a_value_that_cannot_be_stored_spoils_no_other_of_its_event(store: Path) -> None:
    deep: object = [1]
    for _ in range(3000):
        deep = [deep]
    with Store.open(store) as opened:
        opened.apply([queued("R", params={"x": deep}), RunStarted("R"), StepStarted("R", "s", "turn", "t", input=deep)])
        opened.apply([StepFinished("R", "s", "completed", output=deep, exit_code=3), finished("R", output=deep, exit_code=7)])
    told = {row["type"]: json.loads(row["data"]) for row in table(store, "events")}
    assert (told["step_started"]["name"], told["step_finished"]["exit_code"], told["run_finished"]["exit_code"]) == ("t", 3, 7)
    assert "not storable" in told["run_finished"]["output"]


def test_a_message_that_is_no_recorded_event_is_refused_and_nothing_is_written(store: Path) -> None:
    with Store.open(store) as opened, pytest.raises(TypeError, match="Ready is no recorded event"):
        opened.apply([queued("R"), Ready(1, 1)])
    assert not table(store, "events")


HOSTILE = ["\ud800", "a\0b", "\udcff\udcfe", "\U0001d518", "'; DROP TABLE runs; --", "\x1b[31m"]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_anywhere_is_kept_and_never_fatal(store: Path, text: str) -> None:
    run = queued("R", name=text, params={text: text}, tags={"t": text}, input=[text], target={"kind": text, "display": text})
    with Store.open(store) as opened:
        opened.apply([started_session(name=text), run, RunStarted("R", text)])
        opened.apply(
            [finished("R", "failed", error={"kind": "execution_failed", "message": text}, stdout={"size": 9, "text": text, "path": None})]
        )
    (row,) = table(store, "runs")
    assert json.loads(row["params"]) == {text: text}
    assert row["status"] == "failed"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 10**30, -(10**400), {"a": [float("nan")]}, {1: {2: 3}}, object(), b"\xff", True]
)
def test_any_value_in_any_field_is_kept_as_something_and_never_fatal(store: Path, value: object) -> None:
    with Store.open(store) as opened:
        opened.apply([queued("R", params={"x": value}, timeout_s=value, input=value, name=value), RunStarted("R")])
        opened.apply(
            [finished("R", exit_code=value, output=value, usage={"cpu_time": value}, run_s=value, error=value, detail={"reason": value})]
        )
    (row,) = table(store, "runs")
    assert row["status"] == "completed"
    json.loads(row["params"])


def test_output_that_is_no_unicode_comes_back_byte_for_byte(store: Path) -> None:
    raw = bytes(range(256))
    with Store.open(store) as opened:
        opened.apply([queued("R"), RunStarted("R")])
        opened.apply([finished("R", stdout={"size": 256, "text": raw.decode(errors="surrogateescape"), "path": None})])
    assert table(store, "logs")[0]["inline"] == raw


@pytest.mark.parametrize("bad", ["", "..", ".hidden", "a/b", "/etc", "a\0b"])
def test_a_run_id_that_would_leave_the_runs_folder_is_refused(store: Path, bad: str) -> None:
    with Store.open(store) as opened:
        assert opened.run_dir("R") == store / "runs" / "R"
        assert not opened.run_dir("R").exists()
        with pytest.raises(StoreError, match="plain file name"):
            opened.run_dir(bad)


def test_two_writers_at_once_lose_nothing(store: Path) -> None:
    def write(name: str) -> None:
        with Store.open(store, owner=name) as opened:
            for number in range(20):
                opened.apply(whole_run(f"{name}{number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run["id"] for run in table(store, "runs")) == sorted(f"{n}{i}" for n in "ab" for i in range(20))
    assert len(table(store, "events")) == 200


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from agentnb.history.store import Store
from tests.history.making import started_session, whole_run
store = Store.open(Path(sys.argv[1]), owner="victim")
store.apply([started_session()])
number = 0
while True:
    store.apply([event for k in range(50) for event in whole_run(f"{number:06}-{k}")])
    number += 1
    print(number, flush=True)
"""


def test_a_store_whose_writer_was_killed_in_mid_batch_opens_with_whole_batches_only(store: Path) -> None:
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(store), str(REPOSITORY)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(3):
                seen = int(writer.stdout.readline())
            writer.kill()
        with Store.open(store, owner="next"):
            runs, events = table(store, "runs"), table(store, "events")
            assert len(runs) % 50 == 0
            assert len(runs) >= 50 * seen
            assert {run["status"] for run in runs} == {"completed"}
            assert len([e for e in events if e["run_id"]]) >= 5 * len(runs)
            with closing(sqlite3.connect(store / "history.db")) as db:
                assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_several_processes_may_open_a_new_store_at_once(store: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agentnb.history.store import Store\n"
        "Store.open(Path(sys.argv[1]), owner=sys.argv[2]).close()"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(store), f"p{n}"], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        for n in range(6)
    ]
    assert [(child.communicate()[1], child.returncode) for child in children] == [("", 0)] * 6
    assert not table(store, "owners")


@pytest.mark.parametrize("in_the_way", ["", "runs", "owners", "history.db/x"])
def test_something_in_the_way_is_named_with_advice(store: Path, in_the_way: str) -> None:
    (store / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (store / in_the_way).write_text("mine")
    with pytest.raises(StoreError, match="store") as caught:
        Store.open(store)
    assert "AGENTNB_HOME or store=" in str(caught.value)
    assert (store / in_the_way).read_text() == "mine"


def test_a_folder_where_nothing_can_be_made_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="/proc/self/agentnb"):
        Store.open(Path("/proc/self/agentnb"))


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_database_is_a_store_error_and_stays_as_it_is(store: Path, content: bytes) -> None:
    store.mkdir()
    (store / "history.db").write_bytes(content)
    with pytest.raises(StoreError, match="not a database, or is damaged"):
        Store.open(store)
    assert (store / "history.db").read_bytes() == content


def test_a_database_damaged_while_open_is_a_store_error_for_the_writer(store: Path) -> None:
    with Store.open(store) as opened:
        opened.apply([event for n in range(200) for event in whole_run(f"r{n}")])
    size = (store / "history.db").stat().st_size
    with (store / "history.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(StoreError, match="damaged"), Store.open(store, owner="x") as opened:
        opened.apply(whole_run("more"))


@pytest.fixture
def small_disk(tmp_path: Path):
    with small_tmpfs(tmp_path / "disk", "1m") as disk:
        yield disk


def test_a_full_disk_is_a_store_error_and_the_same_batch_goes_in_later(small_disk: Path) -> None:
    with Store.open(small_disk / "store") as opened:
        opened.apply(whole_run("first"))
        ballast = small_disk / "ballast"
        free = os.statvfs(small_disk)
        ballast.write_bytes(b"x" * (free.f_bavail * free.f_bsize - 8192))
        batch = [event for n in range(300) for event in whole_run(f"r{n}", input="y" * 500)]
        with pytest.raises(StoreError, match="full"):
            opened.apply(batch)
        assert [run["id"] for run in table(small_disk / "store", "runs")] == ["first"]
        ballast.unlink()
        opened.apply(batch[:250])
        assert len(table(small_disk / "store", "runs")) == 51


def test_a_full_disk_at_opening_is_a_store_error(small_disk: Path) -> None:
    free = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(b"x" * (free.f_bavail * free.f_bsize))
    with pytest.raises(StoreError, match="the disk is full"):
        Store.open(small_disk / "store")


def test_a_read_only_file_system_is_a_store_error(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="read-only file system"):
        Store.open(small_disk / "store")


def test_a_closed_store_says_so_instead_of_losing_events(store: Path) -> None:
    opened = Store.open(store)
    opened.close()
    opened.close()
    with pytest.raises(StoreError):
        opened.apply(whole_run("R"))


def test_the_store_loads_no_heavy_module() -> None:
    code = (
        "import sys, agentnb.history.store, agentnb.history.artifacts\n"
        "print(sorted({'pandas', 'pydantic', 'numpy', 'jsonschema', 'IPython'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"


def test_a_deleted_store_refuses_events_instead_of_losing_them(store: Path) -> None:
    with Store.open(store, owner="me") as opened:
        opened.apply([started_session()])
        assert not opened.gone()
        shutil.rmtree(store)
        assert opened.gone()
        with pytest.raises(StoreError, match=r"history\.db failed: it was deleted or replaced while it was in use"):
            opened.apply([queued("R")])
        opened.apply([])


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "a file is in its folder's place"])
def test_a_store_whose_file_is_no_longer_at_its_path_is_gone(store: Path, tmp_path: Path, how: str) -> None:
    with Store.open(store) as opened:
        if how == "replaced":
            Store.open(tmp_path / "other").close()
            (tmp_path / "other" / "history.db").replace(store / "history.db")
        elif how == "deleted":
            (store / "history.db").unlink()
        else:
            store.rename(tmp_path / "elsewhere")
            if "file" in how:
                store.write_text("in the way")
        assert opened.gone()
        with pytest.raises(StoreError, match="deleted or replaced"):
            opened.apply([started_session()])


def test_the_successor_of_a_deleted_store_takes_the_refused_events_and_keeps_its_lock(store: Path) -> None:
    with Store.open(store, owner="me") as opened:
        shutil.rmtree(store)
        batch = [started_session(), *whole_run("R")]
        with pytest.raises(StoreError):
            opened.apply(batch)
        with Store.open(store, owner="me") as successor:
            opened.close()
            assert (store / "owners" / "me.lock").exists(), "the old store's lock was another file"
            successor.apply(batch)
            assert opened.gone()
            assert not successor.gone()
    assert [run["status"] for run in table(store, "runs")] == ["completed"]


def test_a_store_that_cannot_be_looked_at_is_not_taken_for_gone(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with Store.open(store) as opened:
        with monkeypatch.context() as patched:
            patched.setattr("agentnb.history.store.os.stat", denied)
            assert not opened.gone()
        assert not opened.gone()


@pytest.mark.parametrize("given", [None, "relative"])
def test_a_relative_store_in_a_deleted_directory_is_said_to_be_so(given, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("AGENTNB_HOME", raising=False)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreError, match="current directory was deleted; .*absolute path"):
        Store.locate(given)
    assert Store.locate(tmp_path / "st") == tmp_path / "st"
