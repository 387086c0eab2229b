"""What a view looks at, what it is, and the thread that draws it: the protocols of live views (no front end)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agentnb.notebook.snapshot import RunSnapshot, Segment, Snapshot


class ViewSource(Protocol):
    """What a view shows. Every method may be called from any thread and returns at once."""

    def snapshot(self) -> Snapshot:
        """The state now."""

    def done(self) -> bool:
        """Whether nothing will change any more, as its snapshot would say: asked at the end of each cell, so it must be quick."""

    def detail(self, run_id: str) -> RunSnapshot | None:
        """One of its runs with its steps; None when there is none of that id."""

    def version(self) -> int:
        """A number that rises whenever `snapshot` would differ or output came."""

    def output_since(self, run_id: str, seq: int) -> tuple[int, list[Segment], bool]:
        """The output of a run after `seq`: (new seq, new pieces, gap).

        With a gap, pieces were lost and the list is the whole bounded tail.
        """

    def watch(self, run_ids: list[str], on: bool) -> None:  # noqa: FBT001 - the protocol that sources are written to
        """Ask for live output of these runs, or no longer."""

    def request_cancel(self, run_ids: list[str] | None) -> None:
        """Ask for the end of these runs; None: of all."""

    def call_when_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, on any thread, when nothing will change any more; at once if that is so already."""


class View(Protocol):
    """A live view of a source. It is made on the cell's thread; then the loop thread alone calls its methods."""

    @property
    def widget(self) -> Any:
        """The ipywidgets widget that is displayed."""

    def act(self, content: Mapping[str, Any]) -> None:
        """Do what the front end asked for, other than cancelling."""

    def flush(self) -> Snapshot:
        """Tell the front end what changed; the snapshot that was told."""

    def finish(self, html: str) -> None:
        """Show `html` from now on: who opens the page again, or loaded it in between, is not given the end of the cell's output."""

    def close(self) -> None:
        """Close the widget."""


#: Makes a view: of a source, with a note on how to cancel, and what to call with clicks (on any thread).
MakeView = Callable[[ViewSource, str, Callable[[Mapping[str, Any]], None]], View]


class Loop(Protocol):
    """The background loop's thread."""

    def call_soon(self, fn: Callable[..., object], *args: Any) -> None:
        """Run `fn` on the loop thread; may be called from any thread."""

    def call_later(self, delay_s: float, fn: Callable[..., object], *args: Any) -> None:
        """Run `fn` on the loop thread after a delay; to be called there."""
