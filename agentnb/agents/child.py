"""How every child process of an agent starts; run by path, so that it works from any folder and environment.

The payload is one line of JSON, ``{"path": [...], "main": "module"}``, and then bytes for that module's ``main(body, channel)``,
which returns the exit code. Nothing of agentnb is imported before the parent's module path is in place.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module


def _start() -> int:
    fd = int(os.environ.pop("AGENTNB_PAYLOAD_FD"))
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb") as payload:  # closes it: the memory is freed, and no program started here sees it
        head = json.loads(payload.readline())
        body = payload.read()
    sys.path[:] = head["path"]
    from agentnb.agents.channel import Channel

    channel = Channel(int(os.environ.pop("AGENTNB_CHANNEL_FD")))
    code: int = import_module(head["main"]).main(body, channel)
    return code


if __name__ == "__main__":
    if "AGENTNB_PAYLOAD_FD" not in os.environ or "AGENTNB_CHANNEL_FD" not in os.environ:
        sys.exit("this is the inner part of an agentnb run; start agents with session.python(...) or session.local(...)")
    sys.exit(_start())
