"""The background loops: started once, stopped, refused to be blocked, new in a fork."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from agentnb.notebook import loop


@pytest.fixture(autouse=True)
def ended():
    yield
    loop.shutdown()


def test_each_loop_is_one_named_daemon_thread_that_ends_and_may_start_again() -> None:
    engine, agents = loop.engine_loop(), loop.agents_loop()
    assert engine is loop.engine_loop()
    assert engine is not agents
    names = {thread.name: thread.daemon for thread in threading.enumerate()}
    assert names["agentnb-engine"]
    assert names["agentnb-agents"]
    loop.shutdown()
    assert not {thread.name for thread in threading.enumerate()} & {"agentnb-engine", "agentnb-agents"}
    engine.call_soon(print, "nobody hears")
    assert loop.engine_loop() is not engine


def test_calls_arrive_on_the_thread_soon_and_later() -> None:
    thread, seen, done = loop.engine_loop(), [], threading.Event()

    def arrived() -> None:
        seen.append(threading.get_ident())
        thread.call_later(0.01, done.set)

    thread.call_soon(arrived)
    assert done.wait(5)
    assert seen == [thread.thread_id]


def test_blocking_is_refused_on_the_loops_and_nowhere_else() -> None:
    async def here() -> bool:
        with pytest.raises(RuntimeError, match="it would block the loop thread"):
            loop.refuse_to_block("it")
        return loop.on_loop_thread() and not await asyncio.to_thread(loop.on_loop_thread)

    loop.refuse_to_block("it")
    assert not loop.on_loop_thread()
    for thread in (loop.engine_loop(), loop.agents_loop()):
        assert asyncio.run_coroutine_threadsafe(here(), thread.loop).result(5)


def test_a_fork_has_loops_of_its_own_even_when_the_lock_was_held() -> None:
    mine = loop.engine_loop()
    with loop._lock:
        child = os.fork()
        if not child:
            code = 1
            try:
                done = threading.Event()
                loop.engine_loop().call_soon(done.set)
                code = 0 if done.wait(5) and loop.engine_loop() is not mine and not loop.on_loop_thread() else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    done = threading.Event()
    mine.call_soon(done.set)
    assert done.wait(5)


def test_a_loop_that_somebody_stopped_is_replaced() -> None:
    stopped = loop.agents_loop()
    stopped.loop.call_soon_threadsafe(stopped.loop.stop)
    stopped._thread.join(5)
    done = threading.Event()
    loop.agents_loop().call_soon(done.set)
    assert done.wait(5)
    assert loop.agents_loop() is not stopped
