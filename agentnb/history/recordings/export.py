"""Writing a finished run to one file, which recording.py reads (the format is described there)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from agentnb._version import __version__
from agentnb.errors import ConfigError, StoreError
from agentnb.history.artifacts import Blobs
from agentnb.history.jsontext import dumps
from agentnb.history.reader import check_ended, reading
from agentnb.history.recordings.output_pieces import PIECE_BYTES, OutputPieces, opened, whole
from agentnb.history.recordings.recorded_values import CHECKS, PLAYED, WORKSPACE
from agentnb.history.recordings.recording import MARK, MAX_LINE, VERSION
from agentnb.history.whole_file import check_target, whole_file

#: Larger artifacts are only named.
MAX_ARTIFACT_BYTES = 10 * 1024 * 1024
_BLOB_PIECE_BYTES = 192 * 1024
#: Of the circumstances of a run, those that say nothing of the machine and its users.
_TOLD = ("git_commit", "git_dirty", "python_version", "agentnb_version")
_DETAIL = ("reason", "validation", "warnings", "output_source", "discovered_at")
_STREAMS = ("stdout", "stderr")

Json = dict[str, Any]
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def export_run(
    root: Path,
    run_id: str,
    target: Path,
    *,
    artifacts: bool = True,
    max_artifact_bytes: int = MAX_ARTIFACT_BYTES,
    params: bool = True,
    overwrite: bool = False,
) -> list[str]:
    """Write the run to the file `target`, whole or not at all; returns what of it had to be left out, as texts for people.

    Missing folders are made. Raises ConfigError for a run that has not ended and for a file that is there already (unless
    `overwrite`), StoreError when the history cannot be read or the file cannot be written.
    """
    run = check_ended(root, run_id)
    check_target(target, overwrite=overwrite)
    bound = max_artifact_bytes if artifacts else -1
    writer = _Writer(root, run, bound, params=params)
    with whole_file(target, overwrite=overwrite) as file:
        file.writelines(writer.lines())
    return writer.left_out


def _line(data: Json) -> bytes:
    try:
        return _encode(data).encode() + b"\n"
    except ValueError:  # half a surrogate pair has no bytes, but an escape; an infinity reads 1e999
        return dumps(data).encode() + b"\n"


class _Writer:
    """The lines of one run's file."""

    def __init__(self, root: Path, run: Json, max_artifact_bytes: int, *, params: bool) -> None:
        self._root = root
        self._run = run
        self._max = max_artifact_bytes
        self._params = params
        self._blobs = Blobs(root / "blobs")
        self._steps: dict[str, tuple[int, str, int]] = {}
        self._from = self._last = int(run["created_at"])
        self._detail: Json = run["detail"] or {}
        self._lost = self._detail.get("discovered_at") is not None
        self.left_out: list[str] = []

    def lines(self) -> Iterator[bytes]:
        """The head, then each entry."""
        head = _line(self._head())
        if len(head) > MAX_LINE:
            raise ConfigError(
                f"export: the parameters and input of run {self._run['name']!r} are too large for a recording; try params=False"
            )
        yield head
        with reading(self._root) as db:
            (attempts,) = db.execute("SELECT count(*) FROM steps WHERE run_id = ? AND kind = 'attempt'", (self._run["id"],)).fetchone()
            events = db.execute("SELECT at, type, step_id, data FROM events WHERE run_id = ? ORDER BY seq", (self._run["id"],))
            yield from map(self._bounded, self._entries(events, attempts))

    def _bounded(self, entry: Json) -> bytes:
        """The line of an entry; of one that is too long, without what makes it so."""
        entry = self._usable(entry)
        line = _line(entry)
        if len(line) > MAX_LINE:
            self.left_out.append(f"{entry['type']}: its {len(line)} bytes of input and output are more than a line may have ({MAX_LINE})")
            line = _line({name: value for name, value in entry.items() if name not in {"input", "output"}})
        return line

    def _usable(self, entry: Json) -> Json:
        """The fields that make sense: agents say of themselves what they like."""
        checks = CHECKS.get(entry["type"], [])
        bad = {name for name, right, _ in checks if entry.get(name) is not None and not right(entry[name])}
        self.left_out += [f"{entry['type']}: `{name}` makes no sense: {str(entry[name])[:80]}" for name in sorted(bad)]
        return {name: value for name, value in entry.items() if name not in bad} if bad else entry

    def _head(self) -> Json:
        run, target = self._run, self._run["target"] or {}
        told: Json = {
            "id": run["replay_of"] or run["id"],
            "name": run["name"],
            "kind": run["target_kind"],
            "command": target.get("display"),
            "created_at": datetime.fromtimestamp(run["created_at"] / 1e6, UTC).isoformat(),
            "status": run["status"],
            "input": run["input"],
            "tags": run["tags"] or {},
        }
        if self._params:
            told["params"] = run["params"] or {}
        metadata = self._detail.get("metadata") or {}
        circumstances = {name: metadata[name] for name in _TOLD if metadata.get(name) is not None}
        return {MARK: VERSION, "agentnb": __version__, "run": told, "circumstances": circumstances}

    def _entries(self, events: Any, attempts: int) -> Iterator[Json]:
        seen, pieces = 0, OutputPieces(self._root, self._run, self._detail.get("order") or [])
        try:
            for at, kind, step, text in events:
                data = json.loads(text)
                last = kind == "step_finished" and seen == attempts and self._steps.get(step, (0, "", 0))[1] == "attempt"
                if kind == "run_finished" or seen == attempts:
                    until = None if last or kind == "run_finished" else at
                    yield from (self._entry(moment, "output", _content(stream, piece)) for moment, stream, piece in pieces.until(until, at))
                if kind in PLAYED:
                    yield from self._event(at, kind, step, data)
                seen += kind == "step_started" and data.get("kind") == "attempt"
                if kind == "run_finished":
                    return
        finally:
            pieces.close()

    def _entry(self, at: int, kind: str, data: Json) -> Json:
        self._last = max(self._last, at)  # a clock that was set back must not turn time around
        return {"t": round((self._last - self._from) / 1e6, 6), "type": kind} | data

    def _event(self, at: int, kind: str, step: str | None, data: Json) -> Iterator[Json]:
        if kind == "step_started":
            yield self._entry(at, kind, self._step_started(at, str(step), data))
        elif kind == "step_finished":
            yield from self._step_finished(at, str(step), data)
        elif kind == "step_used":
            if step in self._steps:
                yield self._entry(at, kind, {"step": self._number(step)} | data)
        elif kind == "artifact_saved":
            yield from self._artifact(at, data["artifact"])
        elif kind == "run_started":
            yield self._entry(at, kind, {})
        elif kind == "run_finished":
            yield self._entry(at, kind, self._finished(at, data))
        elif kind == "workspace_changed":
            told = {name: data["workspace"][name] for name in WORKSPACE if data["workspace"].get(name) is not None}
            yield self._entry(at, kind, data | {"workspace": told})
        else:
            yield self._entry(at, kind, data)

    def _number(self, step: str | None) -> int | None:
        return self._steps[step][0] if step in self._steps else None

    def _step_started(self, at: int, step: str, data: Json) -> Json:
        self._steps[step] = len(self._steps) + 1, data.get("kind", ""), at
        parent = self._number(data.pop("parent_id", None))
        return {"step": self._number(step)} | ({"parent": parent} if parent else {}) | data

    def _step_finished(self, at: int, step: str, data: Json) -> Iterator[Json]:
        if step not in self._steps:
            return
        number, kind, began = self._steps[step]
        if not (self._lost and data["status"] == "interrupted"):
            data.setdefault("run_s", max(at - began, 0) / 1e6)
        if kind == "attempt" and _is_output(data.get("output")):  # of an attempt that another one followed
            for stream, record in data.pop("output").items():
                for piece in self._kept(stream, record):
                    yield self._entry(at, "output", _content(stream, piece))
            data["kept"] = True
        yield self._entry(at, "step_finished", {"step": number} | data)

    def _kept(self, stream: str, record: Json) -> Iterator[bytes]:
        try:
            file = opened(self._root, record)
        except StoreError as bad:
            self.left_out.append(f"the {stream} of an earlier attempt: {bad}")
            return
        with file:
            while piece := whole(file.read(PIECE_BYTES), file):
                yield piece

    def _finished(self, at: int, data: Json) -> Json:
        detail = {name: value for name in _DETAIL if (value := self._detail.get(name))}
        streams = {name: {"size": record.get("size", 0)} for name in _STREAMS if (record := data.pop(name, None)) is not None}
        if not self._lost and self._run["started_at"] is not None:
            data.setdefault("run_s", max(at - self._run["started_at"], 0) / 1e6)
        data.pop("detail", None)
        return data | streams | ({"detail": detail} if detail else {})

    def _artifact(self, at: int, artifact: Json) -> Iterator[Json]:
        told = {name: artifact[name] for name in ("name", "content_type", "checksum") if artifact.get(name) is not None}
        location = artifact.get("location") or {}
        if location.get("type") in {"http", "cloud"}:
            told["location"] = location
        step = self._number(artifact.get("source_step"))
        pieces = self._content(artifact) if location.get("type") in {"local", "inline"} else None
        if pieces is not None:
            for piece in pieces:
                yield self._entry(at, "artifact_data", {"base64": base64.b64encode(piece).decode()})
        rest = ({"step": step} if step else {}) | {"inline": pieces is not None}
        yield self._entry(at, "artifact_saved", {"artifact": {"checksum": "", "size": artifact.get("size") or 0} | told} | rest)

    def _content(self, artifact: Json) -> Iterator[bytes] | None:
        """The bytes of an artifact in pieces; None when they are not to be, or cannot be, in the file."""
        name, size = artifact.get("name"), artifact.get("size") or 0
        if size > self._max:
            if self._max >= 0:
                self.left_out.append(
                    f"artifact {name!r}: its {size} bytes are more than max_artifact_bytes={self._max}; only its checksum is kept"
                )
            return None
        try:
            file = self._blobs.open(artifact.get("checksum") or "")
        except StoreError as bad:
            self.left_out.append(f"artifact {name!r}: {bad}")
            return None
        return _pieces_of(file)


def _pieces_of(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_BLOB_PIECE_BYTES):
            yield piece


def _content(stream: str, piece: bytes) -> Json:
    try:
        return {"stream": stream, "text": piece.decode()}
    except UnicodeDecodeError:
        return {"stream": stream, "base64": base64.b64encode(piece).decode()}


def _is_output(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(_STREAMS)
        and all(isinstance(item, dict) and "size" in item and ("path" in item or "text" in item) for item in value.values())
    )
