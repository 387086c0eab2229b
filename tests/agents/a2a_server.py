"""Starts the agent of a2a_agent.py in a process of its own, and hears what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

#: Seconds; far more than anything here takes.
WAIT_S = 60


class Agent:
    """The process, as tests see it. `url`: of the agent that streams; others are below it (`cards` of a2a_agent.py)."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("a2a_agent.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the SDK's server tells of each stream that was cut
            text=True,
            encoding="utf-8",
        )
        self._told: Queue[dict[str, Any]] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.url = f"http://127.0.0.1:{self.told('port')['port']}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(WAIT_S)
        finally:
            self._process.kill()
            self._process.wait()
        self._reader.join(WAIT_S)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.put(json.loads(line))
        self._told.put({"ended": True})

    def told(self, what: str, value: Any = None) -> dict[str, Any]:
        """The next thing of that kind (and with that value, if one is given) that the agent tells; what it told before is dropped."""
        while True:
            try:
                found = self._told.get(timeout=WAIT_S)
            except Empty:
                raise AssertionError(f"the agent never told {what!r}") from None
            assert "ended" not in found, "the agent ended"
            if what in found and (value is None or found[what] == value):
                return found
