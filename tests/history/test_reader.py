from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agentnb.errors import ConfigError, StoreError
from agentnb.events import ArtifactSaved, RunStarted
from agentnb.history import reader
from agentnb.history.store import Store
from tests.history.making import SECOND, T0, finished, queued, started_session, whole_run


@pytest.fixture
def filled(store: Path) -> Path:
    with Store.open(store) as opened:
        opened.apply([started_session(), *whole_run("0198-aaaa-1", name="build"), *whole_run("0198-aaab-2", name="build", at=T0 + SECOND)])
        opened.apply([queued("0199-cccc", name="lonely"), RunStarted("0199-cccc")])
        opened.apply(
            [ArtifactSaved("0198-aaaa-1", {"id": "A", "name": "a", "size": 1, "location": {"type": "local", "path": "x"}, "checksum": "c"})]
        )
    return store


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("0198-aaaa-1", "0198-aaaa-1"),
        ("0198-aaaa", "0198-aaaa-1"),
        ("0199", "0199-cccc"),
        ("build", "0198-aaab-2"),
        ("lonely", "0199-cccc"),
    ],
)
def test_a_run_is_found_by_id_by_unique_start_and_by_name(filled: Path, key: str, found: str) -> None:
    assert reader.read_run(filled, key)["id"] == found


def test_an_ambiguous_start_names_the_candidates(filled: Path) -> None:
    with pytest.raises(ConfigError, match="several runs .*0198-aaaa-1, 0198-aaab-2"):
        reader.find_run(filled, "0198")


@pytest.mark.parametrize(
    ("key", "hint"), [("biuld", "did you mean 'build'"), ("%", "agentnb runs"), ("", "agentnb runs"), ("\ud800", "agentnb runs")]
)
def test_a_run_that_is_not_there_gets_a_hint(filled: Path, key: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        reader.find_run(filled, key)


def test_json_columns_come_decoded(filled: Path) -> None:
    run = reader.read_run(filled, "lonely")
    assert run["target"]["spec"] == {"type": "shell", "command": "echo hi"}
    assert [step["status"] for step in reader.read_steps(filled, "0198-aaaa-1")] == ["completed"]
    assert [artifact["location"]["path"] for artifact in reader.read_artifacts(filled, "0198-aaaa-1")] == ["x"]


def test_output_comes_from_the_row_or_from_the_log_file(filled: Path) -> None:
    assert reader.read_output(filled, "0198-aaaa-1", "stdout") == b"hi\n"
    assert reader.read_output(filled, "0198-aaaa-1", "stderr") == b""
    (filled / "runs" / "big").mkdir()
    (filled / "runs" / "big" / "stdout.log").write_bytes(b"\xff" * 10)
    with Store.open(filled) as opened:
        opened.apply([queued("big"), RunStarted("big"), finished("big", stdout={"size": 10, "text": None, "path": "runs/big/stdout.log"})])
    assert reader.read_output(filled, "big", "stdout") == b"\xff" * 10
    (filled / "runs" / "big" / "stdout.log").unlink()
    with pytest.raises(StoreError, match="stdout.log cannot be read"):
        reader.read_output(filled, "big", "stdout")
    with pytest.raises(ConfigError, match="'stdout' or 'stderr'"):
        reader.read_output(filled, "big", "stdlog")


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd"])
def test_a_log_path_never_leads_out_of_the_store(filled: Path, path: str) -> None:
    with Store.open(filled) as opened:
        opened.apply([queued("evil"), RunStarted("evil"), finished("evil", stdout={"size": 1, "text": None, "path": path})])
    with pytest.raises(StoreError, match="outside of the store"):
        reader.read_output(filled, "evil", "stdout")


def test_no_store_is_said_with_advice_and_none_is_made(store: Path) -> None:
    with pytest.raises(StoreError, match="there is no history at .*; run something first"):
        reader.read_run(store, "x")
    assert not store.exists()


def test_a_folder_name_that_looks_like_a_uri_is_only_a_name(tmp_path: Path) -> None:
    root = tmp_path / "a b%20?mode=rwc#é&x"
    with Store.open(root) as opened:
        opened.apply(whole_run("R"))
        assert reader.read_run(root, "R")["id"] == "R"
    assert [p.name for p in tmp_path.iterdir()] == [root.name]


def test_reading_a_store_that_is_being_written_sees_whole_batches(store: Path) -> None:
    with Store.open(store) as opened:
        for number in range(5):
            opened.apply(whole_run(f"R{number}"))
            assert reader.read_run(store, f"R{number}")["status"] == "completed"


def test_a_store_on_a_read_only_disk_can_be_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with Store.open(disk / "store") as opened:
            opened.apply(whole_run("R"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert reader.read_run(disk / "store", "R")["id"] == "R"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_database_is_a_store_error_for_readers(store: Path) -> None:
    store.mkdir()
    (store / "history.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match="not a database, or is damaged"):
        reader.read_run(store, "x")
