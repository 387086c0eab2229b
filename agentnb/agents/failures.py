"""Failures of the workers of a swarm, and what they amount to together (pure; standard library only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MAX_TOLD = 50


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that went wrong. `where`: what the reader calls it, such as ``worker 'build'``. `kind`: a states.ErrorKind."""

    where: str
    kind: str
    message: str
    retryable: bool = False
    run_id: str | None = None

    def __str__(self) -> str:
        """For people."""
        return f"{self.where}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """As data, for the details of an error."""
        found: dict[str, Any] = {"where": self.where, "kind": self.kind, "message": self.message, "retryable": self.retryable}
        return found | ({"run_id": self.run_id} if self.run_id else {})


class FlowFailed(Exception):
    """A worker, or a flow of them, did not succeed; `failures` has each of the causes, in the order in which the file has them."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        """Keep them."""
        super().__init__("; ".join(map(str, failures)))
        self.failures = tuple(failures)

    @property
    def retryable(self) -> bool:
        """Whether trying again can help: each of the causes is of a kind that may be tried again."""
        return all(failure.retryable for failure in self.failures)

    def error(self) -> dict[str, Any]:
        """As the error of a run or step: that of the one cause, or a pattern_error that names every one."""
        told = [failure.to_json() for failure in self.failures]
        if len(told) == 1:
            only = self.failures[0]
            kind, message = only.kind, str(only)
        else:
            kind = "pattern_error"
            message = f"{len(told)} failures: " + "; ".join(map(str, self.failures[:_MAX_TOLD]))
            message += f"; and {len(told) - _MAX_TOLD} more" if len(told) > _MAX_TOLD else ""
        return {"kind": kind, "message": message, "details": {"failures": told, "retryable": self.retryable}}


def together(failed: Sequence[FlowFailed]) -> FlowFailed:
    """One failure of several, which names every cause of each once."""
    return FlowFailed(list(dict.fromkeys(failure for one in failed for failure in one.failures)))
