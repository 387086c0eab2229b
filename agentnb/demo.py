"""`agentnb demo`: run the quickstart notebook without a front end, and print what it shows. `agentnb lab`: open the notebooks."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.printing import clean

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

QUICKSTART = "01_quickstart.ipynb"
PACKAGE = Path(__file__).resolve().parent


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
    """Run `notebook` (default: the quickstart) in a scratch folder and print its headings, texts and tables to `out`.

    `output` gets the executed notebook. Returns 0, or 1 when a cell failed (it is printed, with its error). Raises
    RuntimeUnavailable when nbclient or ipykernel is missing, ConfigError for a file that is no notebook.
    """
    need("nbclient", "ipykernel")
    import nbformat

    book = read(notebook or notebooks() / QUICKSTART)
    with tempfile.TemporaryDirectory(prefix="agentnb-demo-", ignore_cleanup_errors=True) as folder:
        failed = execute(book, Path(folder), progress)
    if output is not None:
        nbformat.write(book, output)
    shown = book.cells if failed is None else book.cells[:failed]
    out.writelines(block + "\n\n" for cell in shown for block in blocks(cell))
    if failed is None:
        return 0
    out.write(failure(book.cells[failed], failed))
    return 1


def read(path: Path) -> NotebookNode:
    """The notebook at `path`, in the current format. Raises ConfigError when it is none."""
    import nbformat

    try:
        book: NotebookNode = nbformat.from_dict(json.loads(path.read_text(encoding="utf-8")))
        if book["nbformat"] != 4:
            book = nbformat.convert(book, 4)
        nbformat.validate(book)
    except Exception as bad:  # noqa: BLE001 - nbformat raises whatever it stumbles over in a broken file
        raise ConfigError(f"{path} cannot be read as a notebook: {type(bad).__name__}: {str(bad).partition(chr(10))[0]}") from None
    return book


def execute(book: NotebookNode, folder: Path, progress: TextIO) -> int | None:
    """Run all cells of `book` in `folder`; their outputs are put into it. Returns the index of the cell that failed, if one did."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from nbformat.v4 import new_output

    client = NotebookClient(book, kernel_manager_class=this_python(folder), timeout=600, resources={"metadata": {"path": str(folder)}})
    index = 0
    try:
        with client.setup_kernel(env=environment(folder)):
            for index, cell in enumerate(book.cells):
                if progress.isatty():
                    progress.write(f"\rcell {index + 1} of {len(book.cells)} ")
                    progress.flush()
                client.execute_cell(cell, index)
            client.set_widgets_metadata()
    except CellExecutionError:
        return index
    except (CellTimeoutError, DeadKernelError) as bad:
        book.cells[index].outputs.append(new_output("error", ename=type(bad).__name__, evalue=str(bad), traceback=[]))
        return index
    finally:
        if progress.isatty():
            progress.write("\r\033[K")
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
    """This environment, with the store in `folder`; a checkout that is not installed is put on the path."""
    env = dict(os.environ, AGENTNB_HOME=str(folder / ".agentnb"), IPYTHONDIR=str(folder / ".ipython"), PYDEVD_DISABLE_FILE_VALIDATION="1")
    if (PACKAGE.parent / "pyproject.toml").exists():
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), env.get("PYTHONPATH")]))
    return env


def blocks(cell: NotebookNode) -> Iterator[str]:
    """What to print of a cell: the headings of a text, the outputs of code."""
    if cell.cell_type == "markdown":
        for marks, title in re.findall(r"^(#{1,3}) +(.+?) *$", cell.source, re.MULTILINE):
            yield f"{title}\n{('=' if len(marks) == 1 else '-') * len(title)}"
    elif cell.cell_type == "code":
        for output in cell.outputs:
            if text := text_of(output).strip("\n"):
                yield clean(text)


def text_of(output: NotebookNode) -> str:
    """The plain text of one output; nothing for one that has none."""
    found: Any = output.get("text") if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")
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
    for notebook in sorted(source.glob("*.ipynb")):
        if not (folder / notebook.name).exists():
            shutil.copyfile(notebook, folder / notebook.name)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", str(folder), *options])  # noqa: S606 - no shell is wanted
