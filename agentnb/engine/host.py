"""What the execution of one run needs from whoever hosts it: the supervisor, or a test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from agentnb.engine.process import Spawner
from agentnb.engine.stop import Stop
from agentnb.engine.work import Work
from agentnb.events import Json, Message
from agentnb.history.store import Store

if TYPE_CHECKING:
    from agentnb.engine.services import Services


class Host(Protocol):
    """What an execution needs from the supervisor."""

    store: Store

    def emit(self, event: Message) -> None:
        """Record an event and pass it on."""

    def stop_launched(self, run_id: str, why: Stop) -> None:
        """End what the run's coroutine launched."""

    def tell(self, message: Message) -> None:
        """Send a signal to the client."""

    def spawner(self) -> Spawner:
        """A live spawner, to start a process now."""

    def services(self) -> Services:
        """The processes that runs share."""

    def environment(self, env_id: int) -> dict[str, str]:
        """The environment that the client sent under this number."""

    def output(self, run_id: str, stream: str, data: bytes) -> None:
        """A watched run printed something."""

    def used(self, run_id: str, tokens: int, cost_usd: float) -> None:
        """The run has used so much so far."""

    def remaining_usd(self, run_id: str) -> float | None:
        """The dollars that its budgets leave a run; None when nothing bounds them."""

    def launch_child(self, run: Json, work: Work) -> None:
        """Launch a run that one of this host wants."""

    def stop(self, run_id: str, why: Stop) -> None:
        """End a run, waiting or live."""

    def git_dirty(self, work: Work) -> asyncio.Future[bool | None]:
        """Begin to find out whether the checkout that the work is done in differs from its commit."""

    def written(self) -> bool:
        """Whether everything that was emitted is in the history now."""
