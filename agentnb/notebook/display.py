"""How runs, groups and sessions show themselves as the last line of a cell: live, static or text."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from agentnb import units
from agentnb.errors import ConfigError
from agentnb.notebook.cell_ends import CellEnds
from agentnb.notebook.render import to_bundle
from agentnb.notebook.snapshot import GroupSnapshot, Snapshot
from agentnb.notebook.views import Loop, MakeView, View, ViewSource

MODES = ("auto", "live", "static", "text")
VARIABLE = "AGENTNB_DISPLAY"
FLUSH_S = 0.25
_SHORTEST_S = 0.05
#: A view is drawn so seldom that drawing takes at most this share of the loop thread.
_BUSY_SHARE = 8
_BLOCKED_NOTE = "While a cell blocks, press the stop button (interrupt the kernel) to cancel."
_log = logging.getLogger(__name__)


def _checked(mode: object, where: str) -> str:
    if mode not in MODES:
        raise ConfigError(f"{where}: {mode!r} is no display mode; write one of {', '.join(map(repr, MODES))}")
    return str(mode)


class DisplayOptions:
    """How results show themselves, and how long an async agent may block the others.

    `display` is ``"auto"`` (live where a kernel and its widgets allow it), ``"live"`` (the same, and a warning where they do not),
    ``"static"`` (HTML, renewed at the end) or ``"text"``. Where there is no kernel it is text always.
    """

    __slots__ = ("_display",)

    def __init__(self) -> None:
        """Take the mode from the environment until one is set."""
        self._display: str | None = None

    @property
    def display(self) -> str:
        """The mode; default: the variable AGENTNB_DISPLAY, else ``"auto"``. Raises ConfigError when the variable names no mode."""
        return self._display or _checked(os.environ.get(VARIABLE, "").strip().lower() or "auto", f"environment variable {VARIABLE}")

    @display.setter
    def display(self, mode: str | None) -> None:
        """Choose the mode; None: as the environment says. Raises ConfigError for any other value."""
        self._display = None if mode is None else _checked(mode, "options.display")

    @property
    def blocked_after(self) -> float:
        """After so many seconds (default 1) an ``async def`` agent that does not let the others run gets a warning that says where."""
        from agentnb.notebook.watchdog import watchdog

        return watchdog.limit_s

    @blocked_after.setter
    def blocked_after(self, limit: float | str) -> None:
        """Seconds, or text such as "500ms". Raises ConfigError for what is no duration, and for less than 50 ms."""
        from agentnb.notebook.watchdog import watchdog

        if (seconds := units.seconds(limit, what="options.blocked_after")) < _SHORTEST_S:
            raise ConfigError(f"options.blocked_after: {limit!r} is shorter than {_SHORTEST_S:g} s, which happens on any busy machine")
        watchdog.limit_s = seconds

    def __repr__(self) -> str:
        """Show the mode."""
        return f"DisplayOptions(display={self.display!r})"


options = DisplayOptions()


def kernel_shell() -> Any:
    """The interactive shell of the IPython kernel that this process is, or None."""
    shell = _shell()
    return shell if getattr(shell, "kernel", None) is not None else None


def _shell() -> Any:
    # A process that has not imported IPython is not an interactive one: do not import it for the question.
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def choose_mode() -> str:
    """``live``, ``static`` or ``text``: what `options` and this process make of it.

    An environment variable that names no mode is warned of, once, and counts as ``"auto"``: a run shall not stay unseen for it.
    """
    try:
        mode = options.display
    except ConfigError as bad:
        _warn_once(f"{bad}; results are shown as with 'auto'")
        mode = "auto"
    if kernel_shell() is None:
        return "text"
    if mode in {"auto", "live"}:
        return "live" if view_maker(asked=mode == "live") else "static"
    return mode


def view_maker(*, asked: bool = False) -> MakeView | None:
    """What makes live views: of anywidget, else of core ipywidgets, else None; `asked`: warn, once, when there is none."""
    try:
        from agentnb.notebook.widgets import LiveView
    except ImportError:
        pass
    else:
        return LiveView
    try:
        from agentnb.notebook.fallback import CoreView
    except ImportError as bad:
        if asked:
            _warn_once(f"options.display: no live views, only static HTML ({bad}); get them by: pip install anywidget ipywidgets")
        return None
    return CoreView


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        sys.stderr.write(f"agentnb: {message}\n")


def show(source: ViewSource, loop: Loop) -> None:
    """Show `source` in the current cell's output, and keep what is shown true until `source` is done.

    Live views turn into static HTML and text when the source is done. Without a kernel this prints text.
    """
    mode = choose_mode()
    snapshot = source.snapshot()
    if _shell() is None:
        sys.stdout.write(to_bundle(snapshot)["text/plain"] + "\n")
        return
    if mode == "live" and not snapshot.done and (make := view_maker()) is not None:
        _show_live(source, loop, snapshot, make)
        return
    from IPython.display import display

    wanted = ("text/plain",) if mode == "text" else ("text/html", "text/plain")
    handle = display(_only(to_bundle(snapshot), wanted), raw=True, display_id=True)  # type: ignore[no-untyped-call]
    if not snapshot.done and kernel_shell() is not None:
        flusher = _flusher(loop)
        flusher.follow(kernel_shell())

        def renew() -> None:
            handle.update(_only(to_bundle(source.snapshot()), wanted), raw=True)

        def end() -> None:
            _guarded(renew)
            flusher.ended(renew)

        source.call_when_done(lambda: loop.call_soon(end))


def _only(bundle: dict[str, str], wanted: tuple[str, ...]) -> dict[str, str]:
    return {name: bundle[name] for name in wanted}


def _guarded(fn: Callable[[], object]) -> bool:
    """Call `fn`; whether it went well. A front end that cannot be reached is no error of the run, and the loop must live on."""
    try:
        fn()
    except Exception:  # noqa: BLE001 - whatever it is
        _log.warning("a view could not be drawn", exc_info=True)
        return False
    return True


def _show_live(source: ViewSource, loop: Loop, snapshot: Snapshot, make: MakeView) -> None:
    from IPython.display import display

    def clicked(content: Mapping[str, Any]) -> None:
        if content.get("type") == "cancel":
            runs = content.get("runs")
            source.request_cancel([str(run) for run in runs] if isinstance(runs, list) else None)
        else:
            loop.call_soon(_guarded, lambda: view.act(content))

    view = make(source, _blocked_note(), clicked)
    shape = view.widget._repr_mimebundle_() or {}
    data, metadata = shape if isinstance(shape, tuple) else (shape, {})  # anywidget gives both, ipywidgets the data only
    handle = display({**data, **to_bundle(snapshot)}, metadata=metadata, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    flusher = _flusher(loop)
    flusher.follow(kernel_shell())
    shown = Shown(source, view, lambda bundle, live: handle.update({**(data if live else {}), **bundle}, raw=True), flusher.ended)
    loop.call_soon(flusher.add, shown)
    source.call_when_done(lambda: loop.call_soon(shown.finish))


def _blocked_note() -> str:
    """What to say where a click cannot reach a kernel whose cell blocks (before ipykernel 7)."""
    return _BLOCKED_NOTE if int(version("ipykernel").partition(".")[0]) < 7 else ""


#: Views that have ended and are still there for pages that are opened again, the oldest first.
_ended: deque[View] = deque()
_MAX_ENDED = 100


class Shown:
    """A live view and the output that it lies in; used on the loop thread only."""

    def __init__(
        self,
        source: ViewSource,
        view: View,
        update: Callable[[dict[str, str], bool], object],
        on_end: Callable[[Callable[[], object]], None] | None = None,
    ) -> None:
        """`update` puts a bundle into the output, with the live view on top of it or without.

        `on_end` hears of its end, and how to show that again.
        """
        self._source, self._view, self._update, self._on_end = source, view, update, on_end
        self._resting = 0
        self.finished = False

    def draw(self) -> None:
        """Tell the front end what changed; when nothing can change any more, finish."""
        snapshot = self._view.flush()
        if snapshot.done:
            self.finish()
        elif isinstance(snapshot, GroupSnapshot):
            self._rest(snapshot)

    def _rest(self, session: GroupSnapshot) -> None:
        """When all runs of an open session have ended, renew what a notebook saved now would show without a kernel."""
        ended = len(session.runs) if all(run.done for run in session.runs) else 0
        if ended > self._resting:
            self._resting = ended
            self._update(to_bundle(session), True)  # noqa: FBT003

    def finish(self) -> None:
        """Put static HTML and text in the place of the live view; the first call counts."""
        if self.finished:
            return
        self.finished = True
        bundle = to_bundle(self._source.snapshot())
        _guarded(lambda: self._update(bundle, False))  # noqa: FBT003 - first, so that the view does not end before its output
        _guarded(lambda: self._view.finish(bundle["text/html"]))
        _ended.append(self._view)
        while len(_ended) > _MAX_ENDED:
            _guarded(_ended.popleft().close)
        if self._on_end is not None:
            self._on_end(self.again)

    def over(self) -> bool:
        """Whether nothing can change any more."""
        return self._source.done()

    def settle(self) -> None:
        """Finish, if nothing can change any more."""
        if self.over():
            self.finish()

    def again(self) -> None:
        """Put the static form into the output once more: the first time nobody may have listened."""
        self._update(to_bundle(self._source.snapshot()), False)  # noqa: FBT003


class Flusher:
    """Draws all live views of one loop, four times a second at most; runs on the loop thread and rests while there is no view."""

    def __init__(self, loop: Loop) -> None:
        """Rest until a view comes."""
        self._loop = loop
        self._views: list[Shown] = []
        self._late: deque[Callable[[], object]] = deque(maxlen=_MAX_ENDED)
        self._cells: CellEnds | None = None
        self._fresh = False
        self._ticking = False

    def add(self, shown: Shown) -> None:
        """Draw `shown` until it has finished."""
        self._views.append(shown)
        if not self._ticking:
            self._ticking = True
            self._tick()

    def follow(self, shell: Any) -> None:
        """Settle, at the end of this shell's cells, what has ended by then."""
        self._fresh = True
        if shell is not None and (self._cells is None or not self._cells.alive or self._cells.shell is not shell):
            self._cells = CellEnds(shell, self._loop, self._is_wanted, self._settle)

    def _is_wanted(self) -> bool:
        """Whether something has to be shown before a cell ends; asked on the cell's thread, which shall not wait for the drawing."""
        return self._fresh or bool(self._late) or any(shown.over() for shown in self._views)

    def ended(self, again: Callable[[], object]) -> None:
        """Something has its last form now; between two cells, it is shown `again` with the next one."""
        if self._cells is not None and not self._cells.running:
            self._late.append(again)

    def _settle(self) -> None:
        self._fresh = False
        while self._late:
            _guarded(self._late.popleft())
        for shown in list(self._views):
            if not shown.finished:
                _guarded(shown.settle)

    def _tick(self) -> None:
        began = time.monotonic()
        # One that failed is not tried again; it still turns static when its source is done.
        self._views = [shown for shown in self._views if not shown.finished and _guarded(shown.draw) and not shown.finished]
        if self._views:
            self._loop.call_later(max(FLUSH_S, _BUSY_SHARE * (time.monotonic() - began)), self._tick)
        else:
            self._ticking = False


_flushers: dict[int, tuple[Loop, Flusher]] = {}


def _flusher(loop: Loop) -> Flusher:
    """The one flusher of `loop`."""
    known = _flushers.get(id(loop))
    if known is None or known[0] is not loop:
        known = _flushers[id(loop)] = (loop, Flusher(loop))
    return known[1]
