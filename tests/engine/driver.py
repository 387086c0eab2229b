"""Drives a real supervisor process over its real socket, as a notebook's session does, without a notebook."""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from agentnb import requests
from agentnb.engine.client import Client
from agentnb.events import HostCancel, HostStart, Json, Message, OutputTail, RunFinished, now_us
from agentnb.ids import new_id

#: Nothing here takes this long, in seconds, unless it hangs.
SOON = 30.0


class Lost(Exception):
    """The supervisor died under a run."""


def wait_until(condition: Callable[[], Any], what: str = "the condition", within_s: float = SOON) -> Any:
    """What `condition` returns once it is true; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {within_s} s"
        threading.Event().wait(0.01)
    return found


def state_of(pid: int) -> str:
    """The state of a process as in /proc, such as S or Z; empty when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text[text.rindex(")") + 2]


def lives(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    return state_of(pid) not in {"", "Z", "X"}


def pids(count: int) -> list[int]:
    """What a test's processes wrote into the file ``pids``, one a line, once there are `count`."""
    file, found = Path("pids"), list[int]()

    def there() -> bool:
        found[:] = [int(word) for word in file.read_text(encoding="ascii").split()] if file.exists() else []
        return len(found) >= count

    wait_until(there, "the pids")
    return found


def children(pid: int) -> list[int]:
    """Pids of the live children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split() if lives(int(word))]
    except OSError:
        return []


def marked(mark: str) -> list[int]:
    """Pids of all live processes whose first environment holds `mark`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and lives(int(name)):
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in environ:
                found.append(int(name))
    return found


def peak_memory(pid: int) -> int:
    """The process's peak resident memory so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{pid} has no VmHWM")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        """Start it."""
        self.loop = asyncio.new_event_loop()
        self.faults: list[Json] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def stop(self) -> None:
        """End and close it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Watched:
    """A run that was launched: its events as they come."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        """Nothing has come yet."""
        self.engine = engine
        self.id = run_id
        self.events: list[Message] = []
        self.done: Future[RunFinished] = Future()
        self.finishes = 0

    def on_event(self, event: Message) -> None:
        """An event of this run."""
        self.events.append(event)
        if isinstance(event, RunFinished):
            self.finishes += 1
            self.done.set_result(event)
        elif isinstance(event, HostStart | HostCancel):
            self.engine.hosted(self.id, event)

    def on_lost(self, message: str) -> None:
        """The supervisor died."""
        self.done.set_exception(Lost(message))

    def of(self, kind: str) -> list[Any]:
        """Its events of one type."""
        return [event for event in list(self.events) if event.type == kind]

    def wait(self, within_s: float = SOON) -> RunFinished:
        """Its end."""
        return self.done.result(within_s)

    def started(self) -> Watched:
        """Itself, once its process runs."""
        wait_until(lambda: self.done.done() or self.of("run_started"), "the start")
        return self

    def cancel(self, reason: str = "asked to") -> None:
        """Ask for its end."""
        self.engine.client.send([requests.Cancel([self.id], reason)])

    def send(self, text: str, *, eof: bool = False) -> Json:
        """Write to its stdin."""
        return self.engine.ask(lambda number: requests.SendInput(number, self.id, text, eof))

    def watch(self, *, on: bool = True) -> None:
        """Have its output sent."""
        self.engine.client.send([requests.Watch([self.id], on)])

    def seen(self, stream: str = "stdout") -> str:
        """What was sent of its output so far."""
        tails: list[OutputTail] = self.of("output_tail")
        return "".join(text for tail in tails for name, text in tail.segments if name == stream)

    def stdout(self) -> bytes:
        """All of its stdout, once it has ended."""
        return self.engine.content(self.wait().stdout)

    def stderr(self) -> bytes:
        """All of its stderr, once it has ended."""
        return self.engine.content(self.wait().stderr)

    def pids(self) -> list[int]:
        """Its live processes, as far as they keep the mark of the run in their environment."""
        return marked(f"AGENTNB_RUN_ID={self.id}")


class Engine:
    """A client with one session and its supervisor process."""

    def __init__(
        self, store: Path, loop: Loop, *, max_parallel: int = 4, env: Mapping[str, str] | None = None, detached: bool = False
    ) -> None:
        """Start it."""
        self.store = store
        self.client = Client(loop.loop, detached=detached)
        self.pid: int = self.client.ready.result(SOON)
        self.hosted: Callable[[str, Message], None] = lambda _id, _event: None
        self.session = self.open(max_parallel)
        self.env_id = self.client.environment(env or {"PATH": os.environ["PATH"], "MARK": str(store)})
        self.settle()

    def open(self, max_parallel: int = 4, store: Path | None = None) -> str:
        """Open another session; returns its id."""
        session: Json = {"id": new_id(), "name": "t", "status": "active", "created_at": now_us(), "tags": {}}
        self.client.send([requests.OpenSession(session, str(store or self.store), max_parallel)])
        return str(session["id"])

    @property
    def spawner(self) -> int:
        """The spawner's pid."""
        return next(pid for pid in children(self.pid) if b"spawner.py" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def ask(self, make: Callable[[int], Message]) -> Json:
        """The reply to a request."""
        return self.client.request(make).result(SOON)

    def settle(self) -> None:
        """Wait until all that was asked for so far is done and recorded."""
        self.ask(requests.Ping)

    def launch(self, command: str | Sequence[str], *, session: str = "", **work: Any) -> Watched:
        """Launch a shell line or an argument vector; `work` is laid over a plain engine.work.Work."""
        watched, message = self.prepare(command, session=session, **work)
        self.client.send([message])
        return watched

    def prepare(self, command: str | Sequence[str], *, session: str = "", **work: Any) -> tuple[Watched, requests.Launch]:
        """The request to launch, listened for but not sent."""
        argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
        run_id = new_id()
        target = {"kind": "command", "display": "t", "spec": {}}
        run: Json = {
            "id": run_id,
            "session_id": session or self.session,
            "name": "t",
            "target": target,
            "runtime_kind": "local",
            "created_at": now_us(),
            "params": {},
            "tags": {},
        }
        plain = {
            "kind": "process",
            "argv": argv,
            "cwd": os.getcwd(),
            "env_id": self.env_id,
            "env": {},
            "secrets": [],
            "stdin": None,
            "capture": "both",
            "timeout_s": None,
            "grace_s": 5.0,
            "expected_exit_code": 0,
        }
        watched = Watched(self, run_id)
        self.client.listen(run_id, watched)
        return watched, requests.Launch(run, plain | work)

    def run(self, command: str | Sequence[str], **work: Any) -> RunFinished:
        """Launch and wait."""
        return self.launch(command, **work).wait()

    def agent(self, code: str, **work: Any) -> Watched:
        """Launch Python code with a report channel: ``say(report)`` writes one report, ``fd`` is the channel."""
        head = (
            "import json, os, sys, time\nfd = int(os.environ['AGENTNB_CHANNEL_FD'])\n"
            "def say(report):\n    os.write(fd, (json.dumps(report) + '\\n').encode())\n"
        )
        return self.launch([sys.executable, "-I", "-S", "-c", head + code], channel=True, **work)

    def content(self, record: Json | None) -> bytes:
        """All bytes of a stream by its record."""
        assert record is not None
        if record.get("path") is None:
            return str(record["text"]).encode()
        return Path(self.store, record["path"]).read_bytes()

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the history."""
        with closing(sqlite3.connect(self.store / "history.db")) as db:
            return db.execute(sql, values).fetchall()

    def status(self, run_id: str) -> str:
        """The run's status in the history."""
        self.settle()
        return str(self.rows("SELECT status FROM runs WHERE id = ?", run_id)[0][0])

    def steps(self, run_id: str) -> list[tuple[Any, ...]]:
        """(kind, name, status) of the run's steps in the history, in order."""
        self.settle()
        return self.rows("SELECT kind, name, status FROM steps WHERE run_id = ? ORDER BY created_at, id", run_id)

    def close(self) -> None:
        """End the supervisor."""
        self.client.close()


@contextmanager
def running(store: Path, loop: Loop, **options: Any) -> Iterator[Engine]:
    """An engine that is ended at the end."""
    engine = Engine(store, loop, **options)
    try:
        yield engine
    finally:
        engine.close()


def base64_of(data: bytes) -> str:
    """`data` as the payload of a Work."""
    return base64.b64encode(data).decode()
