"""`import agentnb` is light: it loads nothing heavy, and other modules come with the first thing that needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import agentnb

ROOT = str(Path(agentnb.__file__).parents[1])
HEAVY = (
    "pandas",
    "numpy",
    "pydantic",
    "ipywidgets",
    "anywidget",
    "matplotlib",
    "httpx",
    "asyncio",
    "anyio",
    "IPython",
    "psutil",
    "jsonschema",
    "jinja2",
    "sqlite3",
)


def loaded_by(code: str, *, flags: tuple[str, ...] = ()) -> set[str]:
    """The modules that a fresh interpreter has loaded after `code`, beyond those it starts with."""
    script = f"import sys; sys.path.insert(0, {ROOT!r}); before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_only_the_package() -> None:
    assert {name for name in loaded_by("import agentnb") if not name.startswith("__")} == {"agentnb", "agentnb._version"}


@pytest.mark.parametrize("code", ["agentnb.__version__", "dir(agentnb)", "agentnb.RunFailed", "agentnb.RunStatus"])
def test_names_of_the_floor_load_nothing_heavy(code: str) -> None:
    assert not loaded_by(f"import agentnb; {code}") & set(HEAVY)


@pytest.mark.parametrize(
    "module",
    [
        "events",
        "requests",
        "states",
        "units",
        "ids",
        "history.store",
        "history.artifacts",
        "history.migrations",
        "engine.reports",
        "engine.client",
    ],
)
def test_what_the_supervisor_lives_by_needs_only_the_standard_library(module: str) -> None:
    """Run without site-packages (-S), so that anything else is an ImportError."""
    heavy = set(HEAVY) - {"sqlite3", "asyncio"}
    assert not loaded_by(f"import agentnb.{module}", flags=("-I", "-S")) & heavy


@pytest.mark.parametrize("content", ["", "raise OSError('wrong machine')", "def dumps(value): return value"])
def test_something_else_that_is_called_orjson_harms_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / "orjson.py").write_text(content)
    code = "from agentnb import compact, wire; from agentnb.events import Reply; frame = wire.encode([Reply(1, {'a': [1.5, None]})]);"
    code = f"sys.path.insert(0, {str(tmp_path)!r}); {code} assert wire.Decoder().feed(frame)[0]['data'] == {{'a': [1.5, None]}}"
    assert "orjson.orjson" not in loaded_by(code)


def test_a_name_that_is_not_there_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="module 'agentnb' has no attribute 'Sesion'"):
        agentnb.Sesion  # type: ignore[attr-defined]  # noqa: B018


def test_a_name_that_is_not_there_cannot_be_imported() -> None:
    with pytest.raises(ImportError):
        exec("from agentnb import Sesion")
