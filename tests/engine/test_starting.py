"""Programs start in the same way by either road: with clean signals, their own descriptors and variables, and clear errors."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentnb.engine import starting
from agentnb.engine.starting import Environment, start

ROADS = [None] if starting.fork_exec is None else [None, starting.fork_exec]
NOTHING = Environment({})
Start = Callable[..., tuple[int, str]]


@pytest.fixture(params=ROADS, ids=["posix_spawn", "fork_exec"][: len(ROADS)])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start something, wait for it, and return its wait status and what it printed on stdout."""
    monkeypatch.setattr(starting, "fork_exec", request.param)
    monkeypatch.setattr(starting, "_nothing", [])
    null = starting.nothing()

    def run(path: str, *argv: str, env: Environment = NOTHING, own: Environment = NOTHING) -> tuple[int, str]:
        before = sorted(os.listdir("/proc/self/fd"))
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = start(path, argv, (env, own), [writer], [1])
        finally:
            os.close(writer)
            if sys.exc_info()[0] is not None:
                os.close(reader)
                assert sorted(os.listdir("/proc/self/fd")) == before
        with open(reader, encoding="utf-8", errors="surrogateescape") as file:
            said = file.read()
        return os.waitpid(pid, 0)[1], said

    yield run
    os.close(null)


def _is_inherited(fd: int) -> bool:
    with suppress(OSError):
        return os.get_inheritable(fd)
    return False


def test_the_child_has_its_three_descriptors_a_session_of_its_own_and_no_other_signals_than_a_shell_would_give(run: Start) -> None:
    here = signal.signal(signal.SIGTERM, lambda *_: None)  # as in the spawner
    held = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    inherited = {name for name in os.listdir("/proc/self/fd") if _is_inherited(int(name))}  # the test's own are not all private
    try:
        script = "ls /proc/self/fd | tr '\\n' ' '; echo; cut -d' ' -f6 /proc/$$/stat; echo $$; cat /proc/self/status"
        status, said = run("/bin/sh", "sh", "-c", script, env=Environment({"PATH": os.environ["PATH"]}))
    finally:
        signal.signal(signal.SIGTERM, here)
        os.close(held)
    fds, session, pid, *lines = said.splitlines()
    assert status == 0
    assert str(held) not in inherited
    assert len(set(fds.split()) - inherited - {"0", "1", "2"}) == 1  # the folder that ls reads
    assert session == pid
    bits = {name: int(value, 16) for name, value in (line.split(":\t") for line in lines if line.startswith("Sig") and "/" not in line)}
    ours = sum(1 << (number - 1) for number in starting.DEFAULTED)
    assert bits["SigBlk"] == bits["SigCgt"] == 0
    assert bits["SigIgn"] & ours == 0


def test_own_variables_are_laid_over_those_of_the_environment_and_no_others_are_there(run: Start) -> None:
    env = Environment({"A": "1", "B": "two words", "UMLAUT": "ü", "RAW": b"\xff".decode("utf-8", "surrogateescape")})
    assert run("/usr/bin/env", "env", env=env, own=Environment({"C": "3"}))[1].splitlines() == [
        "A=1",
        "B=two words",
        "UMLAUT=ü",
        "RAW=\udcff",
        "C=3",
    ]
    said = run("/usr/bin/env", "env", env=env, own=Environment({"A": "over", "C": ""}))[1]
    assert sorted(said.splitlines()) == ["A=over", "B=two words", "C=", "RAW=\udcff", "UMLAUT=ü"]


@pytest.mark.parametrize("names", [("é", "\udcc3\udca9"), ("\udcc3\udca9", "é")])
def test_a_variable_is_laid_over_the_same_one_however_its_name_is_spelled(run: Start, names: tuple[str, str]) -> None:
    said = run("/usr/bin/env", "env", env=Environment({names[0]: "old", "A": "1"}), own=Environment({names[1]: "new"}))[1]
    assert sorted(said.splitlines()) == ["A=1", "é=new"]


def test_a_text_file_without_an_interpreter_line_is_given_to_sh(run: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$0 $1"')
    script.chmod(0o755)
    assert run(str(script), "any name", "word") == (0, f"{script} word\n")


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda path: None, errno.ENOENT),
        (lambda path: path.mkdir(), errno.EACCES),
        (lambda path: path.write_text("x"), errno.EACCES),
        (lambda path: (path.write_text("#!/no/such/interpreter\n"), path.chmod(0o755)), errno.ENOENT),
    ],
    ids=["missing", "folder", "not executable", "no interpreter"],
)
def test_what_cannot_be_started_raises_the_systems_error_and_leaves_no_child(
    run: Start, tmp_path: Path, make: Callable[[Path], Any], number: int
) -> None:
    path = tmp_path / "program"
    make(path)
    with pytest.raises(OSError) as bad:  # noqa: PT011 - its number is looked at
        run(str(path), "program")
    assert bad.value.errno == number
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_words_that_are_too_long_raise_and_leave_no_child(run: Start) -> None:
    with pytest.raises(OSError) as bad:  # noqa: PT011
        run("/bin/true", "true", *["x" * 100_000] * 100)
    assert bad.value.errno == errno.E2BIG
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_words_that_no_program_can_be_given_raise_before_anything_starts(run: Start) -> None:
    with pytest.raises(ValueError, match="null"):
        run("/bin/echo", "echo", "a\0b")
    with pytest.raises((TypeError, ValueError)):
        run("/bin/true")


@pytest.mark.parametrize("variables", [{"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0y"}])
def test_variables_that_cannot_be_raise_with_their_name(variables: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="environment variable"):
        Environment(variables)


@pytest.mark.parametrize("variables", [{"A": 1}, {1: "A"}, {"A": b"x"}, {"A": None}])
def test_variables_that_are_no_text_raise(variables: dict[Any, Any]) -> None:
    with pytest.raises(TypeError):
        Environment(variables)


def test_a_lone_surrogate_that_stands_for_no_byte_raises() -> None:
    with pytest.raises(UnicodeEncodeError):
        Environment({"A": "\ud800"})


def test_the_other_road_is_taken_where_python_is_not_known_to_have_the_first() -> None:
    package = str(Path(starting.__file__).parent.parent.parent)
    code = f"""
import sys, collections
Version = collections.namedtuple("Version", "major minor micro releaselevel serial")
sys.version_info = Version(3, 99, 0, "final", 0)
sys.path.insert(0, {package!r})
from agentnb.engine import starting
assert starting.fork_exec is None
"""
    subprocess.run([sys.executable, "-c", code], check=True)
