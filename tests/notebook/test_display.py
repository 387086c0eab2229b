"""Which form is shown, and that it stays true until the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

import nbformat
import pytest

from agentnb.errors import ConfigError
from agentnb.notebook import display
from tests.notebook.fake_source import FakeSource, ThreadLoop, a_group, a_run

ROOT = Path(__file__).resolve().parents[2]
SETUP = (Path(__file__).parent / "fake_source.py").read_text(encoding="utf-8").replace("from __future__ import annotations\n", "")
SETUP += "\nfrom agentnb.notebook.display import options, show\nloop = ThreadLoop()\n"
ENDING = "source.emit('run-0', 'the <end>\\n')\nsource.update('run-0', status='completed', exit_code=0, elapsed_s=0.5)"


@pytest.fixture(autouse=True)
def fresh_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(display.VARIABLE, raising=False)
    monkeypatch.setattr(display, "options", display.DisplayOptions())


def test_the_mode_is_checked_when_it_is_set_and_when_it_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert display.options.display == "auto"
    display.options.display = "static"
    assert display.options.display == "static"
    with pytest.raises(ConfigError, match=r"'fancy' is no display mode; write one of 'auto', 'live', 'static', 'text'"):
        display.options.display = "fancy"
    assert display.options.display == "static"
    display.options.display = None
    monkeypatch.setenv(display.VARIABLE, "loud")
    with pytest.raises(ConfigError, match="AGENTNB_DISPLAY: 'loud' is no display mode"):
        getattr(display.options, "display")  # noqa: B009 - reading it is what raises
    monkeypatch.setenv(display.VARIABLE, " Static ")
    assert display.options.display == "static"


def test_a_variable_that_names_no_mode_is_warned_of_once_and_the_run_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "_shell", lambda: None)
    monkeypatch.setattr(display, "_warned", set())
    monkeypatch.setenv(display.VARIABLE, "loud")
    display.show(FakeSource(a_run(name="first")), ThreadlessLoop())
    display.show(FakeSource(a_run(name="second")), ThreadlessLoop())
    said = capsys.readouterr()
    assert "first" in said.out
    assert "second" in said.out
    assert said.err.count("AGENTNB_DISPLAY: 'loud' is no display mode; write one of 'auto'") == 1


class ThreadlessLoop:
    """A loop whose thread is the test."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Any, tuple[Any, ...]]] = []

    def call_soon(self, fn: Any, *args: Any) -> None:
        fn(*args)

    def call_later(self, delay_s: float, fn: Any, *args: Any) -> None:
        self.later.append((delay_s, fn, args))

    def tick(self) -> float:
        [(delay, fn, args)] = self.later
        self.later.clear()
        fn(*args)
        return delay


def test_plain_python_prints_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(display, "_shell", lambda: None)
    display.show(FakeSource(a_run(name="plain")), ThreadlessLoop())
    assert "◐ running  plain" in capsys.readouterr().out


class FakeView:
    """A live view that says what was asked of it."""

    def __init__(self, source: FakeSource, *, broken: bool = False) -> None:
        self.source, self.broken, self.flushes, self.finished, self.closed = source, broken, 0, 0, 0
        self.threads: set[threading.Thread] = set()
        self.drawn = threading.Event()

    def flush(self) -> Any:
        self.flushes += 1
        self.threads.add(threading.current_thread())
        self.drawn.set()
        if self.broken:
            raise RuntimeError("the front end is gone")
        return self.source.snapshot()

    def finish(self, html: str) -> None:
        assert html.startswith("<style>")
        self.finished += 1
        self.threads.add(threading.current_thread())

    def close(self) -> None:
        self.closed += 1


def shown(source: FakeSource, **how: Any) -> tuple[display.Shown, FakeView, list[tuple[dict[str, str], bool]]]:
    view, updates = FakeView(source, **how), []
    return display.Shown(source, view, lambda bundle, live: updates.append((bundle, live))), view, updates


def test_one_flusher_draws_all_views_rests_without_any_and_survives_a_broken_one() -> None:
    loop = ThreadlessLoop()
    flusher = display.Flusher(loop)
    good, bad = FakeSource(a_run()), FakeSource(a_run())
    (one, view, updates), (two, broken, broken_updates) = shown(good), shown(bad, broken=True)
    bad.call_when_done(two.finish)
    flusher.add(one)
    flusher.add(two)
    assert loop.tick() >= display.FLUSH_S
    loop.tick()
    assert (view.flushes, broken.flushes) == (3, 1)
    good.update("run-0", status="completed")
    loop.tick()
    assert loop.later == []
    assert [live for _, live in updates] == [False]
    assert set(updates[0][0]) == {"text/html", "text/plain"}
    bad.update("run-0", status="failed", error="exit code 9")
    assert "exit code 9" in broken_updates[0][0]["text/plain"]
    one.finish()
    assert (view.finished, broken.finished, len(updates)) == (1, 1, 1)


def test_a_session_whose_runs_have_ended_renews_what_a_saved_notebook_shows_and_stays_live() -> None:
    source = a_group(a_run(1), kind="session", status="active")
    session, view, updates = shown(source)
    session.draw()
    assert updates == []
    source.update("run-1", status="completed")
    session.draw()
    session.draw()
    [(bundle, live)] = updates
    assert live
    assert "1 completed" in bundle["text/plain"]
    assert view.finished == 0


def test_views_that_ended_stay_for_pages_that_are_opened_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_ended", deque())
    made = [shown(FakeSource(a_run(status="completed"))) for _ in range(display._MAX_ENDED + 3)]
    for one, _, _ in made:
        one.finish()
    assert [view.closed for _, view, _ in made] == [1, 1, 1] + [0] * display._MAX_ENDED


def test_views_are_drawn_on_the_loop_thread_only() -> None:
    loop, source = ThreadLoop(), FakeSource(a_run())
    one, view, _ = shown(source)
    loop.call_soon(display.Flusher(loop).add, one)
    assert view.drawn.wait(5)
    source.update("run-0", status="completed")
    end = threading.Event()
    loop.call_soon(one.finish)
    loop.call_soon(end.set)
    assert end.wait(5)
    loop.stop()
    assert view.threads == {loop.thread}
    assert view.finished == 1


EXECUTE = """
import sys, time
sys.modules["rfc3987_syntax"] = None  # to import it takes as long as to start a kernel, and no notebook needs the format "iri"
import nbformat, nbclient
book = nbformat.read(sys.argv[1], 4)
pause = lambda cell_index, **_: cell_index == 1 and time.sleep(float(sys.argv[2]))
nbclient.NotebookClient(book, timeout=60, on_cell_complete=pause).execute()
nbformat.write(book, sys.argv[1])
"""
FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME")


def outputs_of(mode: str, *cells: str, tmp_path: Path, pause_s: float = 0) -> list[Any]:
    """What these cells show when nbclient runs them, without a front end; in a process of its own, whose sockets go with it.

    `pause_s`: between the first and the second.
    """
    path = tmp_path / "book.ipynb"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(book, path)
    folders = {
        name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME")
    }
    env = {**os.environ, **folders, "PYTHONPATH": str(ROOT), display.VARIABLE: mode}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, path, str(pause_s)], env=env, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [cell["outputs"] for cell in nbformat.read(path, 4).cells[1:]]


SHOW = "source = FakeSource(a_run())\nshow(source, loop)"
DONE = ENDING + "\nimport time\nend = time.time() + 10\nwhile source.watched and time.time() < end: time.sleep(0.05)\ntime.sleep(0.2)"


@pytest.mark.kernels
def test_without_a_front_end_a_live_view_has_static_forms_and_ends_as_them(tmp_path: Path) -> None:
    again = "show(source, loop)"
    running = "other = FakeSource(a_run())\nshow(other, loop)"
    cells = (SHOW, DONE, again, running)
    ended, quiet, done, live = outputs_of("auto", *cells, tmp_path=tmp_path)
    assert quiet == []
    for [output] in (ended, done):
        assert set(output["data"]) == {"text/html", "text/plain"}
        assert "the &lt;end&gt;" in output["data"]["text/html"]
        assert "✓ completed" in output["data"]["text/plain"]
    assert set(live[0]["data"]) == {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"}


@pytest.mark.kernels
def test_a_view_whose_run_ends_in_its_own_cell_is_static_when_that_cell_is_over(tmp_path: Path) -> None:
    cell = SHOW + "\n" + ENDING
    for [output] in outputs_of("auto", *[cell] * 8, "1", tmp_path=tmp_path)[:-1]:
        assert set(output["data"]) == {"text/html", "text/plain"}
        assert "✓ completed" in output["data"]["text/plain"]


@pytest.mark.kernels
@pytest.mark.parametrize("mode", ["auto", "static"])
def test_a_view_whose_run_ends_between_two_cells_is_static_after_the_next(mode: str, tmp_path: Path) -> None:
    soon = SHOW + "\nimport threading\nthreading.Timer(0.4, lambda: source.update('run-0', status='completed')).start()"
    [output], _ = outputs_of(mode, soon, "1", tmp_path=tmp_path, pause_s=1.5)
    assert set(output["data"]) == {"text/html", "text/plain"}
    assert "✓ completed" in output["data"]["text/plain"]


@pytest.mark.kernels
def test_text_mode_shows_text_and_renews_it_at_the_end(tmp_path: Path) -> None:
    [[output], _] = outputs_of("text", SHOW, DONE, tmp_path=tmp_path)
    assert set(output["data"]) == {"text/plain"}
    assert "✓ completed" in output["data"]["text/plain"]


def test_deciding_the_form_imports_neither_ipython_nor_widgets() -> None:
    code = "import sys; import agentnb.notebook.display as d; assert d.choose_mode() == 'text'"
    code += "; print({'IPython', 'ipywidgets', 'anywidget'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.stdout == "set()\n", answer.stderr
