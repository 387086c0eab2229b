"""Four kernels, readers and the command line use one store at once, and are killed at random: nothing is lost, doubled or left over.

A template process imports agentnb once and is forked for each kernel. A kernel launches runs and groups, and writes down every run
that it saw end, with its values, at once; it also reads frames while everybody writes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.history.reader import output_bytes
from agentnb.history.store import DATABASE, Store
from tests.engine.driver import children, lives, wait_until
from tests.history.making import whole_run

KERNELS, KILLS, CALLS = 4, 14, 2
KERNEL = """
import json, os, sys, time
import agentnb as nb
from agentnb.notebook import session as loaded
import agentnb.agents.compile, agentnb.history.frames.frames

def work(number, out):
    def say(**what):
        os.write(out, (json.dumps(what) + "\\n").encode())
    session = nb.Session(f"kernel {number}", store="store", max_parallel=2)
    line = "echo {{word}}; (setsid sleep 600 &); exit {{code}}"
    live, turn = [], 0
    while True:
        turn += 1
        points = [{"word": f"w{number}-{turn}-{n}", "code": n % 2} for n in range(3)]
        if len(live) < 6:
            live += session.map(nb.Shell(line), points)
            live.append(session.launch(nb.Shell("echo $AGENTNB_RUN_ID"), params={"word": "x", "code": 0}))
        for run in [run for run in live if run.done]:
            live.remove(run)
            said = {"id": run.id, "status": run.status.value, "word": run.params["word"], "code": run.params["code"]}
            if run.status.value in ("completed", "failed"):
                said |= {"exit_code": run.result.exit_code, "stdout": run.stdout}
            say(**said)
        if turn % 20 == 0:
            runs, steps = nb.runs_df(store="store"), nb.steps_df(store="store")
            say(read=len(runs), steps=len(steps), doubled=int(runs["id"].duplicated().sum() + steps["id"].duplicated().sum()))
        time.sleep(0.005)

for request in sys.stdin:
    number, log = request.split()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            work(int(number), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        except BaseException:
            import traceback
            os.write(os.open(log, os.O_WRONLY | os.O_APPEND), json.dumps({"fault": traceback.format_exc()}).encode() + b"\\n")
            os._exit(1)
    print(pid, flush=True)
"""


class Kernels:
    """Kernels on one store; each kill is of one of them, of its supervisor or its spawner, when it has told something new."""

    def __init__(self, template: subprocess.Popen[str], folder: Path, rng: random.Random) -> None:
        """None is there yet."""
        self.template = template
        self.folder = folder
        self.rng = rng
        self.count = 0
        self.pids: dict[int, Path] = {}

    def start(self) -> None:
        """One more kernel."""
        assert self.template.stdin is not None
        assert self.template.stdout is not None
        self.count += 1
        log = self.folder / f"log{self.count}"
        log.touch()
        self.template.stdin.write(f"{self.count} {log}\n")
        self.template.stdin.flush()
        self.pids[int(self.template.stdout.readline())] = log

    def kill_one(self) -> str:
        """Kill at a random moment, within what the kernel does next; a kernel that is gone gets a successor."""
        pid = self.rng.choice(sorted(self.pids))
        log = self.pids[pid]
        told, more = log.stat().st_size, self.rng.randrange(1, 2000)
        wait_until(lambda: log.stat().st_size > told + more or not lives(pid), f"progress of {log.name}")
        who = self.rng.choice(["kernel", "kernel", "supervisor", "spawner"])
        supervisors = children(pid)
        targets = {"kernel": [pid], "supervisor": supervisors, "spawner": [below for one in supervisors for below in children(one)]}
        for target in targets[who][:1]:
            os.kill(target, signal.SIGKILL)
        if who == "kernel":
            del self.pids[pid]
            self.start()
        return f"{who} of {log.name}"

    def end(self) -> None:
        """Kill all kernels."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not marked(), f"the end of what they started: {marked()}")

    def told(self) -> list[dict[str, Any]]:
        """All whole lines that they wrote."""
        return [
            json.loads(line)
            for log in sorted(self.folder.glob("log*"))
            for line in log.read_text().splitlines(keepends=True)
            if line[-1] == "\n"
        ]


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    monkeypatch.setenv("AGENTNB_SHARED_TEST", f"shared-{os.getpid()}-{random.randrange(10**9)}")
    with subprocess.Popen([sys.executable, "-c", KERNEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)


def marked() -> list[int]:
    """Live processes below the kernels, by the mark in their environment."""
    mark = f"AGENTNB_SHARED_TEST={os.environ['AGENTNB_SHARED_TEST']}\0".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and lives(int(name)):
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if mark in environ and b"AGENTNB_RUN_ID=" in environ:
                found.append(int(name))
    return found


def command_line(answers: list[list[dict[str, Any]]]) -> None:
    """What somebody asks in a terminal meanwhile."""
    for _ in range(CALLS):
        argv = [sys.executable, "-m", "agentnb.cli", "runs", "--format", "json", "--store", "store"]
        answers.append(json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=120).stdout))


def history(root: Path) -> tuple[dict[str, dict[str, Any]], Counter[tuple[str, str]], list[tuple[Any, ...]]]:
    """Runs by id with their stdout, how often each was queued and finished, and all steps; the database is sound."""
    with closing(sqlite3.connect(root / DATABASE)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.row_factory = sqlite3.Row
        query = "SELECT runs.*, inline, path FROM runs LEFT JOIN logs ON run_id = id AND stream = 'stdout'"
        runs = {row["id"]: dict(row) for row in db.execute(query)}
        db.row_factory = None
        marks = Counter(db.execute("SELECT run_id, type FROM events WHERE type IN ('run_queued', 'run_finished')"))
        steps = db.execute("SELECT run_id, status, attempt FROM steps").fetchall()
    return runs, marks, steps


def check_history(store: Path, told: list[dict[str, Any]]) -> None:
    """What was told is there with the same values; nothing is there twice, half or live."""
    runs, marks, steps = history(store)
    for line in told:
        if "id" not in line:
            continue
        row = runs.get(line["id"])
        if row is None:  # its supervisor was killed before it heard of it
            assert line["status"] in {"cancelled", "interrupted"}, line
            continue
        assert (row["status"], json.loads(row["params"])) == (line["status"], {"word": line["word"], "code": line["code"]}), line
        if "exit_code" in line:
            text = output_bytes(store, row["inline"], row["path"]).decode()
            assert (row["exit_code"], text) == (line["exit_code"], line["stdout"]), line
    assert {row["status"] for row in runs.values()} <= {"completed", "failed", "interrupted", "cancelled"}
    assert marks == Counter({(run, kind): 1 for run in runs for kind in ("run_queued", "run_finished")})
    of_run = Counter(run for run, *_ in steps)
    assert set(of_run) <= set(runs)
    for run, row in runs.items():  # an attempt whose start was cut off is a step as well
        assert of_run[run] == 1 or (of_run[run] == 0 and row["started_at"] is None), row
    assert {status for _, status, _ in steps} <= {"completed", "failed", "interrupted", "cancelled"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_four_kernels_and_the_command_line_share_a_store_whoever_is_killed(template: subprocess.Popen[str], tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    kernels = Kernels(template, tmp_path, random.Random(seed))
    answers: list[list[dict[str, Any]]] = []
    terminal = threading.Thread(target=command_line, args=(answers,))
    kills = []
    try:
        for _ in range(KERNELS):
            kernels.start()
        wait_until(lambda: len(kernels.told()) > KERNELS, "the first runs")
        terminal.start()
        kills += [kernels.kill_one() for _ in range(KILLS)]
        terminal.join(150)
    finally:
        kernels.end()
    story = f"seed {seed}, killed: {', '.join(kills)}"
    store = tmp_path / "store"
    with Store.open(store, owner="checker") as opened:

        def is_over() -> bool:  # a supervisor whose kernel was killed writes what is left as soon as the others let it
            others = {lock.stem for lock in (store / "owners").glob("*.lock")} - {"checker"}
            return (
                not opened.recover() and not others and not {row["status"] for row in history(store)[0].values()} & {"pending", "running"}
            )

        wait_until(is_over, story)
    told = kernels.told()
    assert not [line["fault"] for line in told if "fault" in line], story
    try:
        check_history(store, told)
    except AssertionError as bad:
        raise AssertionError(f"{story}: {bad}") from bad
    assert len(answers) == CALLS, story
    assert all(len({row["id"] for row in rows}) == len(rows) > 0 for rows in answers), story
    assert {line["doubled"] for line in told if "read" in line} <= {0}, story
    assert len([line for line in told if "exit_code" in line]) > KILLS, story


HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
db.execute("UPDATE runs SET name = 'changed'")
print("holds", flush=True)
sys.stdin.read()
db.execute("ROLLBACK")
"""


def test_readers_finish_while_another_process_holds_a_transaction_open_and_a_dead_one_is_to_be_recovered(store: Path) -> None:
    with Store.open(store, owner="dead") as opened:
        opened.apply([event for run in "ab" for event in whole_run(run)])
        opened.apply(whole_run("c")[:2])
        opened._owner.close()  # type: ignore[union-attr]  # as its death does
        opened._owner = None
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(store / DATABASE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"holds\n"
        assert sorted(nb.runs_df(store=store)["name"]) == ["a", "b", "c"]
        assert len(nb.steps_df(store=store)) == 2
        assert len(nb.events_df(store=store)) == 12
        answer = subprocess.run(
            [sys.executable, "-m", "agentnb.cli", "runs", "--format", "json", "--store", str(store)], check=True, capture_output=True
        )
        assert len(json.loads(answer.stdout)) == 3
        assert holder.poll() is None
        holder.stdin.close()
    assert dict(nb.runs_df(store=store)[["name", "status"]].itertuples(index=False)) == {
        "a": "completed",
        "b": "completed",
        "c": "interrupted",
    }
