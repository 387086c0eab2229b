"""Real kernels: cells that wait, await, are interrupted, hold the GIL, are queued; kernels that are killed and restarted."""

from __future__ import annotations

import ast
import os
import queue
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_core.utils import ensure_event_loop

import agentnb as nb
from tests.notebook.polling import lives, pid_in, until

jupyter_client = pytest.importorskip("jupyter_client")
pytest.importorskip("ipykernel")
pytestmark = pytest.mark.kernels

SETUP = "import agentnb as nb, os, time, asyncio; session = nb.Session('kernel', max_parallel=4)"


class Kernel:
    """A kernel and one client of it."""

    def __init__(self, folder: Path, env: dict[str, str], python: str = sys.executable) -> None:
        self.comms: dict[str, dict[str, Any]] = {}
        self.manager = jupyter_client.KernelManager(kernel_name="")
        self.manager.kernel_spec_manager.ensure_native_kernel = False
        spec = jupyter_client.kernelspec.KernelSpec(
            argv=[python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python", display_name="own"
        )
        self.manager._kernel_spec = spec
        self.manager.connection_file = str(folder / "kernel.json")
        self.manager.start_kernel(env=env, cwd=str(folder))
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return int(self.manager.provisioner.pid)

    def send(self, code: str) -> str:
        """Queue a cell; the id of its message."""
        return str(self.client.execute(textwrap.dedent(code), stop_on_error=False))

    def finish(self, message: str, within_s: float = 60) -> tuple[str, dict[str, Any]]:
        """What a queued cell printed and showed, and its reply."""
        text, deadline = "", time.monotonic() + within_s
        while True:
            got = self.client.get_iopub_msg(timeout=max(deadline - time.monotonic(), 0.1))
            if got["msg_type"] == "comm_open":
                self.comms[got["content"]["comm_id"]] = got["content"]["data"]
            if got["parent_header"].get("msg_id") != message:
                continue
            if got["msg_type"] == "stream":
                text += got["content"]["text"]
            elif got["msg_type"] == "execute_result":
                text += got["content"]["data"]["text/plain"]
            elif got["msg_type"] == "status" and got["content"]["execution_state"] == "idle":
                break
        while True:
            reply = self.client.get_shell_msg(timeout=max(deadline - time.monotonic(), 0.1))
            if reply["parent_header"].get("msg_id") == message:
                return text, reply["content"]

    def run(self, code: str) -> str:
        """Run a cell to its good end; what it printed and showed."""
        text, reply = self.finish(self.send(code))
        assert reply["status"] == "ok", "\n".join(reply.get("traceback", [])) or reply
        return text

    def strays(self) -> list[str]:
        """What has been printed outside of any cell that was asked for."""
        found: list[str] = []
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                return found
            if message["msg_type"] in {"stream", "error", "display_data"}:
                found.append(str(message["content"]))

    def restart(self) -> None:
        """As the Restart button does."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self._connect()

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self.manager.context.destroy(linger=0)


@pytest.fixture(scope="session")
def lasting_loop() -> Iterator[None]:
    """The event loop that jupyter_client makes for this thread at its first use and keeps."""
    loop = ensure_event_loop()
    yield
    loop.close()


@pytest.fixture
def kernel(lasting_loop: None, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    kernel = Kernel(tmp_path, dict(os.environ) | {"AGENTNB_HOME": str(store)})
    yield kernel
    kernel.close()


def descendants(kernel: Kernel) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(kernel.pid).children(recursive=True)]


def test_a_cell_waits_and_a_cell_awaits_and_nothing_else_is_printed(kernel) -> None:
    kernel.run(SETUP)
    assert kernel.run("run = session.shell('echo noise; echo more >&2'); run.wait().stdout") == "'noise\\n'"
    assert kernel.run("result = await session.shell('echo one; exit 3'); result.stdout, result.exit_code") == "('one\\n', 3)"
    code = "results = await asyncio.gather(*[session.shell(f'echo {n}') for n in range(3)]); [r.stdout for r in results]"
    assert kernel.run(code) == "['0\\n', '1\\n', '2\\n']"
    assert "2 completed" in kernel.run("group = await session.map(nb.Shell('echo {{n}}'), nb.grid(n=[1, 2])); print(group)")
    assert kernel.run("async def agent(ctx: nb.RunContext): ctx.log('quiet'); return 5\nsession.python(agent).wait().output") == "5"
    assert (
        kernel.run("def work(x): print('quiet'); return x + 1\nr = session.python(work, 1); r.wait(); r.output, r.stdout")
        == "(2, 'quiet\\n')"
    )
    assert kernel.run("try: await asyncio.wait_for(session.shell('sleep 60'), 0.2)\nexcept TimeoutError: print('late')") == "late\n"
    assert kernel.run("print(*sorted(session.runs_df().status))").split() == ["cancelled", *["completed"] * 8, "failed"]
    kernel.run("session.end()")
    assert kernel.strays() == []


@pytest.mark.parametrize("cell", ["run.wait()", "await run", "await asyncio.gather(run, other)", "session.wait()", "session.end()"])
def test_an_interrupt_ends_what_the_cell_waits_for_and_leaves_no_process(kernel, tmp_path, cell) -> None:
    kernel.run(SETUP)
    command = f"sh -c 'echo $$ > {tmp_path}/inner; exec setsid sleep 60' & echo $$ > {tmp_path}/pid; wait"
    kernel.run(f"run = session.shell({command!r}, grace=1); other = session.shell('sleep 60')")
    pids = [pid_in(tmp_path / "pid"), pid_in(tmp_path / "inner")]
    message = kernel.send(cell)
    time.sleep(0.5)  # the cell is to be inside of its call: no condition tells
    kernel.manager.interrupt_kernel()
    _, reply = kernel.finish(message)
    assert (reply["status"], reply["ename"]) in {("error", "KeyboardInterrupt"), ("error", "CancelledError")}
    assert kernel.run("run.status.value") == "'cancelled'"
    assert not any(lives(pid) for pid in pids)
    if "end" not in cell:
        assert kernel.run("session.shell('echo on').wait().stdout") == "'on\\n'"


HOLD = {
    "ctypes": "import ctypes; ctypes.PyDLL(None).usleep(3_000_000)",
    "power": "import sys; sys.set_int_max_str_digits(0); end = time.time() + 2.2\nwhile time.time() < end: len(str(3 ** 200_000))",
}


@pytest.mark.parametrize("how", HOLD)
def test_a_cell_that_holds_the_gil_changes_no_timing_and_loses_no_output(kernel, how) -> None:
    kernel.run(SETUP)
    kernel.run("session.shell('true').wait()")
    launch = """
        runs = [session.shell(f"sleep {s}; seq 50000", name=str(s)) for s in (1.5, 0.5, 1.0)]
        runs.append(session.shell("sleep 0.3", name="0.3"))
        late = [session.shell(f"sleep 0.2; echo {n}", name=f"late {n}") for n in range(4)]
        start = time.time()
    """
    kernel.run(textwrap.dedent(launch) + HOLD[how] + "\nheld = time.time() - start")
    kernel.run("session.wait()")
    columns = "frame = session.runs_df(columns=['name', 'run_s', 'started_at', 'finished_at'], where=\"name <> 'true'\")"
    kernel.run(
        columns + "; frame[['started_at', 'finished_at']] = frame[['started_at', 'finished_at']].map(lambda t: t.timestamp() - start)"
    )
    rows = {row["name"]: row for row in ast.literal_eval(kernel.run("frame.to_dict('records')"))}
    timed, late = [row for name, row in rows.items() if "late" not in name], [row for name, row in rows.items() if "late" in name]
    held = float(kernel.run("held"))
    assert held > 1.9
    for row in timed:
        assert row["run_s"] == pytest.approx(float(row["name"]), abs=0.25), rows
    assert [row["name"] for row in sorted(timed, key=lambda row: row["finished_at"])] == ["0.3", "0.5", "1.0", "1.5"]
    for row in late:  # they took the places as these came free, while the cell held the GIL
        assert rows["0.3"]["finished_at"] <= row["started_at"] < row["finished_at"] < 1.6, rows
    assert kernel.run("[run.stdout == ''.join(f'{n}\\n' for n in range(1, 50001)) for run in runs[:3]]") == "[True, True, True]"


def test_queued_cells_all_run_after_nesting_was_enabled(kernel) -> None:
    kernel.run(SETUP)
    kernel.run("nb.enable_nesting()")
    cells = [
        "asyncio.run(asyncio.sleep(0.2)); print('one')",
        "r = await session.shell('sleep 0.2; echo two'); print(r.stdout)",
        "async def main(): return (await session.shell('echo three')).stdout\nprint(asyncio.run(main()))",
        "async def agent(): return asyncio.run(main())\nprint(session.python(agent, timeout=20).wait().output)",
        "print(session.shell('echo four').wait().stdout)",
    ]
    messages = [kernel.send(cell) for cell in cells]
    printed = [kernel.finish(message) for message in messages]
    assert [reply["status"] for _, reply in printed] == ["ok"] * 5, printed
    assert [text.split() for text, _ in printed] == [["one"], ["two"], ["three"], ["three"], ["four"]]


def test_importing_beside_the_old_nest_asyncio_warns_once(kernel) -> None:
    kernel.run("import sys, types, asyncio; sys.modules['nest_asyncio'] = types.ModuleType('nest_asyncio'); asyncio._nest_patched = True")
    kernel.run("import warnings; caught = warnings.catch_warnings(record=True); seen = caught.__enter__(); warnings.simplefilter('always')")
    kernel.run("import agentnb as nb; session = nb.Session('a'); nb.Session('b')")
    said = kernel.run("[(w.category.__name__, 'nest_asyncio' in str(w.message)) for w in seen if 'nest_asyncio' in str(w.message)]")
    assert said == "[('RuntimeWarning', True)]"


def test_a_kernel_that_is_killed_leaves_no_process_and_a_true_history(kernel, tmp_path, store) -> None:
    kernel.run(SETUP)
    kernel.run("done = session.shell('echo done').wait()")
    kernel.run(f"live = session.shell(\"trap '' TERM; echo live; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done\")")
    kernel.run("async def agent(): await asyncio.sleep(60)\nhosted = session.python(agent)")
    kernel.run("waiting = session.map(nb.Shell('sleep 60'), nb.grid(n=range(9)))")
    pids = [pid_in(tmp_path / "pid"), *descendants(kernel)]
    assert len(pids) > 3
    os.kill(kernel.pid, signal.SIGKILL)
    until(lambda: not any(lives(pid) for pid in pids), 2)
    frame = nb.runs_df(store=store, full=True)
    assert frame.status.tolist()[:3] == ["completed", "interrupted", "interrupted"]
    assert set(frame.status[3:]) == {"interrupted", "cancelled"}
    assert frame.stdout.tolist()[:2] == ["done\n", "live\n"]
    assert frame.error[1:].notna().all()


def test_a_restarted_kernel_starts_anew_and_sees_what_was(kernel, tmp_path) -> None:
    kernel.run(SETUP)
    kernel.run(f"session.shell('echo old').wait(); run = session.shell('echo $$ > {tmp_path}/pid; sleep 60')")
    pids = [pid_in(tmp_path / "pid"), *descendants(kernel)]
    kernel.restart()
    until(lambda: not any(lives(pid) for pid in pids), 2)
    kernel.run(SETUP)
    assert kernel.run("session.shell('echo new').wait().stdout") == "'new\\n'"
    assert kernel.run("nb.runs_df().status.tolist()") == "['completed', 'interrupted', 'completed']"


@pytest.mark.parametrize("kill", [False, True])
def test_a_detached_run_outlives_a_restart_and_a_kill_and_is_shown_live_by_the_next_kernel(kernel, tmp_path, kill) -> None:
    kernel.run(SETUP)
    code = "run = session.shell('echo $$ > pid; echo begin; while [ ! -e go ]; do sleep 0.02; done; echo end', name='long', detach=True)"
    kernel.run(code)
    try:
        pid = pid_in(tmp_path / "pid")
        if kill:
            os.killpg(os.getpgid(kernel.pid), signal.SIGKILL)
            until(lambda: not lives(kernel.pid))
        kernel.restart()
        assert lives(pid)
        assert kernel.run("import agentnb as nb; run = nb.attach('long'); print(run.status); run") == "running\n"
        assert kernel.run("run.tail()") == "'begin'"
        (tmp_path / "go").touch()
        assert kernel.run("(await run).stdout") == "'begin\\nend\\n'"
    finally:
        (tmp_path / "go").touch()  # it ends, whatever the test says
    kernel.close()
    until(lambda: not list((tmp_path / "store" / "owners").iterdir()))
