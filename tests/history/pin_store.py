"""Write down a small store as this version of agentnb makes it: tests/history/pinned/<newest migration>.sql, for test_pinned.py.

Run it before a release that adds a migration, on Linux: python tests/history/pin_store.py. What was pinned once stays as it is. An older
version is pinned by running this file with that version on PYTHONPATH.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import agentnb as nb

PINNED = Path(__file__).with_name("pinned")
#: A process that is killed, with its supervisor, while one of its runs works and another one waits.
CUT_OFF = """
import os, sys
import agentnb as nb
session = nb.Session("cut-off", store=sys.argv[1], max_parallel=1)
run = session.shell("echo $$ > pid; exec sleep 600", name="interrupted")
session.shell("echo never", name="never begun")
while not os.path.exists("pid") or not open("pid").read().strip() or run.status.value != "running":
    os.sched_yield()
print("working", flush=True)
sys.stdin.read()
"""


def double(x: int) -> dict[str, int]:
    """A Python agent."""
    return {"doubled": 2 * x}


def fill(store: Path) -> None:
    """One session of some runs of several kinds, and one that was cut off."""
    with nb.Session("first-look", store=store, tags={"topic": "builds"}, max_parallel=1) as session:
        session.shell("echo hello", name="greeting", tags={"round": "1"})
        session.shell("echo oops >&2; exit 3", name="failing")
        session.launch(nb.Shell("echo {{word}} {{n}}"), name="filled", params={"word": "grüße ☃", "n": 7})
        spec = nb.Shell("echo {{n}}; printf '%s' {{letter}} > out.txt")
        session.map(spec, [{"n": 1, "letter": "x"}, {"n": 2, "letter": "y"}], name="grid", artifacts=["out.txt"])
        session.shell("sleep 30", name="late", timeout=0.05)
        session.launch(nb.Python(double, x=21), name="doubled")
        session.wait()
    with subprocess.Popen([sys.executable, "-c", CUT_OFF, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"working\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        below = [Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split() for pid in children]
        for pid in [*(pid for pids in below for pid in pids), *children, process.pid, Path("pid").read_text(encoding="ascii")]:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def main() -> None:
    """Make the store in a scratch folder and write it down, without the names of this machine and its folders."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        fill(Path(folder) / "store")
        with closing(sqlite3.connect(Path(folder) / "store" / "history.db")) as db:
            text = "\n".join(db.iterdump()) + "\n"
            (newest,) = db.execute("SELECT max(name) FROM migrations").fetchone()
        os.chdir("/")
    names = {
        folder: "/srv/project",
        f'"hostname":"{socket.gethostname()}"': '"hostname":"elsewhere"',
        f"'{socket.gethostname()}'": "'elsewhere'",
    }
    for name, neutral in names.items():
        text = text.replace(name, neutral)
    PINNED.mkdir(exist_ok=True)
    (PINNED / f"{newest}.sql").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{newest}: {len(text)} characters\n")


if __name__ == "__main__":
    main()
