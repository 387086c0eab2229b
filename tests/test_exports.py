"""The public names: each can be imported, is documented, and is the same thing for people and for type checkers."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import agentnb

SOURCE = Path(agentnb.__file__).read_text(encoding="utf-8")


def typed_names() -> dict[str, str]:
    """Name -> module, as a type checker reads them in the TYPE_CHECKING block."""
    block = next(node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    return {alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.parametrize("name", agentnb.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(agentnb, name)
    if name != "__version__":
        assert inspect.getdoc(value)
        assert "TODO" not in str(inspect.getdoc(value))


def test_the_names_are_sorted_and_said_once() -> None:
    assert agentnb.__all__ == sorted(set(agentnb.__all__))


def test_type_checkers_see_the_names_that_are_imported_at_run_time() -> None:
    assert typed_names() == vars(agentnb)["_HOME"]
    assert {*typed_names(), "__version__"} == set(agentnb.__all__)


@pytest.mark.parametrize(("name", "module"), typed_names().items())
def test_a_name_is_the_thing_its_module_holds(name: str, module: str) -> None:
    assert getattr(agentnb, name) is getattr(__import__(module, fromlist=[name]), name)


def test_dir_shows_exactly_the_public_names_before_and_after_use() -> None:
    code = "import agentnb; first = dir(agentnb); agentnb.Shell; assert dir(agentnb) == first == agentnb.__all__"
    subprocess.run([sys.executable, "-c", code], cwd=Path(agentnb.__file__).parents[1], check=True)


def test_every_exception_of_the_tree_is_public() -> None:
    from agentnb import errors

    tree = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert tree <= set(agentnb.__all__)


def test_the_package_is_marked_as_typed() -> None:
    assert (Path(agentnb.__file__).parent / "py.typed").is_file()
