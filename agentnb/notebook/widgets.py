"""The live view: one anywidget per view, fed from the loop thread.

What the front end is told, and how it stays right:

- the traits ``state`` and ``tail`` always hold the whole picture (bounded), so that a page that is reloaded, or a view that is
  made late, shows the truth from them alone. They are computed when they are asked for, and sent now and then;
- between those, one message a flush (`{"type": "delta", "n": …}`) carries what changed. Its number rises by one; a front end that
  misses one asks for everything again;
- all text is made by Python (`picture`); the front end only counts the seconds and sets text content.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from agentnb.notebook.comms import unpin
from agentnb.notebook.parts import Json
from agentnb.notebook.picture import Picture
from agentnb.notebook.render import asset
from agentnb.notebook.snapshot import Snapshot
from agentnb.notebook.views import ViewSource

#: The whole picture goes out again at most this often, and slower when it is big.
SYNC_S = 2.0
SYNC_BYTES_PER_S = 8 * 1024
_MAX_SEEN = 200
#: Output goes out at most this fast; in a flood the reader sees samples of it.
OUTPUT_BYTES_PER_S = 48 * 1024


class RunView(anywidget.AnyWidget):
    """The front end's half of a view. Only the loop thread speaks through it once it is shown; clicks may come on any thread."""

    _esm = "".join(map(asset, ("view_parts.js", "view_steps.js", "view_run.js", "view_table.js", "view.js")))
    _css = asset("view.css") + asset("palette.css")

    state = traitlets.Any().tag(sync=True, to_json=lambda _value, widget: {**widget.frame[0], "now": time.time(), "note": widget.note})
    tail = traitlets.Any().tag(sync=True, to_json=lambda _value, widget: widget.frame[1])

    def __init__(self, frame: tuple[Json, Json], note: str, on_click: Callable[[Mapping[str, Any]], None]) -> None:
        """Show `frame`; `on_click` gets what the front end sends."""
        self.frame, self.note = frame, note
        super().__init__()
        self.on_msg(lambda _widget, content, _buffers: on_click(content) if isinstance(content, dict) else None)
        unpin(self)

    def sync(self) -> int:
        """Send the whole picture; how many characters that is."""
        self.send_state(["state", "tail"])
        return len(json.dumps(self.frame))


class LiveView:
    """Keeps one widget true to its source. Made on the cell's thread; then the loop thread alone calls `flush`, `act` and `finish`."""

    def __init__(self, source: ViewSource, note: str, on_click: Callable[[Mapping[str, Any]], None]) -> None:
        """Make the widget; nothing is displayed yet."""
        self._picture = Picture(source)
        self._version = -1
        self._stale = False
        self._sync_at = time.monotonic() + SYNC_S
        self._output_at = 0.0
        self.widget = RunView(self._picture.frame(), note, on_click)

    def act(self, content: Mapping[str, Any]) -> None:
        """Do what the front end asked for: ``open`` a run's log, ``see`` the output of these runs, or ``sync`` everything."""
        asked, runs = content.get("type"), content.get("runs")
        if asked == "open":
            run_id = content.get("run")
            self._picture.open(run_id if isinstance(run_id, str) else None)
            self._version = -1
            self._flush_now()
        elif asked == "see" and isinstance(runs, list):
            self._picture.see([run_id for run_id in runs if isinstance(run_id, str)][:_MAX_SEEN])
            self._picture.watch()
        elif asked == "sync":
            self._stale, self._sync_at = True, 0.0

    def flush(self) -> Snapshot:
        """Tell the front end what changed; the snapshot that was told."""
        version = self._picture.source.version()
        if version != self._version:
            self._version = version
            self._flush_now()
        now = time.monotonic()
        if self._stale and now >= self._sync_at:
            self._sync_at = now + max(SYNC_S, self.widget.sync() / SYNC_BYTES_PER_S)
            self._stale = False
        return self._picture.snapshot

    def _flush_now(self) -> None:
        now = time.monotonic()
        delta = self._picture.refresh(output=now >= self._output_at)
        if now < self._output_at:
            self._version = -1  # output waits its turn: look again next time
        self._picture.watch()
        if delta is None:
            return
        self.widget.frame = self._picture.frame()  # before the message: who asks now gets at least what the message says
        self.widget.send(delta)
        self._stale = True
        if "out" in delta:
            self._output_at = now + len(json.dumps(delta["out"])) / OUTPUT_BYTES_PER_S

    def finish(self, html: str) -> None:
        """Become a small widget that shows `html`, and needs nothing of what a live one does."""
        self._picture.unwatch()
        self.widget.frame = ({"html": html}, {})
        self.widget.set_trait("_esm", asset("ended.js"))
        self.widget.set_trait("_css", "")
        self.widget.sync()

    def close(self) -> None:
        """Close the widget."""
        self._picture.unwatch()
        with contextlib.suppress(Exception):  # the kernel may be going down
            self.widget.close()
