"""Interrupts at bad moments, and forked copies: the engine is neither wedged nor waited for in vain."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import agentnb as nb

LAUNCHING = """
import os, signal, sys, threading, time
import agentnb as nb
s = nb.Session("interrupted", store=sys.argv[1], max_parallel=2)
for n in range(100):
    try:
        threading.Timer(0.004 + 0.0002 * n, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        while True:
            s.shell("true", env={"N": str(n)})
    except KeyboardInterrupt:
        pass
    if n % 10 == 9:
        s.cancel()
        s.wait(60)
s.end()
known, found = {run.id for run in s.runs}, set(nb.runs_df(store=sys.argv[1])["id"])
statuses = set(nb.runs_df(store=sys.argv[1])["status"])
print(len(known) > 100, known == found, statuses <= {"completed", "cancelled"})
"""

FORKING = """
import os, sys
import agentnb as nb
s = nb.Session("forking", store=sys.argv[1])
s.shell("true").wait()
pid = os.fork()
if pid == 0:
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), s.shell("echo parent").wait().stdout)
"""


@pytest.mark.slow
def test_a_hundred_interrupts_while_launching_lose_nothing_and_wedge_nothing(store: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LAUNCHING, str(store)], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout.split(), done.returncode) == (["True", "True", "True"], 0), done.stderr[-3000:]


def test_a_forked_copy_that_ends_as_scripts_do_ends(store: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, str(store)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7 parent\n\n"


def test_a_run_whose_supervisor_was_killed_is_over_only_when_its_processes_are(store: Path, tmp_path: Path) -> None:
    session = nb.Session("killed", store=store)
    run = session.shell("trap '' TERM; echo $$ > pid; while true; do sleep 0.05; done", working_dir=tmp_path)
    while run.status is not nb.RunStatus.RUNNING or not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        time.sleep(0.01)
    pid = int((tmp_path / "pid").read_text())
    (supervisor,) = [child for child in psutil.Process().children() if "engine" in " ".join(child.cmdline())]
    supervisor.kill()
    assert run.wait(30).status is nb.RunStatus.INTERRUPTED
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    session.end()
