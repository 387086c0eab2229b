"""The columns of every DataFrame, declared once: name, where it comes from, dtype, unit and meaning (no pandas here)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from agentnb.events import RECORDED
from agentnb.states import ErrorKind, RunStatus, RuntimeKind, SessionStatus, StepKind, StepStatus, TargetKind

#: What the frames say of a run whose supervisor was killed.
_LAST_KNOWN = "if its supervisor died, the last thing known of it"
_LOST = "NA if its supervisor died meanwhile: how long is not known"
_TOLD = "of a replay or a reused run, as recorded"
STRING, STAMP, COUNT, SECONDS, NUMBER = "string", "datetime64[us, UTC]", "Int64", "float64", "Float64"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `sql`: its expression over the frame's source (``:now`` is the time now, in microseconds)."""

    name: str
    sql: str
    dtype: str
    meaning: str
    unit: str = ""
    categories: tuple[str, ...] = ()
    full: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """Where columns of another table's row come from: `key` is the frame's column that holds that row's id."""

    table: str
    alias: str
    key: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One DataFrame: its source, its columns, the column that since/until look at, and what filters mean here.

    `link`: columns whose `sql` begins with its alias may be looked up by the key, row by row, where a join would cost more.
    """

    name: str
    source: str
    columns: tuple[Column, ...]
    at: str
    order: tuple[str, ...]
    run: str | None
    group: str | None = None
    maps: dict[str, str] = field(default_factory=dict)
    link: Link | None = None

    @property
    def table(self) -> str:
        """The table that has its rows."""
        return self.source.split()[0]

    @property
    def alias(self) -> str:
        """What that table is called in its columns' SQL."""
        return self.source.split()[1]

    def linked(self, column: Column) -> bool:
        """Whether the column is one of the linked row's."""
        return self.link is not None and column.sql.startswith(f"{self.link.alias}.")

    def column(self, name: str) -> Column | None:
        """The declared column of that name."""
        return next((column for column in self.columns if column.name == name), None)


def _category(name: str, sql: str, values: Iterable[str], meaning: str) -> Column:
    texts = tuple(str(value.value) if isinstance(value, Enum) else value for value in values)
    return Column(name, sql, "category", meaning, categories=texts)


def _since(start: str, end: str) -> str:
    return f"CASE WHEN {start} IS NOT NULL THEN max(0, ({end}) - {start}) / 1e6 END"


def _end(t: str) -> str:
    """When a run or step ended, or now; NULL for one that was found dead with its supervisor, whose last event is all that is known."""
    dead = "IN ('interrupted', 'cancelled')" if t == "r" else "= 'interrupted'"
    detail = "r.detail" if t == "r" else f"(SELECT detail FROM runs WHERE id = {t}.run_id)"  # noqa: S608 - looked up only where it is needed
    lost = f"{t}.status {dead} AND json_extract({detail}, '$.discovered_at') IS NOT NULL"
    return f"CASE WHEN {lost} THEN NULL ELSE coalesce({t}.finished_at, :now) END"


_COST_OF_RUN = "cost as the agent reported it; that of a replay or a reused run is not spent again; of a swarm the sum of its workers' runs"
_COST_OF_STEP = (
    "cost: of an attempt all of it, as the agent reported it; of a turn its share, by its tokens; of a tool what its sub-agent used, 0 for "
    "other tools; of a worker that of its run; what no step is known to have used is the attempt's only"
)


def _outcome(t: str, cost: str) -> tuple[Column, ...]:
    """What runs and steps both have."""
    return (
        Column("exit_code", f"{t}.exit_code", COUNT, "the process's exit code"),
        _category("error_kind", f"{t}.error_kind", ErrorKind, "why it did not succeed"),
        Column("error", f"json_extract({t}.error, '$.message')", STRING, "the error's message"),
        Column("peak_memory_bytes", f"{t}.peak_memory_bytes", COUNT, "largest memory in use", "bytes"),
        Column("input_tokens", f"{t}.input_tokens", COUNT, "tokens read by the model"),
        Column("output_tokens", f"{t}.output_tokens", COUNT, "tokens written by the model"),
        Column("cost_usd", f"{t}.cost_usd", NUMBER, cost, "USD"),
        Column("input", f"{t}.input", STRING, "its input, as JSON text"),
        Column("output", f"{t}.output", STRING, "its structured output, as JSON text"),
    )


RUNS = Frame(
    "runs",
    "runs r LEFT JOIN sessions s ON s.id = r.session_id",
    (
        Column("id", "r.id", STRING, "the run's id; later runs sort later"),
        Column("name", "r.name", STRING, "the run's name"),
        _category("status", "r.status", RunStatus, "where it stands"),
        _category("kind", "r.target_kind", TargetKind, "what was launched"),
        Column("command", "r.command", STRING, "the command, as a line for people"),
        Column("session", "s.name", STRING, "its session's name"),
        Column("session_id", "r.session_id", STRING, "its session's id"),
        Column("group_id", "r.group_id", STRING, "the group (map) it belongs to"),
        _category("runtime", "r.runtime_kind", RuntimeKind, "where its processes live"),
        Column("created_at", "r.created_at", STAMP, "when it was launched"),
        Column("started_at", "r.started_at", STAMP, "when its first attempt started"),
        Column("finished_at", "r.finished_at", STAMP, f"when it ended; {_LAST_KNOWN}"),
        Column("queued_s", _since("r.created_at", f"coalesce(r.started_at, {_end('r')})"), SECONDS, f"waited for its start; {_LOST}", "s"),
        Column("run_s", f"coalesce(r.run_s, {_since('r.started_at', _end('r'))})", SECONDS, f"ran; {_TOLD}; {_LOST}", "s"),
        Column("total_s", _since("r.created_at", _end("r")), SECONDS, f"from launch to end; {_LOST}", "s"),
        Column("cpu_s", "r.cpu_s", SECONDS, "processor time of the whole process tree", "s"),
        Column("timeout_s", "r.timeout_s", SECONDS, "its timeout", "s"),
        Column("attempts", "r.attempts", COUNT, "attempts so far"),
        Column("signal", "r.signal", COUNT, "the signal that ended the process"),
        Column("reason", "r.reason", STRING, "how the command failed"),
        *_outcome("r", _COST_OF_RUN),
        Column("tokens_per_s", "r.tokens_per_s", NUMBER, "tokens written per second", "1/s"),
        Column("cache_read_tokens", "r.cache_read_tokens", COUNT, "tokens read from the model's cache; not among input_tokens"),
        Column("cache_write_tokens", "r.cache_write_tokens", COUNT, "tokens written to the model's cache; not among input_tokens"),
        Column("turns", "r.turns", COUNT, "answers of the model"),
        Column("model", "r.model", STRING, "the model that answered, as the agent named it"),
        Column("agent_session", "r.agent_session", STRING, "the id under which its agent keeps the conversation"),
        Column("disk_read_bytes", "r.disk_read_bytes", COUNT, "read from disks", "bytes"),
        Column("disk_write_bytes", "r.disk_write_bytes", COUNT, "written to disks", "bytes"),
        Column("processes", "r.processes", COUNT, "processes it started"),
        Column("stdout_bytes", "r.stdout_bytes", COUNT, "size of its stdout", "bytes"),
        Column("stderr_bytes", "r.stderr_bytes", COUNT, "size of its stderr", "bytes"),
        Column("parent_run_id", "r.parent_run_id", STRING, "the run that launched it"),
        Column("files_changed", "r.files_changed", COUNT, "files that differ from its workspace's start; NA without a workspace"),
        Column("insertions", "r.insertions", COUNT, "lines inserted in its workspace; NA where no diff could be made"),
        Column("deletions", "r.deletions", COUNT, "lines deleted in its workspace; NA where no diff could be made"),
        Column("branch", "json_extract(r.workspace, '$.branch')", STRING, "the git branch of its worktree; NA when that has no commits"),
        Column(
            "workspace",
            "CASE WHEN json_extract(r.workspace, '$.kept') THEN json_extract(r.workspace, '$.path') END",
            STRING,
            "the folder of its workspace; NA when that was removed",
        ),
        Column("replay_of", "r.replay_of", STRING, "the id of the run whose recording it replays"),
        Column("reused_from", "r.reused_from", STRING, "the id of the completed run that was returned instead of running it again"),
        Column("resumed_from", "r.resumed_from", STRING, "the id of the run that was cut off, and that it was launched again for"),
        Column("cache_key", "r.cache_key", STRING, "equal for runs of the same work; NA of runs launched without reuse=True"),
        Column("trace_id", "r.trace_id", STRING, "its W3C trace id, which its processes find in TRACEPARENT"),
        Column("stdout", "r.id", STRING, "all of its stdout", full=True),
        Column("stderr", "r.id", STRING, "all of its stderr", full=True),
    ),
    at="created_at",
    order=("created_at", "id"),
    run="id",
    group="group_id",
    maps={"param": "r.params", "tag": "r.tags"},
    link=Link("sessions", "s", "session_id"),
)

STEPS = Frame(
    "steps",
    "steps t LEFT JOIN runs r ON r.id = t.run_id",
    (
        Column("id", "t.id", STRING, "the step's id"),
        Column("run_id", "t.run_id", STRING, "its run's id"),
        Column("run", "r.name", STRING, "its run's name"),
        Column("session_id", "r.session_id", STRING, "its session's id"),
        Column("group_id", "r.group_id", STRING, "the group its run belongs to"),
        Column("parent_id", "t.parent_id", STRING, "the step it is part of"),
        _category("kind", "t.kind", StepKind, "what it is"),
        Column("name", "t.name", STRING, "the step's name"),
        _category("status", "t.status", StepStatus, "where it stands"),
        Column("attempt", "t.attempt", COUNT, "the attempt it belongs to, from 1"),
        Column("created_at", "t.created_at", STAMP, "when it was made known"),
        Column("started_at", "t.started_at", STAMP, "when it started"),
        Column("finished_at", "t.finished_at", STAMP, f"when it ended; {_LAST_KNOWN}"),
        Column("run_s", f"coalesce(t.run_s, {_since('t.started_at', _end('t'))})", SECONDS, f"ran; {_TOLD}; {_LOST}", "s"),
        Column("cpu_s", "t.cpu_s", SECONDS, "processor time of its process tree", "s"),
        *_outcome("t", _COST_OF_STEP),
    ),
    at="created_at",
    order=("created_at", "run_id", "seq"),
    run="run_id",
    group="group_id",
    link=Link("runs", "r", "run_id"),
)

#: Nearly all are kept here, and their JSON begins like this: to parse it once less saves a tenth.
_LOCATION_KIND = """CASE substr(a.location, 1, 16) WHEN '{"type":"local",' THEN 'local' ELSE json_extract(a.location, '$.type') END"""
ARTIFACTS = Frame(
    "artifacts",
    "artifacts a LEFT JOIN runs r ON r.id = a.source_run",
    (
        Column("id", "a.id", STRING, "the artifact's id"),
        Column("name", "a.name", STRING, "the artifact's name"),
        Column("run_id", "a.source_run", STRING, "the run it came from"),
        Column("run", "r.name", STRING, "that run's name"),
        Column("step_id", "a.source_step", STRING, "the step it came from"),
        Column("session_id", "r.session_id", STRING, "its session's id"),
        Column("group_id", "r.group_id", STRING, "the group its run belongs to"),
        Column("content_type", "a.content_type", STRING, "its MIME type"),
        Column("size", "a.size", COUNT, "its size", "bytes"),
        Column("checksum", "a.checksum", STRING, "its SHA-256, verified whenever it is read"),
        _category("location_kind", _LOCATION_KIND, ("local", "http", "cloud", "inline"), "how it is kept"),
        Column(
            "location",
            "coalesce(json_extract(a.location, '$.path'), json_extract(a.location, '$.url'), json_extract(a.location, '$.uri'))",
            STRING,
            "its path (below the store unless absolute) or address",
        ),
        Column("created_at", "a.created_at", STAMP, "when it was kept"),
        Column(
            "content",
            "coalesce(a.checksum, '') || ' ' || a.location",
            "object",
            "its bytes, verified; None for what is not on this machine",
            full=True,
        ),
    ),
    at="created_at",
    order=("created_at", "seq"),
    run="run_id",
    group="group_id",
    link=Link("runs", "r", "run_id"),
)

EVENTS = Frame(
    "events",
    "events e LEFT JOIN runs r ON r.id = e.run_id",
    (
        Column("seq", "e.seq", COUNT, "its number; later events have larger ones"),
        Column("at", "e.at", STAMP, "when it happened"),
        _category("type", "e.type", [cls.type for cls in RECORDED], "what happened"),
        Column("session_id", "e.session_id", STRING, "the session's id"),
        Column("group_id", "r.group_id", STRING, "the group the run belongs to"),
        Column("run_id", "e.run_id", STRING, "the run's id"),
        Column("step_id", "e.step_id", STRING, "the step's id"),
        Column("data", "e.data", "object", "what the event says, as a dict", full=True),
    ),
    at="at",
    order=("seq",),
    run="run_id",
    group="group_id",
    link=Link("runs", "r", "run_id"),
)


def _count(condition: str) -> str:
    """Runs of the session that `condition` is true of; a ``+`` keeps SQLite from looking through all runs of a status for it."""
    return f"(SELECT count(*) FROM runs r WHERE r.session_id = s.id AND {condition})"  # noqa: S608 - our own conditions


SESSIONS = Frame(
    "sessions",
    "sessions s",
    (
        Column("id", "s.id", STRING, "the session's id"),
        Column("name", "s.name", STRING, "the session's name"),
        _category("status", "s.status", SessionStatus, "where it stands"),
        Column("created_at", "s.created_at", STAMP, "when it began"),
        Column("ended_at", "s.ended_at", STAMP, "when it ended"),
        Column("total_s", _since("s.created_at", "coalesce(s.ended_at, :now)"), SECONDS, "from beginning to end", "s"),
        Column("n_runs", _count("1"), COUNT, "runs in it"),
        Column("live", _count("+r.status IN ('pending', 'running')"), COUNT, "runs that are not finished"),
        Column("completed", _count("+r.status = 'completed'"), COUNT, "runs that completed"),
        Column("failed", _count("+r.status IN ('failed', 'timeout')"), COUNT, "runs that failed or timed out"),
        Column("cancelled", _count("+r.status IN ('cancelled', 'interrupted')"), COUNT, "runs that were cancelled or cut off"),
        Column(
            "cost_usd",
            "(SELECT sum(cost_usd) FROM runs r WHERE r.session_id = s.id AND r.replay_of IS NULL AND r.reused_from IS NULL"
            " AND r.target_kind IS NOT 'swarm')",
            NUMBER,
            "cost of its runs, replays and reused runs left out; swarms, too, whose workers are runs of their own",
            "USD",
        ),
    ),
    at="created_at",
    order=("created_at", "id"),
    run=None,
    maps={"tag": "s.tags"},
)


def meaning(frame: Frame, name: str) -> dict[str, str]:
    """What a column of the frame, ``param.x`` and ``tag.x`` among them, means, and its unit."""
    column = frame.column(name)
    if column is not None:
        return {"meaning": column.meaning, "unit": column.unit}
    prefix, _, key = name.partition(".")
    return {"meaning": f"value of {'parameter' if prefix == 'param' else prefix} {key}", "unit": ""}


FRAMES = (RUNS, STEPS, ARTIFACTS, EVENTS, SESSIONS)
_MAPS = {"param": ("`param.x`", "value of parameter x; dtype by its values"), "tag": ("`tag.x`", "value of tag x")}


def column_docs() -> str:
    """All columns of all frames as Markdown tables."""
    parts = []
    for frame in FRAMES:
        rows = [(f"`{c.name}`", c.dtype, c.unit, c.meaning + (" (only with `full=True`)" if c.full else "")) for c in frame.columns]
        rows += [(_MAPS[name][0], "string" if name == "tag" else "by value", "", _MAPS[name][1]) for name in frame.maps]
        lines = [f"### `{frame.name}_df`", "", "| column | dtype | unit | meaning |", "|---|---|---|---|"]
        parts.append("\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]))
    return "\n\n".join(parts) + "\n"


_HEAD = """# The columns of the DataFrames

Made from the declarations in `agentnb/history/frames/columns.py`, which a test holds equal to this page. Dtypes are the same on every read,
by every way, also when there are no rows; what is missing is `NA` (`NaT`, or `NaN` in durations). Stamps are UTC. `df.attrs["agentnb"]` has
meanings and units of the columns that a DataFrame has, and parquet files keep it; `nb.typed` gives what was read from CSV its dtypes again.

"""


def page() -> str:
    """The page that documents all columns."""
    return _HEAD + column_docs()
