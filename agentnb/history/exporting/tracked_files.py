"""The artifacts and the output of a run as files of its run in MLflow; an artifact whose bytes do not have its checksum is left out."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentnb.errors import ArtifactCorrupted, StoreError
from agentnb.history.artifacts import digest_of
from agentnb.history.exporting.tracked import Notes
from agentnb.history.reader import output_bytes

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

File = tuple[str, Callable[[Path], None]]

_ARTIFACTS = "SELECT name, location, checksum FROM artifacts WHERE source_run = ? ORDER BY rowid"
_LOGS = "SELECT stream, inline, path FROM logs WHERE run_id = ? ORDER BY stream DESC"


def put(client: MlflowClient, there: str, files: Iterator[File], notes: Notes) -> None:
    """Bring files to MLflow's run `there`; what cannot be read is noted."""
    with tempfile.TemporaryDirectory(prefix="agentnb-") as scratch:
        for name, make in files:
            *folders, last = notes.name("file", "/".join(_parts(name))).split("/")
            path = Path(scratch, last)
            try:
                make(path)
            except StoreError as bad:
                notes.left_out.append(f"{name}: {bad}")
                continue
            client.log_artifact(there, str(path), "/".join(folders) or None)
            path.unlink()


def files(root: Path, db: sqlite3.Connection, run_id: str) -> Iterator[File]:
    """The artifacts of a run that are on this machine, by their names, and its output, ``logs/stdout.txt`` and ``logs/stderr.txt``."""
    for name, location, checksum in db.execute(_ARTIFACTS, (run_id,)).fetchall():
        kept = json.loads(location or "{}")
        if kept.get("type") in {"local", "inline"}:
            yield str(name), partial(_artifact, root, kept, checksum or "")
    for stream, inline, log in db.execute(_LOGS, (run_id,)).fetchall():
        yield f"logs/{stream}.txt", partial(_log, root, inline, log)


def _artifact(root: Path, kept: dict[str, Any], checksum: str, path: Path) -> None:
    if kept["type"] == "inline":
        data = base64.b64decode(kept.get("data") or "")
        found = digest_of(data)
        path.write_bytes(data)
    else:
        file = (root / str(kept.get("path"))).absolute()
        try:
            with file.open("rb") as opened:
                found = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
        except OSError as bad:
            raise ArtifactCorrupted(f"{file} cannot be read: {bad.strerror}") from bad
        path.symlink_to(file)  # under its name, without a copy
    if found != checksum:
        path.unlink()
        raise ArtifactCorrupted(f"its bytes should have checksum {checksum}, but have {found}")


def _log(root: Path, inline: Any, log: str | None, path: Path) -> None:
    if inline is None and log and (file := root / log).resolve().is_relative_to(root.resolve()) and file.is_file():
        path.symlink_to(file.absolute())  # it may be large
    else:
        path.write_bytes(output_bytes(root, inline, log))


def _parts(name: str) -> list[str]:
    """The parts of a name that may be those of a path."""
    parts = [part[:200] for part in name.replace(os.sep, "/").split("/") if part not in {"", ".", ".."}]
    return parts or ["unnamed"]
