"""A scripted source of views, and a loop thread: what a session is to a view, in one file that a notebook's cell can hold too."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot, Segment, Snapshot

TAIL_CHARS = 16 * 1024


class ThreadLoop:
    """An asyncio loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="test-loop", daemon=True)
        self.thread.start()

    def call_soon(self, fn: Callable[..., object], *args: Any) -> None:
        self.loop.call_soon_threadsafe(fn, *args)

    def call_later(self, delay_s: float, fn: Callable[..., object], *args: Any) -> None:
        assert threading.current_thread() is self.thread
        self.loop.call_later(delay_s, fn, *args)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


class FakeSource:
    """Runs that do what the test says."""

    def __init__(self, *runs: RunSnapshot, group: GroupSnapshot | None = None) -> None:
        self._lock = threading.RLock()
        self._version = 0
        self._runs = {run.id: run for run in runs}
        self._pieces: dict[str, deque[tuple[int, Segment]]] = {run.id: deque() for run in runs}
        self._seqs = {run.id: 0 for run in runs}
        self._callbacks: list[Callable[[], None]] = []
        self.group = group
        self.cancels: list[list[str] | None] = []
        self.cancel_times: list[float] = []
        self.watched: set[str] = set()

    def _tail(self, run_id: str) -> tuple[Segment, ...]:
        return tuple(piece for _, piece in self._pieces[run_id])

    def snapshot(self) -> Snapshot:
        with self._lock:
            runs = [
                replace(
                    run,
                    tail=self._tail(run.id),
                    tail_seq=self._seqs[run.id],
                    elapsed_s=run.elapsed_s if run.done or run.started_at is None else time.time() - run.started_at,
                )
                for run in self._runs.values()
            ]
            return runs[0] if self.group is None else replace(self.group, runs=runs)

    def done(self) -> bool:
        return self.snapshot().done

    def detail(self, run_id: str) -> RunSnapshot | None:
        found = self.snapshot()
        return next((run for run in (found.runs if isinstance(found, GroupSnapshot) else [found]) if run.id == run_id), None)

    def version(self) -> int:
        return self._version

    def output_since(self, run_id: str, seq: int) -> tuple[int, list[Segment], bool]:
        with self._lock:
            pieces, end = self._pieces[run_id], self._seqs[run_id]
            first = pieces[0][0] if pieces else end
            if seq < first:
                return end, [piece for _, piece in pieces], True
            return end, [piece for number, piece in pieces if number >= seq], False

    def watch(self, run_ids: list[str], on: bool) -> None:
        self.watched = self.watched | set(run_ids) if on else self.watched - set(run_ids)

    def request_cancel(self, run_ids: list[str] | None) -> None:
        self.cancels.append(run_ids)
        self.cancel_times.append(time.time())
        for run_id in list(self._runs) if run_ids is None else run_ids:
            if not self._runs[run_id].done:
                self.update(run_id, status="cancelling")

    def call_when_done(self, callback: Callable[[], None]) -> None:
        with self._lock:
            self._callbacks.append(callback)
            done = self.snapshot().done
        if done:
            callback()

    def add(self, run: RunSnapshot) -> None:
        with self._lock:
            self._runs[run.id], self._pieces[run.id], self._seqs[run.id] = run, deque(), 0
            self._version += 1

    def emit(self, run_id: str, text: str, stream: str = "stdout") -> None:
        with self._lock:
            pieces = self._pieces[run_id]
            pieces.append((self._seqs[run_id], (stream, text)))
            self._seqs[run_id] += 1
            while len(pieces) > 1 and sum(len(piece[1]) for _, piece in pieces) > TAIL_CHARS:
                pieces.popleft()
            self._version += 1

    def update(self, run_id: str, **changes: Any) -> None:
        with self._lock:
            self._runs[run_id] = replace(self._runs[run_id], **changes)
            self._version += 1
            callbacks = list(self._callbacks) if self.snapshot().done else []
        for callback in callbacks:
            callback()


def a_run(number: int = 0, **changes: Any) -> RunSnapshot:
    """A run that started now."""
    now = time.time()
    base = RunSnapshot(f"run-{number}", f"job-{number}", "shell", f"sleep {number}", "running", now, started_at=now, elapsed_s=0.0)
    return replace(base, **changes)


def a_group(*runs: RunSnapshot, kind: str = "group", status: str = "") -> FakeSource:
    """A group of runs."""
    return FakeSource(*runs, group=GroupSnapshot("group-1", "grid", kind, (), status))
