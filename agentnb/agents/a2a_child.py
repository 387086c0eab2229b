"""The child process that speaks with an A2A agent, by the SDK; one that does not load is told like any other fault."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from agentnb.agents.channel import Channel


def main(body: bytes, channel: Channel) -> int:
    """Give the task in `body` to the agent; return the exit code."""
    question: dict[str, Any] = json.loads(body)
    logging.disable(logging.CRITICAL)  # what the SDK has to say is said in the error
    try:
        from agentnb.agents.a2a_talk import Talk
    except Exception as bad:  # noqa: BLE001 - packages that do not fit together fail in many ways
        said = f'a2a-sdk cannot be loaded in {sys.prefix}: {type(bad).__name__}: {bad}; run: pip install --upgrade "agentnb[a2a]"'
        channel.send({"t": "error", "kind": "startup_failed", "message": said})
        sys.stderr.write(said + "\n")
        return 1
    return asyncio.run(Talk(question, channel).hold())
