"""The supervisor: requests in, events out. It owns the spawner, the queues and the one writer of each store."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentnb import requests
from agentnb.engine.executor import Execution
from agentnb.engine.peer import Peer
from agentnb.engine.proc import children_of
from agentnb.engine.process import Spawner, prepare_host
from agentnb.engine.recorder import Recorder
from agentnb.engine.scheduler import Queue, Waiting
from agentnb.engine.stop import Stop
from agentnb.engine.watching import Watching
from agentnb.errors import StoreError
from agentnb.events import (
    ArtifactSaved,
    Json,
    Message,
    Ready,
    Reply,
    RunFinished,
    RunQueued,
    SessionEnded,
    SessionStarted,
    StepFinished,
    StepStarted,
)
from agentnb.history.store import Store
from agentnb.ids import new_id

#: When the client is gone its commands get this long between SIGTERM and SIGKILL.
ORPHAN_GRACE_S = 0.5
#: So many of the latest environments are kept, used or not.
KEPT_ENVS = 16


class SessionHost:
    """One session: its queue, its live executions, and what these need of the supervisor."""

    def __init__(self, supervisor: Supervisor, session: Json, recorder: Recorder, max_parallel: int) -> None:
        """Make its queue."""
        self.id: str = session["id"]
        self.recorder = recorder
        self.store = recorder.store
        self.queue = Queue(max_parallel, self._start)
        self.live: dict[str, Execution] = {}
        self.ended = False
        self._supervisor = supervisor
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[Callable[[], None]] = []

    # what executions need (executor.Host)

    def emit(self, event: Message) -> None:
        """Record an event and pass it on."""
        self.recorder.emit(event)

    def tell(self, message: Message) -> None:
        """Send a signal to the client."""
        self._supervisor.peer.send([message])

    def spawner(self) -> Spawner:
        """The live spawner."""
        return self._supervisor.spawner

    def environment(self, env_id: int) -> dict[str, str]:
        """The environment with this number."""
        return self._supervisor.envs.get(env_id, {})

    def output(self, run_id: str, stream: str, data: bytes) -> None:
        """A watched run printed something."""
        self._supervisor.watching.add(run_id, stream, data)

    # runs

    def launch(self, run: Json, work: Any) -> None:
        """Record the run and queue it."""
        self.emit(RunQueued(run))
        self.queue.put(Waiting(run, work))

    def _start(self, item: Waiting) -> None:
        try:
            execution = Execution(self, item.run, item.work)
        except Exception as bad:  # noqa: BLE001 - work that makes no sense fails its run, and frees its place
            self.emit(RunFinished(item.run["id"], "failed", error=_malformed(bad)))
            self._supervisor.forget(item.run["id"])
            self.queue.finished(item.run["id"])
            return
        self.live[execution.run_id] = execution
        execution.watched = self._supervisor.watching.wants(execution.run_id)
        task = asyncio.get_running_loop().create_task(self._run(execution))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, execution: Execution) -> None:
        try:
            await execution.go()
        finally:
            self._supervisor.watching.finish(execution.run_id)
            del self.live[execution.run_id]
            self._supervisor.forget(execution.run_id)
            self.queue.finished(execution.run_id)
            self._check_idle()

    def stop(self, run_id: str, why: Stop) -> None:
        """End one run, waiting or live."""
        if self.queue.drop(run_id) is not None:
            status = "cancelled" if why.status == "interrupted" else why.status
            self.emit(RunFinished(run_id, status, error={"kind": why.kind, "message": why.message}))
            self._supervisor.forget(run_id)
            self._check_idle()
        elif (execution := self.live.get(run_id)) is not None:
            execution.stop(why)

    def stop_all(self, why: Stop) -> None:
        """End every run of the session."""
        for run_id in [*self.queue.waiting, *self.live]:
            self.stop(run_id, why)

    def env_ids(self) -> list[int]:
        """Numbers of the environments that its runs need."""
        return [item.work["env_id"] for item in self.queue.items()] + [execution.work["env_id"] for execution in self.live.values()]

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back once no run is left."""
        self._idle.append(callback)
        self._check_idle()

    def _check_idle(self) -> None:
        if not self.live:
            self.recorder.hurry()
        if not len(self.queue) and not self.live:
            callbacks, self._idle = self._idle, []
            for callback in callbacks:
                callback()


def _malformed(bad: Exception) -> Json:
    return {"kind": "invalid_config", "message": f"the request makes no sense to the supervisor ({type(bad).__name__}: {bad})"}


#: Events that only a client which watches the run gets; everybody reads them in the history.
_DETAILS = (RunQueued, StepStarted, StepFinished, SessionStarted, SessionEnded, ArtifactSaved)


class Supervisor:
    """Serves one client over a socket until it goes away."""

    def __init__(self, sock: socket.socket) -> None:
        """Make everything but the spawner; `serve` runs it."""
        self._loop = asyncio.get_running_loop()
        self._id = new_id()
        self.peer = Peer(self._loop, sock, self._handle, self.stop)
        self.spawner = Spawner(self._loop, self._spawner_died)
        self.envs: dict[int, dict[str, str]] = {}
        self._envs_bound = 2 * KEPT_ENVS
        self.watching = Watching(self._loop, self.peer)
        self._recorders: dict[str, Recorder] = {}
        self._sessions: dict[str, SessionHost] = {}
        self._of_run: dict[str, SessionHost] = {}
        self._refused: dict[str, str] = {}
        self._closing = False
        self._client = -1
        self._done: asyncio.Future[None] = self._loop.create_future()
        prepare_host()
        self.peer.send([Ready(requests.PROTOCOL_VERSION, os.getpid())])

    async def serve(self) -> None:
        """Serve until the client is gone or says so, then end what runs, write the last rows and stop."""
        await self._done
        why = Stop("interrupted", "interrupted", "the notebook's process ended", grace_s=ORPHAN_GRACE_S)
        for session in self._sessions.values():
            session.stop_all(why)
        waiting = [self._idle(session) for session in self._sessions.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=10)
        for session in self._sessions.values():
            if not session.ended:
                session.emit(SessionEnded(session.id, "ended"))
        self.spawner.close()
        for recorder in self._recorders.values():
            recorder.close()
        self.peer.close()

    def _idle(self, session: SessionHost) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        session.when_idle(lambda: None if future.done() else future.set_result(None))
        return future

    def stop(self) -> None:
        """Begin to end: take no more requests."""
        self._closing = True
        if not self._done.done():
            self._done.set_result(None)

    def forget(self, run_id: str) -> None:
        """The run is over."""
        self._of_run.pop(run_id, None)

    # --- requests

    def _handle(self, message: Message) -> None:
        handler = getattr(self, f"_on_{message.type}", None)
        if handler is None or self._closing:
            return
        try:
            handler(message)
        except Exception as bad:
            number = getattr(message, "request_id", None)
            if number is not None:
                self.peer.send([Reply(number, error=_malformed(bad)["message"])])
            raise  # the peer notes it

    def _on_hello(self, message: requests.Hello) -> None:
        if message.version != requests.PROTOCOL_VERSION:
            sys.stderr.write(
                f"the notebook's process speaks version {message.version} of agentnb's protocol, the supervisor {requests.PROTOCOL_VERSION}: "
                "agentnb was changed under a running kernel; restart the kernel\n"
            )
            self.stop()
            return
        # A process that the client forked may hold a copy of its socket open: its own end tells the truth.
        with suppress(OSError):
            self._client = os.pidfd_open(message.pid)
            self._loop.add_reader(self._client, self._client_ended)

    def _client_ended(self) -> None:
        self._loop.remove_reader(self._client)
        os.close(self._client)
        self._client = -1
        self.stop()

    def _on_set_env(self, message: requests.SetEnv) -> None:
        self.envs[message.env_id] = message.env
        self.spawner.set_env(message.env_id, message.env)
        if len(self.envs) > self._envs_bound:
            self._drop_envs()

    def _drop_envs(self) -> None:
        """Forget environments that no run needs any more; the latest ones may be named by launches that are on their way."""
        used = {env_id for session in self._sessions.values() for env_id in session.env_ids()}
        for env_id in list(self.envs)[:-KEPT_ENVS]:
            if env_id not in used:
                del self.envs[env_id]
                self.spawner.drop_env(env_id)
        self._envs_bound = 2 * len(self.envs) + KEPT_ENVS

    def _on_open_session(self, message: requests.OpenSession) -> None:
        try:
            recorder = self._recorder(message.store)
        except (StoreError, OSError) as bad:
            self._refused[message.session["id"]] = str(bad)
            return
        session = SessionHost(self, message.session, recorder, message.max_parallel)
        self._sessions[session.id] = session
        session.emit(SessionStarted(message.session))

    def _recorder(self, path: str) -> Recorder:
        if path not in self._recorders:
            store = Store.open(Path(path), owner=self._id)
            self._recorders[path] = Recorder(self._loop, store, self._publish)
        return self._recorders[path]

    def _on_launch(self, message: requests.Launch) -> None:
        session = self._sessions.get(message.run["session_id"])
        if session is None or session.ended:
            why = self._refused.get(message.run["session_id"], "the session has ended; start a new one with nb.Session(...)")
            error = {"kind": "startup_failed", "message": why}
            self.peer.send([RunFinished(message.run["id"], "failed", error=error)])
            return
        self._of_run[message.run["id"]] = session
        session.launch(message.run, message.work)

    def _on_cancel(self, message: requests.Cancel) -> None:
        for run_id in message.run_ids:
            if (session := self._of_run.get(run_id)) is not None:
                session.stop(run_id, Stop("cancelled", "cancelled", message.reason))

    def _on_end_session(self, message: requests.EndSession) -> None:
        session = self._sessions.get(message.session_id)
        if session is None or session.ended:
            self.peer.send([Reply(message.request_id)])
            return
        session.ended = True
        if message.cancel:
            session.stop_all(Stop("cancelled", "cancelled", message.reason))

        def finish() -> None:
            session.emit(SessionEnded(session.id, "cancelled" if message.cancel else "ended"))
            self._loop.call_soon(self._end_reply, session, message.request_id)

        session.when_idle(finish)

    def _end_reply(self, session: SessionHost, request_id: int) -> None:
        session.recorder.flush()
        self._sessions.pop(session.id, None)
        self.peer.send([Reply(request_id, {"trouble": session.recorder.trouble})])

    def _on_send_input(self, message: requests.SendInput) -> None:
        execution = self._execution(message.run_id)
        written = execution.send(message.text, eof=message.eof) if execution else None
        if written is None:
            self.peer.send([Reply(message.request_id, error="it is not running with an open stdin (launch it with stdin=True)")])
            return
        written.add_done_callback(lambda done: self.peer.send([Reply(message.request_id, error=done.result())]))

    def _execution(self, run_id: str) -> Execution | None:
        session = self._of_run.get(run_id)
        return session.live.get(run_id) if session else None

    def _on_watch(self, message: requests.Watch) -> None:
        for run_id in message.run_ids:
            execution = self._execution(run_id)
            if message.on and run_id not in self._of_run:  # it is over
                continue
            self.watching.set(run_id, on=message.on, out=execution.out if execution else None)
            if execution is not None:
                execution.watched = message.on

    def _on_flush(self, message: requests.Flush) -> None:
        execution = self._execution(message.run_id)
        data: Json = {"finished": execution is None}
        error = None
        if execution is not None and execution.out is not None:
            try:
                execution.out.spill()
            except OSError as bad:
                error = f"its output cannot be written to disk: {bad.strerror}"
            data |= {name: stream.record(execution.store.root) for name, stream in execution.out.streams.items()}
        self.peer.send([Reply(message.request_id, data, error)])

    def _on_report(self, message: requests.Report) -> None:
        if (execution := self._execution(message.run_id)) is not None:
            execution.report(message.data)

    def _on_ping(self, message: requests.Ping) -> None:
        for recorder in self._recorders.values():
            recorder.flush()
        self.peer.send([Reply(message.request_id, message.data)])

    def _on_shutdown(self, _: requests.Shutdown) -> None:
        self.stop()

    # --- events

    def _publish(self, batch: list[Message]) -> None:
        wanted = [event for event in batch if not isinstance(event, _DETAILS) or self._watched(event)]
        if wanted:
            self.peer.send(wanted)
        for event in batch:
            if isinstance(event, RunFinished):
                self.watching.drop(event.run_id)

    def _watched(self, event: Message) -> bool:
        return isinstance(event, StepStarted | StepFinished | ArtifactSaved) and self.watching.wants(event.run_id)

    # --- the spawner's death

    def _spawner_died(self) -> None:
        """Its children are ours now: end them, fail their runs, and start another spawner."""
        end_own_children({self.spawner.pid})
        self.spawner = Spawner(self._loop, self._spawner_died)
        for env_id, env in self.envs.items():
            self.spawner.set_env(env_id, env)
        why = Stop("failed", "runtime_error", "the process that starts commands was killed; the command was ended with it")
        for session in self._sessions.values():
            for execution in list(session.live.values()):
                execution.spawner_died(why)


def end_own_children(spare: set[int]) -> None:
    """SIGKILL every descendant of this process, and reap what becomes its child, until nothing is left."""
    while pids := [pid for pid in children_of(os.getpid()) if pid not in spare]:
        for pid in pids:
            for below in [*children_of(pid), pid]:
                with suppress(OSError):
                    os.kill(below, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
