"""Playing a recorded run again: the same events, output and artifacts, at any speed, without starting anything."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agentnb.engine.capture import SPILL_AFTER_S
from agentnb.engine.outcome import Outcome
from agentnb.engine.stop import Stop
from agentnb.errors import ConfigError, StoreError
from agentnb.events import ArtifactSaved, Json, RunFinished, StepFinished, StepStarted, from_wire, now_us
from agentnb.history.recordings.recording import Recording
from agentnb.ids import new_id

if TYPE_CHECKING:
    from agentnb.engine.executor import Execution

#: While the disk refuses output, it is tried again this often, in seconds.
_RETRY_DISK_S = 0.5
#: What texts of the recorded run are in: the secrets of this one are masked there, too.
_FREE = frozenset({"name", "input", "output", "error", "detail", "artifact"})
_OWN = frozenset({"run_id", "at", "stdout", "stderr", "detail"})
_STREAMS = ("stdout", "stderr")


class Replay:
    """The recording that one run plays. Step ids are the run's id and the step's number."""

    def __init__(self, execution: Execution) -> None:
        """Nothing happens before `play`."""
        self._of = execution
        self._speed: float | None = execution.work["replay"]["speed"]
        self._stop: Stop | None = None
        self._began = self._zero = 0.0
        self._open: dict[int, str] = {}
        self._attempt = 1
        self._end: Json | None = None
        self._told: Json = {}
        self._content: IO[bytes] | None = None

    async def play(self) -> tuple[Outcome, int]:
        """Play all of it, or until it is stopped: the outcome of the playing (not of what was recorded) and the attempt it came to."""
        outcome = Outcome()
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._of.out = self._of.new_output(1)
        spilling = loop.call_later(SPILL_AFTER_S, self._spill)
        try:
            await self._play(outcome)
        except (ConfigError, StoreError) as bad:  # the file was changed after the launch, or an artifact cannot be kept
            outcome.fail("artifact_error" if isinstance(bad, StoreError) else "execution_failed", str(bad))
        finally:
            spilling.cancel()
            self._drop_content()
        stop = self._of.stopping or self._stop
        if stop is not None and self._end is None:
            outcome.stop(stop)
        self._close(outcome)
        outcome.run_s = loop.time() - self._began
        return outcome, self._attempt

    async def _play(self, outcome: Outcome) -> None:
        recording = await asyncio.to_thread(Recording, Path(self._of.work["replay"]["path"]))
        self._told = {name: value for name, value in recording.head.get("circumstances", {}).items() if isinstance(value, str | bool)}
        try:
            first = True
            while batch := await asyncio.to_thread(recording.batch):
                if first:
                    self._zero, first = batch[0]["t"], False
                for entry in batch:
                    if not await self._due(entry["t"]):
                        return
                    await self._take(entry, outcome)
        finally:
            recording.close()

    async def _due(self, t: float) -> bool:
        """Wait for the moment of an entry; False when it is to end instead."""
        loop, of = asyncio.get_running_loop(), self._of
        timeout = of.work.get("timeout_s")
        deadline = float("inf") if timeout is None else self._began + timeout
        due = self._began + max(t - self._zero, 0.0) / self._speed if self._speed else 0.0
        while of.stopping is None and (left := min(due, deadline) - loop.time()) > 0:
            await of.sleep(left)
        if of.stopping is None and loop.time() >= deadline:
            self._stop = Stop("timeout", "timeout", f"it was still running after {timeout:g} s", {"timeout_s": timeout})
        return of.stopping is None and self._stop is None

    # --- entries

    async def _take(self, entry: Json, outcome: Outcome) -> None:
        if self._of.secrets:
            entry = {name: self._of.masked(value) if name in _FREE else value for name, value in entry.items()}
        match entry["type"]:
            case "output":
                await self._output(entry["stream"], entry["data"])
            case "artifact_data":
                await self._piece(entry["data"])
            case "artifact_saved":
                await self._artifact(entry, outcome)
            case "run_started":
                self._of.begin("replay")
            case "step_started":
                self._step_started(entry)
            case "step_finished":
                self._step_finished(entry)
            case "run_finished":
                self._end = entry
            case _:
                message = from_wire(entry | {"run_id": self._of.run_id, "step_id": self._id(entry.get("step")), "at": now_us()})
                if message is not None:
                    self._of.emit(message)

    async def _output(self, stream: str, data: bytes) -> None:
        assert self._of.out is not None  # noqa: S101 - made before the first entry
        try:
            self._of.out.streams[stream].add(data)
        except OSError as bad:  # the disk is full: what is held back must not grow
            self._of.warn(f"output cannot be written: {bad.strerror}; it waits until it can")
            while self._of.stopping is None and not self._spill():
                await self._of.sleep(_RETRY_DISK_S)

    def _spill(self) -> bool:
        try:
            if self._of.out is not None:
                self._of.out.spill()
        except OSError:
            return False
        return True

    def _id(self, number: int | None) -> str | None:
        return None if number is None else f"{self._of.run_id}-{number}"

    def _step_started(self, entry: Json) -> None:
        number, kind, attempt = entry["step"], entry["kind"], entry.get("attempt", 1)
        if kind == "attempt" and attempt > self._attempt:
            self._attempt = attempt
            self._end_streams()
            self._of.out = self._of.new_output(attempt)
        step = f"{self._of.run_id}-{number}"
        self._open[number] = step
        self._of.emit(StepStarted(self._of.run_id, step, kind, entry["name"], attempt, self._id(entry["parent"]), entry.get("input")))

    def _step_finished(self, entry: Json) -> None:
        step = self._open.pop(entry["step"])
        told = {name: value for name, value in entry.items() if name not in {"t", "type", "step", "kept"}}
        if entry["kept"]:
            self._end_streams()
            told["output"] = self._of.output_record()
        self._of.emit(StepFinished(self._of.run_id, step, **told))

    def _end_streams(self) -> None:
        for stream in self._of.out.streams.values() if self._of.out else ():
            try:
                stream.end()
            except OSError:
                if lost := stream.abandon():
                    self._of.warn(f"the last {lost} bytes of output are lost: the disk would not take them")

    # --- artifacts

    async def _piece(self, data: bytes) -> None:
        try:
            if self._content is None:
                folder = self._of.store.blobs.root
                self._content = tempfile.NamedTemporaryFile(prefix=".new-", dir=folder, delete=False)  # noqa: SIM115
            await asyncio.to_thread(self._content.write, data)
        except OSError as bad:
            raise StoreError(f"an artifact of the recording cannot be kept: {bad.strerror or bad}; make room on the disk") from bad

    async def _artifact(self, entry: Json, outcome: Outcome) -> None:
        told, store = entry["artifact"], self._of.store
        location = told.get("location")
        if location is None:
            try:
                location = await asyncio.to_thread(self._kept, told, inline=entry["inline"])
            except StoreError as bad:
                outcome.fail("artifact_error", str(bad))
            finally:
                self._drop_content()
        if location is None:
            self._of.warn(f"artifact {told['name']!r} ({told['size']} bytes, {told['checksum']}) is not in the recording, only its name")
            return
        artifact = {
            "id": new_id(),
            "name": told["name"],
            "content_type": told.get("content_type") or "application/octet-stream",
            "size": told["size"],
            "location": location,
            "checksum": told["checksum"],
            "created_at": now_us(),
            "source_run": self._of.run_id,
            "source_step": self._id(entry["step"]),
        }
        if location["type"] == "local":
            artifact["location"] = {"type": "local", "path": str(store.blobs.locate(told["checksum"]).relative_to(store.root))}
        self._of.emit(ArtifactSaved(self._of.run_id, artifact))

    def _kept(self, told: Json, *, inline: bool) -> Json | None:
        """Where an artifact is in this store: put there now, or known already; None when it is not. Raises StoreError."""
        blobs = self._of.store.blobs
        if not inline:
            try:
                blobs.claim(told["checksum"])
            except StoreError:
                return None
        elif self._content is None:
            blobs.put_bytes(b"")
        else:
            self._content.close()
            blobs.put_file(self._content.name)
        return {"type": "local"}

    def _drop_content(self) -> None:
        content, self._content = self._content, None
        if content is not None:
            content.close()
            with suppress(OSError):
                os.unlink(content.name)  # noqa: PTH108

    # --- the end

    def _close(self, outcome: Outcome) -> None:
        """End what the recording, or the stop, left open; a run that ends in any way but as recorded has to have begun."""
        if not outcome.ok:
            self._end = None
            self._of.begin("replay")
        status = outcome.status if not outcome.ok else "interrupted"
        for step in reversed(self._open.values()):
            self._of.emit(StepFinished(self._of.run_id, step, status, outcome.error))
        self._open = {}
        self._end_streams()

    def finished(self, own: RunFinished) -> RunFinished:
        """The run's last event: `own`, the recorded end laid over it. Of the machine nothing is known: nothing ran here."""
        detail = own.detail
        mine = detail.get("metadata") or {}
        detail["metadata"] = {name: mine.get(name) for name in ("started_at", "completed_at", "trace_id")} | self._told
        recorded = self._end
        if recorded is None:
            return own
        for field in fields(RunFinished):
            if field.name not in _OWN and field.name in recorded:
                setattr(own, field.name, recorded[field.name])
        own.run_s = recorded.get("run_s")
        said: Json = recorded.get("detail", {})
        own.detail = detail | said | {"warnings": [*said.get("warnings", []), *(detail.get("warnings") or [])]}
        for name in _STREAMS:
            setattr(own, name, _as_recorded(getattr(own, name), recorded.get(name)))
        return own


def _as_recorded(kept: Any, recorded: Json | None) -> Json | None:
    """A stream's record. Small output was recorded as text, in which U+FFFD stands for bytes that were none: its size was another."""
    if recorded is None and not (kept and kept["size"]):
        return None
    if (
        recorded is not None
        and kept is not None
        and kept.get("text") is not None
        and kept["size"] <= 3 * recorded["size"] <= 3 * kept["size"]
    ):
        return dict(kept) | {"size": recorded["size"]}
    return dict(kept) if kept is not None else None
