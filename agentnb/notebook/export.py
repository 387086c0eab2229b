"""Exporting runs to files that `session.replay` plays: of a handle, a group, or a run of the history."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentnb.errors import ConfigError
from agentnb.history import reader
from agentnb.history.recordings.export import export_run
from agentnb.history.store import Store
from agentnb.history.whole_file import check_target
from agentnb.notebook.launching import settle
from agentnb.units import bytes_

_OPTIONS = ("artifacts", "max_artifact_bytes", "params", "overwrite")
_SLUG = re.compile(r"[^\w.]+")


def export(run: str, file: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None, **options: Any) -> Path:
    """Write a finished run of the history to one file, which ``session.replay(file)`` plays without key or network; returns its path.

    `run`: its id, the start of it, or its name (the newest of that name). `store`: the store's folder; default AGENTNB_HOME, else
    ``./.agentnb``. Options: as RunHandle.export. Raises ConfigError and StoreError as that does.
    """
    if not isinstance(run, str) or not run:
        raise ConfigError(f"export: {run!r} is no run's id or name; `agentnb runs` lists them, and a handle has run.export(file)")
    root = Store.locate(store)
    settle(root)
    return write(root, reader.find_run(root, run), file, options)


def write(root: Path, run_id: str, file: str | os.PathLike[str], options: dict[str, Any]) -> Path:
    """Export one run whose history is up to date."""
    target, known = _target(file), _known(options)
    ran = reader.read_run(root, run_id)["reused_from"] or run_id  # which has the times of it all
    for left_out in export_run(root, ran, target, **known):
        warnings.warn(f"export of {target.name}: {left_out}", stacklevel=3)
    return target


def write_all(root: Path, runs: Sequence[tuple[str, str]], folder: str | os.PathLike[str], options: dict[str, Any]) -> list[Path]:
    """Export several runs, (id, name) each, to files of their own in `folder`; none when one of them cannot be."""
    home, known = _target(folder), _known(options)
    if home.exists() and not home.is_dir():
        raise ConfigError(f"export: {str(home)!r} is a file; give a folder, in which each run gets a file of its own")
    digits = len(str(max(len(runs) - 1, 0)))
    targets = [home / f"{number:0{digits}d}-{_slug(name)}.jsonl" for number, (_, name) in enumerate(runs)]
    for target in targets:
        check_target(target, overwrite=bool(known.get("overwrite")))
    for run_id, _ in runs:
        reader.check_ended(root, run_id)
    return [write(root, run_id, target, options) for (run_id, _), target in zip(runs, targets, strict=True)]


def _slug(name: str) -> str:
    return _SLUG.sub("-", name).strip("-.")[:60] or "run"


def _target(file: str | os.PathLike[str]) -> Path:
    if not isinstance(file, str | os.PathLike) or not os.fspath(file) or "\0" in os.fspath(file):
        raise ConfigError(f"export: {file!r} is no path; write run.export('recorded/run.jsonl')")
    return Path(file).expanduser().absolute()


def _known(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if name not in _OPTIONS:
            raise ConfigError(f"export: there is no option {name!r}; known: {', '.join(_OPTIONS)}")
        if name != "max_artifact_bytes" and not isinstance(value, bool):
            raise ConfigError(f"export: {name}={value!r} must be True or False")
    if "max_artifact_bytes" in options:
        return options | {"max_artifact_bytes": bytes_(options["max_artifact_bytes"])}
    return options
