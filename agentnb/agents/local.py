"""The local model: a small language model that answers on this machine's processor, in a child process per run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentnb.agents import filling, model_file
from agentnb.agents.adapters import Asked, Features
from agentnb.agents.launch import child_work
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.prompts import LocalModel

#: Largest context, in tokens, that is set up without being asked; its memory grows with it (about 23 kB a token for the default model).
MAX_CONTEXT = 32_768
_STEP = 256
#: Options that a parameter of the same name sets, unless the spec sets them itself.
_OPTIONS = ("system", "temperature", "top_p", "seed", "max_tokens")


class _LocalModelAdapter:
    features = Features(steps=True, tokens=True, agent=True)

    def missing(self) -> str:
        return model_file.missing() or ""

    def fill(self, spec: LocalModel, params: Mapping[str, Any]) -> LocalModel:
        changes: dict[str, Any] = {"prompt": filling.text(spec.prompt, params, f"prompt {filling.short(spec.prompt)}")}
        if spec.system is not None:
            changes["system"] = filling.text(spec.system, params, f"system prompt {filling.short(spec.system)}")
        return filling.again(spec, changes | filling.options(spec, params, _OPTIONS))

    def work(self, spec: LocalModel, _: Asked) -> dict[str, Any]:
        return local_work(spec)


LOCAL_MODEL = _LocalModelAdapter()


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
        "context": _context(spec, model_file.context_length(path)),
    }
    return child_work("agentnb.agents.local_child", json.dumps(question).encode(), python)


def _model(spec: LocalModel) -> Path:
    lacking = model_file.missing()
    if spec.model is None:
        if lacking:
            raise RuntimeUnavailable(lacking)
        return model_file.model_file()
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
