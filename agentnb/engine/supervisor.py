"""The supervisor: requests in, events out. It owns the spawners, the queues and the one writer of each store."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb import requests
from agentnb.engine.budget import Budgets
from agentnb.engine.checkout import Checkouts
from agentnb.engine.executor import Execution
from agentnb.engine.peer import Peer
from agentnb.engine.peers import Peers
from agentnb.engine.pipes import EarlyInput
from agentnb.engine.proc import children_of, send_signal
from agentnb.engine.process import prepare_host
from agentnb.engine.recorder import Recorder
from agentnb.engine.session_host import SessionHost, malformed
from agentnb.engine.spawners import Spawners
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
    RunStarted,
    SessionEnded,
    SessionStarted,
    StepFinished,
    StepStarted,
    StepUsed,
    WorkspaceChanged,
)
from agentnb.history.owners import door_path
from agentnb.history.store import Store
from agentnb.ids import new_id
from agentnb.lineage import stamp_of

if TYPE_CHECKING:
    from agentnb.engine.services import Services

#: When the client is gone its commands get this long between SIGTERM and SIGKILL.
ORPHAN_GRACE_S = 0.5
#: Processes that a dead spawner left are killed for so long, then beside the work: some may come anew as fast as they are killed.
_KILLING_S, _BESIDE_S, _PAUSE_S = 1.0, 0.02, 0.02
#: At the end, for so long; the recovery of the history kills the rest.
_KILLING_AT_END_S = 5.0
#: At the end, what a store refuses (its disk is full, another process holds its lock) is tried again for so long while the client waits,
#: and then for so long alone: what has run and was paid for is to be found later.
_WRITING_S, _WRITING_ON_S = 5.0, 600.0
#: Requests that only the client which started the supervisor may make.
_OWNERS_OWN = frozenset({"open_session", "end_session", "set_env", "launch", "report", "shutdown"})
#: So many of the latest environments are kept, used or not.
KEPT_ENVS = 16


#: When so many runs end in one batch, their starts in the same batch are not sent: they would double the client's work.
FLOOD = 4


def _refuse(_: Peer, message: Message) -> None:
    raise PermissionError(f"{message.type} is not for a client that did not start this supervisor")


#: Events that only a client which watches the run gets; everybody reads them in the history.
_DETAILS = frozenset({RunQueued, StepStarted, StepFinished, StepUsed, SessionStarted, SessionEnded, ArtifactSaved, WorkspaceChanged})
_WATCHED = frozenset({StepStarted, StepFinished, StepUsed, ArtifactSaved})


class Supervisor:
    """Serves the client that started it until that goes away, or, `detached`, until no run is left after that."""

    def __init__(self, sock: socket.socket, *, detached: bool = False) -> None:
        """Make everything; `sock` leads to the client that started it. `serve` waits for the end."""
        self._loop = asyncio.get_running_loop()
        self._id = new_id()
        self.detached = detached
        self._of_run: dict[str, SessionHost] = {}
        self._launched: dict[str, list[str]] = {}  # run -> those that its coroutine launched
        self._closing = False
        self._done: asyncio.Future[None] = self._loop.create_future()
        self.spawners = Spawners(self._loop, stamp_of(self._id), self._spawner_died, lambda: self.peers.greet(self._greeting()))
        self.peers = Peers(self._loop, sock, self._greeting(), self._handle, self._peer_gone)
        self.checkouts = Checkouts(self.spawners.next)
        self._services: Services | None = None
        self._envs_bound = 2 * KEPT_ENVS
        self.watching = Watching(self._loop)
        self.budgets = Budgets(self._record, lambda told: self.peers.first.send([told]), self._stop_for_budget)
        self._recorders: dict[str, Recorder] = {}
        self._sessions: dict[str, SessionHost] = {}
        self._refused: dict[str, str] = {}
        self._client = -1
        prepare_host()

    def _greeting(self) -> Ready:
        return Ready(requests.PROTOCOL_VERSION, os.getpid(), self.spawners.pids)

    async def serve(self) -> None:
        """Serve until it is time to stop, then end what runs, write the last rows and let go of the clients."""
        await self._done
        self.peers.shut()
        message = "its supervisor was told to end" if self.detached else "the notebook's process ended"
        why = Stop("interrupted", "interrupted", message, grace_s=ORPHAN_GRACE_S)
        for session in self._sessions.values():
            session.stop_all(why)
        waiting = [self._idle(session) for session in self._sessions.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=10)
        for session in self._sessions.values():
            if not session.ended and not self.detached:
                session.emit(SessionEnded(session.id, "ended"))
        self.spawners.close()
        end_own_children(set(), _KILLING_AT_END_S)  # of a spawner that had to be killed
        if not await self._settled(_WRITING_S):
            self.peers.close()  # nobody needs to wait for what follows
            await self._settled(_WRITING_ON_S)
        for recorder in self._recorders.values():
            recorder.close()
        self.peers.close()

    async def _settled(self, within_s: float) -> bool:
        """Wait until all histories are complete, at most so long; whether they are."""
        return all(await asyncio.gather(*(recorder.settled(within_s) for recorder in self._recorders.values())))

    def services(self) -> Services:
        """The processes that runs share; they end with their spawner, if not before."""
        if self._services is None:
            from agentnb.engine.services import Services  # most notebooks need none

            self._services = Services(self.spawners.next)
        return self._services

    def _idle(self, session: SessionHost) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        session.when_idle(lambda: None if future.done() else future.set_result(None))
        return future

    def stop(self) -> None:
        """Begin to end: take no more requests."""
        self._closing = True
        if not self._done.done():
            self._done.set_result(None)

    def admit(self, run_id: str, session: SessionHost) -> bool:
        """A run of this session comes; False when there is one with this id."""
        if run_id in self._of_run:
            return False
        self._of_run[run_id] = session
        return True

    def _record(self, session_id: str, event: Message) -> None:
        if (session := self._sessions.get(session_id)) is not None:
            session.emit(event)

    def _stop_for_budget(self, run_id: str, why: Stop, waiting: bool) -> None:  # noqa: FBT001 - as Budgets calls it
        session = self._of_run.get(run_id)
        if session is not None and (session.queue.item(run_id) is not None) == waiting:
            session.stop(run_id, why)

    def forget(self, run_id: str) -> None:
        """The run is over."""
        self._of_run.pop(run_id, None)
        if self._launched:
            self._launched.pop(run_id, None)
        self.budgets.leave(run_id)
        if self.detached:
            self._loop.call_soon(self._stop_if_unneeded)

    def stop_launched(self, parent: str, why: Stop) -> None:
        """A coroutine is ended: end what it launched in any session, whether it waits for it or not."""
        for run_id in self._launched.get(parent, ()):
            if (session := self._of_run.get(run_id)) is not None:
                session.stop(run_id, why)

    def _peer_gone(self, peer: Peer) -> None:
        self.watching.leave(peer)
        if peer is self.peers.first and not self.detached:
            self.stop()
        self._stop_if_unneeded()

    def _stop_if_unneeded(self) -> None:
        """Others than the first client cannot launch: without it and without runs there is nothing to wait for."""
        if self.detached and not self._of_run and not self.peers.first_is_here:
            self.stop()

    # --- requests

    def _handle(self, peer: Peer, message: Message) -> None:
        handler = getattr(self, f"_on_{message.type}", None)
        if handler is None or self._closing:
            return
        if peer is not self.peers.first and message.type in _OWNERS_OWN:
            handler = _refuse
        try:
            handler(peer, message)
        except Exception as bad:
            number = getattr(message, "request_id", None)
            if number is not None:
                peer.send([Reply(number, error=malformed(bad)["message"])])
            raise  # the peer notes it

    def _on_hello(self, peer: Peer, message: requests.Hello) -> None:
        if message.version != requests.PROTOCOL_VERSION:
            sys.stderr.write(
                f"a client speaks version {message.version} of agentnb's protocol, the supervisor {requests.PROTOCOL_VERSION}: "
                "agentnb was changed under a running kernel; restart the kernel\n"
            )
            self.peers.dismiss(peer)
            return
        if peer is not self.peers.first:
            return
        # A process that the client forked may hold a copy of its socket open: its own end tells the truth.
        with suppress(OSError):
            self._client = os.pidfd_open(message.pid)
            self._loop.add_reader(self._client, self._client_ended)

    def _client_ended(self) -> None:
        self._loop.remove_reader(self._client)
        os.close(self._client)
        self._client = -1
        self.peers.first.finish()

    def _on_set_env(self, _: Peer, message: requests.SetEnv) -> None:
        self.spawners.set_env(message.env_id, message.env)
        if len(self.spawners.envs) > self._envs_bound:
            self._drop_envs()

    def _drop_envs(self) -> None:
        """Forget environments that no run needs any more; the latest ones may be named by launches that are on their way."""
        used = {env_id for session in self._sessions.values() for env_id in session.env_ids()}
        for env_id in list(self.spawners.envs)[:-KEPT_ENVS]:
            if env_id not in used:
                self.spawners.drop_env(env_id)
        self._envs_bound = 2 * len(self.spawners.envs) + KEPT_ENVS

    def _on_open_session(self, _: Peer, message: requests.OpenSession) -> None:
        try:
            recorder = self._recorder(message.store)
            if message.synchronous == "full":
                recorder.store.sync()
            spent = {} if message.budget is None else recorder.store.spent(message.session["id"])
        except (StoreError, OSError) as bad:
            self._refused[message.session["id"]] = str(bad)
            return
        session = SessionHost(self, message.session, recorder, message.max_parallel)
        self._sessions[session.id] = session
        if message.budget is not None:
            self.budgets.open(session.id, message.budget, spent)
        if not self.detached:  # else it is told of, and ended, by the supervisor that lives with the notebook
            session.emit(SessionStarted(message.session))

    def _recorder(self, path: str) -> Recorder:
        known = self._recorders.get(path)
        if known is not None and known.store.gone():  # its sessions hear that it was deleted; new ones get a new one
            known.close()
            del self._recorders[path]
        if path not in self._recorders:
            store = Store.open(Path(path), owner=self._id)
            self._recorders[path] = Recorder(self._loop, store, self._publish)
            self.peers.listen(door_path(store.root, self._id))
        return self._recorders[path]

    def _on_launch(self, peer: Peer, message: requests.Launch) -> None:
        session = self._sessions.get(message.run["session_id"])
        if session is None or (session.ended and not (message.work.get("bound") or message.run.get("parent_run_id") in session.live)):
            why = self._refused.get(message.run["session_id"], "the session has ended; start a new one with nb.Session(...)")
            error = {"kind": "startup_failed", "message": why}
            peer.send([RunFinished(message.run["id"], "failed", error=error)])
            return
        self._of_run[message.run["id"]] = session
        if (parent := message.run.get("parent_run_id")) is not None:
            self._launched.setdefault(parent, []).append(message.run["id"])
        session.launch(message.run, message.work)

    def _on_cancel(self, _: Peer, message: requests.Cancel) -> None:
        for run_id in message.run_ids:
            if (session := self._of_run.get(run_id)) is not None:
                session.stop(run_id, Stop("cancelled", "cancelled", message.reason))

    def _on_end_session(self, peer: Peer, message: requests.EndSession) -> None:
        session = self._sessions.get(message.session_id)
        if session is None or session.ended:
            peer.send([Reply(message.request_id)])
            return
        session.ended = True
        if message.cancel:
            session.stop_all(Stop("cancelled", "cancelled", message.reason))

        def finish() -> None:
            session.emit(SessionEnded(session.id, "cancelled" if message.cancel else "ended"))
            self._loop.call_soon(self._end_reply, peer, session, message.request_id)

        session.when_idle(finish)

    def _end_reply(self, peer: Peer, session: SessionHost, request_id: int) -> None:
        self._sessions.pop(session.id, None)
        self.budgets.close(session.id)
        session.recorder.when_settled(lambda: peer.send([Reply(request_id, {"trouble": session.recorder.trouble})]))

    def _on_send_input(self, peer: Peer, message: requests.SendInput) -> None:
        written: asyncio.Future[Any] = self._loop.create_future()
        written.add_done_callback(lambda done: peer.send([Reply(message.request_id, error=done.result())]))
        given = EarlyInput(message.text.encode("utf-8", "surrogateescape"), message.eof, written)
        session = self._of_run.get(message.run_id)
        if session is None:
            given.settle("it is not running; it has ended")
        else:
            session.send(message.run_id, given)

    def _execution(self, run_id: str) -> Execution | None:
        session = self._of_run.get(run_id)
        return session.live.get(run_id) if session else None

    def _on_attach(self, peer: Peer, message: requests.Attach) -> None:
        session = self._of_run.get(message.run_id)
        execution = self._execution(message.run_id)
        waiting = session.queue.item(message.run_id) if session else None
        if execution is not None:
            started = execution.started_at
            data: Json = {"status": "running" if started else "pending", "started_at": started, "attempt": execution.attempt}
            peer.send([Reply(message.request_id, data | {"grace_s": execution.work["grace_s"]})])
        elif waiting is not None:
            data = {"status": "pending", "started_at": None, "attempt": 0, "grace_s": waiting.work["grace_s"]}
            peer.send([Reply(message.request_id, data)])
        else:
            peer.send([Reply(message.request_id, error="it is not live here")])

    def _on_watch(self, peer: Peer, message: requests.Watch) -> None:
        for run_id in message.run_ids:
            execution = self._execution(run_id)
            if message.on and run_id not in self._of_run:  # it is over
                continue
            self.watching.set(run_id, peer, on=message.on, out=execution.out if execution else None)
            if execution is not None:
                execution.watched = self.watching.wants(run_id)

    def _on_flush(self, peer: Peer, message: requests.Flush) -> None:
        execution = self._execution(message.run_id)
        data: Json = {"finished": execution is None}
        error = None
        if execution is not None and execution.out is not None:
            try:
                execution.out.spill()
            except OSError as bad:
                error = f"its output cannot be written to disk: {bad.strerror}"
            data |= {name: stream.record(execution.store.root) for name, stream in execution.out.streams.items()}
        reply = Reply(message.request_id, data, error)
        if (session := self._of_run.get(message.run_id)) is None:
            peer.send([reply])
        else:  # what printed something has started: whoever sees its output finds that in the history
            session.recorder.when_settled(lambda: peer.send([reply]))

    def _on_report(self, _: Peer, message: requests.Report) -> None:
        if (execution := self._execution(message.run_id)) is not None:
            execution.report(message.data)

    def _on_ping(self, peer: Peer, message: requests.Ping) -> None:
        waiting = list(self._recorders.values())

        def settle() -> None:
            if waiting:
                waiting.pop().when_settled(settle)
            else:
                peer.send([Reply(message.request_id, message.data)])

        settle()

    def _on_shutdown(self, _: Peer, __: requests.Shutdown) -> None:
        self.stop()

    # --- events

    def _publish(self, batch: list[Message]) -> None:
        ended = {event.run_id for event in batch if type(event) is RunFinished}
        over = ended if len(ended) >= FLOOD else ()
        wanted: list[Message] = []
        for event in batch:
            kind = type(event)
            if kind is RunStarted:
                if over and event.run_id in over:  # type: ignore[attr-defined]  # a flood of short runs: the end says when each began
                    continue
            elif kind in _DETAILS and not (self.watching and self._watched(event)):
                continue
            wanted.append(event)
        if wanted:
            self.peers.send(wanted)
        for run_id in ended if self.watching else ():
            self.watching.drop(run_id)

    def _watched(self, event: Any) -> bool:
        return type(event) in _WATCHED and self.watching.wants(event.run_id)

    # --- a spawner's death

    def _spawner_died(self) -> None:
        """Its children are ours now: end them, and fail their runs."""
        self._end_rest(_KILLING_S)
        why = Stop("failed", "runtime_error", "the process that starts commands was killed; the command was ended with it")
        self.checkouts.spawner_died(why)
        if self._services is not None:
            self._services.lost()
        for session in self._sessions.values():
            for execution in list(session.live.values()):
                execution.spawner_died(why)

    def _end_rest(self, within_s: float = _BESIDE_S) -> None:
        """End what no spawner has, now and, as long as there is some left, later."""
        if not end_own_children(set(self.spawners.pids), within_s):
            self._loop.call_later(_PAUSE_S, self._end_rest)


def end_own_children(spare: set[int], within_s: float) -> bool:
    """SIGKILL every descendant of this process but `spare`, and reap what becomes its child; False when some are left after so long."""
    deadline, before = time.monotonic() + within_s, list[int]()
    while pids := [pid for pid in children_of(os.getpid()) if pid not in spare]:
        for pid in pids:
            with suppress(ChildProcessError):
                if not os.waitpid(pid, os.WNOHANG)[0]:
                    send_signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        if pids == before:
            time.sleep(0.001)  # else new ones appear, and it is a race
        before = pids
    return True
