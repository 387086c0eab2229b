"""A session's runs in the supervisor, one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_RUNS = 60
#: A supervisor in a process of its own, without the collector of cycles; at the end it says what that would find.
_SCRIPT = """
import asyncio, collections, gc, json, os, socket, sys
from agentnb import requests, wire
from agentnb.engine.supervisor import Supervisor

store, count, changes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])


async def serve():
    ours, theirs = socket.socketpair()
    supervisor = Supervisor(theirs)
    serving = asyncio.get_running_loop().create_task(supervisor.serve())
    ours.setblocking(False)
    loop, decoder, over = asyncio.get_running_loop(), wire.Decoder(), []
    env = {"PATH": os.environ["PATH"]}
    opened = requests.OpenSession({"id": "s", "name": "s", "created_at": 1}, store, 4)
    await loop.sock_sendall(ours, wire.encode([requests.Hello(requests.PROTOCOL_VERSION, os.getpid()), requests.SetEnv(1, env), opened]))

    async def launch(first):
        launches = []
        for n in range(first, first + count):
            work = {
                "kind": "process", "argv": ["sh", "-c", ["true", "echo x; exit 3", "sleep 0.02"][n % 3]],
                "cwd": "/", "env_id": 1, "env": {},
                "secrets": [], "capture": "both", "grace_s": 1.0, "expected_exit_code": 0,
            } | changes
            run = {"id": f"r{n}", "session_id": "s", "name": "x", "target": {"kind": "command"}}
            launches.append(requests.Launch(run, work))
        await loop.sock_sendall(ours, wire.encode(launches))
        before = turns[0]
        over.clear()
        while len(over) < count:
            over.extend(item for item in decoder.feed(await loop.sock_recv(ours, 1 << 16)) if item["type"] == "run_finished")
        return turns[0] - before

    turns = [0]

    def turn():
        turns[0] += 1
        loop.call_soon(turn)

    loop.call_soon(turn)

    await launch(0)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    took = await launch(count)
    await asyncio.sleep(0.1)  # timers that were shared by these runs are over
    gc.collect()
    found = collections.Counter(type(item).__name__ for item in gc.garbage if type(item).__module__.startswith("agentnb"))
    gc.set_debug(0)
    gc.garbage.clear()
    ours.close()
    await serving
    print(json.dumps([found, took]))


asyncio.run(serve())
"""


_HANDLER = {"when": "cleanup", "argv": ["true"], "display": "true", "cwd": "/", "env": {}}
_RETRY = {"max_attempts": 2, "strategy": "constant", "initial_delay": 0.0, "max_delay": 0.0, "jitter": 0.0, "on_exit_codes": [3]}


def found(store: Path, count: int, changes: dict[str, Any]) -> tuple[dict[str, int], int]:
    """What so many finished runs left to the collector of cycles, and how many turns of the loop they took."""
    package = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(store), str(count), json.dumps(changes)],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    left, turns = json.loads(done.stdout)
    return {name: number for name, number in left.items() if number >= count / 4}, turns


@pytest.mark.parametrize(
    "changes",
    [{}, {"handlers": [_HANDLER]}, {"retry": _RETRY}, {"argv": ["no such program"]}, {"timeout_s": 0.01}, {"check": {"script": ["true"]}}],
    ids=["plain", "handlers", "retry", "no program", "timeout", "check"],
)
def test_finished_runs_leave_nothing_to_the_collector_of_cycles(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert found(tmp_path / "store", _RUNS, changes)[0] == {}


def test_runs_that_fail_before_they_start_let_the_loop_serve_others_between_them(tmp_path: Path) -> None:
    assert found(tmp_path / "store", 200, {"parser": "no.such.module:Parser"})[1] >= 200 // 4


_LAST = """
import asyncio, os, socket, sys
from agentnb import requests, wire
from agentnb.engine import recorder
from agentnb.engine.supervisor import Supervisor

recorder.GATHER_S = recorder.GATHER_MANY_S = 3600.0


async def serve():
    loop, decoder, over = asyncio.get_running_loop(), wire.Decoder(), []
    ours, theirs = socket.socketpair()
    supervisor = Supervisor(theirs)
    serving = loop.create_task(supervisor.serve())
    ours.setblocking(False)
    opened = requests.OpenSession({"id": "s", "name": "s", "created_at": 1}, sys.argv[1], 4)
    env = {"PATH": os.environ["PATH"]}
    await loop.sock_sendall(ours, wire.encode([requests.Hello(requests.PROTOCOL_VERSION, os.getpid()), requests.SetEnv(1, env), opened]))

    async def launch(run_id, *argv):
        work = {
            "kind": "process", "argv": argv, "cwd": "/", "env_id": 1, "env": {},
            "secrets": [], "capture": "both", "grace_s": 1.0, "expected_exit_code": 0,
        }
        run = {"id": run_id, "session_id": "s", "target": {"kind": "command"}}
        await loop.sock_sendall(ours, wire.encode([requests.Launch(run, work)]))

    await launch("long", "sleep", "1000")
    await launch("short", "true")
    async with asyncio.timeout(50):
        while not over:
            over.extend(item["run_id"] for item in decoder.feed(await loop.sock_recv(ours, 1 << 16)) if item["type"] == "run_finished")
    ours.close()
    await serving
    print(over)


asyncio.run(serve())
"""


def test_of_the_last_few_runs_each_is_told_of_at_once_instead_of_with_others_that_may_come(tmp_path: Path) -> None:
    package = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _LAST, str(tmp_path / "store")],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "['short']\n"
