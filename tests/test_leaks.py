"""The leak check of conftest.py finds what it promises to find, and lets clean tests pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")

#: What a test leaves, and how the check names it; nothing for what is no leak.
LEFT = {
    "keep.append(subprocess.Popen(['sleep', '60'])); atexit.register(keep[-1].kill)": "process ",
    "threading.Thread(target=over.wait).start()": "thread Thread-",
    "threading.Thread(target=over.wait, daemon=True, name='agentnb loop').start()": "thread agentnb loop",
    "keep.append(os.pipe())": "descriptor of pipe:",
    "keep.append(socket.socket())": "descriptor of socket:",
    "keep.append(open('left', 'w'))": "descriptor of ",
    "keep.append(tempfile.mkdtemp())": "file tmp",
    "subprocess.run(['true'])": "",
    "keep.append(subprocess.Popen(['sleep', '0.2']))": "",
    "t = threading.Thread(target=print); t.start(); t.join()": "",
    "threading.Thread(target=over.wait, args=(0.2,)).start()": "",
    "open(tempfile.mkdtemp(dir='.') + '/x', 'w').close()": "",
}
#: Added to the check: the thread that a test left ends, so that the process can.
END = "\ndef pytest_unconfigure():\n    sys.modules['test_it'].over.set()\n"
HEAD = "import atexit, os, socket, subprocess, tempfile, threading\nkeep, over = [], threading.Event()\n"


def test_each_leak_fails_the_test_that_made_it_and_nothing_else_does(tmp_path: Path) -> None:
    tests = "".join(f"def test_{number}():\n    {body}\n" for number, body in enumerate(LEFT))
    (tmp_path / "conftest.py").write_text(CONFTEST.replace("PATIENCE = 5.0", "PATIENCE = 0.5") + END, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(HEAD + tests, encoding="utf-8")
    without = ["-p", "no:cacheprovider", "-p", "no:nbval"]
    arguments = [sys.executable, "-m", "pytest", "-q", *without, "--basetemp", str(tmp_path / "b"), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    said = dict(
        re.findall(r"ERROR at teardown of test_(\d+) .*?^E +Failed: the test left behind: (.*?)$", done.stdout, re.DOTALL | re.MULTILINE)
    )
    wanted = {str(number): says for number, says in enumerate(LEFT.values()) if says}
    assert set(said) == set(wanted), done.stdout + done.stderr
    assert {number: said[number][: len(says)] for number, says in wanted.items()} == wanted
