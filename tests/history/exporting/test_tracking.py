"""Runs of the history in a real MLflow, with a real SQLite tracking store."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.errors import ConfigError, RuntimeUnavailable, StoreError
from agentnb.events import ArtifactSaved, Message, RunFinished, RunStarted, StepFinished, StepStarted
from agentnb.history.artifacts import Blobs
from agentnb.history.exporting import tracking
from agentnb.history.exporting.tracking import write_mlflow
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, finished, queued, started_session, whole_run

ROOT = str(Path(tracking.__file__).parents[3])


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tracking store with its tables, which take a second to make."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # keeps no file open
        patch.chdir(path.parent)
        with tracking._mlflow() as client_of:
            client_of(tracking_uri=f"sqlite:///{path}").search_experiments()
        yield path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def fill(root: Path, *batches: list[Message]) -> Path:
    with Store.open(root) as store:
        store.apply([started_session()])
        for batch in batches:
            store.apply(batch)
    return root


def export(root: Path, uri: str | None, **given: Any) -> dict[str, str]:
    options = {"experiment": None, "artifacts": False} | {name: given.pop(name) for name in ("experiment", "artifacts") if name in given}
    return write_mlflow(root, given, tracking_uri=uri, **options)


def runs_in(uri: str, name: str = "first") -> dict[str, Any]:
    """MLflow's runs by our id; each only once."""
    with tracking._mlflow() as client_of:
        client = client_of(tracking_uri=uri)
        home: Any = client.get_experiment_by_name(name)
        found = client.search_runs([home.experiment_id])
    assert len({run.data.tags["agentnb.run_id"] for run in found}) == len(found)
    return {run.data.tags["agentnb.run_id"]: run for run in found}


def history_of(uri: str, run_id: str, metric: str) -> list[tuple[int, int, float]]:
    with tracking._mlflow() as client_of:
        return [(m.step, m.timestamp, m.value) for m in client_of(tracking_uri=uri).get_metric_history(run_id, metric)]


def files_in(uri: str, run_id: str) -> dict[str, bytes]:
    with tracking._mlflow() as client_of:
        found = Path(client_of(tracking_uri=uri).get_run(run_id).info.artifact_uri.removeprefix("file://"))
    return {str(path.relative_to(found)): path.read_bytes() for path in found.rglob("*") if path.is_file()}


def test_a_run_has_its_parameters_figures_tags_status_and_times(store: Path, uri: str) -> None:
    fill(store, whole_run("r", params={"lr": 0.5, "a?b": "x"}, tags={"topic": "t"}, run_s=2.0))
    ids = export(store, uri)
    run = runs_in(uri)["r"]
    assert ids == {"r": run.info.run_id}
    assert (run.info.run_name, run.info.status) == ("r", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == ((T0 + SECOND) // 1000, (T0 + 3 * SECOND) // 1000)
    assert run.data.params == {"lr": "0.5", "a_b": "x"}
    assert {name: run.data.metrics[name] for name in ("run_s", "cpu_s", "queued_s", "total_s", "peak_memory_bytes", "exit_code")} == {
        "run_s": 2.0, "cpu_s": 0.5, "queued_s": 1.0, "total_s": 3.0, "peak_memory_bytes": 1000.0, "exit_code": 0.0,
    }  # fmt: skip
    tags = run.data.tags
    assert (tags["topic"], tags["agentnb.session"], tags["agentnb.kind"], tags["agentnb.status"]) == ("t", "first", "shell", "completed")
    assert tags["agentnb.renamed"] == '{"param a_b": "a?b"}'
    assert tags["agentnb.exported"] == "run"


@pytest.mark.parametrize(
    ("status", "there"),
    [("completed", "FINISHED"), ("failed", "FAILED"), ("timeout", "FAILED"), ("cancelled", "KILLED"), ("interrupted", "KILLED")],
)
def test_each_end_has_a_status_there(store: Path, uri: str, status: str, there: str) -> None:
    export(fill(store, whole_run("r", status)), uri)
    assert runs_in(uri)["r"].info.status == there


def test_exporting_again_doubles_nothing_and_brings_live_runs_up_to_date(store: Path, uri: str) -> None:
    fill(store, whole_run("r"), [queued("live", params={"n": 1}), RunStarted("live", at=T0)], [queued("waits")])
    first = export(store, uri)
    assert {run_id: run.info.status for run_id, run in runs_in(uri).items()} == {"r": "FINISHED", "live": "RUNNING", "waits": "SCHEDULED"}
    assert runs_in(uri)["live"].data.metrics == {}
    with Store.open(store) as opened:
        opened.apply(
            [StepStarted("live", "s", "turn", "t", at=T0), StepFinished("live", "s", "completed", tokens={"output": 9}, at=T0 + SECOND)]
        )
        opened.apply([finished("live", "failed", error={"kind": "execution_failed", "message": "no"}, run_s=1.5)])
    assert export(store, uri) == export(store, uri) == first
    runs = runs_in(uri)
    assert {run_id: run.info.status for run_id, run in runs.items()} == {"r": "FINISHED", "live": "FAILED", "waits": "SCHEDULED"}
    assert (runs["live"].data.metrics["run_s"], runs["live"].data.tags["agentnb.error"]) == (1.5, "no")
    assert len(history_of(uri, first["r"], "run_s")) == 1
    assert history_of(uri, first["live"], "turn.output_tokens") == [(0, (T0 + SECOND) // 1000, 9.0)]


def test_an_export_that_was_cut_off_is_done_again(store: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, whole_run("r", params={"n": 1}))
    with monkeypatch.context() as patch:
        patch.setattr(tracking._Export, "_close", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export(store, uri)
    assert runs_in(uri)["r"].info.status == "RUNNING"
    [run_id] = export(store, uri).values()
    assert runs_in(uri)["r"].info.status == "FINISHED"
    assert len(history_of(uri, run_id, "run_s")) == 1


def test_child_runs_are_nested_also_when_their_parent_came_earlier(store: Path, uri: str) -> None:
    fill(
        store,
        whole_run("parent"),
        whole_run("child", at=T0 + SECOND, parent_run_id="parent"),
        whole_run("orphan", parent_run_id="elsewhere"),
    )
    ids = export(store, uri, run=["parent", "orphan"])
    ids |= export(store, uri, run="child")
    runs = runs_in(uri)
    assert runs["child"].data.tags["mlflow.parentRunId"] == ids["parent"]
    assert "mlflow.parentRunId" not in runs["orphan"].data.tags
    assert runs["orphan"].data.tags["agentnb.parent_run_id"] == "elsewhere"


def test_experiments_are_sessions_unless_one_is_named(store: Path, uri: str) -> None:
    fill(store, [started_session("S2", "second")], whole_run("r"), whole_run("q", session_id="S2"))
    export(store, uri)
    assert ({*runs_in(uri)}, {*runs_in(uri, "second")}) == ({"r"}, {"q"})
    export(store, uri, experiment="all of them", session="second")
    assert {*runs_in(uri, "all of them")} == {"q"}
    with tracking._mlflow() as client_of:
        client = client_of(tracking_uri=uri)
        home: Any = client.get_experiment_by_name("second")
        client.delete_experiment(home.experiment_id)
    with pytest.raises(ConfigError, match="the experiment 'second' is deleted in MLflow; restore it"):
        export(store, uri)


def test_many_parameters_tags_and_steps_are_sent_in_batches(store: Path, uri: str) -> None:
    steps: list[Message] = []
    for number in range(700):
        steps += [
            StepStarted("r", f"s{number}", "turn", "t", at=T0),
            StepFinished("r", f"s{number}", "completed", tokens={"output": number}, at=T0 + number),
        ]
    params = {f"p{number}": "x" * 6500 for number in range(250)}
    fill(
        store,
        [queued("r", params=params, tags={f"t{number}": "y" for number in range(150)}), RunStarted("r", at=T0), *steps, finished("r")],
    )
    [run_id] = export(store, uri).values()
    run = runs_in(uri)["r"]
    assert len(run.data.params) == 250
    assert {len(text) for text in run.data.params.values()} == {6000}
    assert len(run.data.tags) > 150
    assert run.data.tags["agentnb.cut"].startswith('["param p0 (6500 characters)"')
    assert len(history_of(uri, run_id, "turn.output_tokens")) == 700


def test_artifacts_and_output_come_along_when_they_are_asked_for(store: Path, uri: str) -> None:
    kept, lost = Blobs(store / "blobs").put_bytes(b"\x00kept"), Blobs(store / "blobs").put_bytes(b"whole")
    path = Blobs(store / "blobs").locate(lost[0])
    path.write_bytes(b"spoil")
    made = []
    for number, (name, (checksum, size)) in enumerate({"out/größe?.bin": kept, "../../up": kept, "bad": lost}.items()):
        location = {"type": "local", "path": str(Blobs(Path("blobs")).locate(checksum))}
        made.append(ArtifactSaved("r", {"id": f"A{number}", "name": name, "size": size, "location": location, "checksum": checksum}, at=T0))
    fill(store, [queued("r"), RunStarted("r", at=T0), *made], whole_run("r")[-1:])
    [run_id] = export(store, uri).values()
    assert files_in(uri, run_id) == {}
    export(store, uri, artifacts=True)
    expected = {"out/größe_.bin": b"\x00kept", "up": b"\x00kept", "logs/stdout.txt": b"hi\n"}
    assert files_in(uri, run_id) == expected
    tags = runs_in(uri)["r"].data.tags
    assert "bad: its bytes should have checksum" in tags["agentnb.left_out"]
    assert tags["agentnb.exported"] == "artifacts run"
    export(store, uri, artifacts=True)
    assert files_in(uri, run_id) == expected
    assert len(history_of(uri, run_id, "run_s")) == 1


def test_a_server_that_is_not_there_is_told_with_advice(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(StoreError, match=r"the tracking store refused it: .*; check tracking_uri=, or MLFLOW_TRACKING_URI"):
            export(fill(store, whole_run("r")), f"http://127.0.0.1:{nobody.getsockname()[1]}")


@pytest.mark.parametrize(
    ("given", "message"), [({"experiment": ""}, "experiment=''"), ({"tracking_uri": 5}, "tracking_uri=5"), ({"x": 1}, "no filter 'x'")]
)
def test_what_makes_no_sense_is_refused(store: Path, given: dict[str, Any], message: str) -> None:
    uri = given.pop("tracking_uri", "sqlite:///never.db")
    with pytest.raises(ConfigError, match=message):
        export(fill(store), uri, **given)


def test_without_mlflow_it_says_how_to_get_it(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(RuntimeUnavailable, match=r'mlflow is not installed; get it with: pip install --upgrade "agentnb\[mlflow\]"'):
        export(fill(store), "sqlite:///never.db")


@pytest.mark.slow
def test_it_talks_to_nobody_but_the_tracking_store(store: Path, uri: str, tmp_path: Path) -> None:
    """In a process of its own, which is not in CI and tests nothing, any connection is an error."""
    fill(store, whole_run("r"))
    code = f"""
import sys
sys.path.insert(0, {ROOT!r})
talked = []
sys.addaudithook(lambda name, args: talked.append((name, str(args))) if name in ("socket.connect", "socket.getaddrinfo") else None)
import os
from pathlib import Path
from agentnb.history.exporting.tracking import write_mlflow
write_mlflow(Path({str(store)!r}), {{}}, experiment=None, tracking_uri={uri!r}, artifacts=False)
import threading, mlflow.telemetry.client
print(talked, mlflow.telemetry.client.get_telemetry_client(), os.environ.get("MLFLOW_DISABLE_TELEMETRY"), len(threading.enumerate()))
"""
    known = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=known, check=True)
    assert done.stdout == "[] None None 1\n"


def test_a_run_that_ended_without_ever_starting_is_there(store: Path, uri: str) -> None:
    export(fill(store, [queued("r"), RunFinished("r", "cancelled", at=T0 + SECOND)]), uri)
    run = runs_in(uri)["r"]
    assert (run.info.status, run.info.start_time, run.data.metrics["queued_s"]) == ("KILLED", T0 // 1000, 1.0)


def test_a_group_and_a_session_bring_their_own_runs(store: Path, uri: str) -> None:
    session = nb.Session("first", store=store)
    group = session.map(nb.Shell("echo {{n}}"), nb.grid(n=[1, 2])).wait()
    session.shell("exit 3").wait()
    ids = group.to_mlflow(tracking_uri=uri)
    assert {*ids} == {run.id for run in group}
    assert len(session.to_mlflow(tracking_uri=uri)) == len(nb.to_mlflow(tracking_uri=uri, store=store)) == 3
    runs = runs_in(uri)
    assert {run_id: runs[run_id].info.run_id for run_id in ids} == ids
    assert [runs[run.id].data.params for run in group] == [{"n": "1"}, {"n": "2"}]
    assert sorted(run.info.status for run in runs.values()) == ["FAILED", "FINISHED", "FINISHED"]
    assert {*nb.to_mlflow("other", tracking_uri=uri, store=store, status="failed")} == {*runs} - {*ids}
