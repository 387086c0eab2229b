"""The end of a run as something to wait for: once, for everybody, on any thread."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from agentnb.notebook.ending import End

if TYPE_CHECKING:
    import pytest


def test_who_waits_is_told_once_and_who_comes_late_at_once() -> None:
    end, told = End(), list[str]()
    end.call(lambda: told.append("early"))
    assert not end.come
    end.announce()
    end.announce()
    end.call(lambda: told.append("late"))
    assert told == ["early", "late"]
    assert end.come
    assert end.wait()


def test_a_wait_ends_with_it_on_whatever_thread_it_comes_and_polling_leaves_nothing_behind() -> None:
    end = End()
    assert not any(end.wait(0.001) for _ in range(20))
    assert not end._callbacks
    waiting = [threading.Thread(target=end.wait) for _ in range(8)]
    for thread in waiting:
        thread.start()
    end.announce()
    for thread in waiting:
        thread.join(20)
    assert not any(thread.is_alive() for thread in waiting)


def test_no_end_is_missed_however_it_falls_between_looking_and_waiting() -> None:
    for _ in range(300):
        end, told = End(), list[int]()
        thread = threading.Thread(target=end.announce)
        thread.start()
        end.call(lambda told=told: told.append(1))  # type: ignore[misc]
        assert end.wait(20)
        thread.join(20)
        until = time.monotonic() + 20
        while not told and time.monotonic() < until:
            time.sleep(0.001)
        assert told == [1]


def test_what_one_of_them_does_wrong_keeps_nobody_else_waiting(caplog: pytest.LogCaptureFixture) -> None:
    end, told = End(), list[int]()

    def bad() -> None:
        raise ValueError("broken")

    end.call(bad)
    end.call(lambda: told.append(1))
    with caplog.at_level(logging.ERROR):
        end.announce()
    assert told == [1]
    assert "broken" in caplog.text
