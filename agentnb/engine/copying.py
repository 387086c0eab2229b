"""Copies of folders, real ones: agents edit files in place, so nothing may be shared with the original."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

#: ioctl that has a file system share the blocks of two files until one of them is written to.
_FICLONE = 0x40049409


class Copied:
    """What came of a copy: bytes of its files, and what was not copied or leads out of it."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.size = 0
        self.special: list[str] = []
        self.leaving: list[str] = []


def copy_folder(source: str, target: str, skip: str) -> Copied:
    """Copy all of `source` to the new folder `target`, but for the folder `skip` (an absolute path).

    Symbolic links are copied as links, never followed; pipes, sockets and devices are left out. Raises OSError.
    """
    done = Copied()
    _folder(source, target, "", skip, done)
    return done


def _folder(source: str, target: str, below: str, skip: str, done: Copied) -> None:
    here, there = os.path.join(source, below), os.path.join(target, below)  # noqa: PTH118 - names may be any bytes
    os.mkdir(there, 0o700)  # noqa: PTH102
    with os.scandir(here) as entries:
        for entry in entries:
            if entry.path == skip:
                continue
            name = os.path.join(below, entry.name)  # noqa: PTH118
            if entry.is_symlink():
                _link(source, target, name, done)
            elif entry.is_dir():
                _folder(source, target, name, skip, done)
            elif entry.is_file():
                _file(entry.path, os.path.join(target, name))  # noqa: PTH118
                done.size += entry.stat().st_size
            else:
                done.special.append(name)
    shutil.copystat(here, there)  # last: a folder that cannot be written to can hold copies, too


def _link(source: str, target: str, name: str, done: Copied) -> None:
    text = os.readlink(os.path.join(source, name))  # noqa: PTH115, PTH118
    os.symlink(text, os.path.join(target, name))  # noqa: PTH118, PTH211
    end = os.path.normpath(os.path.join(source, os.path.dirname(name), text))  # noqa: PTH118, PTH120
    if os.path.isabs(text) or (end != source and not end.startswith(source + os.sep)):  # noqa: PTH117
        done.leaving.append(name)


def _file(source: str, target: str) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:  # noqa: PTH123
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:  # another file system, or one that cannot
            shutil.copyfileobj(old, new, 1 << 20)
    shutil.copystat(source, target)


def remove_folder(folder: str) -> str | None:
    """Remove a folder with all that is in it, also what is write-protected; why that could not be done, if so. Follows no link."""
    path = Path(folder)
    if not path.is_dir() or path.is_symlink():
        return None if not os.path.lexists(folder) else f"{folder} is no folder any more"
    shutil.rmtree(folder, onerror=_unprotect)
    return f"{folder} could not be removed completely" if os.path.lexists(folder) else None


def _unprotect(call: object, name: str, _: object) -> None:
    """Lift the write protection of a folder that keeps its content from being removed, and try again."""
    with suppress(OSError):
        folder = name if call in (os.scandir, os.open, os.lstat) else os.path.dirname(name)  # noqa: PTH120
        os.chmod(folder, stat.S_IRWXU)  # noqa: PTH101
        if os.path.isdir(name) and not os.path.islink(name):  # noqa: PTH112, PTH114
            os.chmod(name, stat.S_IRWXU)  # noqa: PTH101
            shutil.rmtree(name, ignore_errors=True)
        else:
            os.unlink(name)  # noqa: PTH108
