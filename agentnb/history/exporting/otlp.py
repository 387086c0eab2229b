"""Ended runs and their steps as OpenTelemetry spans in a file of OTLP/JSON lines, as the collector's otlpjsonfile receiver reads it.

Each line is one ExportTraceServiceRequest, and so also what an OTLP endpoint takes by HTTP POST to ``/v1/traces`` as application/json.
No OpenTelemetry package is needed. A run is a span with the steps below it; ids are derived from those of the history, so that exporting
twice gives the same spans, and the spans that a run's processes recorded by TRACEPARENT are below the run's.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentnb._version import __version__
from agentnb.history.exporting.selection import pick_runs, records, snapshot
from agentnb.history.exporting.spans import attributes_of, span_of_run, span_of_step
from agentnb.history.frames.filters import Filters
from agentnb.history.whole_file import whole_file

#: The collector's file receiver reads lines of at most 1 MiB, unless told otherwise.
MAX_LINE = 1_000_000

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_RUNS = """SELECT r.*, s.name AS session, parent.trace_id AS parent_trace FROM picked p JOIN runs r ON r.id = p.id
    LEFT JOIN sessions s ON s.id = r.session_id LEFT JOIN runs parent ON parent.id = r.parent_run_id ORDER BY p.rowid"""
_STEPS = "SELECT * FROM steps WHERE run_id = ? ORDER BY rowid"
_RETRIES = "SELECT at, json_extract(data, '$.attempt') FROM events WHERE run_id = ? AND type = 'run_retrying' ORDER BY seq"


def write_otlp(root: Path, target: Path, given: Filters, *, content: bool, service: str, overwrite: bool) -> int:
    """Write the spans of the runs that the filters choose, and that have ended, to the file `target`; returns the number of runs.

    Raises ConfigError for what makes no sense, StoreError when the store cannot be read or the file cannot be written.
    """
    with snapshot(root) as db:
        number = pick_runs(db, given, ended=True)
        with whole_file(target, overwrite=overwrite, what="to_otlp") as file:
            file.writelines(_lines(db, _frame_of(service), content=content))
    return number


def _frame_of(service: str) -> tuple[str, str]:
    """What stands around the spans of a line."""
    resource = attributes_of({"service.name": service, "service.version": __version__})
    around = {
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "agentnb", "version": __version__}, "spans": []}]}]
    }
    before, _, after = _encode(around).rpartition("[]")
    return f"{before}[", f"]{after}\n"


def _lines(db: sqlite3.Connection, frame: tuple[str, str], *, content: bool) -> Iterator[bytes]:
    before, after = frame
    for run in records(db, _RUNS):
        for part in _parts(map(_encode, _spans(db, run, content=content))):
            yield f"{before}{','.join(part)}{after}".encode()


def _spans(db: sqlite3.Connection, run: dict[str, Any], *, content: bool) -> Iterator[dict[str, Any]]:
    retries = db.execute(_RETRIES, (run["id"],)).fetchall() if (run["attempts"] or 0) > 1 else ()
    yield span_of_run(run, retries, content=content)
    for step in records(db, _STEPS, (run["id"],)):
        yield span_of_step(run, step, content=content)


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists that fit a line each."""
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if part and size + length > MAX_LINE - 1000:
            yield part
            part, size = [], 0
        part.append(text)
        size += length + 1
    if part:
        yield part
