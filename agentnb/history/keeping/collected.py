"""What a gc is asked for, and what it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

_SHOWN = 20
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to go, all that is given taken together; without any of it only what nothing refers to.

    `before`: runs that ended before then (microseconds UTC); `sessions`: runs of these (ids); `max_size`: of them the oldest, until the
    store takes at most so many bytes.
    """

    before: int | None = None
    max_size: int | None = None
    sessions: tuple[str, ...] | None = None

    @property
    def any_runs(self) -> bool:
        """Whether runs are to go."""
        return self != Asked()


@dataclass(slots=True)
class Collected:
    """What a gc removed, or (`dry_run`) would remove.

    `runs`, `sessions`: how many; `artifacts`, `files`: how many contents that no artifact refers to any more, and leftover files and
    folders; `bytes`: what that freed, and `store_bytes`: what the store takes then (of a dry run both are estimates); `by_session`: how
    many runs went of which session; `kept`: how many runs that were asked for stay, by the reason; `notes`: what else there is to know.
    """

    dry_run: bool
    runs: int = 0
    sessions: int = 0
    artifacts: int = 0
    files: int = 0
    bytes: int = 0
    store_bytes: int = 0
    by_session: list[dict[str, Any]] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def __str__(self) -> str:
        """A few lines for people."""
        verb, about = ("would go", "about ") if self.dry_run else ("went", "")
        counts = [(self.runs, "run"), (self.sessions, "session"), (self.artifacts, "artifact content"), (self.files, "leftover file")]
        told = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
        lines = [f"{told} {verb}: {about}{size_text(self.bytes)}; the store then takes {about}{size_text(self.store_bytes)}"]
        lines += few([f"{share['runs']:>8} of session {share['name']!r}" for share in self.by_session])
        lines += [f"{count:>8} asked for, but kept: {why}" for why, count in self.kept.items()]
        return "\n".join([*lines, *few(self.notes)])

    __repr__ = __str__


def few(lines: list[str]) -> list[str]:
    """The first of many lines, and how many more there are."""
    return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"... and {len(lines) - _SHOWN} more"]


def size_text(size: float) -> str:
    """A size for people: ``1.5 MiB``."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.{1 if unit else 0}f} {_UNITS[unit]}"
