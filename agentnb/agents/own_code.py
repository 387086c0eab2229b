"""Whose code a module is: the user's own, which counts by its source, or that of an installed package, which counts by its version."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from agentnb._version import __version__
from agentnb.errors import ConfigError

_INSTALLED = frozenset({"site-packages", "dist-packages"})
#: The notebook, or the script: what is defined there is not imported from anywhere.
_MAIN = frozenset({"__main__", "__mp_main__"})


def is_own_file(name: str | None) -> bool:
    """Whether a module is the user's own and in a file, so that another process imports it."""
    return name in sys.modules and name not in _MAIN and library(name) is None


def library(name: str | None) -> str | None:
    """Name and version of the package that module `name` belongs to; None when that is the user's own code."""
    return None if not name or name in _MAIN else _library(name.partition(".")[0])


@functools.lru_cache(maxsize=4096)
def _library(top: str) -> str | None:
    if top == "agentnb":
        return f"agentnb {__version__}"
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return top  # the version of Python counts anyway
    file = _file(top)
    if file is None:
        return None
    homes = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
    if not _INSTALLED.intersection(file.parts) and not any(file.is_relative_to(home) for home in homes):
        return None
    return f"{top} {_version(top)}"


def _version(top: str) -> str:
    told = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(told, str):
        return told
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _file(name: str) -> Path | None:
    """The file of a module, which is not imported for that; None when it is in none, or not found."""
    module = sys.modules.get(name)
    if module is not None:
        places = [getattr(module, "__file__", None), *list(getattr(module, "__path__", []))]
        return next((Path(place) for place in places if place), None)
    found, path = None, None
    for end in range(1, name.count(".") + 2):
        found = importlib.machinery.PathFinder.find_spec(".".join(name.split(".")[:end]), path)
        if found is None:
            return None
        path = found.submodule_search_locations
    if found is None or not (found.has_location or path):
        return None
    return Path(found.origin) if found.has_location and found.origin else Path(next(iter(path or [""])))


def sources(name: str) -> list[str]:
    """An own module as ``name digest`` of its source, and all that it imports: own modules likewise, packages by their versions.

    Raises ConfigError for a module whose source is nowhere.
    """
    found: dict[str, str] = {}
    todo = [name]
    while todo:
        module = todo.pop()
        if module in found:
            continue
        if (package := library(module)) is not None:
            found[module.partition(".")[0]] = package
            continue
        if module not in sys.modules and _file(module) is None:
            found[module] = f"{module} missing"  # an import of it fails, unless somebody expects that
            continue
        digest, imported = _source(module, _place(module))
        found[module] = f"{module} {digest}"
        todo += imported
        if "." in module:
            todo.append(module.rpartition(".")[0])
    return sorted(set(found.values()))


def _place(module: str) -> Path:
    path = _file(module)
    if path is None or not path.exists():
        raise ConfigError(f"reuse: the source of module {module!r} is in no file, so it cannot be told whether it is the same")
    return path / "__init__.py" if path.is_dir() else path


def _source(module: str, path: Path) -> tuple[str, list[str]]:
    """Digest of a module's file, and the modules that it names in imports and that are there."""
    try:
        data = path.read_bytes() if path.exists() else b""  # a namespace package has no file
        named = _imports(data, module if path.name == "__init__.py" else module.rpartition(".")[0]) if path.suffix == ".py" else ()
    except (OSError, SyntaxError, ValueError) as bad:
        raise ConfigError(f"reuse: the source of module {module!r} ({path}) cannot be read: {bad}") from None
    return hashlib.sha256(data).hexdigest(), [name for name in named if library(name) is not None or _file(name) is not None]


@functools.lru_cache(maxsize=1024)
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_named(ast.parse(source), package)))


def _named(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".") if package else []
            base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])]) if node.level else node.module or ""
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
