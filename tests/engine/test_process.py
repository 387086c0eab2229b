"""The supervisor's end of the spawner, with a real spawner process."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agentnb.engine import process
from agentnb.engine.proc import children_of
from agentnb.engine.process import Child, Exit, Limited, Spawner, SpawnerDied, StartFailed, memfd
from agentnb.engine.sampler import REPORT
from tests.engine.driver import lives, state_of, wait_until


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


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def start(spawner: Spawner, argv: list[str], **changes: Any) -> tuple[Any, asyncio.Future[Exit]]:
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    def on_change(child: Child) -> None:
        if not begun.done():
            begun.set_result(None)
        if child.exit is not None:
            done.set_result(child.exit)

    plain = {"cwd": "/", "env_id": 1, "env": {}, "fds": [], "targets": [], "on_change": on_change}
    child = spawner.start(argv, **(plain | changes))
    await begun
    if child.failure is not None:
        raise child.failure
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


#: A process whose main thread has ended while another one works: a zombie to look at.
HEADLESS = (
    "import ctypes, os, threading, time\n"
    "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
    "open({file!r}, 'w').write(str(os.getpid()))\n"
    "ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)"
)


async def headless(file: str) -> int:
    async with asyncio.timeout(20):
        while not (text := Path(file).read_text() if os.path.exists(file) else "") or state_of(int(text)) != "Z":  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)
    return int(text)


def threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def test_a_process_whose_main_thread_has_ended_is_alive_while_another_works(tmp_path: Path) -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        main, orphan = str(tmp_path / "main"), str(tmp_path / "orphan")
        child, done = await start(spawner, [sys.executable, "-S", "-c", HEADLESS.format(file=main)], limited=Limited(flags=REPORT))
        pid = await headless(main)
        assert await spawner.tree(child) == [pid]
        assert await spawner.signal(child, signal.SIGKILL) == [pid]
        assert (await done).signal == signal.SIGKILL
        script = tmp_path / "script.py"
        script.write_text(HEADLESS.format(file=orphan))
        line = f"{sys.executable} -S {script} & while ! [ -s {orphan} ]; do sleep 0.01; done; sleep 0.1"
        child, done = await start(spawner, ["sh", "-c", line])
        pid = await headless(orphan)
        assert (await done).orphans == [pid]
        spawner.close()
        assert threads(pid) == 0

    drive(scene)


def test_what_a_process_uses_after_its_main_thread_has_ended_is_sampled(tmp_path: Path) -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        samples: list[tuple[float, ...]] = []
        how = Limited(flags=REPORT, on_sample=lambda *readings: samples.append(readings))
        file = str(tmp_path / "pid")
        child, done = await start(spawner, [sys.executable, "-S", "-c", HEADLESS.format(file=file)], limited=how)
        await headless(file)
        samples.clear()
        async with asyncio.timeout(20):
            while not samples:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        memory, processes = samples[-1][2:4]
        assert processes == 1
        assert memory > 1_000_000
        await spawner.signal(child, signal.SIGKILL)
        await done

    drive(scene)


def test_a_tree_of_more_processes_than_files_may_be_open_is_seen_whole_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_NOFILE", (64, process._NOFILE[1]))

    async def scene(spawner: Spawner, _: list[int]) -> None:
        line = "for n in $(seq 100); do sleep 1000 & done; sleep 1000"
        child, done = await start(spawner, ["sh", "-c", line], limited=Limited(REPORT))
        async with asyncio.timeout(20):
            while len(await spawner.tree(child)) < 102:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.25)  # two samples
        _, other_done = await start(spawner, ["sh", "-c", "exit $(ulimit -n)"])
        assert (await other_done).exit_code == 64
        assert len(await spawner.signal(child, signal.SIGKILL)) == 102
        assert (await done).seen == 102
        async with asyncio.timeout(20):
            while await spawner.tree(child):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    drive(scene)


def test_nothing_that_cannot_be_started_says_more_than_a_packet_takes() -> None:
    async def scene(spawner: Spawner, deaths: list[int]) -> None:
        child, done = await start(spawner, ["sleep", "1000"])
        for name in ("x" * 300_000, "a\0" + "b" * 300_000):
            with pytest.raises(StartFailed):
                await start(spawner, [name])
        many = await asyncio.gather(*(start(spawner, [f"{n}" + "word " * 800]) for n in range(120)), return_exceptions=True)
        assert {type(failure) for failure in many} == {StartFailed}
        assert await spawner.tree(child) == [child.pid]
        assert not deaths
        await spawner.signal(child, signal.SIGKILL)
        await done

    drive(scene)


HOPS = """
import os, sys, time
end = time.monotonic() + 20
for _ in range(20):
    if not os.fork():
        while time.monotonic() < end:
            time.sleep(0.003)
            if os.fork():
                os._exit(0)
        os._exit(0)
time.sleep(1000)
"""


def test_orphans_that_come_and_go_all_the_time_hold_up_nothing_and_can_be_ended() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        child, done = await start(spawner, [sys.executable, "-I", "-S", "-c", HOPS])
        _, other_done = await start(spawner, ["true"])
        assert (await asyncio.wait_for(other_done, 10)).exit_code == 0
        async with asyncio.timeout(15):
            while await spawner.signal(child, signal.SIGKILL):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await done).signal == signal.SIGKILL

    drive(scene)


def test_a_spawner_that_was_stopped_goes_on_and_one_that_does_not_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TICK_S", 0.05)

    async def scene(spawner: Spawner, deaths: list[int]) -> None:
        child, done = await start(spawner, ["sleep", "1000"])
        os.kill(spawner.pid, signal.SIGSTOP)
        assert await asyncio.wait_for(spawner.signal(child, signal.SIGKILL), 10) == [child.pid]
        await done
        child, done = await start(spawner, ["sleep", "1000"])
        monkeypatch.setattr(process, "_CONTINUE", -1)
        os.kill(spawner.pid, signal.SIGSTOP)
        with pytest.raises(SpawnerDied):
            await asyncio.wait_for(spawner.tree(child), 10)
        assert deaths
        os.kill(child.pid, signal.SIGKILL)

    drive(scene)


ESCAPE = """
import os, resource, sys, time
resource.setrlimit(10, (7, 7))
if os.fork():
    time.sleep(float(sys.argv[1]))
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.execve("/bin/sleep", ["sleep", "1000"], {})
"""


def test_an_orphan_that_nothing_tells_the_run_of_ends_with_the_runs_that_it_may_have_come_from() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        other, other_done = await start(spawner, ["sleep", "1000"])
        while True:  # it may have been sampled in the millisecond before it got away
            child, done = await start(spawner, [sys.executable, "-I", "-S", "-c", ESCAPE, "0.05"])
            if not (await done).orphans:
                break
            await spawner.signal(child, signal.SIGKILL)
        left = [pid for pid in children_of(spawner.pid) if pid != other.pid]
        spawner.forget(child)
        await spawner.tree(other)
        assert [lives(pid) for pid in left] == [True]
        await spawner.signal(other, signal.SIGKILL)
        assert (await other_done).orphans in (left, [])  # it was told to end by then, and may have done so
        async with asyncio.timeout(20):
            while lives(left[0]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    drive(scene)


@pytest.mark.parametrize("trouble", ["no room", "no data"])
def test_a_start_that_cannot_be_asked_for_closes_its_descriptors_and_forgets_nothing(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: bytes) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scene(spawner: Spawner, __: list[int]) -> None:
        child, done = await start(spawner, ["true"])
        await done
        spawner.forget(child)
        told = list(spawner._over)
        changes: dict[str, Any] = {} if trouble == "no room" else {"env": {"A": object()}}
        assert told
        before = len(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patch:
            patch.setattr(process, "_memfd", full)
            for _ in range(3):
                with pytest.raises((OSError, ValueError)):
                    await start(spawner, ["echo", "x" * 200_000], **changes)
        assert len(os.listdir("/proc/self/fd")) == before
        assert spawner._over == told
        assert spawner.owed == 0
        _, done = await start(spawner, ["true"])
        assert (await done).exit_code == 0

    drive(scene)


def test_what_one_command_makes_of_its_news_is_no_trouble_of_the_others() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        loop, faults = asyncio.get_running_loop(), list[Any]()
        loop.set_exception_handler(lambda _, context: faults.append(context))

        def fail(child: process.Child) -> None:
            raise RuntimeError(f"of {child.key}")

        null = os.open(os.devnull, os.O_RDWR)
        bad = [spawner.start(["true"], "/", 1, {}, [os.dup(null) for _ in range(3)], [0, 1, 2], fail) for _ in range(5)]
        good = [await start(spawner, ["true"]) for _ in range(5)]
        assert [(await done).exit_code for _, done in good] == [0] * 5
        await until(lambda: len(faults) == 10)  # of their starts, and of their ends
        assert spawner.owed == 0
        for child in (*bad, *(child for child, _ in good)):
            spawner.forget(child)
        os.close(null)

    drive(scene)


def test_a_spawner_that_cannot_be_looked_at_counts_as_one_that_works() -> None:
    async def scene(spawner: Spawner, _: list[int]) -> None:
        await until(lambda: not process._works(spawner.pid))  # it waits

    drive(scene)
    assert process._works(2**22 + 1)  # there is no such process
