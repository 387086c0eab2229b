r"""The file of an exported run: one JSON object a line, read with suspicion (only the standard library is imported).

    {"agentnb_export": 1, "agentnb": "0.1.0", "run": {"id": ..., "name": ..., "command": ...}, "circumstances": {...}}
    {"t": 0.004, "type": "run_started"}
    {"t": 0.004, "type": "step_started", "step": 1, "kind": "attempt", "name": "attempt 1", "attempt": 1}
    {"t": 0.21, "type": "output", "stream": "stdout", "text": "hello\n"}
    {"t": 0.22, "type": "step_finished", "step": 1, "status": "completed", "run_s": 0.216}
    {"t": 0.22, "type": "run_finished", "status": "completed", "exit_code": 0, "stdout": {"size": 6}}

`t` is in seconds from the launch. The types are those of events.py, and two more: ``output`` (`text`, or `base64` for bytes that are
no UTF-8) and ``artifact_data`` (`base64`, a piece of the artifact whose ``artifact_saved`` follows). Types and fields that are not
known are passed over. The last line is ``run_finished``: without it the file was cut off.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from agentnb.errors import ConfigError
from agentnb.history.recordings.recorded_values import CHECKS, PLAYED, WORKSPACE, is_count, is_mapping, is_shallow, is_text, is_texts
from agentnb.states import RunStatus

VERSION = 1
MARK = "agentnb_export"
#: Longest line that is read, in bytes: no line that agentnb writes of an output or artifact comes near.
MAX_LINE = 16 * 1024 * 1024
#: A batch has about so many bytes of lines, and at most so many entries.
BATCH_BYTES, BATCH_ENTRIES = 256 * 1024, 1000
MAX_T = 1e9
#: At most so many steps may be open at once.
MAX_OPEN = 10_000

Json = dict[str, Any]

_ADVICE = "give the path of a file that run.export() or `agentnb export` made"

_STREAMS = ("stdout", "stderr")
#: A run that never started can only end like this.
_ENDS_OF_PENDING = frozenset({RunStatus.CANCELLED, RunStatus.FAILED})


class Recording:
    """An exported run, read from its file a batch at a time. Raises ConfigError, with file and line, for what is not right with it.

    `head`: its first line. Entries are dicts with `t`, `type` and the fields of the event that is named so, but `step` and `parent`
    (numbers) for ids; those of ``output`` and ``artifact_data`` have `data` (bytes).
    """

    def __init__(self, path: Path) -> None:
        """Open the file and read its head. Raises ConfigError, also for what is no plain file."""
        self.path = path
        self._line = 0
        self._over = self._started = False
        self._open: set[int] = set()
        self._pieces: tuple[Any, int] | None = None
        self._file = _plain_file(path)
        try:
            self.head = self._head()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def batch(self) -> list[Json]:
        """The next entries; empty after the last one."""
        found = list[Json]()
        size = 0
        while not self._over and size < BATCH_BYTES and len(found) < BATCH_ENTRIES:
            data = self._next()
            if data is None:
                raise self._bad(
                    "the recording is cut off: its last line is not `run_finished`; export the run again, or copy the whole file"
                )
            size += self._read
            if (entry := self._entry(data)) is not None:
                found.append(entry)
        return found

    def _bad(self, why: str) -> ConfigError:
        return ConfigError(f"{self.path}:{max(self._line, 1)}: {why}")

    def _next(self) -> Json | None:
        """The next line that is not empty; None at the file's end."""
        while True:
            try:
                line = self._file.readline(MAX_LINE + 1)
            except OSError as bad:
                raise self._bad(f"it cannot be read: {bad.strerror or bad}") from None
            self._read = len(line)
            if not line:
                return None
            self._line += 1
            if len(line) > MAX_LINE:
                raise self._bad(f"the line is longer than {MAX_LINE >> 20} MiB; this is no recording that agentnb made")
            if line.strip():
                return self._parsed(line)

    def _parsed(self, line: bytes) -> Json:
        try:
            data = json.loads(line, parse_constant=_refuse)
        except (ValueError, RecursionError) as bad:
            cut = "" if line.endswith(b"\n") else "; the file was cut off here: export the run again, or copy the whole file"
            raise self._bad(f"it is no JSON ({type(bad).__name__}: {str(bad)[:200]}){cut}") from None
        if not isinstance(data, dict):
            raise self._bad("it is no JSON object; each line of a recording is one")
        return data

    def _head(self) -> Json:
        try:
            head = self._next()
        except ConfigError as bad:
            raise ConfigError(f"{bad}; {_ADVICE}") from None
        if head is None or MARK not in head:
            raise self._bad(f"this is no recording of agentnb: its first line has no {MARK!r}; {_ADVICE}")
        version, run = head[MARK], head.get("run")
        if not is_count(version) or version < 1:
            raise self._bad(f"{MARK} is {version!r}, which is no version; {_ADVICE}")
        if version > VERSION:
            raise self._bad(f"a newer agentnb wrote this recording (version {version}, this one reads {VERSION}); upgrade agentnb")
        if not isinstance(run, dict) or not is_text(run.get("id")) or not run["id"]:
            raise self._bad(f"the head does not say which run was recorded (`run.id`); {_ADVICE}")
        for name, right in (("name", is_text), ("command", is_text), ("params", is_mapping), ("tags", is_texts), ("input", is_shallow)):
            if run.get(name) is not None and not right(run[name]):
                raise self._bad(f"run.{name} of the head makes no sense: {_shown(run[name])}")
        if not is_mapping(head.get("circumstances", {})):
            raise self._bad("`circumstances` of the head are no object")
        return head

    def _entry(self, data: Json) -> Json | None:
        """The entry that a line stands for; None for a type that is not known."""
        kind, t = data.get("type"), data.get("t")
        if not is_text(kind):
            raise self._bad("the line has no `type`")
        if not isinstance(t, int | float) or isinstance(t, bool) or not 0 <= t <= MAX_T:
            raise self._bad(f"`t` must be the seconds since the launch, 0 to {MAX_T:g}, not {_shown(t)}")
        if kind == "output":
            return self._output(data)
        if kind == "artifact_data":
            return self._piece(data)
        if kind not in PLAYED:
            return None
        entry = {"t": t, "type": kind} | self._fields(str(kind), data)
        follow = getattr(self, f"_on_{kind}", None)
        if follow is not None:
            follow(data, entry)
        return entry

    def _fields(self, kind: str, data: Json) -> Json:
        found = Json()
        for name, right, needed in CHECKS[kind]:
            value = data.get(name)
            if value is None:
                if needed:
                    raise self._bad(f"{kind}: `{name}` is missing")
            elif right(value):
                found[name] = value
            else:
                raise self._bad(f"{kind}: `{name}` makes no sense: {_shown(value)}")
        return found

    def _output(self, data: Json) -> Json:
        if data.get("stream") not in _STREAMS:
            raise self._bad(f"output: `stream` must be stdout or stderr, not {_shown(data.get('stream'))}")
        text = data.get("text")
        content = text.encode("utf-8", "replace") if isinstance(text, str) else self._decoded(data)
        return {"t": data["t"], "type": "output", "stream": data["stream"], "data": content}

    def _piece(self, data: Json) -> Json:
        content = self._decoded(data)
        digest, size = self._pieces or (hashlib.sha256(), 0)
        digest.update(content)
        self._pieces = digest, size + len(content)
        return {"t": data["t"], "type": "artifact_data", "data": content}

    def _decoded(self, data: Json) -> bytes:
        try:
            return base64.b64decode(data.get("base64"), validate=True)  # type: ignore[arg-type]
        except (TypeError, ValueError) as bad:
            raise self._bad(f"{data['type']}: `base64` cannot be decoded: {str(bad)[:100]}") from None

    # --- what lines must be to each other

    def _step(self, data: Json, name: str) -> int | None:
        number = data.get(name)
        if number is not None and not is_count(number):
            raise self._bad(f"`{name}` must be the number of a step, not {_shown(number)}")
        return number

    def _on_run_started(self, _: Json, __: Json) -> None:
        self._started = True

    def _on_step_started(self, data: Json, entry: Json) -> None:
        number = self._step(data, "step")
        if number is None or number in self._open:
            raise self._bad(f"step_started: `step` must be a number that no open step has, not {_shown(number)}")
        if len(self._open) >= MAX_OPEN:
            raise self._bad(f"more than {MAX_OPEN} steps are open at once; this is no recording that agentnb made")
        self._open.add(number)
        entry |= {"step": number, "parent": self._step(data, "parent")}

    def _on_step_finished(self, data: Json, entry: Json) -> None:
        number = self._step(data, "step")
        if number not in self._open:
            raise self._bad(f"step_finished: step {_shown(number)} is not open")
        self._open.discard(number)
        entry |= {"step": number, "kept": data.get("kept") is True}

    def _on_step_used(self, data: Json, entry: Json) -> None:
        number = self._step(data, "step")
        if number is None or number in self._open:
            raise self._bad(f"step_used: `step` must be the number of a step that has ended, not {_shown(number)}")
        entry["step"] = number

    def _on_workspace_changed(self, _: Json, entry: Json) -> None:
        space = entry["workspace"]
        entry["workspace"] = {name: space[name] for name in WORKSPACE if isinstance(space.get(name), str | int)}

    def _on_artifact_saved(self, data: Json, entry: Json) -> None:
        pieces, self._pieces = self._pieces, None
        entry |= {"step": self._step(data, "step"), "inline": data.get("inline") is True}
        if entry["inline"]:
            digest, size = pieces or (hashlib.sha256(), 0)
            artifact = entry["artifact"]
            if (f"sha256:{digest.hexdigest()}", size) != (artifact["checksum"], artifact["size"]):
                raise self._bad(
                    f"the content of artifact {_shown(artifact['name'])} is not what was recorded: its checksum or size differs"
                )

    def _on_run_finished(self, _: Json, entry: Json) -> None:
        self._over = True
        if not self._started and entry["status"] not in _ENDS_OF_PENDING:
            raise self._bad(f"run_finished: a run that reads {entry['status']} had to start, and there is no `run_started`")


def _plain_file(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for, for ever
    except (OSError, ValueError) as bad:
        why = getattr(bad, "strerror", None) or str(bad)
        raise ConfigError(f"replay: the recording {str(path)!r} cannot be read: {why}; {_ADVICE}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"replay: {str(path)!r} is no plain file; {_ADVICE}")
    return os.fdopen(descriptor, "rb")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
