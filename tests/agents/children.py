"""Starts the child processes of agents as the engine does, for tests that need no engine."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from typing import IO, Any, Self

from agentnb.engine.reports import ReportLines
from tests.agents.nursery import Forked, Nursery

WAIT_S = 60


@dataclass
class Child:
    """One child process and what it reports, but for the report that nothing follows."""

    process: subprocess.Popen[bytes] | Forked
    channel: int
    reports: list[dict[str, Any]] = field(default_factory=list)
    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0
    _streams: tuple[IO[bytes], ...] = ()
    _reader: threading.Thread | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @classmethod
    def start(cls, work: dict[str, Any], *, nursery: Nursery | None = None, **options: Any) -> Self:
        """Start the work's process with payload and channel; forked, if there is a `nursery`, which takes no other option than `env`."""
        payload = os.memfd_create("payload")
        os.write(payload, b64decode(work["payload"]))
        reading, writing = os.pipe()
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed in wait
        env = dict(options.pop("env", os.environ)) | {"AGENTNB_PAYLOAD_FD": str(payload), "AGENTNB_CHANNEL_FD": str(writing)}
        process: subprocess.Popen[bytes] | Forked
        if nursery is not None:
            process = nursery.start(work["argv"], env, (payload, writing, out.fileno(), err.fileno()), **options)
        else:
            process = subprocess.Popen(
                work["argv"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                pass_fds=(payload, writing),
                start_new_session=True,
                **options,
            )
        os.close(payload)
        os.close(writing)
        child = cls(process, reading, _streams=(out, err))
        child._reader = threading.Thread(target=child._read)
        child._reader.start()
        return child

    def _read(self) -> None:
        lines = ReportLines()
        while data := os.read(self.channel, 65536):
            found = lines.feed(data)
            with self._changed:
                self.reports += [report for report in found if report["t"] != "done"]
                self._changed.notify_all()
        assert not lines.bad, lines.last_bad

    def until(self, kind: str) -> dict[str, Any]:
        """The first report of that kind, once it has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.all(kind), WAIT_S), f"no {kind}: {self.reports}"
        return self.all(kind)[0]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """All reports of that kind so far."""
        return [report for report in self.reports if report["t"] == kind]

    def wait(self) -> int:
        """Wait for the end; the exit code (negative: a signal)."""
        assert self._reader is not None
        try:
            code = self.process.wait(WAIT_S)
            self._reader.join(WAIT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._reader.join(WAIT_S)
            os.close(self.channel)
        for name, stream in zip(("stdout", "stderr"), self._streams, strict=True):
            stream.seek(0)
            setattr(self, name, stream.read())
            stream.close()
        return code


def run(work: dict[str, Any], **options: Any) -> Child:
    """Start and wait."""
    child = Child.start(work, **options)
    child.code = child.wait()
    return child
