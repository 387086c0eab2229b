"""Pythons with other versions of ipykernel: small virtual environments on top of the one that runs the tests.

Each lies in ``kernels/`` of that environment, is made once by pip from the configured index, and holds ipykernel and what of its
requirements is missing; all else comes from below.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version as installed
from pathlib import Path


def python_with(ipykernel: str) -> str:
    """The interpreter with that ipykernel, such as "7.3"; made now if it is not there. Raises RuntimeError with what pip says."""
    if installed("ipykernel").startswith(f"{ipykernel}."):
        return sys.executable
    folder = Path(sys.prefix) / "kernels" / ipykernel
    python, stamp = folder / "bin" / "python", folder / "made"
    if not stamp.exists():
        _make(folder, python, ipykernel)
        stamp.touch()
    return str(python)


def _make(folder: Path, python: Path, ipykernel: str) -> None:
    venv.create(folder, symlinks=True, clear=True, with_pip=False)
    below = sysconfig.get_path("purelib")
    site = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n", encoding="utf-8")  # after its own: its own wins
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    done = subprocess.run([*pip, f"ipykernel=={ipykernel}.*"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ipykernel {ipykernel} could not be installed into {folder}:\n{done.stderr[-2000:]}")
