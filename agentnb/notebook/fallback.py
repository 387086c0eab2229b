"""The live view for where anywidget is not: made of core ipywidgets, behind the same protocol (views.View).

It shows what the static form shows, with the last lines of the output, a bar for groups and a Cancel button. Each of its parts is
sent only when it changed. The seconds of what runs are whole ones, so that a quiet run sends one small message a second.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import escape
from typing import Any

import ipywidgets as ipw

from agentnb.notebook.comms import unpin
from agentnb.notebook.render import to_html
from agentnb.notebook.snapshot import GroupSnapshot, RunSnapshot, Snapshot
from agentnb.notebook.views import ViewSource

#: A log that is renewed as a whole loses the reader's place: it has as many lines as are seen without scrolling.
MAX_LINES = 14
#: Of so many unfinished runs of a group live output is asked for.
WATCHED_RUNS = 24
#: A view sends at most this much.
BYTES_PER_S = 48 * 1024
_CLASS = "agentnb-core-view"
_STYLE = f".{_CLASS} .anb-s.anb-s pre{{max-height:none}}.{_CLASS} .widget-html-content{{line-height:normal}}"


class CoreView:
    """Keeps a few core widgets true to a source. Made on the cell's thread; then the loop thread alone calls its methods."""

    def __init__(self, source: ViewSource, note: str, on_click: Callable[[Mapping[str, Any]], None]) -> None:
        """Make the widgets; nothing is displayed yet. `note`: what to say beside the button; `on_click` gets its clicks."""
        self._source = source
        self._watched: set[str] = set()
        self._next_at = 0.0
        self._drawn: tuple[int, int] | None = None
        self._style, self._body, self._note = ipw.HTML(), ipw.HTML(), ipw.HTML(escape(note))
        self._bar = ipw.IntProgress(min=0, max=1, layout={"width": "16em"})
        self._button = ipw.Button(description="Cancel", icon="stop", layout={"width": "max-content"})
        self._button.on_click(lambda _button: on_click({"type": "cancel"}))
        self._controls = ipw.HBox([self._button, self._bar, self._note] if note else [self._button, self._bar])
        self.widget = ipw.VBox([self._style, self._body, self._controls])
        self.widget.add_class(_CLASS)
        unpin(self._button)
        self._draw(source.snapshot())

    def act(self, content: Mapping[str, Any]) -> None:
        """Core widgets ask for nothing but Cancel."""

    def flush(self) -> Snapshot:
        """Tell the front end what changed; the snapshot that was looked at."""
        version, now = self._source.version(), time.monotonic()
        snapshot = self._source.snapshot()
        self._watch(snapshot)
        state = (version, int(now) if self._watched else 0)  # what goes on is drawn each second, what rests when it changes
        if state != self._drawn and now >= self._next_at:
            self._drawn = state
            self._next_at = now + self._draw(snapshot) / BYTES_PER_S
        return snapshot

    def _draw(self, snapshot: Snapshot) -> int:
        """Set what differs; how many characters that sends."""
        style, end, body = to_html(_calm(snapshot), max_lines=MAX_LINES).partition("</style>")
        sent = _set(self._style, "value", style + _STYLE + end) + _set(self._body, "value", body)
        group = isinstance(snapshot, GroupSnapshot)
        runs = snapshot.runs if isinstance(snapshot, GroupSnapshot) else [snapshot]
        ended = sum(run.done for run in runs)
        sent += _set(self._bar, "max", max(len(runs), 1)) + _set(self._bar, "value", ended)
        sent += _set(self._bar, "description", f"{ended} of {len(runs)}") + _set(self._bar.layout, "display", None if group else "none")
        live = [run for run in runs if not run.done]
        asked = bool(live) and all(run.status == "cancelling" for run in live)
        sent += _set(self._button, "description", "cancelling …" if asked else "Cancel all" if group else "Cancel")
        return sent + _set(self._button, "disabled", asked or not live)

    def _watch(self, snapshot: Snapshot) -> None:
        """Ask for the live output of what is shown, and for no other."""
        runs = snapshot.runs if isinstance(snapshot, GroupSnapshot) else [snapshot]
        wanted = {run.id for run in [run for run in runs if not run.done][:WATCHED_RUNS]}
        for run_ids, on in ((wanted - self._watched, True), (self._watched - wanted, False)):
            if run_ids:
                self._source.watch(sorted(run_ids), on)
        self._watched = wanted

    def finish(self, html: str) -> None:
        """Show `html` and no button."""
        self._unwatch()
        style, end, body = html.partition("</style>")
        _set(self._style, "value", style + _STYLE + end)
        _set(self._body, "value", body)
        _set(self._controls.layout, "display", "none")

    def _unwatch(self) -> None:
        if self._watched:
            self._source.watch(sorted(self._watched), False)  # noqa: FBT003 - the protocol of views.ViewSource
            self._watched = set()

    def close(self) -> None:
        """Close the widgets, and those that came with them."""
        self._unwatch()
        for widget in (self._button, self._bar, self._note, self._body, self._style, self._controls, self.widget):
            for part in (*([widget.style] if hasattr(widget, "style") else []), widget.layout, widget):
                with contextlib.suppress(Exception):  # the kernel may be going down
                    part.close()


def _set(widget: Any, name: str, value: Any) -> int:
    """Set a trait that differs; about how many characters that sends."""
    if getattr(widget, name) == value:
        return 0
    setattr(widget, name, value)
    return len(str(value)) + 200


def _calm(snapshot: Snapshot) -> Snapshot:
    """The same with whole seconds where they go on."""
    if isinstance(snapshot, GroupSnapshot):
        return replace(snapshot, runs=[_calm_run(run) for run in snapshot.runs])
    return _calm_run(snapshot)


def _calm_run(run: RunSnapshot) -> RunSnapshot:
    if run.done or run.elapsed_s is None:
        return run
    return replace(run, elapsed_s=float(math.floor(run.elapsed_s)))
