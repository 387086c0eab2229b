"""Why a run is ended from outside."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentnb.events import Json


@dataclass(slots=True)
class Stop:
    """Why a run is ended from outside. `status`: the run's terminal status; `kind`: a states.ErrorKind.

    `grace_s`: no more than this between SIGTERM and SIGKILL.
    """

    status: str
    kind: str
    message: str
    details: Json = field(default_factory=dict)
    grace_s: float | None = None
