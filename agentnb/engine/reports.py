"""Reports: what an agent says about itself while it works, one JSON object each.

A child process writes them as lines to the descriptor named by AGENTNB_CHANNEL_FD; a coroutine in the client's process sends
them as requests.Report. A report that is not understood is kept as a warning, never fatal.

    {"t": "log", "text": "..."}                                  goes to the run's stdout, with a newline
    {"t": "output", "stream": "stdout", "text": "..."}           goes to that stream as it is
    {"t": "step", "id": "s1", "name": "...", "kind": "turn", "status": "running", "parent": null, "input": ...}
    {"t": "step", "id": "s1", "status": "completed", "output": ..., "error": "...", "tokens": {"input": 1}, "cost_usd": 0.1}
        "error_kind", a states.ErrorKind, says what sort of error it was (default execution_failed); "exit_code" a program's
    {"t": "used", "id": "s1", "tokens": {"output": 2}, "cost_usd": 0.1}         of a step that has ended: what was not known then; it is
                                                                 a part of the totals of the attempt, and adds nothing to them
    {"t": "artifact", "name": "...", "path": "...", "content_type": "..."}
        with "data": base64 instead of "path"; secrets are masked in it, unless "file": true says that it is a file's content
    {"t": "usage", "input_tokens": 1, "output_tokens": 2, "cost_usd": 0.1, "tokens_per_s": 9.0}       totals of the attempt so far
        also "cache_read_tokens", "cache_write_tokens", "turns" (numbers), "model" and "agent_session" (text)
    {"t": "launch", "run": {...}, "work": {...}}                 launch a child run (of agents whose channel goes both ways; children.py)
    {"t": "cancel", "run_id": "...", "reason": "..."}            cancel a child run; one that has ended stays as it is
    {"t": "warning", "text": "..."}                              goes to the result's warnings
    {"t": "result", "output": ...}                the run's output; a process has to send one, or an error, and then to exit well
    {"t": "error", "kind": "execution_failed", "message": "...", "details": {"traceback": "..."}}     the run failed
    {"t": "done"}                                                nothing follows: a coroutine has ended; a process has 30 s (or its
                                                                 work's linger_s) to exit, is ended then, and keeps its result
    {"t": "cancelled"}                                           hosted runs only: it ended because it was told to
"""

from __future__ import annotations

import json
from typing import Any

#: A line longer than this is no report (1 GiB of output in one line must not cost memory).
MAX_LINE = 8 * 1024 * 1024
#: Reports and structured output that are nested deeper than this are refused.
MAX_DEPTH = 200


def too_deep(data: Any) -> bool:
    """Whether JSON data is nested more than MAX_DEPTH deep, so that writing it again might not work everywhere."""
    level = [data]
    for _ in range(MAX_DEPTH):
        inner = [value.values() if isinstance(value, dict) else value for value in level if isinstance(value, dict | list)]
        level = [item for values in inner for item in values]
        if not level:
            return False
    return True


class ReportLines:
    """Bytes in, reports out: splits a stream into lines and lines into JSON objects.

    `bad` counts what was no JSON object of a known kind, or was too long; `last_bad` shows the start of the latest.
    """

    def __init__(self) -> None:
        """Start with nothing read."""
        self._rest = bytearray()
        self._skipping = False
        self.bad = 0
        self.last_bad = ""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take the next bytes; return the reports that are complete now."""
        self._rest += data
        if b"\n" not in data:
            if self._skipping:
                self._rest.clear()
            elif len(self._rest) > MAX_LINE:
                self._note(bytes(self._rest[:200]))
                self._rest.clear()
                self._skipping = True
            return []
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        if self._skipping:
            del lines[0]
            self._skipping = False
        return [report for line in lines if line.strip() and (report := self._parse(bytes(line))) is not None]

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            report = json.loads(line)
        except (ValueError, RecursionError):
            report = None
        if not isinstance(report, dict) or not isinstance(report.get("t"), str) or too_deep(report):
            self._note(line)
            return None
        return report

    def _note(self, line: bytes) -> None:
        self.bad += 1
        self.last_bad = line[:200].decode(errors="replace")
