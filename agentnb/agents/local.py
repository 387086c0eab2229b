"""The local model: a small language model that answers on this machine's processor, in a child process per run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agentnb.agents.launch import child_work
from agentnb.agents.model_file import context_length, missing, model_file
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.prompts import LocalModel

#: Largest context, in tokens, that is set up without being asked; its memory grows with it (about 23 kB a token for the default model).
MAX_CONTEXT = 32_768
_STEP = 256


def local_work(spec: LocalModel, *, python: str = sys.executable) -> dict[str, Any]:
    """The parts of an engine Work (kind, argv, payload, channel) that asks the model in a child process.

    Raises RuntimeUnavailable, with what to install, if the model or the package that runs it is not there; ConfigError for a
    `model` that is no GGUF file.
    """
    path = _model(spec)
    question = {
        "model": str(path),
        "prompt": spec.prompt,
        "system": spec.system,
        "temperature": spec.temperature,
        "top_p": spec.top_p,
        "seed": spec.seed,
        "max_tokens": spec.max_tokens,
        "threads": spec.threads,
        "context": _context(spec, context_length(path)),
    }
    return child_work("agentnb.agents.local_child", json.dumps(question).encode(), python)


def _model(spec: LocalModel) -> Path:
    lacking = missing()
    if spec.model is None:
        if lacking:
            raise RuntimeUnavailable(lacking)
        return model_file()
    if lacking and "xllamacpp" in lacking:
        raise RuntimeUnavailable(lacking)
    path = Path(spec.model).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"model: there is no file {path}; give the path of a GGUF file, or leave it out for the installed model")
    return path


def _context(spec: LocalModel, trained: int) -> int:
    """Tokens to set up: enough for every byte being a token, as far as the model goes."""
    needed = len((spec.prompt + (spec.system or "")).encode("utf-8", "replace")) + spec.max_tokens + _STEP
    return min(-(-needed // _STEP) * _STEP, trained, MAX_CONTEXT)
