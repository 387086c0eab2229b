"""A store is refused where the file system does not keep what it relies on; real mounts, where this machine can make them."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

import agentnb as nb
from agentnb import doctor
from agentnb.errors import StoreError
from agentnb.history import locking
from agentnb.history.store import Store
from tests.history.making import table, whole_run
from tests.history.mounts import mounted

FAULTS = {
    "no locks": ({"locks": errno.ENOLCK}, r"locks of whole files do not work \(No locks available\)"),
    "locks not known": ({"locks": errno.EOPNOTSUPP}, r"locks of whole files do not work \(Operation not supported\)"),
    "every lock is given": ({"locks": 0}, "locks of whole files do not exclude"),
    "no locks of parts": ({"locks": errno.ENOLCK, "which": "parts"}, "locks of parts of files do not work"),
    "every lock of parts is given": ({"locks": 0, "which": "parts"}, "locks of parts of files do not exclude"),
    "no locks of whole files": ({"locks": 0, "which": "whole"}, "locks of whole files do not exclude"),
    "no shared memory": ({"unmappable": True}, "memory cannot be shared by files"),
}
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_where_the_file_system_keeps_no_locks_is_refused_with_advice(tmp_path: Path, fault: str) -> None:
    faults, what = FAULTS[fault]
    with mounted(tmp_path, **faults) as mount:
        store = mount.point / "store"
        for use in (lambda: Store.open(store), lambda: Store.open(store, owner="me"), lambda: nb.Session("s", store=store)):
            with pytest.raises(StoreError, match=what) as caught:
                use()
            assert str(store) in str(caught.value)
            assert "point AGENTNB_HOME or store= to another folder on a local disk" in str(caught.value)
        assert not list(store.iterdir()), "nothing was made there"
        for there in (store, store / "below"):
            (finding,) = doctor._store(there, deep=False)
            assert finding.state == "broken"
            assert "on a local disk" in finding.text


def test_locks_that_are_given_to_everybody_really_are(tmp_path: Path) -> None:
    with mounted(tmp_path, locks=0) as mount:
        argv = [sys.executable, "-c", HOLD, str(mount.point / "file")]
        holders = [subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        try:
            assert [holder.stdout.readline() for holder in holders if holder.stdout] == ["mine\n"] * 2
        finally:
            for holder in holders:
                holder.communicate()


def test_a_file_system_in_user_space_that_keeps_locks_is_fine(tmp_path: Path) -> None:
    with mounted(tmp_path) as mount:
        with Store.open(mount.point / "store", owner="me") as opened:
            opened.apply(whole_run("R"))
            with pytest.raises(StoreError, match="living writer"):
                Store.open(mount.point / "store", owner="me")
        assert [row["status"] for row in table(mount.point / "store", "runs")] == ["completed"]


def test_a_disk_that_does_not_write_is_told_of_as_such(tmp_path: Path) -> None:
    with mounted(tmp_path, sync_error=errno.EIO) as mount, pytest.raises(StoreError, match="the disk does not read or write"):
        Store.open(mount.point / "store")


def raising(error: int):
    def refuse(*_: object) -> None:
        raise OSError(error, "simulated")

    return refuse


@pytest.mark.parametrize(
    ("name", "call", "what"),
    [
        ("flock", raising(errno.ENOLCK), "locks of whole files do not work"),
        ("flock", lambda *_: None, "locks of whole files do not exclude"),
        ("fcntl", raising(errno.EOPNOTSUPP), "locks of parts of files do not work"),
        ("fcntl", lambda *_: None, "locks of parts of files do not exclude"),
    ],
)
def test_what_the_system_says_of_locks_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: object, what: str) -> None:
    """For machines that can mount nothing: the calls themselves are replaced."""
    monkeypatch.setattr(fcntl, name, call)
    with pytest.raises(StoreError, match=what):
        locking.check_locks(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_tried_once_and_again_when_it_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    locking.check_locks(tmp_path / "a")
    monkeypatch.setattr(fcntl, "flock", raising(errno.ENOLCK))
    locking.check_locks(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").mkdir()
    with pytest.raises(StoreError):
        locking.check_locks(tmp_path / "a")
