"""How the notebook's process describes a child process to the engine."""

from __future__ import annotations

import json
import os
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any


def child_work(main: str, body: bytes, python: str = sys.executable) -> dict[str, Any]:
    """The parts of an engine Work that starts child.py and hands `body` to ``main`` of the module named.

    The module path of this process goes along, made absolute, so that the child finds agentnb and the user's own modules from
    any folder.
    """
    home = str(Path(__file__).resolve().parents[2])
    path = list(dict.fromkeys([*(os.path.abspath(entry) for entry in sys.path), home]))  # noqa: PTH100 - without following links
    head = json.dumps({"path": path, "main": main}).encode() + b"\n"
    return {
        "kind": "process",
        # -P: the folder of child.py must not come first on the path of modules, where its neighbours would hide others
        "argv": [python, "-P", str(Path(__file__).with_name("child.py"))],
        "payload": b64encode(head + body).decode(),
        "channel": True,
    }
