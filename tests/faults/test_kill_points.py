"""`kill -9` at random moments: no finished run is lost, no process is left, the database is intact.

A template process imports agentnb once and is forked for each victim. A victim launches runs as fast as it can, writes the id of
each one that it has seen end to a pipe, and is killed at a random moment: itself, its supervisor or its spawner.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentnb.engine.proc import children_of
from agentnb.history.store import DATABASE, Store

KILLS = 200
TEMPLATE = """
import os, sys
import agentnb as nb
from agentnb.notebook import session as loaded
import agentnb.agents.compile

def victim(store, out):
    session = nb.Session("victim", store=store, max_parallel=4)
    line = "echo $$; (setsid sleep 600 &); sleep 0.0{{n}}"
    runs = [session.launch(nb.Shell(line), params={"n": n % 4}) for n in range(12)]
    os.write(out, b"ready\\n")
    while True:
        for run in list(runs):
            if run.done:
                runs.remove(run)
                os.write(out, f"{run.id} {run.status.value}\\n".encode())
                runs.append(session.launch(nb.Shell(line), params={"n": 1}))
        os.sched_yield()

for request in sys.stdin:
    store, pipe = request.split()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        victim(store, os.open(pipe, os.O_WRONLY))
    print(pid, flush=True)
    os.waitpid(pid, 0)
"""


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    monkeypatch.setenv("AGENTNB_KILL_TEST", f"victims-{os.getpid()}-{random.randrange(10**9)}")
    with subprocess.Popen([sys.executable, "-c", TEMPLATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def marked() -> list[int]:
    """Live processes that a victim started, by the mark in their environment."""
    mark = f"AGENTNB_KILL_TEST={os.environ['AGENTNB_KILL_TEST']}\0".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                wanted = (
                    mark in Path(f"/proc/{name}/environ").read_bytes() and b"AGENTNB_RUN_ID=" in Path(f"/proc/{name}/environ").read_bytes()
                )
                if wanted and Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}:
                    found.append(int(name))
            except OSError:
                continue
    return found


def wait_for(what: str, seconds: float, condition: object) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.01)


def kill_one(template: subprocess.Popen[str], folder: Path, rng: random.Random, who: str) -> tuple[Path, list[str]]:
    """Run a victim and kill it, or its supervisor, or its spawner; returns its store and the lines that it wrote."""
    assert template.stdin is not None
    assert template.stdout is not None
    store, pipe = folder / "store", folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    template.stdin.write(f"{store} {pipe}\n")
    template.stdin.flush()
    pid = int(template.stdout.readline())
    os.set_blocking(reader, True)
    while not (text := os.read(reader, 1 << 16)):
        time.sleep(0.005)
    time.sleep(rng.random() * 0.3)
    targets = {"kernel": [pid]}
    targets["supervisor"] = children_of(pid)
    targets["spawner"] = [below for child in targets["supervisor"] for below in children_of(child)]
    for target in targets[who][:1]:
        os.kill(target, signal.SIGKILL)
    if who != "kernel":
        time.sleep(rng.random() * 0.1)
        os.kill(pid, signal.SIGKILL)
    while piece := os.read(reader, 1 << 16):
        text += piece
    os.close(reader)
    return store, [line for line in text.decode().splitlines() if line.count(" ") == 1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_random_kills_lose_no_finished_run_and_leave_no_process(template: subprocess.Popen[str], tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    seen = 0
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        who = rng.choice(["kernel", "kernel", "supervisor", "spawner"])
        store, lines = kill_one(template, folder, rng, who)
        wait_for(f"the end of all processes (seed {seed}, kill {number} of the {who}): {marked()}", 10, lambda: not marked())
        with Store.open(store, owner=f"checker-{number}") as opened:
            wait_for("the recovery of all runs", 10, lambda: not live_after_recovery(opened))
        with sqlite3.connect(store / DATABASE) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            found = dict(db.execute("SELECT id, status FROM runs"))
        db.close()
        # A run that was never recorded (its supervisor was killed before it heard of it) reads cancelled in the dead kernel only.
        for run_id, status in (line.split() for line in lines if line.endswith("completed")):
            assert found.get(run_id) == status, (
                f"seed {seed}, kill {number} of the {who}: {run_id} was seen {status}, the history says {found.get(run_id)}"
            )
        seen += len(lines)
    assert seen > KILLS  # the victims were at work


def live_after_recovery(store: Store) -> list[str]:
    """Runs that still read live, after what dead owners left was recovered."""
    store.recover()
    with sqlite3.connect(store.root / DATABASE) as db:
        left = [run for (run,) in db.execute("SELECT id FROM runs WHERE status IN ('pending', 'running')")]
    db.close()
    return left
