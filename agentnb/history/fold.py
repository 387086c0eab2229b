"""From events to rows: what a batch of recorded events adds to the tables (pure, no SQL).

The rules are those of states.py: an illegal move (a second end, a late start) changes no row, though its event is recorded.
Events of a run that is not known are recorded and change nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, ClassVar

from agentnb import events as ev
from agentnb.history.jsontext import bindable, dumps, dumps_fields, raw
from agentnb.states import TRANSITIONS, RunStatus

#: What a step's end sets.
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

_COPIED_FROM_RUN = frozenset({
    "id", "session_id", "group_id", "name", "runtime_kind", "timeout_s", "parent_run_id", "cache_key", "trace_id",
    "replay_of", "reused_from", "resumed_from",
})  # fmt: skip
#: What of a step's end has columns of its own.
_PARTS_OF = {
    "error": (("kind", "error_kind"),),
    "usage": (("cpu_time", "cpu_s"), ("peak_memory_bytes", "peak_memory_bytes")),
    "tokens": (("input", "input_tokens"), ("output", "output_tokens")),
    "output": (),
}
_USAGE = (("cpu_time", "cpu_s"), *((name, name) for name in ("peak_memory_bytes", "disk_read_bytes", "disk_write_bytes", "processes")))
_TOTALS = tuple(f.name for f in fields(ev.UsageReported) if f.name not in {"run_id", "at"})
_AS_COLUMNS = {"at", "run_id", "step_id", "session_id"}


def _form(cls: type[ev.Message]) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Names of the fields that are no columns, and what gets their values."""
    names = tuple(field.name for field in fields(cls) if field.name not in _AS_COLUMNS)
    get = attrgetter(*names)
    return names, get if len(names) > 1 else lambda event: (get(event),)


_FORMS = {cls: _form(cls) for cls in ev.RECORDED}
_MOVES: dict[str, frozenset[str]] = {old.value: frozenset(map(str, new)) for old, new in TRANSITIONS.items() if isinstance(old, RunStatus)}
_STEP_ENDS = frozenset({"completed", "failed", "skipped", "cancelled", "timeout", "interrupted"})
_SESSION_ENDS = frozenset({"ended", "cancelled"})

Row = dict[str, Any]
#: What is known of a run: its status and its session.
Known = dict[str, tuple[str, str | None]]


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


def unknown(batch: Iterable[ev.Message], known: Known) -> list[str]:
    """Ids of the runs that these events are about and of which nothing is known, each once."""
    return list({getattr(event, "run_id", "") for event in batch}.difference(known))


def _numbers(event: ev.StepFinished) -> Row:
    """What of a step's end stands in its row as it is."""
    end: Row = {"status": event.status}
    if event.exit_code is not None:
        end["exit_code"] = event.exit_code
    if event.cost_usd is not None:
        end["cost_usd"] = event.cost_usd
    if event.run_s is not None:
        end["run_s"] = event.run_s
    return end


def _laid(end: Row, name: str, value: Any) -> str:
    """Lay a part of a step's end over its row; the same as JSON of a field."""
    end[name] = text = dumps(value)
    if type(value) is dict:
        for key, column in _PARTS_OF[name]:
            if (found := value.get(key)) is not None:
                end[column] = found
    return f',"{name}":{text}'


def _recorded(fold: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def take(self: Fold, event: ev.Message) -> None:
        fold(self, event)
        self.record(event)

    return take


class Fold:
    """What a batch adds up to.

    `new_runs` are whole rows; `runs` are changes, by id, of runs that were there before. `steps` (and `sessions`) are whole rows to
    insert, or to lay over a live one; `step_ends` (and `session_ends`) are changes of live ones that began in an earlier batch and
    go in first. `used_before` and `used_after` are what steps that had ended before the batch, or in it, turned out to use.
    `log` is the events table's rows; `ended` are the runs that ended. A column that a change does not name stays what it is: none goes
    back to NULL, so that rows and changes of runs and steps name no column as None.
    """

    def __init__(self, known: Known, owner: str | None) -> None:
        """Start from what the tables say of the runs that are mentioned, which is kept true; new rows belong to `owner`."""
        self._known = known
        self._owner = owner
        self.log: list[tuple[Any, ...]] = []
        self.ended: list[str] = []
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

    def take(self, events: Iterable[ev.Message]) -> None:
        """Take the next events. Raises TypeError for one that is no recorded event."""
        takes = self._TAKES
        for event in events:
            take = takes.get(type(event))
            if take is None:
                raise TypeError(f"{type(event).__name__} is no recorded event; only events.RECORDED go into the history")
            take(self, event)

    def clean(self) -> None:
        """Replace what SQLite cannot bind (see jsontext.bindable); done only when it refused the rows as they were."""
        self.log = [tuple(map(bindable, row)) for row in self.log]
        self.outputs = [
            (*map(bindable, row[:3]), raw(row[3]) if isinstance(row[3], str) else None, bindable(row[4])) for row in self.outputs
        ]
        self.step_ends = {(bindable(run), bindable(step)): row for (run, step), row in self.step_ends.items()}
        self.runs = {bindable(run): row for run, row in self.runs.items()}
        tables: tuple[dict[Any, Row], ...] = (self.sessions, self.session_ends, self.new_runs, self.runs, self.steps, self.step_ends)
        for row in (*self.artifacts, *self.used_before, *self.used_after, *(row for table in tables for row in table.values())):
            row.update([(name, bindable(value)) for name, value in row.items()])

    def record(self, event: Any) -> None:
        """Write the event down as it is."""
        cls = type(event)
        names, get = _FORMS[cls]
        data = {name: value for name, value in zip(names, get(event), strict=True) if value is not None}
        session_id = event.session.get("id") if cls is ev.SessionStarted else getattr(event, "session_id", None)
        self._log(event, getattr(event, "run_id", None), dumps_fields(data), session_id, getattr(event, "step_id", None))

    def _log(self, event: Any, run_id: str | None, text: str, session_id: str | None = None, step_id: str | None = None) -> None:
        """Write down that it happened, with `text` for what has no column. A run's session is looked up."""
        if session_id is None and run_id in self._known:
            session_id = self._known[run_id][1]
        self.log.append((event.at, event.type, session_id, run_id, step_id, text))

    def _live(self, run_id: str) -> bool:
        return run_id in self._known and self._known[run_id][0] in _MOVES

    def _run(self, run_id: str) -> Row | None:
        """The row to write changes of a live run to; None when the run is unknown or has ended."""
        if not self._live(run_id):
            return None
        return self.new_runs.get(run_id) or self.runs.setdefault(run_id, {})

    def _move(self, run_id: str, status: str) -> Row | None:
        """The same, and its status is `status` now; None when it may not become that."""
        old, session = self._known.get(run_id, ("", None))
        if status not in _MOVES.get(old, ()):
            return None
        row = self.new_runs.get(run_id)
        if row is None:
            row = self.runs.setdefault(run_id, {})
        row["status"] = status
        self._known[run_id] = (status, session)
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
        if isinstance(run_id, str) and run_id not in self._known:
            target = _mapping(run.get("target"))
            row: Row = {name: value for name, value in run.items() if name in _COPIED_FROM_RUN and value is not None}
            row.update(
                status="pending", owner=self._owner, created_at=stamp(run.get("created_at"), event.at), target=dumps(target),
                params=_object(run.get("params")), tags=_object(run.get("tags")), schema_version=run.get("schema_version", 1),
            )  # fmt: skip
            if (kind := target.get("kind")) is not None:
                row["target_kind"] = kind
            if (command := target.get("display")) is not None:
                row["command"] = command
            if (given := run.get("input")) is not None:
                row["input"] = dumps(given)
            self.new_runs[run_id] = row
            self._known[run_id] = ("pending", run.get("session_id"))
        self._log(event, run_id, dumps_fields({"run": run}))

    def _run_started(self, event: ev.RunStarted) -> None:
        if (row := self._move(event.run_id, "running")) is not None:
            row["started_at"], row["attempts"] = event.at, 1
            if event.handle:
                row["handle"] = event.handle
        self._log(event, event.run_id, dumps_fields({"handle": event.handle}))

    def _run_retrying(self, event: ev.RunRetrying) -> None:
        if (row := self._run(event.run_id)) is not None:
            row["attempts"] = event.attempt

    def _usage_reported(self, event: ev.UsageReported) -> None:
        if (row := self._run(event.run_id)) is not None:
            for name in _TOTALS:
                if (value := getattr(event, name)) is not None:
                    row[name] = value

    def _run_finished(self, event: ev.RunFinished) -> None:
        end: Row = {"status": event.status}
        if event.exit_code is not None:
            end["exit_code"] = event.exit_code
        if event.signal is not None:
            end["signal"] = event.signal
        if event.run_s is not None:
            end["run_s"] = event.run_s
        rest = end | ({} if event.attempts is None else {"attempts": event.attempts})
        for stream, kept in ("stdout", event.stdout), ("stderr", event.stderr):
            if kept is not None:  # the text lives in the logs table, once
                rest[stream] = {name: value for name, value in kept.items() if name != "text"} if isinstance(kept, dict) else kept
        text = dumps_fields(rest)[:-1]
        for name, value in ("error", event.error), ("output", event.output), ("usage", event.usage), ("detail", event.detail):
            if value is not None:
                end[name] = part = dumps(value)
                text += f',"{name}":{part}'
        row = None if event.status in _MOVES else self._move(event.run_id, event.status)
        if row is not None:
            self._lay_end(row, event, end)
        self._log(event, event.run_id, text + "}")

    def _lay_end(self, row: Row, event: ev.RunFinished, end: Row) -> None:
        """Lay a run's end over its row; `end`: what of it stands there as it is."""
        self.ended.append(event.run_id)
        row.update(end)
        row["finished_at"] = event.at
        if event.attempts:
            row["attempts"] = event.attempts
        if (kind := _mapping(event.error).get("kind")) is not None:
            row["error_kind"] = kind
        if not event.detail:
            row.pop("detail", None)
        elif (reason := _mapping(event.detail).get("reason")) is not None:
            row["reason"] = reason
        usage = _mapping(event.usage)
        for name, column in _USAGE:
            if (value := usage.get(name)) is not None:
                row[column] = value
        self._output(row, event.run_id, "stdout", event.stdout)
        self._output(row, event.run_id, "stderr", event.stderr)

    def _output(self, row: Row, run_id: str, stream: str, kept: Any) -> None:
        if not isinstance(kept, dict):
            return
        row[f"{stream}_bytes"] = size = kept.get("size") or 0
        if size or kept.get("path"):
            self.outputs.append((run_id, stream, size, kept.get("text"), kept.get("path")))

    def _step_started(self, event: ev.StepStarted) -> None:
        key = run_id, step_id = event.run_id, event.step_id
        at, kind, name, attempt, parent = event.at, event.kind, event.name, event.attempt, event.parent_id
        row = {
            "run_id": run_id, "id": step_id, "kind": kind, "name": name, "attempt": attempt,
            "created_at": at, "started_at": at, "status": "running",
        }  # fmt: skip
        if parent is None:
            text = dumps_fields({"kind": kind, "name": name, "attempt": attempt})
        else:
            row["parent_id"] = parent
            text = dumps_fields({"kind": kind, "name": name, "attempt": attempt, "parent_id": parent})
        if event.input is not None:
            row["input"] = given = dumps(event.input)
            text = f'{text[:-1]},"input":{given}}}'
        known = self._known.get(run_id)
        self.log.append((at, event.type, known and known[1], run_id, step_id, text))
        if known and key not in self.steps:
            self.steps[key] = row

    def _step_finished(self, event: ev.StepFinished) -> None:
        key = run_id, step_id = event.run_id, event.step_id
        status, at = event.status, event.at
        end = _numbers(event)
        text = dumps_fields(end)[:-1]
        end["finished_at"] = at
        if event.error is not None:
            text += _laid(end, "error", event.error)
        if event.usage is not None:
            text += _laid(end, "usage", event.usage)
        if event.tokens is not None:
            text += _laid(end, "tokens", event.tokens)
        if event.output is not None:
            text += _laid(end, "output", event.output)
        known = self._known.get(run_id)
        self.log.append((at, event.type, known and known[1], run_id, step_id, text + "}"))
        if known and status in _STEP_ENDS:
            row = self.steps.get(key)
            if row is None:
                self.step_ends.setdefault(key, end)
            elif row["status"] == "running":
                row.update(end)

    def _step_used(self, event: ev.StepUsed) -> None:
        key, tokens = (event.run_id, event.step_id), _mapping(event.tokens)
        if not self._live(event.run_id):
            return
        used: Row = {
            "tokens": _json(event.tokens), "input_tokens": tokens.get("input"), "output_tokens": tokens.get("output"),
            "cost_usd": event.cost_usd,
        }  # fmt: skip
        row = self.steps.get(key, {"status": "running"})
        over = row["status"] != "running"
        if over:
            row.update({name: value for name, value in used.items() if value is not None})
        used |= {"run_id": event.run_id, "id": event.step_id}
        (self.used_after if over or key in self.step_ends else self.used_before).append(used)

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
            if event.workspace is not None:
                row["workspace"] = dumps(event.workspace)
            for name in ("files_changed", "insertions", "deletions"):
                if (value := getattr(event, name)) is not None:
                    row[name] = value

    def _nothing(self, event: ev.Message) -> None:
        """Only the log tells of it."""

    _TAKES: ClassVar[dict[type[ev.Message], Callable[[Any, Any], None]]] = {
        ev.SessionStarted: _recorded(_session_started),
        ev.SessionEnded: _recorded(_session_ended),
        ev.RunQueued: _run_queued,
        ev.RunStarted: _run_started,
        ev.RunRetrying: _recorded(_run_retrying),
        ev.StepStarted: _step_started,
        ev.StepFinished: _step_finished,
        ev.StepUsed: _recorded(_step_used),
        ev.ArtifactSaved: _recorded(_artifact_saved),
        ev.UsageReported: _recorded(_usage_reported),
        ev.BudgetCrossed: _recorded(_nothing),
        ev.WorkspaceChanged: _recorded(_workspace_changed),
        ev.RunFinished: _run_finished,
    }
