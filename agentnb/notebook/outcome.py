"""The outcome of a run: its last event as a CommandResult."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from agentnb.events import Json, RunFinished
from agentnb.notebook.reading import kept_bytes
from agentnb.results import CommandError, CommandResult, CommandStatus, ExecutionMetadata, ResourceUsage
from agentnb.states import ErrorKind, RunStatus, worth_retrying

_COMMAND_STATUS = {
    RunStatus.COMPLETED: CommandStatus.SUCCESS,
    RunStatus.TIMEOUT: CommandStatus.TIMED_OUT,
    RunStatus.CANCELLED: CommandStatus.CANCELLED,
}


class KeptOutput:
    """Reads a finished run's streams from the history at `root` (plain data, so that a result can be pickled)."""

    def __init__(self, root: Path, final: RunFinished) -> None:
        """Remember where the output is."""
        self._root = root
        self._streams = {"stdout": final.stdout, "stderr": final.stderr}

    def __call__(self, stream: str) -> bytes:
        """All of the stream. Raises StoreError when its log file is gone."""
        return kept_bytes(self._root, self._streams[stream])


def make_result(final: RunFinished, *, name: str, spec: Json, root: Path, trace_id: str | None = None) -> CommandResult:
    """The result that `final` amounts to; `trace_id`: of the run, also where its supervisor could not say it any more."""
    detail, error, status = final.detail, final.error, RunStatus(final.status)
    kind = ErrorKind(error["kind"]) if error else None
    over = kind is ErrorKind.RESOURCE_LIMIT_EXCEEDED
    return CommandResult(
        command_id=final.run_id,
        name=name,
        spec=spec,
        status=status,
        command_status=CommandStatus.RESOURCE_LIMIT_EXCEEDED if over else _COMMAND_STATUS.get(status, CommandStatus.FAILED),
        reason=detail.get("reason"),
        retryable=error is not None and worth_retrying(error),
        output=final.output,
        output_source=detail.get("output_source"),
        stdout_bytes=(final.stdout or {}).get("size", 0),
        stderr_bytes=(final.stderr or {}).get("size", 0),
        duration=final.run_s,
        usage=ResourceUsage(**(final.usage or {})),
        exit_code=final.exit_code,
        signal=final.signal,
        error=CommandError(**error) if error else None,
        validation=detail.get("validation") or (),
        metadata=ExecutionMetadata(**_stamps({"trace_id": trace_id} | (detail.get("metadata") or {}))),
        warnings=detail.get("warnings") or (),
        attempts=final.attempts,
    ).reading(KeptOutput(root, final))


def _stamps(metadata: Json) -> Json:
    found = dict(metadata)
    for name in ("started_at", "completed_at"):
        if isinstance(found.get(name), int):
            found[name] = datetime.fromtimestamp(found[name] / 1e6, UTC)
    return found
