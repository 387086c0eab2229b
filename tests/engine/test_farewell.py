"""A supervisor that ends is waited for; one that hangs is killed, and one that only has to write yet is left to it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import warnings

import pytest

from agentnb.engine import farewell
from agentnb.engine.farewell import see_it_end


def child(code: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        head = f"import os, socket, sys, time; sock = socket.socket(fileno={theirs.fileno()});"
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", head + code], pass_fds=[theirs.fileno()], stdin=subprocess.PIPE)
    return process, ours


def finish(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    process.kill()
    process.communicate()
    sock.close()


@pytest.mark.parametrize("code", ["pass", "sock.send(b'bye'); sock.close(); time.sleep(0.2)", "time.sleep(0.3)"])
def test_one_that_ends_is_waited_for_without_a_word(code: str) -> None:
    process, sock = child(code)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        see_it_end(process, sock, [])
    assert process.returncode == 0
    finish(process, sock)


def test_one_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "SHUTDOWN_S", 0.3)
    monkeypatch.setattr(farewell, "_LAST_MOMENT_S", 0.1)
    process, sock = child("time.sleep(1000)")
    see_it_end(process, sock, [])
    assert process.returncode == -9
    finish(process, sock)


@pytest.mark.parametrize("closed", [False, True])
def test_one_that_has_hung_up_and_goes_on_is_left_alone_and_told_of(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    monkeypatch.setattr(farewell, "_LAST_MOMENT_S", 0.1)
    process, sock = child(("" if closed else "sock.send(b'something to read');") + "sock.close(); sys.stdin.read()")
    if closed:
        sock.close()
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match=f"not complete yet .the disk is full.*process {process.pid}"):
        see_it_end(process, sock, ["the disk is full"])
    assert time.monotonic() - began < farewell.SHUTDOWN_S
    assert process.poll() is None
    finish(process, sock)
