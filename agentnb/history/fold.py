"""From events to rows: what a batch of recorded events adds to the tables (pure, no SQL).

The rules are those of states.py: an illegal move (a second end, a late start) changes no row, though its event is recorded.
Events of a run that is not known are recorded and change nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, ClassVar

from agentnb import events as ev
from agentnb.history.jsontext import bindable, dumps, dumps_text, raw
from agentnb.states import TRANSITIONS, RunStatus

#: What a later event may set; each goes from NULL to a value, or from a value to a newer one, never back.
RUN_CHANGES = (
    "status", "started_at", "finished_at", "exit_code", "signal", "reason", "error_kind", "error", "output", "attempts", "handle",
    "run_s", "cpu_s", "peak_memory_bytes", "disk_read_bytes", "disk_write_bytes", "processes",
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd", "tokens_per_s", "turns", "model",
    "agent_session", "workspace", "files_changed", "insertions", "deletions", "stdout_bytes", "stderr_bytes", "detail", "usage",
)  # fmt: skip
STEP_CHANGES = (
    "status", "finished_at", "error_kind", "error", "exit_code", "usage", "cpu_s", "peak_memory_bytes",
    "tokens", "input_tokens", "output_tokens", "cost_usd", "output", "run_s",
)  # fmt: skip
STEP_USED = ("tokens", "input_tokens", "output_tokens", "cost_usd")
ARTIFACT_COLUMNS = (
    "id", "name", "content_type", "size", "location", "checksum", "created_at", "source_run", "source_step", "schema_version",
)  # fmt: skip
SESSION_CHANGES = ("status", "ended_at")
SESSION_COLUMNS = ("id", "name", "created_at", "tags", "owner", "schema_version", *SESSION_CHANGES)

_COPIED_FROM_RUN = (
    "id", "session_id", "group_id", "name", "runtime_kind", "timeout_s", "parent_run_id", "cache_key", "trace_id",
    "replay_of", "reused_from", "resumed_from",
)  # fmt: skip
_USAGE = ("peak_memory_bytes", "disk_read_bytes", "disk_write_bytes", "processes")
_STREAMS = ("stdout", "stderr")
_STREAM_KEYS = {f'"{name}":' for name in _STREAMS}
_TOTALS = tuple(f.name for f in fields(ev.UsageReported) if f.name not in {"run_id", "at"})
_AS_COLUMNS = {"at", "run_id", "step_id", "session_id"}


def _form(cls: type[ev.Message]) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The keys of the fields that are no columns, as JSON, and what gets their values."""
    names = [field.name for field in fields(cls) if field.name not in _AS_COLUMNS]
    get = attrgetter(*names)
    return tuple(f'"{name}":' for name in names), get if len(names) > 1 else lambda event: (get(event),)


_FORMS = {cls: _form(cls) for cls in ev.RECORDED}
_MOVES: dict[str, frozenset[str]] = {old.value: frozenset(map(str, new)) for old, new in TRANSITIONS.items() if isinstance(old, RunStatus)}
_STEP_ENDS = frozenset({"completed", "failed", "skipped", "cancelled", "timeout", "interrupted"})
_SESSION_ENDS = frozenset({"ended", "cancelled"})

Row = dict[str, Any]
#: What is known of a run: its status and its session.
Known = Mapping[str, tuple[str, str | None]]


def stamp(value: Any, default: int) -> int:
    """Microseconds UTC from such a number or from ISO 8601 text (as pydantic writes it); `default` for anything else."""
    if isinstance(value, int):
        return value
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return default
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _object(value: Any) -> str:
    return dumps(value) if isinstance(value, dict) and value else "{}"


def _json(value: Any) -> str | None:
    return None if value is None else dumps(value)


def mentioned(batch: Iterable[ev.Message]) -> list[str]:
    """Ids of the runs that these events are about, each once."""
    return list(
        dict.fromkeys(str(event.run.get("id")) if isinstance(event, ev.RunQueued) else getattr(event, "run_id", "") for event in batch)
    )


def _without_text(kept: Any) -> Any:
    return {name: value for name, value in kept.items() if name != "text"} if isinstance(kept, dict) else kept


class Fold:
    """What a batch adds up to.

    `new_runs` are whole rows; `runs` are changes, by id, of runs that were there before. `steps` (and `sessions`) are whole rows to
    insert, or to lay over a live one; `step_ends` (and `session_ends`) are changes of live ones that began in an earlier batch and
    go in first. `used_before` and `used_after` are what steps that had ended before the batch, or in it, turned out to use.
    `log` is the events table's rows.
    """

    def __init__(self, known: Known, owner: str | None) -> None:
        """Start from what the tables say of the runs that are mentioned; new rows belong to `owner`."""
        self._status = {run: status for run, (status, _) in known.items()}
        self._session = {run: session for run, (_, session) in known.items()}
        self._owner = owner
        self.log: list[tuple[Any, ...]] = []
        self.sessions: dict[str, Row] = {}
        self.session_ends: dict[str, Row] = {}
        self.new_runs: dict[str, Row] = {}
        self.runs: dict[str, Row] = {}
        self.steps: dict[tuple[str, str], Row] = {}
        self.step_ends: dict[tuple[str, str], Row] = {}
        self.used_before: list[Row] = []
        self.used_after: list[Row] = []
        self.artifacts: list[Row] = []
        self.outputs: list[tuple[Any, ...]] = []
        self._texts: dict[int, tuple[Any, str]] = {}

    def _part(self, value: Any) -> str | None:
        """JSON of a part of an event that a row holds as well."""
        return None if value is None else self._kept(value) if type(value) is dict else dumps(value)

    def _kept(self, value: ev.Json) -> str:
        """JSON of a mapping, which several events and rows may hold: it is made once."""
        known = self._texts.get(id(value))
        if known is None:  # the value is kept, so that no other one gets its id
            known = self._texts[id(value)] = (value, dumps(value))
        return known[1]

    def add(self, event: ev.Message) -> None:
        """Take the next event. Raises TypeError for one that is no recorded event."""
        cls = type(event)
        if cls not in self._FOLD:
            raise TypeError(f"{cls.__name__} is no recorded event; only events.RECORDED go into the history")
        self._FOLD[cls](self, event)
        self._record(event)

    def clean(self) -> None:
        """Replace what SQLite cannot bind (see jsontext.bindable); done only when it refused the rows as they were."""
        self.log = [tuple(map(bindable, row)) for row in self.log]
        self.outputs = [
            (*map(bindable, row[:3]), raw(row[3]) if isinstance(row[3], str) else None, bindable(row[4])) for row in self.outputs
        ]
        tables: tuple[dict[Any, Row], ...] = (self.sessions, self.session_ends, self.new_runs, self.runs, self.steps, self.step_ends)
        for row in (*self.artifacts, *self.used_before, *self.used_after, *(row for table in tables for row in table.values())):
            row.update([(name, bindable(value)) for name, value in row.items()])

    def _record(self, event: Any) -> None:
        cls = type(event)
        keys, get = _FORMS[cls]
        values: Iterable[Any] = get(event)
        run_id = event.run.get("id") if cls is ev.RunQueued else getattr(event, "run_id", None)
        session_id = event.session.get("id") if cls is ev.SessionStarted else getattr(event, "session_id", None)
        if cls is ev.RunFinished:  # the text of its output lives in the logs table, once
            values = [_without_text(value) if key in _STREAM_KEYS else value for key, value in zip(keys, values, strict=True)]
        parts = []
        for key, value in zip(keys, values, strict=True):
            if value is not None:
                kind = type(value)
                if kind is str:
                    parts.append(key + dumps_text(value))
                elif kind is int:
                    parts.append(f"{key}{value}")
                else:
                    parts.append(key + (self._kept(value) if kind is dict else dumps(value)))
        data = ",".join(parts)
        session_id = session_id or self._session.get(run_id or "")
        self.log.append((event.at, event.type, session_id, run_id, getattr(event, "step_id", None), f"{{{data}}}"))

    def _run(self, run_id: str) -> Row | None:
        """The row to write changes of a live run to; None when the run is unknown or has ended."""
        if self._status.get(run_id) not in _MOVES:
            return None
        return self.new_runs.get(run_id) or self.runs.setdefault(run_id, {"id": run_id})

    def _move(self, run_id: str, status: str) -> Row | None:
        if status not in _MOVES.get(self._status.get(run_id, ""), ()):
            return None
        row = self._run(run_id)
        if row is not None:
            row["status"] = self._status[run_id] = status
        return row

    def _session_started(self, event: ev.SessionStarted) -> None:
        session, session_id = event.session, event.session.get("id")
        if not isinstance(session_id, str):
            return
        row = self.sessions.get(session_id)
        if row is not None and row["status"] == "ended":  # its supervisor died, and another one goes on
            row |= {"status": "active", "ended_at": None}
        elif row is None:
            self.sessions[session_id] = {
                "id": session_id, "name": session.get("name"), "status": "active", "owner": self._owner,
                "created_at": stamp(session.get("created_at"), event.at), "tags": _object(session.get("tags")),
                "schema_version": session.get("schema_version", 1),
            }  # fmt: skip

    def _session_ended(self, event: ev.SessionEnded) -> None:
        if event.status not in _SESSION_ENDS:
            return
        row = self.sessions.get(event.session_id)
        if row is None:
            row = self.session_ends.setdefault(event.session_id, {"id": event.session_id, "status": "active"})
        if row["status"] == "active":
            row.update(status=event.status, ended_at=event.at)

    def _run_queued(self, event: ev.RunQueued) -> None:
        run, run_id = event.run, event.run.get("id")
        if not isinstance(run_id, str) or run_id in self._status:
            return
        target = _mapping(run.get("target"))
        row: Row = {name: run.get(name) for name in _COPIED_FROM_RUN}
        row.update(
            status="pending", owner=self._owner, created_at=stamp(run.get("created_at"), event.at),
            target_kind=target.get("kind"), target=dumps(target), command=target.get("display"), input=_json(run.get("input")),
            params=_object(run.get("params")), tags=_object(run.get("tags")), schema_version=run.get("schema_version", 1),
        )  # fmt: skip
        self.new_runs[run_id] = row
        self._status[run_id], self._session[run_id] = "pending", run.get("session_id")

    def _run_started(self, event: ev.RunStarted) -> None:
        if (row := self._move(event.run_id, "running")) is not None:
            row.update(started_at=event.at, handle=event.handle or None, attempts=1)

    def _run_retrying(self, event: ev.RunRetrying) -> None:
        if (row := self._run(event.run_id)) is not None:
            row["attempts"] = event.attempt

    def _usage_reported(self, event: ev.UsageReported) -> None:
        if (row := self._run(event.run_id)) is not None:
            for name in _TOTALS:
                if (value := getattr(event, name)) is not None:
                    row[name] = value

    def _run_finished(self, event: ev.RunFinished) -> None:
        row = None if event.status in _MOVES else self._move(event.run_id, event.status)
        if row is None:
            return
        usage, detail = _mapping(event.usage), _mapping(event.detail)
        row.update(
            finished_at=event.at, exit_code=event.exit_code, signal=event.signal, error_kind=_mapping(event.error).get("kind"),
            error=_json(event.error), output=_json(event.output), reason=detail.get("reason"), run_s=event.run_s,
            cpu_s=usage.get("cpu_time"), usage=self._part(event.usage), detail=self._part(event.detail or None),
        )  # fmt: skip
        if event.attempts:
            row["attempts"] = event.attempts
        for name in _USAGE:
            row[name] = usage.get(name)
        for stream in _STREAMS:
            self._output(row, event.run_id, stream, getattr(event, stream))

    def _output(self, row: Row, run_id: str, stream: str, kept: Any) -> None:
        if not isinstance(kept, dict):
            return
        row[f"{stream}_bytes"] = size = kept.get("size") or 0
        if size or kept.get("path"):
            self.outputs.append((run_id, stream, size, kept.get("text"), kept.get("path")))

    def _step_started(self, event: ev.StepStarted) -> None:
        key = (event.run_id, event.step_id)
        if event.run_id in self._status and key not in self.steps:
            self.steps[key] = {
                "run_id": event.run_id, "id": event.step_id, "parent_id": event.parent_id, "kind": event.kind, "name": event.name,
                "status": "running", "attempt": event.attempt, "created_at": event.at, "started_at": event.at,
                "input": self._part(event.input),
            }  # fmt: skip

    def _step_finished(self, event: ev.StepFinished) -> None:
        key = (event.run_id, event.step_id)
        if event.status not in _STEP_ENDS or event.run_id not in self._status:
            return
        row = self.steps.get(key)
        if row is None:
            row = self.step_ends.setdefault(key, {"run_id": event.run_id, "id": event.step_id, "status": "running"})
        if row["status"] != "running":
            return
        usage, tokens = _mapping(event.usage), _mapping(event.tokens)
        row.update(
            status=event.status, finished_at=event.at, error_kind=_mapping(event.error).get("kind"), error=_json(event.error),
            exit_code=event.exit_code, usage=self._part(event.usage), cpu_s=usage.get("cpu_time"),
            peak_memory_bytes=usage.get("peak_memory_bytes"), tokens=self._part(event.tokens), input_tokens=tokens.get("input"),
            output_tokens=tokens.get("output"), cost_usd=event.cost_usd, output=self._part(event.output), run_s=event.run_s,
        )  # fmt: skip

    def _step_used(self, event: ev.StepUsed) -> None:
        key, tokens = (event.run_id, event.step_id), _mapping(event.tokens)
        if self._status.get(event.run_id) not in _MOVES:
            return
        used: Row = {
            "tokens": _json(event.tokens), "input_tokens": tokens.get("input"), "output_tokens": tokens.get("output"),
            "cost_usd": event.cost_usd,
        }  # fmt: skip
        begun, ended = self.steps.get(key), self.step_ends.get(key)
        over = [row for row in (begun, ended) if row is not None and row["status"] != "running"]
        if begun in over and begun is not None:
            begun.update({name: value for name, value in used.items() if value is not None})
        (self.used_after if over else self.used_before).append(used | {"run_id": event.run_id, "id": event.step_id})

    def _artifact_saved(self, event: ev.ArtifactSaved) -> None:
        artifact = event.artifact
        row = {name: artifact.get(name) for name in ARTIFACT_COLUMNS}
        row.update(
            source_run=artifact.get("source_run") or event.run_id, location=dumps(_mapping(artifact.get("location"))),
            created_at=stamp(artifact.get("created_at"), event.at),
        )  # fmt: skip
        self.artifacts.append(row)

    def _workspace_changed(self, event: ev.WorkspaceChanged) -> None:
        if (row := self._run(event.run_id)) is not None:
            row["workspace"] = _json(event.workspace)
            for name in ("files_changed", "insertions", "deletions"):
                if (value := getattr(event, name)) is not None:
                    row[name] = value

    def _nothing(self, event: ev.Message) -> None:
        """Only the log tells of it."""

    _FOLD: ClassVar[dict[type[ev.Message], Callable[[Any, Any], None]]] = {
        ev.SessionStarted: _session_started,
        ev.SessionEnded: _session_ended,
        ev.RunQueued: _run_queued,
        ev.RunStarted: _run_started,
        ev.RunRetrying: _run_retrying,
        ev.StepStarted: _step_started,
        ev.StepFinished: _step_finished,
        ev.StepUsed: _step_used,
        ev.ArtifactSaved: _artifact_saved,
        ev.UsageReported: _usage_reported,
        ev.BudgetCrossed: _nothing,
        ev.WorkspaceChanged: _workspace_changed,
        ev.RunFinished: _run_finished,
    }
