"""The spawner stays small, finds programs as a shell would, and reads /proc right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentnb.engine import spawner
from agentnb.engine.finding import find_program
from agentnb.engine.proc import children_of, io_of, read_file, stat_of
from tests.engine.driver import Engine, wait_until


def test_it_imports_next_to_nothing(engine: Engine) -> None:
    code = f"exec(compile(open({spawner.__file__!r}).read(), 'x', 'exec'), {{'__name__': 'x'}}); print(*sorted(sys.modules))"
    package = str(Path(spawner.__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {package!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert not loaded & {
        "typing",
        "socket",
        "signal",
        "subprocess",
        "asyncio",
        "selectors",
        "pathlib",
        "re",
        "json",
        "enum",
        "dataclasses",
        "logging",
        "ctypes",
    }
    status = Path(f"/proc/{engine.spawner}/status").read_text()
    assert next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) < 16_000


def test_a_program_is_searched_on_the_path_of_its_own_environment(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, mode in ((bad, 0o644), (good, 0o755)):
        folder.mkdir()
        (folder / "tool").write_text("")
        (folder / "tool").chmod(mode)
    (bad / "dir").mkdir()
    env = {"PATH": f"{bad}::{good}"}
    assert find_program("tool", env, "/") == str(good / "tool")
    assert find_program("tool", {"PATH": "good"}, str(tmp_path)) == str(good / "tool")
    assert find_program("./tool", env, str(good)) == f"{good}/./tool"
    assert find_program("/abs/tool", env, "/") == "/abs/tool"
    assert find_program("sh", {}, "/").endswith("/sh")
    with pytest.raises(FileNotFoundError):
        find_program("dir", env, "/")
    if os.getuid():
        with pytest.raises(PermissionError):
            find_program("tool", {"PATH": str(bad)}, "/")


def test_proc_is_read_right() -> None:
    child = subprocess.Popen(["sh", "-c", "exec -a 'odd) name (' sleep 1000"] if False else ["sleep", "1000"])
    try:
        wait_until(lambda: child.pid in children_of(os.getpid()))
        assert stat_of(child.pid) is not None
        assert stat_of(child.pid) == (True, os.getsid(child.pid))
        assert io_of(child.pid)[0] is not None
    finally:
        child.kill()
        child.wait()
    assert stat_of(child.pid) is None
    assert io_of(child.pid) == (None, None)
    assert children_of(child.pid) == []
    assert read_file("/proc/nothing") == b""


def test_a_name_full_of_brackets_does_not_confuse_it(engine: Engine, tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 ("
    odd.symlink_to("/bin/sleep")
    run = engine.launch([str(odd), "1000"]).started()
    start = time.monotonic()
    run.cancel()
    assert run.wait(5).status == "cancelled"
    assert time.monotonic() - start < 3
