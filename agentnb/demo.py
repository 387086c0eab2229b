"""`agentnb demo`: run the quickstart notebook without a front end, and print what it shows. `agentnb lab`: open the notebooks."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.formats import without_iri
from agentnb.printing import clean

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

QUICKSTART = "01_quickstart.ipynb"
PACKAGE = Path(__file__).resolve().parent

#: Most lines that are printed of one output, and columns of prose.
LONGEST, PROSE = 20, 100
#: What the kernel runs first: all columns of a DataFrame, on lines as wide as the terminal.
TABLES = """import pandas
pandas.set_option("display.max_columns", None)
pandas.set_option("display.width", {width})
del pandas
"""


def notebooks() -> Path:
    """The folder of the notebooks that come with agentnb: inside an installed package, or beside it in a checkout."""
    for folder in (PACKAGE / "notebooks", PACKAGE.parent / "notebooks"):
        if (folder / QUICKSTART).is_file():
            return folder
    raise RuntimeUnavailable(
        f"the notebook {QUICKSTART} is missing from this installation; install agentnb again, or name one with --notebook"
    )


def need(*modules: str) -> None:
    """Raise RuntimeUnavailable, saying how to get them, unless these modules are installed."""
    if missing := [module for module in modules if find_spec(module) is None]:
        raise RuntimeUnavailable(f'{", ".join(missing)} is not installed; get it with: pip install "agentnb[lab]"')


def demo(notebook: Path | None, output: Path | None, out: TextIO, progress: TextIO) -> int:
    """Run `notebook` (default: the quickstart) in a scratch folder and print its prose, texts and tables to `out`, section by section.

    `output` gets the executed notebook. Returns 0, or 1 when a cell failed (it is printed, with its error). Raises
    RuntimeUnavailable when nbclient or ipykernel is missing, ConfigError for a file that is no notebook.
    """
    need("nbclient", "ipykernel")
    without_iri()
    import nbformat

    path = notebook or notebooks() / QUICKSTART
    book = read(path)
    transcript, began = Transcript(book, out, progress), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agentnb-demo-", ignore_cleanup_errors=True) as folder:
        failed = execute(book, Path(folder), transcript.before)
    if output is not None:
        nbformat.write(book, output)
    if failed is not None:
        transcript.up_to(failed)
        out.write(failure(book.cells[failed], failed))
        return 1
    transcript.up_to(len(book.cells))
    out.write(f"{path.name} ran in {time.monotonic() - began:.0f} s. To run and change it yourself: agentnb lab\n")
    return 0


def read(path: Path) -> NotebookNode:
    """The notebook at `path`, in the current format. Raises ConfigError when it is none."""
    import nbformat

    try:
        book: NotebookNode = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(book)
    except Exception as bad:  # noqa: BLE001 - nbformat raises whatever it stumbles over in a broken file
        raise ConfigError(f"{path} cannot be read as a notebook: {type(bad).__name__}: {str(bad).partition(chr(10))[0]}") from None
    return book


def execute(book: NotebookNode, folder: Path, before: Callable[[int], None]) -> int | None:
    """Run all cells of `book` in `folder`; their outputs are put into it. `before` is told the index of each cell before it runs.

    Returns the index of the cell that failed, if one did.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from nbformat.v4 import new_output

    client = NotebookClient(book, kernel_manager_class=this_python(folder), timeout=600, resources={"metadata": {"path": str(folder)}})
    index = 0
    try:
        with client.setup_kernel(env=environment(folder)):
            for index, cell in enumerate(book.cells):
                before(index)
                client.execute_cell(cell, index)
            client.set_widgets_metadata()
    except CellExecutionError:
        return index
    except (CellTimeoutError, DeadKernelError) as bad:
        book.cells[index].outputs.append(new_output("error", ename=type(bad).__name__, evalue=str(bad), traceback=[]))
        return index
    return None


def this_python(folder: Path) -> type[AsyncKernelManager]:
    """Kernels of this very interpreter, whatever kernels are registered on this machine, spoken to by sockets in `folder`."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"transport": "ipc", "ip": str(folder / "kernel"), "connection_file": str(folder / "kernel.json")})

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

    return ThisPython


def environment(folder: Path) -> dict[str, str]:
    """This environment, with the store in `folder`, views without widgets and tables as wide as the terminal.

    A checkout that is not installed is put on the path.
    """
    startup = folder / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-tables.py").write_text(TABLES.format(width=width()), encoding="utf-8")
    env = os.environ | {
        "AGENTNB_HOME": str(folder / ".agentnb"),
        "AGENTNB_DISPLAY": "static",
        "IPYTHONDIR": str(folder / ".ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    if (PACKAGE.parent / "pyproject.toml").exists():
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), env.get("PYTHONPATH")]))
    return env


def width() -> int:
    """Columns of the terminal, within reason; 120 where there is none."""
    return min(max(shutil.get_terminal_size((120, 24)).columns, 80), 160)


class Transcript:
    """Writes what the cells of a notebook show, each section when the next one begins: views have their last state by then."""

    def __init__(self, book: NotebookNode, out: TextIO, progress: TextIO) -> None:
        """Write to `out`; show on `progress`, if that is a terminal, how far it is."""
        self._cells = book.cells
        self._out, self._progress = out, progress
        self._written = 0

    def before(self, index: int) -> None:
        """The cell with this index runs next."""
        cell = self._cells[index]
        if cell.cell_type == "markdown" and cell.source.lstrip().startswith("#"):
            self.up_to(index)
        if self._progress.isatty():
            self._progress.write(f"\r\033[Kcell {index + 1} of {len(self._cells)} ")
            self._progress.flush()

    def up_to(self, end: int) -> None:
        """Write what is not written yet of the cells before `end`."""
        if self._progress.isatty():
            self._progress.write("\r\033[K")
            self._progress.flush()
        self._out.writelines(block + "\n\n" for cell in self._cells[self._written : end] for block in blocks(cell))
        self._out.flush()
        self._written = max(self._written, end)


def blocks(cell: NotebookNode) -> Iterator[str]:
    """What to print of a cell: the prose of a text, the outputs of code."""
    if cell.cell_type == "markdown":
        apart = re.sub(r"(?m)^(#{1,6} .*)$", r"\n\1\n", cell.source)  # a heading is a paragraph, whatever follows it
        yield from (clean(prose(paragraph)) for paragraph in re.split(r"\n\s*\n", apart.strip()))
    elif cell.cell_type == "code":
        for output in cell.outputs:
            if text := text_of(output).strip("\n"):
                yield clean(shortened(text))


def prose(paragraph: str) -> str:
    """A paragraph of Markdown for a terminal: headings underlined, the rest wrapped, links without their targets."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    if heading := re.match(r"(#{1,6}) +(.+?) *$", text):
        marks, title = heading.groups()
        return f"{title}\n{('=' if len(marks) == 1 else '-') * len(title)}"
    items = re.split(r"\n(?=[-*] )", text)
    return "\n".join(
        textwrap.fill(" ".join(item.split()), min(width(), PROSE), subsequent_indent="  " * item.startswith(("- ", "* "))) for item in items
    )


def shortened(text: str) -> str:
    """The first lines of a long output."""
    lines = text.split("\n")
    return text if len(lines) <= LONGEST else "\n".join([*lines[: LONGEST - 1], f"  … and {len(lines) - LONGEST + 1} more lines"])


def text_of(output: NotebookNode) -> str:
    """The plain text of one output; nothing for one that has none, and what a figure says of itself."""
    data: Any = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        told = next((kind["alt"] for kind in output.get("metadata", {}).values() if isinstance(kind, dict) and kind.get("alt")), "")
        return f"(a figure: {told or 'the notebook shows it'}; keep the executed one with --output FILE)"
    found: Any = output.get("text") if output.output_type == "stream" else data.get("text/plain", "")
    return found if isinstance(found, str) else "".join(found or ())


def failure(cell: NotebookNode, index: int) -> str:
    """The cell that failed, what it had printed, and its error."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    traces = ["\n".join(error.get("traceback") or [f"{error.ename}: {error.evalue}"]) for error in errors]
    parts = [f"Cell {index + 1} failed:", "", cell.source, "", *blocks(cell), *(clean(trace) for trace in traces)]
    return "\n".join(parts) + "\n"


def lab(folder: Path, *options: str) -> None:
    """Copy the notebooks to `folder` (those that are there stay as they are) and become JupyterLab there; does not return."""
    need("jupyterlab", "ipykernel")
    source = notebooks()
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted([*source.glob("*.ipynb"), *source.glob("recorded/*.jsonl")]):
        target = folder / file.relative_to(source)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", str(folder), *options])  # noqa: S606 - no shell is wanted
