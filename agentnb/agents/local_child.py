"""The child process of a local model of its own: loads it, streams the answer to stdout, reports tokens and speed.

SIGTERM and SIGINT end it at once: the model computes in C and would not let a Python handler run.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from agentnb.agents import llama
from agentnb.agents.answer import Answer, Asked, NoAnswer, end_at_signals, told
from agentnb.agents.channel import Channel


def main(body: bytes, channel: Channel) -> int:
    """Answer the question in `body`; return the exit code."""
    end_at_signals()
    question = json.loads(body)
    log, stdout, stderr = llama.silence()
    answer = Answer(channel, asked(question), stdout, stderr)
    try:
        server = llama.load(question["settings"], secrets.token_urlsafe(32))
    except Exception as bad:  # noqa: BLE001 - the library raises what its C++ raised
        said = f"the model {question['settings']['model']} could not be loaded: {bad}\n{llama.tail(log)}".strip()
        channel.send({"t": "error", "kind": "startup_failed", "message": said})
        return 1
    answer.open()
    faults: list[NoAnswer] = []
    try:
        server.handle_chat_completions(question["body"], lambda chunk: _take(answer, chunk, faults))
    except Exception as bad:  # noqa: BLE001 - the library raises what its C++ raised
        faults.append(NoAnswer("execution_failed", f"the model failed: {bad}\n{llama.tail(log)}".strip()))
    return answer.fail(faults[0]) if faults else answer.close()


def asked(question: dict[str, Any]) -> Asked:
    """What is asked, of a question as local.py writes it."""
    return Asked(question["name"], question["shown"], question["schema"], question["max_tokens"])


def _take(answer: Answer, chunk: Any, faults: list[NoAnswer]) -> None:
    """One chunk. It must not raise: the call comes from C++."""
    try:
        if not faults:
            answer.take(chunk)
    except NoAnswer as bad:
        faults.append(bad)
    except Exception as bad:  # noqa: BLE001 - C++ calls this, and could not pass it on
        faults.append(told(f"{type(bad).__name__}: {bad}"))
