"""The supervisor's end of the spawner, with a real spawner process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentnb.engine.process import Exit, Spawner, SpawnerDied, StartFailed, memfd
from tests.engine.driver import lives, wait_until


def drive(scene: Callable[[Spawner, list[int]], Awaitable[Any]]) -> None:
    async def play() -> None:
        deaths: list[int] = []
        spawner = Spawner(asyncio.get_running_loop(), lambda: deaths.append(1))
        spawner.set_env(1, {"PATH": os.environ["PATH"]})
        try:
            await scene(spawner, deaths)
        finally:
            spawner.close()
        assert not lives(spawner.pid)

    asyncio.run(play())


async def start(spawner: Spawner, argv: list[str], **changes: Any) -> tuple[Any, asyncio.Future[Exit]]:
    done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    plain = {"cwd": "/", "env_id": 1, "env": {}, "fds": null, "targets": [], "on_exit": done.set_result}
    child = await spawner.spawn(argv, **(plain | changes))
    return child, done


def test_a_command_is_started_and_its_end_is_told() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        child, done = await start(spawner, ["sh", "-c", "exit 3"])
        end = await done
        assert child.pid > 0
        assert (end.exit_code, end.signal, end.orphans) == (3, None, [])
        assert end.at >= child.started_at
        assert 0 < end.peak_memory_bytes < 50_000_000
        child, done = await start(spawner, ["sleep", "1000"])
        assert await spawner.tree(child) == [child.pid]
        assert await spawner.signal(child, signal.SIGKILL) == [child.pid]
        assert ((await done).exit_code, (await done).signal) == (None, signal.SIGKILL)
        assert await spawner.tree(child) == []
        spawner.forget(child)
        assert await spawner.tree(child) == []

    drive(scene)


def test_a_start_that_fails_says_which_part_was_at_fault() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        for argv, changes, what in (
            (["nothing-there"], {}, "program"),
            (["true"], {"cwd": "/nothing"}, "working directory"),
            (["true"], {"env_id": 9}, "KeyError"),
            (["true", "a\0b"], {}, "ValueError"),
            ([], {}, "IndexError"),
        ):
            with pytest.raises(StartFailed) as failure:
                await start(spawner, argv, **changes)
            assert what in failure.value.what
        _, done = await start(spawner, ["true"])
        assert (await done).exit_code == 0

    drive(scene)


def test_a_packet_larger_than_the_socket_takes_arrives() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        big = {f"N{n}": "x" * 1000 for n in range(500)}
        spawner.set_env(2, big | {"PATH": os.environ["PATH"]})
        _, done = await start(spawner, ["sh", "-c", "[ ${#N499} = 1000 ]"], env_id=2)
        assert (await done).exit_code == 0
        _, done = await start(spawner, ["sh", "-c", "[ $# = 1999 ]", *["y" * 100] * 2000])
        assert (await done).exit_code == 0
        spawner.drop_env(2)
        with pytest.raises(StartFailed):
            await start(spawner, ["true"], env_id=2)

    drive(scene)


def test_hundreds_at_once_are_all_told_of() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        started = await asyncio.gather(*(start(spawner, ["sh", "-c", f"sleep 0.{n % 5}; exit {n % 200}"]) for n in range(300)))
        ends = await asyncio.gather(*(done for _, done in started))
        assert [end.exit_code for end in ends] == [n % 200 for n in range(300)]

    drive(scene)


def test_a_tree_of_hundreds_is_seen_whole() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        line = "for n in $(seq 700); do setsid sleep 1000 & done; sleep 1000"
        child, done = await start(spawner, ["sh", "-c", line])
        async with asyncio.timeout(20):
            while len(await spawner.tree(child)) < 702:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        await spawner.signal(child, signal.SIGKILL)
        await done
        async with asyncio.timeout(20):
            while await spawner.tree(child):
                await spawner.signal(child, signal.SIGKILL)
                await asyncio.sleep(0.01)

    drive(scene)


def test_orphans_of_hundreds_are_told_from_each_other() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        line = "for n in $(seq 600); do env -i setsid sleep 1000 & done"
        many, done = await start(spawner, ["sh", "-c", line])
        few, few_done = await start(spawner, ["sh", "-c", "env -i setsid sleep 1000 &"])
        assert len((await done).orphans) == 600
        assert len((await few_done).orphans) == 1
        assert len(await spawner.signal(many, signal.SIGKILL)) == 600
        assert len(await spawner.tree(few)) == 1
        await spawner.signal(few, signal.SIGKILL)

    drive(scene)


def test_the_death_of_the_spawner_is_told_to_all_who_wait() -> None:
    async def scene(spawner: Spawner, deaths: list[int]) -> None:
        child, _ = await start(spawner, ["sleep", "1000"])
        os.kill(spawner.pid, signal.SIGSTOP)
        waiting = [asyncio.ensure_future(spawner.tree(child)), asyncio.ensure_future(start(spawner, ["true"]))]
        await asyncio.sleep(0)
        os.kill(spawner.pid, signal.SIGKILL)
        for future in waiting:
            with pytest.raises(SpawnerDied):
                await future
        assert deaths == [1]
        with pytest.raises(SpawnerDied):
            await start(spawner, ["true"])
        os.kill(child.pid, signal.SIGKILL)  # the supervisor would do that

    drive(scene)


def test_closing_ends_everything_that_is_left() -> None:
    known: list[int] = []

    async def scene(spawner: Spawner, _: list[int]) -> None:
        child, _done = await start(spawner, ["sh", "-c", "trap '' TERM; setsid sleep 1000 & sleep 1000; sleep 1000"])
        async with asyncio.timeout(10):
            while len(known) < 3:
                known[:] = await spawner.tree(child)
                await asyncio.sleep(0.01)

    drive(scene)
    wait_until(lambda: not any(lives(pid) for pid in known))


def test_a_memfd_holds_its_bytes_from_the_start() -> None:
    fd = memfd(b"x" * 3_000_000)
    try:
        assert os.read(fd, 10) == b"x" * 10
        assert os.fstat(fd).st_size == 3_000_000
    finally:
        os.close(fd)
