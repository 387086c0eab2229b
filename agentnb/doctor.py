"""`agentnb doctor`: what this machine can do, and why not."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agentnb import events, requests
from agentnb._version import __version__
from agentnb.agents.capabilities import capabilities
from agentnb.errors import AgentnbError, RuntimeUnavailable
from agentnb.ids import new_id

State = Literal["ok", "missing", "broken"]
#: Seconds that the supervisor gets for each of its steps.
PATIENCE_S = 30.0
SYMBOLS: dict[State, str] = {"ok": "✓", "missing": "-", "broken": "✗"}


class Finding(NamedTuple):
    """What was found. `state`: ok, missing (something optional is not here) or broken (agentnb cannot work)."""

    name: str
    state: State
    text: str


def examine(store: Path, *, deep: bool = False) -> list[Finding]:
    """Look at everything agentnb can use; `store` is the history's folder, which is not created. `deep`: check all of it, however large."""
    first = [
        Finding("python", "ok", f"{platform.python_version()} ({sys.executable}) on {platform.system()} {platform.release()}"),
        Finding("agentnb", "ok", __version__),
        *_store(store, deep=deep),
    ]
    checks: list[Callable[[], Finding]] = [
        _supervisor,
        _processes,
        _cgroup,
        *(_limit(name, how) for name, how in capabilities()["limits"].items()),
        _model,
        lambda: _program("git", "git, for worktrees and diffs of workspaces,", "apt-get install git"),
        _claude,
        _docker,
        lambda: _program("chromium", "a browser for the browser tests", "apt-get install chromium"),
        *(_package(name, extra) for name, extra in PACKAGES.items()),
    ]
    return first + [check() for check in checks]


def report(findings: list[Finding]) -> str:
    """The findings as text, a line each."""
    width = max(len(finding.name) for finding in findings)
    return "".join(f"{SYMBOLS[f.state]} {f.state:<7}  {f.name.ljust(width)}  {f.text}\n" for f in findings)


# --- the core -------------------------------------------------------------------------------------------------------


def _store(root: Path, *, deep: bool) -> list[Finding]:
    from agentnb.history.locking import check_locks
    from agentnb.history.store import DATABASE

    there = root if root.exists() else next(folder for folder in root.parents if folder.exists())
    if os.access(there, os.W_OK):
        try:
            check_locks(there)
        except AgentnbError as bad:
            return [Finding("store", "broken", str(bad))]
    if not root.exists():
        if os.access(there, os.W_OK):
            return [Finding("store", "ok", f"{root} is not there yet; the first session makes it")]
        return [Finding("store", "broken", f"{root} cannot be made: no right to write in {there}; set AGENTNB_HOME to a folder of yours")]
    if not os.access(root, os.W_OK):
        return [Finding("store", "broken", f"{root} cannot be written to; set AGENTNB_HOME to a folder of yours")]
    if not (root / DATABASE).exists():
        return [Finding("store", "ok", f"{root} is empty")]
    return _checked(root, deep=deep)


def _checked(root: Path, *, deep: bool) -> list[Finding]:
    """What is wrong with a store that is there, a finding each; else what was looked at."""
    from agentnb.history.keeping.integrity import check
    from agentnb.history.keeping.removal import size_of

    try:
        checked = check(root, deep=deep)
    except AgentnbError as bad:
        return [Finding("store", "broken", str(bad))]
    looked = ", ".join(checked.said)
    if checked.troubles:
        return [Finding("store", "broken", str(trouble)) for trouble in checked.troubles] + [Finding("store checked", "ok", looked)]
    size, free = size_of(root) / 1e6, shutil.disk_usage(root).free / 1e9
    return [Finding("store", "ok", f"{root}: sound, {size:.1f} MB; {free:.1f} GB free on its disk; checked: {looked}")]


def _supervisor() -> Finding:
    """Start a supervisor, have it run one command, and time that."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="agentnb doctor")
    thread.start()
    try:
        with tempfile.TemporaryDirectory(prefix="agentnb-doctor-", ignore_cleanup_errors=True) as folder:
            ready_s, run_s, said = _first_command(loop, folder)
    except (AgentnbError, OSError, RuntimeError, FutureTimeoutError) as bad:
        return Finding("supervisor", "broken", f"it cannot run a command: {str(bad) or type(bad).__name__}")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    if said != "completed":
        return Finding("supervisor", "broken", f"`true` did not complete: {said}")
    return Finding("supervisor", "ok", f"up in {1000 * ready_s:.0f} ms, first command done {1000 * run_s:.0f} ms later")


class _Ear:
    """Waits for the end of one run."""

    def __init__(self) -> None:
        self.end: Future[str] = Future()

    def on_event(self, event: events.Message) -> None:
        if isinstance(event, events.RunFinished) and not self.end.done():
            self.end.set_result(str((event.error or {}).get("message") or event.status))

    def on_lost(self, message: str) -> None:
        if not self.end.done():
            self.end.set_result(message)


def _first_command(loop: asyncio.AbstractEventLoop, folder: str) -> tuple[float, float, str]:
    """Seconds until a new supervisor was ready, seconds that `true` then took, and how that ended."""
    from agentnb.engine.client import Client

    start = time.perf_counter()
    client = Client(loop)
    try:
        client.ready.result(PATIENCE_S)
        ready = time.perf_counter()
        session = {"id": new_id(), "name": "doctor", "status": "active", "created_at": events.now_us(), "tags": {}}
        target = {"kind": "command", "display": "true", "spec": {"type": "command", "argv": ["true"]}}
        run = {"id": new_id(), "session_id": session["id"], "name": "doctor", "status": "pending", "target": target}
        run |= {"runtime_kind": "local", "created_at": events.now_us(), "params": {}, "tags": {}}
        work = {"kind": "process", "argv": ["true"], "cwd": folder, "env_id": client.environment(os.environ), "env": {}, "secrets": []}
        work |= {"stdin": None, "capture": "both", "timeout_s": PATIENCE_S, "grace_s": 1.0, "expected_exit_code": 0}
        ear = _Ear()
        client.listen(str(run["id"]), ear)
        client.send([requests.OpenSession(session, folder, 1), requests.Launch(run, work)])
        said = ear.end.result(PATIENCE_S)
        return ready - start, time.perf_counter() - ready, said
    finally:
        client.close()


# --- the machine ----------------------------------------------------------------------------------------------------


def _processes() -> Finding:
    features = {
        "pidfd": hasattr(os, "pidfd_open") and _works(lambda: os.close(os.pidfd_open(os.getpid()))),
        "child subreaper": _subreaper(),
        "/proc children": Path(f"/proc/self/task/{os.getpid()}/children").exists(),
    }
    have = ", ".join(name for name, there in features.items() if there) or "none of them"
    lack = ", ".join(name for name, there in features.items() if not there)
    return Finding("process control", "missing" if lack else "ok", have + (f"; not here: {lack}" if lack else ""))


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def _subreaper() -> bool:
    """Whether the kernel knows PR_GET_CHILD_SUBREAPER (37)."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return bool(ctypes.CDLL(None, use_errno=True).prctl(37, ctypes.byref(ctypes.c_int()), 0, 0, 0) == 0)


def _cgroup() -> Finding:
    """Which cgroups this user can write: a delegated v2 group, v1 controllers, or none."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return Finding("cgroup", "missing", "no cgroups here; limits and usage are read from the processes themselves")
    for _, names, path in lines:
        for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if not names else (f"/sys/fs/cgroup/{names}",):
            group = Path(mount + path)
            if os.access(group / "cgroup.procs", os.W_OK) and os.access(group, os.W_OK):
                if not names and "memory" in (group / "cgroup.controllers").read_text(encoding="utf-8").split():
                    return Finding("cgroup", "ok", f"v2, writable at {group}")
                if "memory" in names.split(","):
                    return Finding("cgroup", "ok", f"v1, writable at {group}")
    return Finding("cgroup", "missing", "none that this user can write; limits and usage are read from the processes themselves")


def _limit(name: str, how: dict[str, Any]) -> Callable[[], Finding]:
    """How one field of nb.Limits is kept here."""
    text = f"{how['by']}: {how['precision']}" if how["enforced"] else f"cannot be kept here: {how['why_not']}"
    return lambda: Finding(f"limit {name}", "ok" if how["enforced"] else "missing", text)


# --- what can be added ----------------------------------------------------------------------------------------------

PACKAGES = {
    "jupyterlab": "lab",
    "ipykernel": "lab",
    "nbclient": "lab",
    "ipywidgets": "",
    "anywidget": "",
    "matplotlib": "plot",
    "pyarrow": "parquet",
    "adbc-driver-sqlite": "arrow",
    "mlflow-skinny": "mlflow",
    "a2a-sdk": "a2a",
}


def _package(name: str, extra: str) -> Callable[[], Finding]:
    def look() -> Finding:
        try:
            return Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            how = f'pip install "agentnb[{extra}]"' if extra else f"pip install {name}"
            return Finding(name, "missing" if extra else "broken", f"not installed; get it with: {how}")

    return look


def _model() -> Finding:
    from agentnb.agents import model_file

    if missing := model_file.missing():
        return Finding("local model", "missing", missing)
    return Finding("local model", "ok", f"xllamacpp {metadata.version('xllamacpp')} with {model_file.model_file()}")


def _claude() -> Finding:
    from agentnb.agents import claude_cli

    try:
        program = claude_cli.find()
    except RuntimeUnavailable as bad:
        return Finding("claude", "missing", str(bad).removeprefix("claude: "))
    what = f"{claude_cli.version(program) or 'unknown version'}, {program}"
    if by := claude_cli.credentials():
        return Finding("claude", "ok", f"{what}; key or login: {by}")
    return Finding("claude", "missing", f"{what}; no key or login is seen: set ANTHROPIC_API_KEY, or run `claude` and log in with /login")


def _program(name: str, what: str, how: str = "") -> Finding:
    if found := shutil.which(name):
        return Finding(name, "ok", found)
    return Finding(name, "missing", f"{what} is not on the PATH" + (f"; get it with: {how}" if how else ""))


def _docker() -> Finding:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return Finding("docker", "ok", f"DOCKER_HOST is {host} (not tried)")
    start = time.perf_counter()
    try:
        with socket.socket(socket.AF_UNIX) as there:
            there.settimeout(2)
            there.connect(host.removeprefix("unix://"))
            there.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            good = b" 200 " in there.recv(64)
    except OSError as bad:
        return Finding("docker", "missing", f"{host}: {bad.strerror or bad}; set DOCKER_HOST if the socket is elsewhere")
    if not good:
        return Finding("docker", "missing", f"{host} answers, but not as Docker does")
    return Finding("docker", "ok", f"{host} answers in {1000 * (time.perf_counter() - start):.0f} ms")
