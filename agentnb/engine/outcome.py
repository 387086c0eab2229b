"""How one attempt, or a whole run, went: what the end of a process means, and the words for it."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass, field
from typing import Any

from agentnb.engine.attempt import Ended
from agentnb.engine.process import StartFailed
from agentnb.engine.stop import Stop
from agentnb.events import Json


@dataclass(slots=True)
class Outcome:
    """How one attempt, or the whole run, went."""

    status: str = "completed"
    error: Json | None = None
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    output: Any = None
    output_source: str | None = None
    run_s: float | None = None
    usage: Json | None = None
    issues: list[Json] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it completed."""
        return self.status == "completed"

    @classmethod
    def failed(cls, kind: str, message: str, reason: str | None = None) -> Outcome:
        """One that is a failure from the beginning."""
        made = cls()
        made.fail(kind, message, reason)
        return made

    def fail(self, kind: str, message: str, reason: str | None = None, **details: Any) -> None:
        """Make it a failure, unless it is one already."""
        if self.ok:
            self.status, self.reason = "failed", reason
            self.error = {"kind": kind, "message": message} | ({"details": details} if details else {})

    def stop(self, why: Stop) -> None:
        """It was ended from outside, whatever else is known of it."""
        self.status = why.status
        self.error = {"kind": why.kind, "message": why.message} | ({"details": why.details} if why.details else {})
        self.reason = {"resource_limit_exceeded": "resource_exhaustion", "runtime_error": "internal_error"}.get(why.kind)


def judge(ended: Ended, expected: int = 0) -> Outcome:
    """What the end of a process means when it was to exit with `expected`."""
    outcome = Outcome(run_s=ended.run_s, usage=ended.usage or None)
    if ended.exit is not None:
        outcome.exit_code, outcome.signal = ended.exit.exit_code, ended.exit.signal
    if ended.stop is not None:
        outcome.stop(ended.stop)
    elif ended.failure is not None:
        outcome.fail("startup_failed", _start_message(ended.failure), "startup")
    elif ended.exit is None:
        outcome.fail("runtime_error", "the end of the process was never reported", "internal_error")
    elif ended.overdue:
        pass  # the way it was ended says nothing of its result
    elif outcome.signal is not None:
        outcome.fail("execution_failed", f"it was ended by signal {signal_name(outcome.signal)}", "signalled", signal=outcome.signal)
    elif outcome.exit_code != expected:
        wanted = f", not {expected} as expected" if expected else ""
        outcome.fail("execution_failed", f"it exited with code {outcome.exit_code}{wanted}", "non_zero_exit")
    return outcome


def signal_name(number: int) -> str:
    """A signal for people, such as ``9 (SIGKILL)``."""
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _start_message(failure: StartFailed) -> str:
    why = os.strerror(failure.errno)
    if failure.what == "working directory":
        return f"the working directory {failure.path!r} cannot be entered: {why}; create it or set working_dir"
    if failure.what != "program":
        return f"it cannot be started: {failure.what}"
    hint = {
        errno.ENOENT: "install it, or give its path",
        errno.E2BIG: "its arguments and environment are too long for the system: pass the data by stdin or a file",
        errno.EAGAIN: "the system has too many processes: end some, or lower max_parallel",
    }.get(failure.errno, "make it executable (chmod +x) or run it with its interpreter")
    return f"the program {failure.path!r} cannot be started: {why}; {hint}"
