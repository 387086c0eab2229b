"""The process that holds a model for all runs that share it; the engine starts it with the first, and ends it after the last."""

from __future__ import annotations

import json
import os
import secrets
import select

from agentnb.agents import llama
from agentnb.agents.answer import end_at_signals
from agentnb.agents.channel import Channel


def main(body: bytes, channel: Channel) -> int:
    """Load the model, tell the engine where it is found, and stay until nobody is left who reads the channel."""
    end_at_signals()
    settings = json.loads(body)
    log, _, _ = llama.silence()
    key = secrets.token_urlsafe(32)
    try:
        server = llama.load(settings, key)
    except Exception as bad:  # noqa: BLE001 - the library raises what its C++ raised
        said = f"the model {settings['model']} could not be loaded: {bad}\n{llama.tail(log)}".strip()
        channel.send({"t": "error", "kind": "startup_failed", "message": said})
        return 1
    channel.send({"t": "ready", "address": {"url": server.listening_address, "key": key, "pid": os.getpid()}})
    os.ftruncate(log, 0)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # what it prints of each question would fill the memory
    os.dup2(null, 2)
    gone = select.poll()
    gone.register(channel.fileno(), 0)  # no event but the end of the other side
    gone.poll()
    os._exit(0)  # the library would wait for answers that nobody wants any more
