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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentnb.engine.proc import children_of
from agentnb.history.store import DATABASE, Store

KILLS = 200
#: Templates that kill at the same time: most of a victim's time is waiting for its moment.
LANES = 2
#: A victim is killed at a moment after it has seen the end of fewer than so many runs: counted, so that a slow machine makes none idle.
MOST_SEEN = 12
TEMPLATE = """
import os, sys, time
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
        time.sleep(0.001)

for request in sys.stdin:
    store, pipe = request.split()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        victim(store, os.open(pipe, os.O_WRONLY))
    print(pid, flush=True)
    os.waitpid(pid, 0)
"""


@contextmanager
def template(mark: str) -> Iterator[subprocess.Popen[str]]:
    """A template; all that its victims start has `mark` in its environment."""
    env = os.environ | {"AGENTNB_KILL_TEST": mark}
    with subprocess.Popen([sys.executable, "-c", TEMPLATE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def marked(mark: str) -> list[int]:
    """Live processes that a victim started, by the mark in their environment."""
    wanted = f"AGENTNB_KILL_TEST={mark}\0".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                env = Path(f"/proc/{name}/environ").read_bytes()
                if wanted not in env or b"AGENTNB_RUN_ID=" not in env:
                    continue
                if Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}:
                    found.append(int(name))
            except OSError:
                continue
    return found


def wait_for(what: Callable[[], str], seconds: float, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what()}"
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
    seen = rng.randrange(MOST_SEEN)
    while text.count(b"\n") <= seen and (piece := os.read(reader, 1 << 16)):
        text += piece
    time.sleep(rng.random() * 0.03)
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
def test_two_hundred_random_kills_lose_no_finished_run_and_leave_no_process(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    with ThreadPoolExecutor(LANES) as lanes:
        seen = sum(lanes.map(lambda lane: kills_of(lane, seed, tmp_path), range(LANES)))
    assert seen > KILLS  # the victims were at work


def kills_of(lane: int, seed: int, folder: Path) -> int:
    """Do this lane's share of the kills, and check what each left; how many runs the victims saw end."""
    rng, mark = random.Random(seed + lane), f"victims-{os.getpid()}-{seed}-{lane}"
    with template(mark) as forked:
        return sum(
            kill_and_check(forked, folder / str(number), rng, mark, f"seed {seed}, kill {number}") for number in range(lane, KILLS, LANES)
        )


def kill_and_check(forked: subprocess.Popen[str], folder: Path, rng: random.Random, mark: str, what: str) -> int:
    """Do one kill in `folder`; how many runs its victim saw end."""
    folder.mkdir()
    who = rng.choice(["kernel", "kernel", "supervisor", "spawner"])
    store, lines = kill_one(forked, folder, rng, who)
    wait_for(lambda: f"the end of all processes ({what} of the {who}): {marked(mark)}", 10, lambda: not marked(mark))
    check(store, lines, f"{what} of the {who}")
    return len(lines)


def check(root: Path, lines: list[str], what: str) -> None:
    """All runs of this store have an end, those whose end was seen have that one, and its database is intact."""
    with Store.open(root, owner="checker") as opened:
        wait_for(lambda: f"the recovery of all runs ({what}): {live_after_recovery(opened)}", 10, lambda: not live_after_recovery(opened))
    with sqlite3.connect(root / DATABASE) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = dict(db.execute("SELECT id, status FROM runs"))
    db.close()
    # A run that was never recorded (its supervisor was killed before it heard of it) reads cancelled in the dead kernel only.
    for run_id, status in (line.split() for line in lines if line.endswith("completed")):
        assert found.get(run_id) == status, f"{what}: {run_id} was seen {status}, the history says {found.get(run_id)}"


def live_after_recovery(store: Store) -> list[str]:
    """Runs that still read live, after what dead owners left was recovered."""
    store.recover()
    with sqlite3.connect(store.root / DATABASE) as db:
        left = [run for (run,) in db.execute("SELECT id FROM runs WHERE status IN ('pending', 'running')")]
    db.close()
    return left
