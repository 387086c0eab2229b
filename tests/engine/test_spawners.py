"""Two spawners: the second comes when starts wait, each answers for its own runs only, and neither is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agentnb.engine.process import SpawnerDied
from agentnb.engine.spawners import Spawners
from tests.engine.driver import SOON, Engine, Loop, Lost, Watched, children, lives, running, wait_until

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor has no use for two spawners")
#: So many starts that wait bring the second spawner.
MANY = 40


@pytest.fixture
def wide(store: Path, loop: Loop) -> Iterator[Engine]:
    """An engine that runs many commands at once."""
    with running(store, loop, max_parallel=3 * MANY) as engine:
        yield engine


def spawners(engine: Engine) -> list[int]:
    """Pids of the live spawners, the first one first."""
    return [pid for pid in children(engine.pid) if b"spawner.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def crowd(engine: Engine, command: str) -> tuple[int, list[Watched], int, list[Watched]]:
    """Both spawners, each with the live runs that it started: the first is stopped for a moment, so that starts wait."""
    [first] = spawners(engine)
    os.kill(first, signal.SIGSTOP)
    try:
        runs = [engine.launch(command) for _ in range(2 * MANY)]
        wait_until(lambda: len(spawners(engine)) == 2 and any(run.of("run_started") for run in runs), "the second spawner")
    finally:
        os.kill(first, signal.SIGCONT)
    [second] = [pid for pid in spawners(engine) if pid != first]
    for run in runs:
        run.started()
    below = {pid: one for one in (first, second) for pid in children(one)}
    parents = [below[int(run.of("run_started")[0].handle.removeprefix("pid:"))] for run in runs]
    owners = {one: [run for run, parent in zip(runs, parents, strict=True) if parent == one] for one in (first, second)}
    return first, owners[first], second, owners[second]


def test_runs_one_after_the_other_need_one_spawner(engine: Engine) -> None:
    for _ in range(MANY):
        engine.run("true")
    assert len(spawners(engine)) == 1


def test_when_starts_wait_a_second_spawner_shares_them_and_both_sum_up_what_their_runs_used(wide: Engine) -> None:
    first, one, second, other = crowd(wide, "exec sleep 1000")
    assert first != second
    assert len(one) + len(other) == 2 * MANY
    assert len(other) >= MANY // 4
    for run in (*one, *other):
        run.cancel()
    for run in (*one, *other):
        end = run.wait()
        assert (end.status, end.signal, (end.usage or {})["processes"]) == ("cancelled", signal.SIGTERM, 1)


def test_a_spawner_that_is_killed_takes_only_its_own_runs_with_it(wide: Engine) -> None:
    _, one, second, other = crowd(wide, "sleep 1000 & wait")
    os.kill(second, signal.SIGKILL)
    for run in other:
        end = run.wait()
        assert (end.status, (end.error or {})["kind"], run.pids()) == ("failed", "runtime_error", [])
    assert [run for run in one if run.done.done()] == []
    assert wide.run("echo on").status == "completed"
    for run in one:
        run.cancel()
    assert {run.wait().status for run in one} == {"cancelled"}


def test_when_the_first_is_killed_the_other_one_goes_on(wide: Engine) -> None:
    first, one, second, other = crowd(wide, "sleep 1000")
    os.kill(first, signal.SIGKILL)
    assert {run.wait().status for run in one} == {"failed"}
    assert wide.run("echo on").status == "completed"
    assert [run for run in other if run.done.done()] == []
    assert spawners(wide) == [second]
    os.kill(second, signal.SIGKILL)
    assert {run.wait().status for run in other} == {"failed"}
    wait_until(lambda: wide.run("true").status == "completed")


def test_both_end_with_the_supervisor_and_a_run_is_lost_when_its_processes_are(wide: Engine) -> None:
    first, one, second, other = crowd(wide, "sleep 1000")
    os.kill(wide.pid, signal.SIGKILL)
    for run in (*one, *other):
        with pytest.raises(Lost):
            run.wait(SOON)
    assert [pid for pid in (first, second) if lives(pid)] == []
    assert [run for run in (*one, *other) if run.pids()] == []


def test_an_environment_that_came_before_the_second_is_known_to_it(wide: Engine) -> None:
    *_, other = crowd(wide, f'[ "$MARK" = {wide.store} ] && touch "$AGENTNB_RUN_ID.good"; exec sleep 1000')
    wait_until(lambda: all(Path(f"{run.id}.good").exists() for run in other), "all to say that it is theirs")


def hosted(test: Callable[[Spawners, asyncio.Queue[list[int]]], Awaitable[None]]) -> None:
    """Run `test` with spawners of this process, and with what is told of who they are."""

    async def run() -> None:
        told: asyncio.Queue[list[int]] = asyncio.Queue()
        both = Spawners(asyncio.get_running_loop(), 1, lambda: None, lambda: told.put_nowait(both.pids))
        try:
            await test(both, told)
        finally:
            both.close()

    asyncio.run(run())


def refuse() -> int:
    """The system has no room for another process."""
    raise BlockingIOError


def test_where_there_is_no_room_for_a_second_one_the_first_goes_on_and_it_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(spawners: Spawners, told: asyncio.Queue[list[int]]) -> None:
        first = spawners.next()
        first.owed = MANY
        with monkeypatch.context() as full:
            full.setattr(os, "fork", refuse)
            assert {spawners.next() for _ in range(2 * MANY)} == {first}
        assert told.empty()
        while len(spawners.pids) < 2:
            spawners.next()
        assert told.get_nowait() == spawners.pids
        assert spawners.next() is not first

    hosted(test)


def test_where_there_is_no_room_for_a_successor_it_comes_with_the_next_start_that_finds_some(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(spawners: Spawners, told: asyncio.Queue[list[int]]) -> None:
        with monkeypatch.context() as full:
            full.setattr(os, "fork", refuse)
            os.kill(spawners.next().pid, signal.SIGKILL)
            assert await told.get() == []
            with pytest.raises(SpawnerDied):
                spawners.next()
        assert spawners.next().alive
        assert told.get_nowait() == spawners.pids

    hosted(test)


#: Processes that are gone before they are killed, since each starts the next one and ends; after a minute by themselves.
RACE = """
import os, time
end = time.time() + 60
for _ in range(4):
    if not os.fork():
        while time.time() < end:
            if os.fork():
                os._exit(0)
            os.setsid()
        os._exit(0)
open("racing", "w").close()
time.sleep(60)
"""


def test_processes_that_are_faster_than_their_killer_do_not_hold_up_the_others_when_their_spawner_dies(engine: Engine) -> None:
    run = engine.launch([sys.executable, "-I", "-S", "-c", RACE]).started()
    wait_until(Path("racing").exists, "the race")
    os.kill(engine.spawner, signal.SIGKILL)
    assert run.wait().status == "failed"
    assert engine.run("echo on").status == "completed"
    wait_until(lambda: not any(run.pids() for _ in range(3)), "the end of the race")
