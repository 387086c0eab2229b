from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentnb.errors import ArtifactCorrupted, StoreError
from agentnb.history.artifacts import Blobs


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def files(blobs: Blobs) -> list[Path]:
    return [path for path in blobs.root.rglob("*") if path.is_file()]


@settings(max_examples=30, deadline=None)
@given(st.binary())
def test_bytes_come_back_as_they_went_in(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        blobs = Blobs(Path(folder))
        checksum, size = blobs.put_bytes(data)
        assert (checksum, size) == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
        assert blobs.read(checksum) == data
        with blobs.open(checksum) as file:
            assert file.read() == data


def test_equal_bytes_are_kept_once_however_they_come(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"x" * 3_000_000)
    assert blobs.put_file(source) == blobs.put_bytes(b"x" * 3_000_000) == blobs.put_file(str(source))
    (only,) = files(blobs)
    assert only.parent.name + only.name == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_big_file_costs_no_memory(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "file"
    with source.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    tracemalloc.start()
    try:
        checksum, size = blobs.put_file(source)
        blobs.path(checksum)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert size == 64 * 1024 * 1024


def test_the_checksum_is_that_of_the_stored_bytes_even_while_the_file_changes(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(8_000_000))
    stop = threading.Event()

    def scribble() -> None:
        with source.open("r+b") as file:
            while not stop.is_set():
                file.seek(0)
                file.write(os.urandom(4_000_000))

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        for _ in range(5):
            checksum, size = blobs.put_file(source)
            assert len(blobs.read(checksum)) == size
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("damage", [b"other", b"", None])
def test_damage_is_found_and_both_checksums_and_the_path_are_named(blobs: Blobs, damage: bytes | None) -> None:
    checksum, _ = blobs.put_bytes(b"precious")
    path = blobs.path(checksum)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    for read in (blobs.read, blobs.path, blobs.open):
        with pytest.raises(ArtifactCorrupted) as caught:
            read(checksum)
        assert checksum in str(caught.value)
        assert str(path) in str(caught.value)
        if damage is not None:
            assert hashlib.sha256(damage).hexdigest() in str(caught.value)


def test_a_blob_cut_short_is_made_whole_by_the_next_put(blobs: Blobs) -> None:
    checksum, _ = blobs.put_bytes(b"precious")
    blobs.path(checksum).write_bytes(b"prec")
    blobs.put_bytes(b"precious")
    assert blobs.read(checksum) == b"precious"


@pytest.mark.parametrize(
    "bad", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n"]
)
def test_what_is_no_checksum_never_becomes_a_path(blobs: Blobs, bad: str) -> None:
    with pytest.raises(StoreError, match="no artifact checksum"):
        blobs.read(bad)


def test_a_file_that_cannot_be_read_is_named_and_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    for source in (tmp_path / "missing", tmp_path):
        with pytest.raises(StoreError, match=str(source)):
            blobs.put_file(source)
    assert not blobs.root.exists() or not files(blobs)


def test_a_file_where_the_blobs_should_be_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "blobs").touch()
    with pytest.raises(StoreError, match="a file is where a folder should be"):
        Blobs(tmp_path / "blobs").put_bytes(b"x")


def test_many_writers_of_the_same_bytes_agree(blobs: Blobs) -> None:
    threads = [threading.Thread(target=blobs.put_bytes, args=(b"same" * 1000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(blobs)) == 1


def test_a_file_that_is_adopted_is_moved_and_can_be_read(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "stream.jsonl"
    source.write_bytes(b"x" * 3_000_000)
    checksum, size = blobs.adopt(source)
    assert not source.exists()
    assert (size, blobs.read(checksum)) == (3_000_000, b"x" * 3_000_000)
    source.write_bytes(b"x" * 3_000_000)
    assert blobs.adopt(source) == (checksum, size)
    assert not source.exists()
    assert len(files(blobs)) == 1


def test_a_file_that_is_gone_cannot_be_adopted(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        blobs.adopt(tmp_path / "nothing")
