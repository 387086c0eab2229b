"""The socket that other processes knock at: whatever the length of its path, for its user only, and never in the way."""

from __future__ import annotations

import os
import socket
import stat
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from agentnb.engine.door import QUEUE, knock, open_door


@pytest.mark.parametrize("length", [1, 107, 108, 200, 1000])
def test_a_path_of_any_length_can_be_listened_and_knocked_at(tmp_path: Path, length: int) -> None:
    path = tmp_path
    while len(os.fsencode(path)) + 6 < length:
        path /= "d" * min(200, max(length - len(os.fsencode(path)) - 7, 1))
    path.mkdir(parents=True, exist_ok=True)
    path /= "s.sock"
    with open_door(path) as door, knock(path) as outside:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        inside, _ = door.accept()
        with inside:
            outside.sendall(b"hello")
            assert inside.recv(10) == b"hello"


def test_a_leftover_is_replaced_and_a_leftover_answers_nobody(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    open_door(path).close()
    assert path.exists()
    with pytest.raises(ConnectionRefusedError):
        knock(path)
    with open_door(path), knock(path):
        pass


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("no socket"), lambda path: path.mkdir()])
def test_where_nobody_listens_knocking_fails_at_once(tmp_path: Path, make) -> None:
    path = tmp_path / "s.sock"
    make(path)
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on what is there
        knock(path)


def let_in(door: socket.socket) -> None:
    door.accept()[0].close()


def test_a_full_queue_at_the_door_is_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "s.sock"
    with open_door(path) as door, ExitStack() as callers:
        for _ in range(QUEUE + 1):
            callers.enter_context(knock(path))
        monkeypatch.setattr("agentnb.engine.door.KNOCK_S", 1)
        with pytest.raises(BlockingIOError):
            knock(path)
        monkeypatch.undo()
        opener = threading.Timer(0.05, let_in, [door])
        opener.start()
        callers.enter_context(knock(path))
        opener.join()


def test_where_no_socket_can_be_made_nothing_stays_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):  # noqa: PT011
        open_door(tmp_path / "no" / "s.sock")
    assert os.listdir("/proc/self/fd") == before
