"""Every exception that agentnb raises.

    AgentnbError
    ├── ConfigError                 a bad option, spec, parameter or file (also a ValueError)
    │   ├── SpecError               a bad YAML spec; carries file, line and column
    │   ├── InvalidLimits           a limit that makes no sense or cannot be enforced here
    │   └── TemplateError           a template that does not parse or names a missing value
    ├── RunFailed                   raised by ``result.raise_for_status()``; carries the result
    │   ├── RunTimedOut
    │   ├── RunCancelled
    │   ├── LimitExceeded
    │   └── BudgetExceeded
    ├── StoreError                  the history cannot be read or written (also an OSError)
    │   ├── StoreTooNew             it was written by a newer agentnb
    │   └── ArtifactCorrupted       bytes on disk do not match their checksum
    ├── ApplyConflict               the changes of a run do not fit the files they are to be applied to; names them
    ├── RuntimeUnavailable          something that has to be installed or started is not there
    └── IllegalTransition           a state change that the state model forbids

A message says what happened, to what, and what to do about it.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class AgentnbError(Exception):
    """Base of every exception of this package."""


class ConfigError(AgentnbError, ValueError):
    """A bad option, spec, parameter or file; nothing was started.

    `parts`: of data with several faults each by itself: where in the data it is (names and numbers, from outside in), and what is wrong.
    """

    parts: tuple[tuple[tuple[str | int, ...], str], ...] = ()


class SpecFault(NamedTuple):
    """One fault of a spec file. `line`, `column`: 1-based, None in data that has none; `path`: such as ``workers[0].timeout``."""

    file: str | None
    line: int | None
    column: int | None
    path: str
    message: str

    @property
    def place(self) -> str:
        """``file:line:column``, as far as it is known."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def __str__(self) -> str:
        """``file:line:column: path: message``."""
        return ": ".join(part for part in (self.place, self.path, self.message) if part)


class SpecError(ConfigError):
    """A bad spec file, with the place of the first fault; `faults` has all of them."""

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        faults: tuple[SpecFault, ...] = (),
    ) -> None:
        """Prefix `message` with ``file:line:column`` as far as they are known (1-based)."""
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        super().__init__(f"{place}: {message}" if place else message)
        self.file, self.line, self.column = file, line, column
        self.faults = faults or (SpecFault(file, line, column, "", message),)


class InvalidLimits(ConfigError):
    """A resource limit that makes no sense, or that this machine cannot enforce."""


class TemplateError(ConfigError):
    """A template that does not parse, or that names a value which is not there."""


class RunFailed(AgentnbError):
    """A run that did not succeed; `result` is its CommandResult."""

    def __init__(self, message: str, result: Any = None) -> None:
        """Keep the result beside the message."""
        super().__init__(message)
        self.result = result


class RunTimedOut(RunFailed):
    """The run was ended by its timeout."""


class RunCancelled(RunFailed):
    """The run was cancelled."""


class LimitExceeded(RunFailed):
    """The run crossed one of its resource limits."""


class BudgetExceeded(RunFailed):
    """The run crossed a budget of tokens, cost or time."""


class StoreError(AgentnbError, OSError):
    """The history cannot be opened, read or written."""


class StoreTooNew(StoreError):
    """The history was written by a newer agentnb; it is left untouched."""


class ArtifactCorrupted(StoreError):
    """The bytes of an artifact do not match the checksum of its record."""


class ApplyConflict(AgentnbError):
    """The changes of a run cannot be applied: the files named in `files` changed otherwise meanwhile. Nothing was changed."""

    def __init__(self, message: str, files: tuple[str, ...] = ()) -> None:
        """Keep the names beside the message."""
        super().__init__(message)
        self.files = files


class RuntimeUnavailable(AgentnbError, RuntimeError):
    """Something needed is missing; the message says what, and how to get it."""


class IllegalTransition(AgentnbError, RuntimeError):
    """A state change that the state model forbids; both states are named."""

    def __init__(self, what: str, old: str, new: str) -> None:
        """Name the record and both states."""
        super().__init__(f"{what} cannot go from {old!r} to {new!r}")
        self.old, self.new = old, new
