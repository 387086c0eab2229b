"""The local model: a small language model that answers on this machine's processor.

Runs share one process that holds the model (local_server.py, started and ended by the engine) and ask it from small processes of
their own (local_client.py); or each loads the model itself (local_child.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentnb.agents import chat, model_file
from agentnb.agents.adapters import Asked, Features, Finished
from agentnb.agents.launch import child_work
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.prompts import LocalModel

#: Largest context, in tokens, that is set up without being asked; its memory grows with it (about 23 kB a token for the default model).
MAX_CONTEXT = 32_768
_STEP = 256
#: Contexts that shared processes have: few different ones, so that runs find one that is there.
_SHARED_CONTEXTS = (1024, 4096, 16_384, MAX_CONTEXT)
#: A shared process works on so many questions at once, while their contexts have no more than so many tokens together.
_SLOTS, _SHARED_TOKENS = 8, 16_384


class _LocalModelAdapter:
    features = Features(steps=True, tokens=True, reply=True, agent=True)

    def missing(self) -> str:
        return model_file.missing() or ""

    def fill(self, spec: LocalModel, params: Mapping[str, Any]) -> LocalModel:
        return chat.fill(spec, params)

    def work(self, spec: LocalModel, _: Asked) -> dict[str, Any]:
        return local_work(spec)

    def reply(self, spec: LocalModel, text: str, finished: Finished) -> LocalModel:
        return chat.reply(spec, text, finished)


LOCAL_MODEL = _LocalModelAdapter()


def local_work(spec: LocalModel, *, python: str = sys.executable) -> dict[str, Any]:
    """The parts of an engine Work (kind, argv, payload, channel, service) that asks the model.

    Raises RuntimeUnavailable, with what to install, if the model or the package that runs it is not there; ConfigError for a
    `model` that is no GGUF file.
    """
    path = _model(spec)
    trained = model_file.context_length(path)
    question = {
        "name": path.name,
        # what was read before stays out of it: the same seed shall give the same text
        "body": chat.request(spec) | {"cache_prompt": False, "timings_per_token": True},
        "shown": chat.shown(spec),
        "schema": spec.json_schema,
        "max_tokens": spec.max_tokens,
    }
    if spec.shared:
        work = child_work("agentnb.agents.local_client", json.dumps(question).encode(), python)
        return work | {"service": _service(spec, path, trained, python)}
    question["settings"] = _settings(path, _context(spec, trained), slots=1, threads=spec.threads or 1)
    return child_work("agentnb.agents.local_child", json.dumps(question).encode(), python)


def _settings(path: Path, context: int, *, slots: int, threads: int) -> dict[str, Any]:
    return {"model": str(path), "context": context, "slots": slots, "threads": threads}


def _service(spec: LocalModel, path: Path, trained: int, python: str) -> dict[str, Any]:
    """The ServicePlan of the process that runs of this model and these settings share."""
    needed = _context(spec, trained)
    context = min(next(size for size in _SHARED_CONTEXTS if size >= needed), trained)
    slots = max(1, min(_SLOTS, _SHARED_TOKENS // context))
    settings = _settings(path, context, slots=slots, threads=spec.threads or max(1, len(os.sched_getaffinity(0)) - 1))
    file = path.stat()
    work = child_work("agentnb.agents.local_server", json.dumps(settings).encode(), python)
    identity = json.dumps([work["argv"], settings, file.st_size, file.st_mtime_ns])
    return {
        "key": hashlib.sha256(identity.encode()).hexdigest(),
        "name": f"model server of {path.name}",
        "argv": work["argv"],
        "payload": work["payload"],
        "keep_s": spec.keep_alive,
    }


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
    texts = [message["content"] for message in spec.conversation()]
    needed = sum(len(text.encode("utf-8", "replace")) + 16 for text in texts) + spec.max_tokens + _STEP
    return min(-(-needed // _STEP) * _STEP, trained, MAX_CONTEXT)
