"""The kernels that people have: waiting, interrupts, the Cancel button and queued cells on several versions of ipykernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentnb as nb
from tests.notebook.kernel_pythons import python_with
from tests.notebook.polling import lives, pid_in, until
from tests.notebook.test_kernel import SETUP, Kernel, lasting_loop

pytestmark = [pytest.mark.kernels, pytest.mark.slow]
__all__ = ["lasting_loop"]

#: Where a click on a blocking or awaiting cell's view is handled only after the cell.
DEAF = "6.31"


class Page:
    """A kernel, and the part of a front end that sends clicks as JupyterLab does: on a subshell, where the kernel has those."""

    def __init__(self, kernel: Kernel, version: str, store: Path) -> None:
        self.kernel, self.version, self.store = kernel, version, store
        assert kernel.run("import ipykernel; print('.'.join(ipykernel.__version__.split('.')[:2]))").strip() == version
        kernel.run(SETUP)
        self.subshell = None if version == DEAF else self._make_subshell()

    def _make_subshell(self) -> str:
        client = self.kernel.client
        client.control_channel.send(client.session.msg("create_subshell_request", {}))
        while (reply := client.get_control_msg(timeout=30))["msg_type"] != "create_subshell_reply":
            pass
        return str(reply["content"]["subshell_id"])

    def show(self, run: str, *, core: bool) -> None:
        """Launch and show a run, in a view of anywidget or one of core widgets."""
        name = "agentnb.notebook.widgets"
        self.kernel.run(f"import sys, {name} as kept" if "kept" not in self.kernel.run("print(dir())") else "pass")
        self.kernel.run(f"sys.modules[{name!r}] = {None if core else 'kept'}")
        self.kernel.comms.clear()
        self.kernel.run(f"run = {run}\nrun")
        assert any("_esm" in data["state"] for data in self.kernel.comms.values()) is not core

    def told(self) -> str:
        """All that the widgets of the view say."""
        return str([{k: v for k, v in data["state"].items() if k != "_esm"} for data in self.kernel.comms.values()])

    def click_cancel(self) -> None:
        """Press the Cancel button of the view."""
        client = self.kernel.client
        clicks = {"ButtonModel": {"event": "click"}, "AnyModel": {"type": "cancel"}}
        models = {comm: data["state"]["_model_name"] for comm, data in self.kernel.comms.items()}
        [(comm, click)] = [(comm, clicks[model]) for comm, model in models.items() if model in clicks]
        message = client.session.msg("comm_msg", {"comm_id": comm, "data": {"method": "custom", "content": click}})
        if self.subshell:
            message["header"]["subshell_id"] = self.subshell
        client.shell_channel.send(message)

    def begin(self, code: str) -> str:
        """Send a cell that waits, and see it begin."""
        message = self.kernel.send(f"print('begun', flush=True)\n{code}")
        while (got := self.kernel.client.get_iopub_msg(timeout=30))["msg_type"] != "stream" or got["parent_header"]["msg_id"] != message:
            pass
        return message


@pytest.fixture(scope="module", params=["6.31", "7.0", "7.3", "7.4"])
def page(request: pytest.FixtureRequest, lasting_loop: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("kernel")
    homes = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME")}
    for home in homes.values():
        Path(home).mkdir()
    shown = {"AGENTNB_HOME": str(folder / "store"), "AGENTNB_DISPLAY": "live"}
    with pytest.MonkeyPatch.context() as patch:
        for name, home in homes.items():
            patch.setenv(name, home)
        kernel = Kernel(folder, dict(os.environ) | shown, python_with(request.param))
    try:
        yield Page(kernel, request.param, folder / "store")
    finally:
        kernel.close()


@pytest.mark.parametrize("cell", ["run.wait()", "await run", "await session", "%%agent shell --wait --name magic\nsleep 60"])
def test_an_interrupt_ends_what_a_cell_waits_for_and_leaves_no_process(page: Page, cell: str, tmp_path: Path) -> None:
    command = f"sh -c 'echo $$ > {tmp_path}/inner; exec setsid sleep 60' & echo $$ > {tmp_path}/pid; wait"
    page.kernel.run("%reload_ext agentnb")
    page.kernel.run(f"run = session.shell({command!r}, grace=1); print(run)")
    pids = [pid_in(tmp_path / "pid"), pid_in(tmp_path / "inner")]
    if cell.startswith("%%"):
        message = page.kernel.send(cell)
        until(lambda: "magic" in nb.runs_df(store=page.store, status="running").name.tolist())
    else:
        message = page.begin(cell)
        time.sleep(0.5)  # the cell is to be inside of its call: no condition tells
    page.kernel.manager.interrupt_kernel()
    _, reply = page.kernel.finish(message)
    assert reply["ename"] in {"KeyboardInterrupt", "CancelledError"}
    if cell.startswith("%%"):
        assert page.kernel.run("found = %runs magic\nfound[0].status.value") == "'cancelled'"
        page.kernel.run("run.cancel(); result = run.wait()")
    assert page.kernel.run("run.status.value") == "'cancelled'"
    assert not any(lives(pid) for pid in pids)
    assert page.kernel.run("session.shell('echo on').wait().stdout") == "'on\\n'"


@pytest.mark.parametrize("core", [False, True], ids=["anywidget", "core"])
@pytest.mark.parametrize("cell", ["run.wait()", "await run"])
def test_cancel_takes_effect_at_once_while_a_cell_waits_or_the_view_says_what_does(
    page: Page, cell: str, core: bool, tmp_path: Path
) -> None:
    page.show(f"session.shell('echo $$ > {tmp_path}/pid; sleep 60', name='long', grace=1)", core=core)
    pid = pid_in(tmp_path / "pid")
    assert ("stop button (interrupt the kernel)" in page.told()) == (page.version == DEAF)
    message = page.begin(cell)
    page.click_cancel()
    if page.version == DEAF:
        time.sleep(0.5)
        page.kernel.manager.interrupt_kernel()
    _, reply = page.kernel.finish(message, within_s=20)
    assert reply["status"] == ("error" if page.version == DEAF else "ok"), reply
    why = "interrupt" if page.version == DEAF else "cancelled in its view"
    assert why in page.kernel.run("print(run.status.value, run.error.message)")
    assert not lives(pid)


def test_a_click_between_cells_is_handled_at_once(page: Page) -> None:
    page.show("session.shell('sleep 60', grace=1)", core=False)
    page.click_cancel()
    assert page.kernel.run("while not run.done: await asyncio.sleep(0.02)\nprint(run.error.message)") == "cancelled in its view\n"


def test_run_all_runs_all(page: Page) -> None:
    cells = [
        "print(session.shell('sleep 0.3; echo one').wait().stdout)",
        "print((await session.shell('sleep 0.3; echo two')).stdout)",
        "run = session.shell('sleep 0.3; echo three')\nrun",
        "%%agent shell --wait --as last\nsleep 0.3; echo four",
        "print(run.wait().stdout, last.stdout)",
    ]
    page.kernel.run("%reload_ext agentnb")
    messages = [page.kernel.send(cell) for cell in cells]
    done = [page.kernel.finish(message) for message in messages]
    assert [reply["status"] for _, reply in done] == ["ok"] * len(cells), done
    assert " ".join(text for text, _ in done).split() == ["one", "two", "three", "four"]
