"""A file that is written whole or not at all: it gets its name when everything is in it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from agentnb.errors import ConfigError, StoreError
from agentnb.ids import new_id

#: Nobody writes any more to a file that did not change for so long, in seconds.
_LEFT_S = 3600


def check_target(target: Path, *, overwrite: bool, what: str = "export") -> None:
    """Raise ConfigError for a file that cannot be meant; `what` begins its message."""
    if target.is_dir():
        raise ConfigError(f"{what}: {str(target)!r} is a folder; give a file in it, such as {str(target / 'run.jsonl')!r}")
    if target.exists() and not overwrite:
        raise ConfigError(f"{what}: the file {str(target)!r} is there already; give another name, or overwrite=True to replace it")


@contextmanager
def whole_file(target: Path, *, overwrite: bool, what: str = "export") -> Iterator[BinaryIO]:
    """A file to write to, which becomes `target` when the block ends well; missing folders are made.

    Raises ConfigError for a target that cannot be meant or came meanwhile (unless `overwrite`), StoreError when it cannot be written.
    """
    check_target(target, overwrite=overwrite, what=what)
    temporary = target.with_name(f".{target.name[:100]}.{new_id()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the name without the bytes
        _place(temporary, target, overwrite=overwrite, what=what)
    except StoreError:
        raise
    except OSError as bad:
        raise StoreError(f"{what}: {str(target)!r} cannot be written: {bad.strerror or bad}; give another place, or make room") from bad
    finally:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108


def remove_left(folder: Path, name: str) -> None:
    """Remove what processes that were killed while they wrote the file `name` left in `folder`."""
    for path in folder.glob(f".{name[:100]}.*.part"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFT_S:
                path.unlink()


def _place(temporary: Path, target: Path, *, overwrite: bool, what: str) -> None:
    if overwrite:
        os.replace(temporary, target)  # noqa: PTH105
        return
    try:
        os.link(temporary, target)  # unlike a rename it fails when somebody else made the file meanwhile
    except FileExistsError:
        raise ConfigError(f"{what}: the file {str(target)!r} was made by somebody else meanwhile; give another name") from None
    except OSError:  # a file system without hard links
        os.replace(temporary, target)  # noqa: PTH105
