from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentnb.errors import StoreError
from agentnb.events import SessionEnded
from agentnb.history.frames import frames
from agentnb.history.owners import OwnerLock
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, started_session, table, whole_run

REPOSITORY = Path(__file__).parents[2]

DYING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from agentnb.events import RunRetrying, RunStarted, StepStarted
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, queued, started_session, whole_run
store = Store.open(Path(sys.argv[1]), owner=sys.argv[3])
store.apply([
    started_session(), *whole_run("done"), queued("running"), RunStarted("running", "pid:1", at=T0 + SECOND),
    StepStarted("running", "step", "attempt", "attempt 1", at=T0 + 2 * SECOND), queued("waiting", at=T0 + 5),
    queued("again"), RunStarted("again", at=T0), RunRetrying("again", 2, 0.1, at=T0 + 1),
])
for name in ("running/stdout.log", "again/stdout.log", "again/stdout.2.log"):
    path = store.root / "runs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(name)
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owned(store: Path):
    """A store with a living owner named "dying"; the value is (store, its process)."""
    command = [sys.executable, "-c", DYING, str(store), str(REPOSITORY), "dying"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        yield store, child
        child.kill()


def statuses(store: Path) -> dict[str, str]:
    return {run["id"]: run["status"] for run in table(store, "runs")}


def test_what_a_living_owner_runs_is_left_alone(owned) -> None:
    store, _ = owned
    before = table(store, "events")
    with Store.open(store, owner="other") as opened:
        assert opened.recovered == []
        assert opened.recover() == []
    assert table(store, "events") == before
    assert (store / "owners" / "dying.lock").exists()


def test_what_a_dead_owner_left_ends_at_the_last_thing_known_of_it(owned) -> None:
    store, child = owned
    child.kill()
    child.wait()
    with Store.open(store, owner="other") as opened:
        assert sorted(opened.recovered) == ["again", "running", "waiting"]
        assert opened.recover() == []
        assert [row["owner"] for row in table(store, "owners")] == ["other"]
    assert statuses(store) == {"done": "completed", "running": "interrupted", "waiting": "cancelled", "again": "interrupted"}
    runs = {run["id"]: run for run in table(store, "runs")}
    assert runs["running"]["finished_at"] == T0 + 2 * SECOND
    assert {runs[name]["error_kind"] for name in ("running", "waiting", "again")} == {"interrupted"}
    assert [s["status"] for s in table(store, "steps")] == ["completed", "interrupted"]
    (session,) = table(store, "sessions")
    assert (session["status"], session["ended_at"]) == ("ended", T0 + 3 * SECOND)
    assert {(log["run_id"], log["path"]) for log in table(store, "logs") if log["path"]} == {
        ("running", "runs/running/stdout.log"),
        ("again", "runs/again/stdout.2.log"),
    }
    assert not list((store / "owners").iterdir())


def test_how_long_a_recovered_run_ran_is_not_known(owned) -> None:
    store, child = owned
    child.kill()
    child.wait()
    with Store.open(store, owner="other"):
        pass
    assert {run["id"]: run["run_s"] for run in table(store, "runs")} == {"done": 2.0, "running": None, "waiting": None, "again": None}
    found = frames.runs_df(store).set_index("id")
    assert found["run_s"].dropna().to_dict() == {"done": 2.0}
    assert found["finished_at"].notna().all()


def test_recovery_is_recorded_as_events(owned) -> None:
    store, child = owned
    before = len(table(store, "events"))
    child.kill()
    child.wait()
    Store.open(store, owner="other").close()
    added = [event["type"] for event in table(store, "events")[before:]]
    assert sorted(added) == ["run_finished"] * 3 + ["session_ended", "step_finished"]


def test_processes_that_recover_at_once_end_each_run_once(owned) -> None:
    store, child = owned
    child.kill()
    child.wait()
    found: list[list[str]] = []
    start = threading.Barrier(4)

    def recover(name: str) -> None:
        start.wait()
        with Store.open(store, owner=name) as opened:
            found.append(opened.recovered)

    threads = [threading.Thread(target=recover, args=(f"r{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run for runs in found for run in runs) == ["again", "running", "waiting"]
    assert len([e for e in table(store, "events") if e["type"] == "run_finished"]) == 4


def test_an_owner_that_closed_with_live_runs_is_recovered_too(store: Path) -> None:
    with Store.open(store, owner="a") as opened:
        opened.apply(whole_run("R")[:3])
    assert not list((store / "owners").iterdir())
    with Store.open(store, owner="b") as opened:
        assert opened.recovered == ["R"]


def test_a_name_can_have_one_living_owner(store: Path) -> None:
    with Store.open(store, owner="a"), pytest.raises(StoreError, match="already has a living writer named 'a'"):
        Store.open(store, owner="a")
    Store.open(store, owner="a").close()


@pytest.mark.parametrize("name", ["", "..", "a/b", ".x", "a b", "x" * 101, "a\n"])
def test_an_owner_that_cannot_name_a_file_is_refused(store: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot name a lock file"):
        Store.open(store, owner=name)


def test_stray_files_among_the_locks_do_no_harm(store: Path) -> None:
    Store.open(store).close()
    (store / "owners" / "not an owner.lock").touch()
    (store / "owners" / "stale.lock").touch()
    Store.open(store, owner="a").close()
    assert [p.name for p in (store / "owners").iterdir()] == ["not an owner.lock"]


def test_a_lock_is_not_taken_on_a_file_that_was_removed_meanwhile(tmp_path: Path) -> None:
    held = OwnerLock.take(tmp_path, "a")
    assert held is not None
    assert OwnerLock.take(tmp_path, "a") is None
    held.remove()
    again = OwnerLock.take(tmp_path, "a")
    assert again is not None
    assert (tmp_path / "a.lock").exists()
    again.close()


def test_a_session_goes_on_under_another_owner_after_its_own_died(owned) -> None:
    store, victim = owned
    victim.kill()
    victim.wait()
    with Store.open(store, owner="heir") as heir:
        assert [row["status"] for row in table(store, "sessions")] == ["ended"]
        heir.apply([started_session()])
        (session,) = table(store, "sessions")
        assert (session["status"], session["ended_at"], session["owner"]) == ("active", None, "heir")
        heir.apply([SessionEnded("S", "cancelled")])
        heir.apply([started_session()])
        assert [row["status"] for row in table(store, "sessions")] == ["cancelled"]


def test_processes_of_runs_that_were_cut_off_are_ended(store: Path) -> None:
    mark = "run-" + os.urandom(6).hex()
    with subprocess.Popen(["sleep", "600"], env=os.environ | {"AGENTNB_RUN_ID": mark}) as stray:
        other = subprocess.Popen(["sleep", "600"], env=os.environ | {"AGENTNB_RUN_ID": mark + "0"})
        with Store.open(store, owner="dead") as dead:
            dead.apply([started_session(), *whole_run(mark)[:2]])
        with Store.open(store, owner="heir") as heir:
            assert heir.recovered == [mark]
        assert stray.wait(10) == -9
        assert other.poll() is None
        other.kill()
        other.wait()
