"""The view of core widgets: it tells the truth, sends little, stays on the loop thread, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

from agentnb.notebook import display, fallback
from tests.notebook.fake_source import FakeSource, ThreadLoop, a_group, a_run
from tests.notebook.test_display import DONE, ROOT, SHOW, outputs_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time that views see; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("agentnb.notebook.fallback.time.monotonic", lambda: now[0])
    return now


class Wire:
    """What the widgets of a view send."""

    def __init__(self, view: fallback.CoreView) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.threads: set[threading.Thread] = set()
        for widget in (view._style, view._body, view._bar, view._bar.layout, view._button):
            widget.comm.send = self._take

    def _take(self, data: Any = None, **_: Any) -> None:
        self.sent += data["state"].items()
        self.threads.add(threading.current_thread())

    @property
    def size(self) -> int:
        return sum(len(str(value)) for _, value in self.sent)


@pytest.fixture
def views() -> Iterator[list[fallback.CoreView]]:
    made: list[fallback.CoreView] = []
    yield made
    for view in made:
        view.close()


def live(source: FakeSource, views: list[fallback.CoreView], note: str = "") -> tuple[fallback.CoreView, Wire]:
    view = fallback.CoreView(source, note, lambda content: source.request_cancel(None) if content == {"type": "cancel"} else None)
    views.append(view)
    return view, Wire(view)


def test_it_shows_status_the_last_lines_and_a_button(clock: list[float], views: list[fallback.CoreView]) -> None:
    source = FakeSource(a_run(name="<b>build</b>"))
    for i in range(100):
        source.emit("run-0", f"line {i}\n")
    view, _ = live(source, views)
    body = view._body.value
    assert "running" in body
    assert "&lt;b&gt;build" in body
    assert "<b>" not in body
    assert "line 99" in body
    assert body.count("line ") == fallback.MAX_LINES
    assert (view._button.description, view._button.disabled, view._bar.layout.display) == ("Cancel", False, "none")
    assert not any(isinstance(child, ipywidgets.Output) for child in _instances.values())


def test_a_click_asks_for_the_end_and_the_button_says_so(clock: list[float], views: list[fallback.CoreView]) -> None:
    source = a_group(a_run(1), a_run(2), a_run(3, status="completed"))
    view, _ = live(source, views, note="press <stop>")
    assert view._note.value == "press &lt;stop&gt;"
    assert (view._button.description, view._bar.value, view._bar.max, view._bar.description) == ("Cancel all", 1, 3, "1 of 3")
    view._button.click()
    assert source.cancels == [None]
    view.flush()
    assert (view._button.description, view._button.disabled) == ("cancelling …", True)
    assert "cancelling" in view._body.value


def test_a_group_that_is_empty_and_a_session_that_grows_are_shown(clock: list[float], views: list[fallback.CoreView]) -> None:
    source = a_group(kind="session", status="active")
    view, _ = live(source, views)
    assert (view._button.disabled, view._bar.max) == (True, 1)
    for number in range(3):
        source.add(a_run(number))
    clock[0] += 1
    view.flush()
    assert (view._button.disabled, view._bar.max, view._bar.description) == (False, 3, "0 of 3")
    assert source.watched == {"run-0", "run-1", "run-2"}
    source.update("run-1", status="failed")
    view.flush()
    assert source.watched == {"run-0", "run-2"}
    view.finish("<style></style><p>over</p>")
    assert source.watched == set()


def test_a_quiet_run_sends_its_seconds_once_a_second_and_one_that_rests_sends_nothing(
    clock: list[float], views: list[fallback.CoreView]
) -> None:
    source = a_group(a_run(1, elapsed_s=0.0), kind="session", status="active")
    view, wire = live(source, views)
    for _ in range(40):  # ten seconds
        clock[0] += 0.25
        view.flush()
    assert len(wire.sent) <= 12
    source.update("run-1", status="completed", elapsed_s=10.0)
    clock[0] += 1
    view.flush()
    wire.sent.clear()
    for _ in range(40):
        clock[0] += 0.25
        view.flush()
    assert wire.sent == []


def test_a_flood_costs_bounded_messages_and_bytes(clock: list[float], views: list[fallback.CoreView]) -> None:
    source = FakeSource(a_run())
    view, wire = live(source, views)
    for _ in range(40):  # ten seconds of 4 MB/s
        clock[0] += 0.25
        for _ in range(100):
            source.emit("run-0", "x" * 99 + "\n" + "y" * 9_900)
        view.flush()
    assert len(wire.sent) <= 45
    assert wire.size < 10 * fallback.BYTES_PER_S + 50_000


def test_it_closes_every_widget_that_it_made(clock: list[float]) -> None:
    before = set(_instances)
    source = a_group(a_run(1))
    view = fallback.CoreView(source, "note", lambda _content: None)
    view.flush()
    view.finish("<style></style><p>over</p>")
    view.close()
    view.close()
    assert set(_instances) - before == set()


def test_once_made_it_is_drawn_on_the_loop_thread_only(views: list[fallback.CoreView]) -> None:
    loop, source = ThreadLoop(), FakeSource(a_run())
    view, wire = live(source, views)
    shown = display.Shown(source, view, lambda bundle, live: None)
    end = threading.Event()
    source.call_when_done(lambda: loop.call_soon(shown.finish))
    loop.call_soon(display.Flusher(loop).add, shown)
    source.emit("run-0", "spoken\n")
    source.update("run-0", status="completed")
    loop.call_soon(end.set)
    assert end.wait(5)
    loop.stop()
    assert wire.threads <= {loop.thread}
    assert shown.finished


# --- which view -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [
        ((), "agentnb.notebook.widgets"),
        (("anywidget",), "agentnb.notebook.fallback"),
        (("anywidget", "ipywidgets"), None),
        (("ipywidgets",), None),
    ],
)
def test_the_best_view_that_can_be_imported_is_taken(missing: tuple[str, ...], chosen: str | None) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from agentnb.notebook.display import view_maker
made = view_maker(asked=True) and view_maker(asked=True)
print(made and made.__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == str(chosen)
    assert done.stderr.count("no live views") == (chosen is None)
    assert ("pip install anywidget ipywidgets" in done.stderr) == (chosen is None)


WIDGET = "application/vnd.jupyter.widget-view+json"
BLOCK = "import sys\nsys.modules.update(dict.fromkeys({names!r}))\n"
LIVE = "other = FakeSource(a_run())\nshow(other, loop)"


MODES = [
    (("anywidget",), "auto", {WIDGET, "text/html", "text/plain"}),
    (("anywidget",), "LIVE", {WIDGET, "text/html", "text/plain"}),
    (("anywidget",), "static", {"text/html", "text/plain"}),
    (("anywidget",), " Text ", {"text/plain"}),
    (("anywidget", "ipywidgets"), "auto", {"text/html", "text/plain"}),
    (("anywidget", "ipywidgets"), "live", {"text/html", "text/plain"}),
    ((), "nonsense", {WIDGET, "text/html", "text/plain"}),
    ((), "live", {WIDGET, "text/html", "text/plain"}),
]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Future[list[Any]]]:
    """What the cells show in each of `MODES`. To start a kernel takes nearly all of the time, so two do it at once."""
    with ThreadPoolExecutor(2) as pool:
        return {
            (missing, mode): pool.submit(
                outputs_of, mode, BLOCK.format(names=missing), SHOW, DONE, LIVE, tmp_path=tmp_path_factory.mktemp("kernel")
            )
            for missing, mode, _ in MODES
        }


@pytest.mark.kernels
@pytest.mark.parametrize(("missing", "mode", "running"), MODES)
def test_a_kernel_without_some_widgets_shows_what_it_can_in_each_mode(
    missing: tuple[str, ...], mode: str, running: set[str], kernels: dict[Any, Future[list[Any]]]
) -> None:
    _, ended, _, live = kernels[missing, mode].result()
    shown = [output for output in ended if output["output_type"] == "display_data"]
    assert [set(output["data"]) for output in shown] == [running - {WIDGET}]
    assert "✓ completed" in shown[0]["data"]["text/plain"]
    assert [set(output["data"]) for output in live if output["output_type"] == "display_data"] == [running]
    said = "".join(output["text"] for output in ended if output["output_type"] == "stream")
    expected = {"nonsense": "AGENTNB_DISPLAY: 'nonsense' is no display mode", "live": "no live views" if missing else ""}.get(mode, "")
    assert (expected in said) if expected else said == ""
    assert not [output for output in live if output["output_type"] == "stream"]


@pytest.mark.parametrize("mode", ["auto", "live", "static", "text", "nonsense"])
def test_without_a_kernel_every_mode_prints_text(mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(display.VARIABLE, mode)
    monkeypatch.setattr(display, "options", display.DisplayOptions())
    monkeypatch.setattr(display, "_shell", lambda: None)
    display.show(FakeSource(a_run(name="plain")), ThreadlessLoop())
    assert "◐ running  plain" in capsys.readouterr().out


class ThreadlessLoop:
    """A loop that is never asked."""

    def call_soon(self, fn: Any, *args: Any) -> None:
        raise AssertionError

    call_later = call_soon
