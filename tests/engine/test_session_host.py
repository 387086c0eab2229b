"""A session's runs in the supervisor, one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_RUNS = 60
#: A supervisor in a process of its own, without the collector of cycles; at the end it says what that would find.
_SCRIPT = """
import asyncio, collections, gc, json, os, socket, sys
from agentnb import requests, wire
from agentnb.engine.supervisor import Supervisor

store, count = sys.argv[1], int(sys.argv[2])


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
        for n in range(first, first + count):
            work = {
                "kind": "process", "argv": ["sh", "-c", ["true", "echo x; exit 3", "sleep 0.02"][n % 3]],
                "cwd": "/", "env_id": 1, "env": {},
                "secrets": [], "capture": "both", "grace_s": 1.0, "expected_exit_code": 0,
            }
            run = {"id": f"r{n}", "session_id": "s", "name": "x", "target": {"kind": "command"}}
            await loop.sock_sendall(ours, wire.encode([requests.Launch(run, work)]))
        over.clear()
        while len(over) < count:
            over.extend(item for item in decoder.feed(await loop.sock_recv(ours, 1 << 16)) if item["type"] == "run_finished")

    await launch(0)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    await launch(count)
    await asyncio.sleep(0.1)  # timers that were shared by these runs are over
    gc.collect()
    found = collections.Counter(type(item).__name__ for item in gc.garbage if type(item).__module__.startswith("agentnb"))
    gc.set_debug(0)
    gc.garbage.clear()
    ours.close()
    await serving
    print(json.dumps(found))


asyncio.run(serve())
"""


def test_finished_runs_leave_nothing_to_the_collector_of_cycles(tmp_path: Path) -> None:
    package = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "store"), str(_RUNS)],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert {name: count for name, count in found.items() if count >= _RUNS / 4} == {}
