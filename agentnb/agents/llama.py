"""Loading a model with llama.cpp (xllamacpp), in a child process."""

from __future__ import annotations

import os
from typing import Any

#: Tokens of a prompt that are read in one go: a question that nobody wants any more is dropped between two.
_BATCH = 256


def silence() -> tuple[int, int, int]:
    """Send what the library prints to memory. Returns descriptors: the log, and what was stdout and stderr."""
    log = os.memfd_create("log")
    stdout, stderr = os.dup(1), os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return log, stdout, stderr


def tail(log: int) -> str:
    """The last lines that the library printed as errors."""
    size = os.lseek(log, 0, os.SEEK_END)
    text = os.pread(log, 20_000, max(0, size - 20_000)).decode("utf-8", "replace")
    return "\n".join([line for line in text.splitlines() if " E " in line or "error" in line.lower()][-5:])


def load(settings: dict[str, Any], key: str) -> Any:
    """The model as a server with `slots` places of `context` tokens each. It opens a port of this machine, for who has `key`."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    params.warmup = params.fit_params = False
    params.cont_batching = settings["slots"] > 1
    params.n_batch = params.n_ubatch = _BATCH
    params.kv_unified = False  # a place of its own for each question: with one for all, neighbours change a seed's text
    params.cache_ram_mib = params.n_ctx_checkpoints = 0
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [key]
    params.ui = params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = False
    params.n_threads_http = settings["slots"] + 2 if settings["slots"] > 1 else 1
    return xllamacpp.Server(params)
