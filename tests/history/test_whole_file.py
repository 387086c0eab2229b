from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentnb.errors import ConfigError, StoreError
from agentnb.history.whole_file import whole_file

ROOT = str(Path(__file__).resolve().parents[2])


def test_a_file_gets_its_name_when_all_is_in_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with whole_file(target, overwrite=False) as file:
        file.write(b"all")
        assert not target.exists()
    assert target.read_bytes() == b"all"
    assert os.listdir(target.parent) == ["file"]


def test_what_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(TypeError), whole_file(target, overwrite=True) as file:
        file.writelines([b"half", None])
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        says = r"to_x: '.*file' cannot be written: .*; give another place, or make room"
        with pytest.raises(StoreError, match=says), whole_file(tmp_path / "file", overwrite=False, what="to_x") as file:
            file.write(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


def test_a_process_that_is_killed_leaves_no_file_of_that_name(tmp_path: Path) -> None:
    code = f"""
import os, sys, signal
sys.path.insert(0, {ROOT!r})
from pathlib import Path
from agentnb.history.whole_file import whole_file
with whole_file(Path({str(tmp_path / "file")!r}), overwrite=False) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-I", "-c", code], check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "file").exists()
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with pytest.raises(ConfigError, match="was made by somebody else meanwhile"), whole_file(target, overwrite=False):
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_no_file(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(ConfigError, match="is a folder; give a file in it"), whole_file(tmp_path, overwrite=overwrite):
        pass


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written: File exists"), whole_file(tmp_path / "file" / "x", overwrite=True):
        pass
