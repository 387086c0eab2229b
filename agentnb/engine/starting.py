# ruff: noqa: SIM105 - contextlib would make the spawner bigger
"""Starting a program, in a session of its own. Imported by the spawner: nothing heavier than `os` may be imported here.

posix_spawn maps a stack for each child and has to be given the variables as a mapping, of which it makes text each time. What the standard
library's subprocess starts programs by does neither. That function is private to Python: it is used in those versions that are known to
have it just as it is called here, and posix_spawn in all others, and for children with more descriptors than the first three.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has none
import os
import sys
from errno import EMFILE, ENFILE, ENOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

fork_exec: Any = None
if (3, 11) <= sys.version_info[:2] <= (3, 13):
    try:
        from _posixsubprocess import fork_exec
    except ImportError:
        pass

#: Python, or the spawner, ignores or handles these; a command expects the default.
DEFAULTED = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
_NO_FILES = frozenset({EMFILE, ENFILE})
#: What fork_exec is told: all descriptors here are closed by exec anyway, SIGPIPE and SIGXFSZ get their defaults back.
_CLOSE_FDS, _RESTORE_SIGNALS, _NEW_SESSION, _VFORK = False, True, True, True


class Environment:
    """Variables, also as the system takes them."""

    __slots__ = ("lines", "variables")

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Raises ValueError, TypeError for what cannot be in an environment."""
        if not "".join(variables).isascii():  # one name may be spelled in two ways, with the surrogates that stand for bytes
            variables = {name.encode(errors="surrogateescape").decode(errors="surrogateescape"): text for name, text in variables.items()}
        self.variables = variables
        self.lines = _lines(variables)

    def plus(self, own: Environment) -> list[bytes]:
        """The lines of these variables, with `own` laid over them."""
        if self.variables.keys().isdisjoint(own.variables):  # in this order: what it is asked about is gone through
            return self.lines + own.lines
        return _lines({**self.variables, **own.variables})


def _lines(variables: Mapping[str, str]) -> list[bytes]:
    if not variables:
        return []
    lines = "\0".join(map("=".join, variables.items())).encode(errors="surrogateescape").split(b"\0")
    if len(lines) != len(variables) or "" in variables or "=" in "".join(variables):
        for name, value in variables.items():
            if not name or "=" in name[1:]:
                raise ValueError(f"illegal environment variable name {name!r}")
            if "\0" in name or "\0" in value:
                raise ValueError(f"embedded null byte in the environment variable {name!r}")
    return lines


def start(path: str, argv: tuple[str, ...], variables: tuple[Environment, Environment], fds: Sequence[int], targets: Sequence[int]) -> int:
    """Start the program at `path` and return its pid.

    `variables`: those of an environment, and others that are laid over them. `fds` become its `targets`, and no descriptor may have such
    a number yet, but for 0, 1 and 2: these are the null device where they are no targets. A text file without an interpreter line is
    given to sh, as execvp would. Raises OSError when it cannot be started, ValueError and TypeError for words that no program can be given.
    """
    if not argv:
        raise ValueError("a program has a name")
    standard = [nothing()] * 3
    more: list[tuple[int, int]] = []
    for fd, target in zip(fds, targets, strict=True):
        if target < len(standard):
            standard[target] = fd
        else:
            more.append((fd, target))
    by = _by_posix_spawn if more or fork_exec is None else _by_fork_exec
    try:
        return by(path, argv, variables, standard, more)
    except OSError as error:
        if error.errno in _NO_FILES:  # of which this one needs none
            by = _by_posix_spawn
        elif error.errno == ENOEXEC:
            path, argv = "/bin/sh", ("sh", path, *argv[1:])
        else:
            raise
    return by(path, argv, variables, standard, more)


_nothing: list[int] = []


def nothing() -> int:
    """A descriptor of the null device, for reading and writing, which stays open: nearly every command gets it as its stdin."""
    if not _nothing:
        _nothing.append(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
    return _nothing[0]


def _by_posix_spawn(
    path: str, argv: tuple[str, ...], variables: tuple[Environment, Environment], standard: list[int], more: list[tuple[int, int]]
) -> int:
    env, own = variables
    actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in (*zip(standard, (0, 1, 2), strict=True), *more)]
    together = {**env.variables, **own.variables}
    return os.posix_spawn(path, argv, together, file_actions=actions, setsid=True, setsigdef=DEFAULTED, setsigmask=())


def _by_fork_exec(
    path: str, argv: tuple[str, ...], variables: tuple[Environment, Environment], standard: list[int], _: list[tuple[int, int]]
) -> int:
    """The same; the caller ignores no signal of DEFAULTED but the first two, and blocks none."""
    env, own = variables
    stdin, stdout, stderr = standard
    reader, writer = os.pipe2(os.O_CLOEXEC)  # closed by the program's start, or told before why there is none
    try:
        try:
            pid: int = fork_exec(
                argv, (os.fsencode(path),), _CLOSE_FDS, (), None, env.plus(own), stdin, -1, -1, stdout, -1, stderr, reader, writer,
                _RESTORE_SIGNALS, _NEW_SESSION, -1, None, None, None, -1, None, _VFORK,
            )  # fmt: skip
        finally:
            os.close(writer)
        said = b""
        while piece := os.read(reader, 512):
            said += piece
    finally:
        os.close(reader)
    if said:
        os.waitpid(pid, 0)
        code = int(said.split(b":")[1], 16)
        raise OSError(code, os.strerror(code))
    return pid
