"""The child process of the local model: loads it, streams the answer to stdout, reports tokens and speed.

SIGTERM and SIGINT end it at once: the model computes in C and would not let a Python handler run.
"""

# importing pathlib would cost every child some milliseconds
# ruff: noqa: PTH119
from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from typing import Any

from agentnb.agents.channel import Channel

#: Seconds between two reports of usage.
_INTERVAL_S = 0.25
_STEP_ID = "turn"
_OVERFLOW = "exceed_context_size_error"


def main(body: bytes, channel: Channel) -> int:
    """Answer the question in `body`; return the exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    question = json.loads(body)
    answer = _Answer(channel)
    log = _silence()
    try:
        server = _load(question)
    except Exception as bad:  # noqa: BLE001 - the library raises what its C++ raised
        return answer.fail("startup_failed", f"the model {question['model']} could not be loaded: {bad}\n{_tail(log)}".strip())
    answer.open(question)
    try:
        server.handle_chat_completions(_request(question), answer.take)
    except Exception as bad:  # noqa: BLE001 - the library raises what its C++ raised
        return answer.fail("execution_failed", f"the model failed: {bad}\n{_tail(log)}".strip())
    return answer.close(question)


def _silence() -> int:
    """Send what the library prints to memory; stdout stays ours on another descriptor. Returns the log's descriptor."""
    log = os.memfd_create("log")
    _Answer.stdout = os.dup(1)
    _Answer.stderr = os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    return log


def _tail(log: int) -> str:
    """The last lines that the library printed as errors."""
    size = os.lseek(log, 0, os.SEEK_END)
    text = os.pread(log, 20_000, max(0, size - 20_000)).decode("utf-8", "replace")
    return "\n".join([line for line in text.splitlines() if " E " in line or "error" in line.lower()][-5:])


def _load(question: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = question["model"]
    params.n_ctx = question["context"]
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = question["threads"]
    params.warmup = params.fit_params = params.cont_batching = False
    params.cache_ram_mib = params.n_ctx_checkpoints = 0
    # the library opens an HTTP port with every model: keep it to this machine, and let nobody use it
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [secrets.token_urlsafe(32)]
    params.ui = params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = False
    params.n_threads_http = 1
    return xllamacpp.Server(params)


def _request(question: dict[str, Any]) -> dict[str, Any]:
    system = [{"role": "system", "content": question["system"]}] if question["system"] else []
    request = {
        "messages": [*system, {"role": "user", "content": question["prompt"]}],
        "temperature": question["temperature"],
        "top_p": question["top_p"],
        "max_tokens": question["max_tokens"],
        "cache_prompt": False,
        "stream": True,
        "timings_per_token": True,
        "stream_options": {"include_usage": True},
    }
    return request if question["seed"] is None else request | {"seed": question["seed"]}


class _Answer:
    """The answer as it comes: text to stdout, figures to the channel."""

    stdout, stderr = 1, 2

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pieces: list[str] = []
        self._usage: dict[str, Any] = {"input_tokens": 0, "output_tokens": 0}
        self._error: dict[str, Any] | None = None
        self._reported = 0.0

    def open(self, question: dict[str, Any]) -> None:
        """The turn begins."""
        name = os.path.basename(question["model"])
        asked = {key: question[key] for key in ("prompt", "system", "temperature", "top_p", "seed", "max_tokens")}
        self._step("running", name=name, kind="turn", parent=None, input=asked)

    def take(self, chunk: Any) -> None:
        """One event of the library's stream. It must not raise: the call comes from C++."""
        try:
            self._take(chunk)
        except Exception as bad:  # noqa: BLE001 - C++ calls this, and could not pass it on
            self._error = {"message": f"{type(bad).__name__}: {bad}"}

    def _take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self._error = chunk["error"]
            return
        for choice in chunk.get("choices", ()):
            text = choice.get("delta", {}).get("content")
            if text:
                self._pieces.append(text)
                _write(self.stdout, text)
        timings = chunk.get("timings")
        if timings:
            # no speed before two tokens: the time of the first is the time of reading the prompt
            speed = timings["predicted_per_second"] if timings["predicted_n"] > 1 else None
            self._usage = {"input_tokens": timings["prompt_n"], "output_tokens": timings["predicted_n"]}
            self._usage |= {"tokens_per_s": round(speed, 2)} if speed else {}
            if time.monotonic() - self._reported >= _INTERVAL_S:
                self._reported = time.monotonic()
                self._channel.send({"t": "usage"} | self._usage)

    def fail(self, kind: str, message: str) -> int:
        """Report why there is no answer; the exit code."""
        self._channel.send({"t": "error", "kind": kind, "message": message, "details": {}})
        _write(self.stderr, message + "\n")
        return 1

    def close(self, question: dict[str, Any]) -> int:
        """Report the end; the exit code."""
        if self._error is not None:
            kind, message = self._why(self._error, question)
            self._step("failed", error=message)
            return self.fail(kind, message)
        text = "".join(self._pieces).strip()
        self._channel.send({"t": "usage"} | self._usage)
        tokens = {"input": self._usage["input_tokens"], "output": self._usage["output_tokens"]}
        self._step("completed", output=text, tokens=tokens)
        self._channel.send({"t": "result", "output": text})
        return 0

    def _why(self, error: dict[str, Any], question: dict[str, Any]) -> tuple[str, str]:
        if error.get("type") == _OVERFLOW:
            counts = f"{error.get('n_prompt_tokens')} tokens, and the model reads at most {error.get('n_ctx', question['context'])}"
            return "invalid_config", f"the prompt is too long: it has {counts}; shorten the prompt or the system prompt"
        return "execution_failed", f"the model failed: {error.get('message', error)}"

    def _step(self, status: str, **fields: Any) -> None:
        self._channel.send({"t": "step", "id": _STEP_ID, "status": status} | fields)


def _write(fd: int, text: str) -> None:
    """Write at once, past any buffer; a reader that is gone ends the process, as it would end any program."""
    data = memoryview(text.encode("utf-8", "replace"))
    try:
        while data:
            data = data[os.write(fd, data) :]
    except BrokenPipeError:
        sys.exit(1)
