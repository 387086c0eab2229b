"""One process from spawn to the end of its whole tree: pipes, stdin, timeout, kill ladder, usage."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.engine.capture import SPILL_AFTER_S, Drain, Output
from agentnb.engine.limits import LimitWatch, Sample
from agentnb.engine.pipes import EarlyInput, ReportReader, Stdin
from agentnb.engine.process import LISTEN_AFTER_S, Child, Exit, Extra, Limited, Spawner, SpawnerDied, StartFailed, close_all, memfd
from agentnb.engine.sigint import interrupted
from agentnb.engine.stop import Stop
from agentnb.events import Json

if TYPE_CHECKING:
    from agentnb.engine.parsing import Parsing

#: How long pipes that somebody outside of the tree still holds are read after the tree's end.
HELD_PIPE_S = 0.5
#: After SIGKILL a process that does not go (stuck in the kernel) is waited for this long.
UNKILLABLE_S = 10.0
#: An agent that has told its result gets this long to exit.
LINGER_S = 30.0
#: One that nothing more may be spent on, this long.
LEAVE_S = 3.0
CHANNEL_FD, PAYLOAD_FD = 3, 4
_NO_FILES = {errno.EMFILE, errno.ENFILE}
_TOO_MANY = "too many files are open for its pipes; lower max_parallel, or raise the limit (ulimit -n) before the kernel starts"


@dataclass(slots=True)
class Plan:
    """What to start. `stdin`: text, None (empty) or True (stays open), or `stdin_file`. `on_report`: opens a channel for reports.

    `answers`: the channel goes both ways. `on_sample`: sees what is read for the limits. `parsing`: takes stdout instead of the output.
    `interrupt_s`: before the ladder it gets SIGINT, and so long to tell what it used.
    """

    argv: list[str]
    cwd: str
    env_id: int
    env: dict[str, str]
    capture: str = "both"
    stdin: str | bool | None = None
    stdin_file: Path | None = None
    timeout_s: float | None = None
    grace_s: float = 5.0
    payload: bytes | None = None
    on_report: Callable[[Json], None] | None = None
    answers: bool = False
    limits: LimitWatch | None = None
    on_sample: Callable[[Sample], None] | None = None
    parsing: Parsing | None = None
    interrupt_s: float = 0.0
    early: list[EarlyInput] = field(default_factory=list)


@dataclass(slots=True)
class Ended:
    """How it went. Exactly one of `exit`, `failure` and `stop` says why it ended; `exit` may be there beside `stop`.

    `overdue`: it had told its result, and had to be ended because it did not exit.
    """

    exit: Exit | None = None
    stop: Stop | None = None
    failure: StartFailed | None = None
    run_s: float = 0.0
    usage: Json = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    bad_reports: int = 0
    overdue: bool = False


class Attempt:
    """Runs one Plan. `stop` may be called at any moment, also before the process exists."""

    def __init__(
        self, spawner: Spawner, plan: Plan, out: Output, on_trouble: Callable[[str | None], None], on_start: Callable[[int], None]
    ) -> None:
        """`on_start` gets the pid once the process runs; `on_trouble` hears when output cannot be written."""
        self._loop = asyncio.get_running_loop()
        self._spawner = spawner
        self._plan = plan
        self._out = out
        self._on_trouble = on_trouble
        self._on_start = on_start
        self._to_end: asyncio.Future[None] = self._loop.create_future()
        self._has_ended = self._over = False
        self._exited: asyncio.Future[None] | None = None
        self._begun: asyncio.Future[None] | None = None
        self._fault: Exception | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._stop: Stop | None = None
        self._lost = False
        self._drains: list[Drain] = []
        self._channel: ReportReader | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._overdue = self._leaving = self._is_drained = False
        self.stdin: Stdin | None = None
        self._answers: Stdin | None = None

    def stop(self, why: Stop) -> None:
        """End it; the first reason stays, the shortest grace counts."""
        if why.grace_s is not None:
            self._plan.grace_s = min(self._plan.grace_s, why.grace_s)
        if self._stop is None:
            self._stop = why
            if not self._to_end.done():
                self._to_end.set_result(None)

    def overdue_in(self, seconds: float) -> None:
        """It told its result: end it after this long, unless it exits; that is no failure. Said again, the time begins anew."""
        if self._leaving:
            return
        if self._linger is not None:
            self._linger.cancel()
        if not self._has_ended:
            self._linger = self._loop.call_later(seconds, self._is_overdue)

    def let_go(self) -> bool:
        """Whether it told its result, and needs no stop: it has some seconds to go, whatever it still says."""
        if self._linger is None or self._stop is not None:
            return False
        if not self._leaving:
            self.overdue_in(LEAVE_S)
            self._leaving = True
        return True

    def _is_overdue(self) -> None:
        if not self._to_end.done():
            self._overdue = True
            self._to_end.set_result(None)

    def lost(self, why: Stop) -> None:
        """A spawner died. If it was that of the process, that died with it: end without a ladder."""
        if self._spawner.alive:
            return
        self._lost = True
        if not self._has_ended:
            self._stop = self._stop or why
        self._end_seen()

    def _end_seen(self) -> None:
        self._has_ended = True
        for future in (self._exited, self._to_end):
            if future is not None and not future.done():
                future.set_result(None)

    async def _end_within(self, seconds: float) -> None:
        """Wait until the process has ended, at most so long."""
        if not self._has_ended:
            self._exited = self._loop.create_future()
            await asyncio.wait([self._exited], timeout=seconds)

    def _on_change(self, child: Child) -> None:
        """The process has started, could not be started, or has ended."""
        if child.exit is not None or child.failure is not None:
            self._end_seen()
        else:
            self._has_started(child)
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)

    def _has_started(self, child: Child) -> None:
        try:
            self._spawner.listen_later.add(self._listen)
            if self._plan.timeout_s is not None:
                self._timers.append(self._loop.call_later(self._plan.timeout_s, self._time_out))
            self._on_start(child.pid)
        except Exception as bad:  # noqa: BLE001 - `run` raises it: here it would be the fault of whatever else was told at the same time
            self._fault = bad
            self.stop(Stop("failed", "runtime_error", "it could not be seen to", grace_s=0.0))

    async def run(self) -> Ended:
        """Start the process and see its tree to the end.

        Raises SpawnerDied, OSError when a process cannot be asked for, and what `on_start` raised.
        """
        if self._stop is not None:
            return Ended(stop=self._stop)
        child = None
        try:
            child = self._start()
            await self._to_end
            return await self._seen_to(child)
        except StartFailed as failure:
            return Ended(failure=failure, stop=self._stop)
        finally:
            self._over = True
            for timer in self._timers:
                timer.cancel()
            self._timers.clear()
            if self._linger is not None:
                self._linger.cancel()
            if not self._is_drained:
                await self._drained()
            if child is not None:
                self._spawner.forget(child)

    async def _seen_to(self, child: Child) -> Ended:
        """What became of it. Raises SpawnerDied, and what `on_start` raised."""
        if child.is_owed:  # somebody wants it to end before it has begun
            self._begun = self._loop.create_future()
            await self._begun
        if isinstance(child.failure, StartFailed):  # not raised: an exception and what holds it would know each other
            return Ended(failure=child.failure, stop=self._stop)
        if child.failure is not None:
            raise child.failure
        ended = await self._see_to_the_end(child)
        if self._fault is not None:
            raise self._fault
        return ended

    def _start(self) -> Child:
        """Open the pipes and ask for the process. Raises StartFailed, SpawnerDied, or OSError."""
        plan, fds = self._plan, list[int]()
        how = {} if plan.limits is None else {"limited": self._limited(plan.limits)}
        try:
            try:
                targets, env = self._open_pipes(fds)
            except BaseException:
                close_all(fds)
                raise
            return self._spawner.start(plan.argv, plan.cwd, plan.env_id, env, fds, targets, self._on_change, **how)
        except OSError as bad:
            if bad.errno in _NO_FILES:
                raise StartFailed(_TOO_MANY, "", bad.errno) from None
            raise

    def _limited(self, watch: LimitWatch) -> Limited:
        return Limited(watch.flags, watch.descriptors, watch.group.joins if watch.group else (), self._on_sample)

    def _on_sample(self, *readings: Any) -> None:
        watch, sample = self._plan.limits, Sample(*readings)
        if watch is not None and (why := watch.check(sample)) is not None:
            self.stop(why)
        if self._plan.on_sample is not None:
            self._plan.on_sample(sample)

    def _open_pipes(self, fds: list[int]) -> tuple[list[int], dict[str, str]]:
        """Fill `fds` with the child's ends; return which numbers they get there, and the child's variables."""
        plan, targets, env = self._plan, list[int](), dict(self._plan.env)
        if plan.stdin is not None or plan.stdin_file is not None:
            fds.append(self._open_stdin())
            targets.append(0)
        for target, name in ((1, "stdout"), (2, "stderr")):
            tapped = plan.parsing is not None and name == "stdout"
            if tapped or plan.capture in (name, "both", "structured"):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                stream = plan.parsing.tap if tapped and plan.parsing is not None else self._out.streams[name]
                self._drains.append(Drain(self._loop, ours, stream, self._on_trouble))
                fds.append(theirs)
                targets.append(target)
        if plan.on_report is not None:
            ours, theirs = self._open_channel() if plan.answers else os.pipe2(os.O_CLOEXEC)
            self._channel = ReportReader(self._loop, ours, plan.on_report)
            fds.append(theirs)
            targets.append(CHANNEL_FD)
            env["AGENTNB_CHANNEL_FD"] = str(CHANNEL_FD)
        if plan.payload is not None:
            fds.append(memfd(plan.payload))
            targets.append(PAYLOAD_FD)
            env["AGENTNB_PAYLOAD_FD"] = str(PAYLOAD_FD)
        return targets, env

    def _open_channel(self) -> tuple[int, int]:
        """A channel that goes both ways: our end and the child's."""
        ours, theirs = (end.detach() for end in socket.socketpair())
        try:
            self._answers = Stdin(self._loop, os.dup(ours))
        except OSError:
            close_all([ours, theirs])
            raise
        return ours, theirs

    def answer(self, data: bytes) -> None:
        """Write to the agent's process by the channel, if it goes both ways and is open."""
        if self._answers is not None:
            self._answers.write(data)

    def _open_stdin(self) -> int:
        if self._plan.stdin is None and self._plan.stdin_file is not None:
            return os.open(self._plan.stdin_file, os.O_RDONLY | os.O_CLOEXEC)
        text = self._plan.stdin.encode("utf-8", "surrogateescape") if isinstance(self._plan.stdin, str) else None
        theirs, ours = os.pipe2(os.O_CLOEXEC)
        self.stdin = Stdin(self._loop, ours)
        while self._plan.early:
            self._plan.early.pop(0).give(self.stdin)
        if text is not None:
            self.stdin.write(text, eof=True)
        return theirs

    async def _see_to_the_end(self, child: Child) -> Ended:
        ended = Ended()
        await self._to_end
        if not self._lost and (child.exit is None or child.exit.orphans):
            left, outlived = 0, child.exit is not None
            with suppress(SpawnerDied):  # all was ended with it; `lost` says so
                if self._plan.interrupt_s and self._linger is None and child.exit is None:
                    await self._interrupt(child)
                left = await self._ladder(child, ended)
            if left and outlived and self._stop is None:
                ended.warnings.append(f"background processes that outlived the command were ended: {left}")
        await self._end_within(UNKILLABLE_S)
        for drain in self._drains:
            drain.catch_up()
            drain.listen()  # if somebody else still holds it
        ended.exit, ended.stop = child.exit, self._stop
        ended.overdue = self._overdue and self._stop is None
        if ended.overdue:
            ended.warnings.append("it did not exit after its result; it was ended")
        end = child.exit.at if child.exit else self._loop.time()
        ended.run_s = max(end - child.started_at, 0.0)
        await self._drained(ended)
        ended.usage = self._usage(child, ended.run_s)
        if self._plan.limits is not None and ended.stop is None:
            ended.stop = self._plan.limits.check_end(ended.usage)
        return ended

    async def _interrupt(self, child: Child) -> None:
        """SIGINT, to a program that has not told its result and does so then, with what it used; it ends what it started itself."""
        if interrupted(child.pid, child.key):
            await self._end_within(min(self._plan.interrupt_s, self._plan.grace_s))

    async def _ladder(self, child: Child, ended: Ended) -> int:
        """SIGTERM to all, the grace, then SIGKILL to all that is left, until nothing is; returns how many there were."""
        pids = await self._spawner.signal(child, signal.SIGTERM)
        there = len(pids)
        if pids:  # a stopped process only sees SIGTERM when it goes on
            await self._spawner.signal(child, signal.SIGCONT)
        pids = await self._gone(child, lambda: self._plan.grace_s, pids)
        deadline = self._loop.time() + UNKILLABLE_S
        while pids and self._loop.time() < deadline:
            pids = await self._spawner.signal(child, signal.SIGKILL)
            pids = await self._gone(child, lambda: 0.1, pids)
        if pids:
            ended.warnings.append(f"processes {', '.join(map(str, pids[:20]))} could not be ended by SIGKILL: they are stuck in the kernel")
        return there

    async def _gone(self, child: Child, within_s: Callable[[], float], pids: list[int]) -> list[int]:
        """Wait until the tree is empty, at most `within_s` (which may shrink meanwhile); return who is left."""
        start, pause = self._loop.time(), 0.002
        while pids and (left := start + within_s() - self._loop.time()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.6, 0.05)
            pids = await self._spawner.tree(child)
        return pids

    async def _drained(self, ended: Ended | None = None) -> None:
        """Read the pipes to their end, or for a moment more when somebody outside of the tree holds them."""
        pending = [drain.over() for drain in self._drains if not drain.is_over]
        if self._channel is not None and not self._channel.done.done():
            pending.append(self._channel.done)
        if pending and ended is not None:
            await asyncio.wait(pending, timeout=HELD_PIPE_S)
            await self._wait_for_disk()
        lost = 0
        for drain in self._drains:
            lost += drain.stop()
        self._drains.clear()
        if lost and ended is not None:
            ended.warnings.append(f"the last {lost} bytes of output are lost: the disk would not take them")
        if self._channel is not None:
            self._channel.stop()
            if ended is not None:
                ended.bad_reports = self._channel.lines.bad
        for pipe in (self.stdin, self._answers):
            if pipe is not None:
                pipe.close()
        self._is_drained = True

    async def _wait_for_disk(self) -> None:
        """A full disk holds the end of the output back: wait for room, unless the run is told to stop."""
        while self._stop is None and any(drain.troubled for drain in self._drains):
            waiting = [drain.over() for drain in self._drains if drain.troubled]
            await asyncio.wait(waiting, timeout=0.2)

    def _listen(self) -> None:
        if self._over:
            return
        self._timers.append(self._loop.call_later(SPILL_AFTER_S - LISTEN_AFTER_S, self._spill))
        for drain in self._drains:
            drain.listen()

    def _spill(self) -> None:
        with suppress(OSError):  # the drain meets the same fault and reports it
            self._out.spill()
            if self._plan.parsing is not None:
                self._plan.parsing.spill()

    def _time_out(self) -> None:
        if self._linger is not None:  # its result is there; it shall not be lost for the process that stays
            self._is_overdue()
            return
        self.stop(Stop("timeout", "timeout", f"it was still running after {self._plan.timeout_s:g} s", {"timeout_s": self._plan.timeout_s}))

    def _usage(self, child: Child, run_s: float) -> Json:
        if child.exit is None:
            return {"wall_time": run_s}
        end = child.exit
        extra = child.extra or _NO_EXTRA
        largest = max(end.peak_memory_bytes, extra.peak_memory_bytes)
        is_bound = largest <= end.floor_bytes
        # A sample is a lower bound of the truth, and all there is for trees smaller than the spawner, or several processes at once.
        sampled = bool(end.tree_peak_bytes) and (is_bound or end.tree_peak_bytes > largest)
        usage: Json = {
            "wall_time": run_s,
            "cpu_time": end.cpu_s + extra.cpu_s,
            "peak_memory_bytes": end.tree_peak_bytes if sampled else largest,
            "peak_memory_is_bound": is_bound and not sampled,
            "disk_read_bytes": None if end.read_bytes is None else end.read_bytes + extra.read_bytes,
            "disk_write_bytes": None if end.write_bytes is None else end.write_bytes + extra.write_bytes,
            "processes": max(end.seen, 1 + extra.count),
        }
        if sampled:
            usage["measured_by"] = _SAMPLED
        return usage


_NO_EXTRA = Extra()
#: What is measured in another way than results.MEASURED_BY says.
_SAMPLED = {"peak_memory_bytes": "sum of the tree, sampled"}
