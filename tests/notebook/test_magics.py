"""The magics in a real IPython shell and in a real kernel: launches, options, errors, completion, loading and unloading."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

import agentnb as nb
from agentnb.notebook.kernel_runs import KernelRuns
from agentnb.notebook.magics import notebook_name
from tests.notebook.polling import until
from tests.notebook.test_display import outputs_of
from tests.notebook.test_kernel import Kernel, kernel, lasting_loop

pytest.importorskip("IPython")
__all__ = ["kernel", "lasting_loop"]


class Shell:
    """An interactive shell, and what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        self.shell = InteractiveShell.instance(
            config=Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}})
        )
        self.capsys = capsys

    def run(self, code: str) -> Any:
        """Run a cell to its good end; its value."""
        done = self.shell.run_cell(code)
        assert done.success, (done, self.said())
        return done.result

    def refused(self, code: str) -> str:
        """Run a cell that must fail by a usage error; the one line that it says."""
        self.said()
        done = self.shell.run_cell(code)
        assert type(done.error_in_exec).__name__ == "UsageError", done
        said = self.capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return said.err.removeprefix("UsageError: ").strip()

    def said(self) -> str:
        """What has been printed."""
        return self.capsys.readouterr().out

    def complete(self, code: str) -> dict[str, str]:
        """The completions at the end of `code`, as what the code would be -> what it is."""
        from IPython.core.completer import provisionalcompleter

        with provisionalcompleter():
            found = list(self.shell.Completer.completions(code, len(code)))
        return {code[: one.start] + one.text + code[one.end :]: str(one.type) for one in found}


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], new_session: Callable[..., nb.Session]
) -> Iterator[Shell]:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setattr("agentnb.notebook.kernel_runs._sessions", WeakSet())
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("AGENTNB_HOME", str(tmp_path / "store"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    shell = Shell(capsys)
    shell.run("%load_ext agentnb")
    yield shell
    shell.run("%unload_ext agentnb")
    shell.shell.atexit_operations()
    atexit.unregister(shell.shell.atexit_operations)
    InteractiveShell.clear_instance()


def test_a_cell_becomes_a_run_whose_handle_is_its_value(shell: Shell) -> None:
    run = shell.run("%%agent shell --name greet --timeout 1m --tag topic=demo --as kept\necho 'hello  there'\necho $((1 + 1))\n")
    assert isinstance(run, nb.RunHandle)
    assert shell.shell.user_ns["kept"] is run
    assert run.wait().stdout == "hello  there\n2\n"
    assert run.name == "greet"
    frame = nb.runs_df()
    assert (frame["tag.topic"][0], frame.timeout_s[0], frame.session[0]) == ("demo", 60, "notebook")


def test_text_stays_text_and_is_a_template_only_with_parameters(shell: Shell) -> None:
    shell.run("value = 'expanded'")
    plain = shell.run("%%agent command --name '{value} $value'\nprintf %s '{value} $value {{value}} %time !ls ?'")
    assert plain.wait().stdout == "{value} $value {{value}} %time !ls ?"
    assert plain.name == "{value} $value"
    filled = shell.run("%%agent shell -p word='a b' --param n=007\necho {{word}} {{n}}")
    assert (filled.wait().stdout, filled.params) == ("a b 007\n", {"word": "a b", "n": "007"})


def test_wait_waits_and_shows_the_end(shell: Shell) -> None:
    run = shell.run("%%agent test --expected-exit-code 3 --wait\nsleep 0.2; exit 3")
    assert run.status == "completed"
    assert "✓ completed" in shell.said()


def test_a_function_of_the_notebook_gets_the_cell(shell: Shell) -> None:
    shell.run("def loud(text='nothing'): return text.upper()")
    assert shell.run("%%agent python loud --timeout 30 --wait\nsome  text").output == "SOME  TEXT"
    assert shell.run("%%agent python loud --wait\n\n").output == "NOTHING"
    assert "'lud' is no function of the notebook; did you mean 'loud'?" in shell.refused("%%agent python lud\nx")
    assert "name one function" in shell.refused("%%agent python\nx")


def test_a_cell_that_is_executed_again_is_reused_until_its_code_or_its_files_change(shell: Shell) -> None:
    Path("data.csv").write_text("1")
    cell = "%%agent shell --reuse --input data.csv --wait\ncat data.csv"
    assert [shell.run(cell).reused_from is None for _ in range(2)] == [True, False]
    Path("data.csv").write_text("2")
    assert (shell.run(cell).stdout, shell.run(cell).reused_from is None) == ("2", False)
    code = "def half(n): return n / 2\ndef agent(text): return [half(len(text)), {}]"
    found = []
    for number in (1, 1, 2):
        shell.run(code.format(number))
        found.append(shell.run("%%agent python agent --reuse --wait\nword"))
    assert [(run.output, run.reused_from is None) for run in found] == [([2.0, 1], True), ([2.0, 1], False), ([2.0, 2], True)]


def test_options_with_parts_reach_the_engine(shell: Shell) -> None:
    line = "--retry.max-attempts 2 --retry.initial-delay 10ms --retry.on-exit-code 3 --retry.jitter 0 --wait"
    run = shell.run(f"%%agent shell {line}\nexit 3")
    assert [step.attempt for step in run.steps if step.kind == "attempt"] == [1, 2]


def test_runs_go_into_the_session_that_is_named(shell: Shell) -> None:
    mine = shell.run("import agentnb as nb\nmine = nb.Session('first-look')\nmine")
    for name in ("mine", "first-look"):
        assert shell.run(f"%%agent shell --session {name}\ntrue").session_id == mine.id
    other = shell.run("%%agent shell --session other\ntrue")
    assert shell.run("%%agent shell --session other\ntrue").session_id == other.session_id != mine.id
    default = shell.run("%%agent shell\ntrue")
    assert shell.run("%%agent shell\ntrue").session_id == default.session_id
    shell.run("mine.end()")
    assert shell.run("%%agent shell --session first-look\ntrue").session_id != mine.id
    assert "has ended" in shell.refused("%%agent shell --session mine\ntrue")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%%agent\nx", "say first what is launched: %%agent KIND; it is one of shell, command, test, python"),
        ("%%agent --wait\nx", "say first what is launched"),
        ("%%agent shel\nx", "there is no kind of run 'shel'; did you mean 'shell'?"),
        ("%%agent zzz\nx", "there is no kind of run 'zzz'; there is shell, command"),
        ("%%agent shell --timeot 3\nx", "there is no option --timeot; did you mean --timeout?"),
        ("%%agent shell ls\nx", "'ls' is no option; the command of the shell run goes into the cell"),
        ("%%agent shell\n  \n", "the cell is empty; write the command of the shell run below"),
        ("%%agent shell --as 1x\nx", "--as 1x: this is no name of a variable"),
        ("%%agent shell --timeout soon\nx", "timeout: 'soon' is not a duration"),
        ("%%agent command\necho 'x", "the cell is no list of words: No closing quotation"),
        ("%%agent shell -p a=1\n{{b}}", "b"),
        ("%%agent replay\nnowhere.jsonl", "nowhere.jsonl"),
        ("%%agent shell --session ' '\nx", "the name ' ' is empty"),
        ("%runs --status late", "status"),
        ("%runs --limit 0", "limit"),
        ("%runs nobody", "no run of this kernel is called 'nobody'"),
        ("%runs --session nobody", "no session of this kernel is called 'nobody'"),
        ("%cancel", "say which run, or all; live: none"),
        ("%cancel nobody", "no run of this kernel is called 'nobody'"),
        ("%cancel --all", "there is no option --all"),
    ],
)
def test_what_is_wrong_is_one_line_without_a_traceback_and_starts_nothing(shell: Shell, cell: str, says: str) -> None:
    said = shell.refused(cell)
    assert says in said
    assert said.startswith(cell.split(maxsplit=1)[0])
    assert len(shell.run("%runs")) == 0


def test_runs_lists_and_filters_and_cancel_ends(shell: Shell) -> None:
    shell.run("%%agent shell --name good --wait\ntrue")
    shell.run("%%agent shell --name bad --session other --wait\nexit 1")
    slow = [shell.run(f"%%agent shell --name {name}\nsleep 60") for name in ("slow", "slower", "'slow est'")]
    found = shell.run("%runs")
    assert isinstance(found, KernelRuns)
    assert [run.name for run in found] == ["good", "bad", "slow", "slower", "slow est"]
    assert "bad" in shell.said()
    assert [run.name for run in shell.run("%runs --status completed --status failed")] == ["good", "bad"]
    assert [run.name for run in shell.run("%runs --session other")] == ["bad"]
    assert [run.name for run in shell.run("%runs --limit 1")] == ["slow est"]
    assert [run.name for run in shell.run(f"%runs slower {slow[0].id[-8:]} {slow[0].id}")] == ["slow", "slower"]
    assert len(shell.run("x = %runs --kind claude\nx")) == 0
    assert "no run of this kernel is that" in shell.said()
    shell.run("%cancel slow 'slow est'")
    assert shell.said() == "cancelling 2 of 3 live runs: slow, slow est\n"
    assert (slow[0].wait().status, slow[0].error.message) == ("cancelled", "cancelled with %cancel")
    slow[2].wait()
    assert "'slow' has ended already: cancelled" in shell.refused("%cancel slow")
    assert "did you mean 'slower'?" in shell.refused("%cancel slowerr")
    shell.run("%cancel all")
    slow[1].wait()
    shell.said()
    shell.run("%cancel all")
    assert shell.said() == "no run is live\n"


def test_arguments_complete(shell: Shell) -> None:
    kinds = shell.complete("%%agent ")
    assert {f"%%agent {name}" for name in ("claude", "shell", "test", "local", "python", "command", "replay")} <= set(kinds)
    assert set(kinds.values()) == {"kind"}
    assert list(shell.complete("%%agent cl")) == ["%%agent claude"]
    options = shell.complete("%%agent claude --timeout 5 --")
    assert {"%%agent claude --timeout 5 --model", "%%agent claude --timeout 5 --param", "%%agent claude --timeout 5 --retry."} <= set(
        options
    )
    assert "%%agent claude --timeout 5 --timeout" not in options
    assert list(shell.complete("%%agent claude --max_t")) == ["%%agent claude --max-turns"]
    assert list(shell.complete("%%agent claude --permission-mode pl")) == ["%%agent claude --permission-mode plan"]
    assert list(shell.complete("%%agent claude --permission_mode=pl")) == ["%%agent claude --permission_mode=plan"]
    assert list(shell.complete("%%agent shell --limits.max_mem")) == ["%%agent shell --limits.max-memory-bytes"]
    assert list(shell.complete("%%agent shell --workspace t")) == ["%%agent shell --workspace temp_copy"]
    shell.run("def my_agent(text): return text")
    assert list(shell.complete("%%agent python my")) == ["%%agent python my_agent"]
    assert not set(shell.complete("%%agent shell\nec").values()) & {"kind", "option"}
    assert not set(shell.complete("x = 1\n%%agent ").values()) & {"kind"}


def test_runs_and_sessions_complete(shell: Shell) -> None:
    shell.run("%%agent shell --name done --wait\ntrue")
    for name in ("build", "'two words'", "twin", "twin"):
        shell.run(f"%%agent shell --session work --name {name}\nsleep 60")
    ids = [run.id[-8:] for run in shell.run("%runs 'two words' twin")]
    assert set(shell.complete("%cancel ")) == {"%cancel build", "%cancel all", *(f"%cancel {end}" for end in ids)}
    assert list(shell.complete("%cancel build al")) == ["%cancel build all"]
    assert "x = %runs done" in shell.complete("x = %runs d")
    assert list(shell.complete("%runs --status int")) == ["%runs --status interrupted"]
    assert list(shell.complete("%runs --session wo")) == ["%runs --session work"]
    assert list(shell.complete("%%agent shell --session wo")) == ["%%agent shell --session work"]
    shell.run(f"%cancel {' '.join(ids)} build")
    until(lambda: not any(not run.done for run in shell.run("found = %runs --session work\nfound")))
    assert list(shell.complete("%cancel ")) == ["%cancel all"]


def test_help_shows_examples_and_every_option(shell: Shell) -> None:
    shell.run("%%agent?")
    text = shell.said()
    assert "%%agent claude --model sonnet --tool Read" in text
    for option in ("--permission-mode", "--timeout", "--retry.max-attempts", "--workspace.ref", "--as"):
        assert option in text
    shell.run("%runs?")
    assert "%runs --status failed" in shell.said()


def test_unloading_leaves_nothing_behind_and_reloading_works(shell: Shell) -> None:
    ip = shell.shell
    with_magics = {kind: set(known) for kind, known in ip.magics_manager.magics.items()}
    run = shell.run("%%agent shell --name first --wait\ntrue")
    assert "already loaded" in (shell.run("%load_ext agentnb"), shell.said())[1]
    shell.run("%reload_ext agentnb")
    assert {kind: set(known) for kind, known in ip.magics_manager.magics.items()} == with_magics
    assert len(ip.Completer.custom_matchers) == 1
    assert list(shell.complete("%%agent cl")) == ["%%agent claude"]
    assert shell.run("%%agent shell --wait\ntrue").session_id != run.session_id
    assert nb.sessions_df().status.tolist() == ["ended", "active"]
    live = shell.run("%%agent shell --as live\nsleep 60")
    mine = shell.run("import agentnb as nb\nmine = nb.Session('mine')\nmine")
    shell.run("%%agent shell --session mine --wait\ntrue")
    other = shell.run("other = nb.Session('by name')\nother")
    shell.run("%%agent shell --session 'by name' --wait\ntrue")
    shell.run("%unload_ext agentnb")
    assert (mine.status, other.status) == ("active", "active")
    assert ip.Completer.custom_matchers == []
    assert with_magics["cell"] - set(ip.magics_manager.magics["cell"]) == {"agent"}
    assert with_magics["line"] - set(ip.magics_manager.magics["line"]) == {"runs", "cancel"}
    assert not hasattr(ip.user_magics if hasattr(ip, "user_magics") else ip.magics_manager.user_magics, "agent")
    assert "not found" in shell.refused("%%agent shell\ntrue")
    assert not live.done
    live.cancel()
    live.wait()
    shell.run("%load_ext agentnb")


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({}, "notebook"),
        ({"JPY_SESSION_NAME": "work/My study.ipynb"}, "My study"),
        ({"JPY_SESSION_NAME": "1f2e-uuid"}, "notebook"),
        ({"JPY_SESSION_NAME": ".ipynb"}, "notebook"),
    ],
)
def test_the_default_session_is_called_as_the_notebook(told: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    assert notebook_name({}) == name
    assert notebook_name({"__vsc_ipynb_file__": "/home/u/plan.ipynb"}) == "plan"


# --- in a kernel ------------------------------------------------------------------------------------------------------------


def completions(kernel: Kernel, code: str) -> set[str]:
    """What the kernel offers for `code`, put in."""
    message = kernel.client.complete(code)
    while (reply := kernel.client.get_shell_msg(timeout=30))["parent_header"].get("msg_id") != message:
        pass
    got = reply["content"]
    return {code[: got["cursor_start"]] + match + code[got["cursor_end"] :] for match in got["matches"]}


@pytest.mark.kernels
def test_a_kernel_launches_completes_waits_and_refuses(kernel: Kernel, store: Path) -> None:
    kernel.run("%load_ext agentnb")
    kernel.run("%%agent shell --name slow --as slow\nsleep 60")
    assert completions(kernel, "%%agent cla") == {"%%agent claude"}
    assert "%%agent test --expected-exit-code" in completions(kernel, "%%agent test --ex")
    assert completions(kernel, "%cancel sl") == {"%cancel slow"}
    assert kernel.run("%cancel slow") == "cancelling 1 of 1 live runs: slow\n"
    assert kernel.run("slow.wait().status.value") == "'cancelled'"
    kernel.run("%%agent shell --wait --as done\necho {{x}}")
    assert kernel.run("runs = %runs\ndone.stdout, len(runs)") == "('{{x}}\\n', 2)"
    text, reply = kernel.finish(kernel.send("%%agent shell --timeot 3\necho"))
    assert text == "UsageError: %%agent: there is no option --timeot; did you mean --timeout?\n"
    assert reply["status"] == "error"
    assert not reply.get("traceback") or "File" not in json.dumps(reply["traceback"])
    kernel.run("%reload_ext agentnb")
    assert completions(kernel, "%%agent cla") == {"%%agent claude"}
    message = kernel.send("%%agent shell --wait --name long\necho begun; sleep 60")
    until(lambda: nb.runs_df(store=store, status="running").name.tolist() == ["long"])
    kernel.manager.interrupt_kernel()
    _, reply = kernel.finish(message)
    assert reply["ename"] == "KeyboardInterrupt"
    assert kernel.run("runs = %runs long\nruns[0].status.value") == "'cancelled'"
    assert kernel.strays() == []


@pytest.mark.kernels
def test_nbclient_runs_the_magics_and_keeps_their_static_form(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTNB_HOME", str(store))
    cells = ("%load_ext agentnb", "%%agent shell --wait --as run\necho {{x}}", "%%agent shell\necho two", "%runs", "await run")
    _, waited, launched, table, _ = outputs_of("live", *cells, tmp_path=tmp_path)
    assert [set(output["data"]) for output in waited] == [{"text/html", "text/plain"}]
    assert "{{x}}" in waited[0]["data"]["text/plain"]
    assert len(launched) == len(table) == 1
    assert "runs of this kernel" in table[0]["data"]["text/plain"]


def test_ipython_in_a_terminal_runs_the_magics(tmp_path: Path, store: Path) -> None:
    cells = ("%load_ext agentnb", "%%agent shell --wait --name first -p word='a b'\necho {{word}}\n", "%runs", "%%agent shel\nx")
    script = "".join(f"get_ipython().run_cell({cell!r})\n" for cell in cells)
    (tmp_path / "cells.py").write_text(script, encoding="utf-8")
    env = os.environ | {"AGENTNB_HOME": str(store), "IPYTHONDIR": str(tmp_path / "ipython"), "HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "IPython",
        "--no-banner",
        "--colors=NoColor",
        "--HistoryManager.enabled=False",
        str(tmp_path / "cells.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=90, check=False)
    assert "│ a b" in done.stdout, done
    assert "runs of this kernel  1 run: 1 completed" in done.stdout
    assert "UsageError: %%agent: there is no kind of run 'shel'; did you mean 'shell'?" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


LOSE_ONE = """
import gc, os, signal, weakref
from agentnb.notebook.handles import RunHandle
show = RunHandle._ipython_display_
class Thing: pass
def interrupted_where_python_ignores_it(run):
    thing = Thing()
    kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))  # the import system has such callbacks, too
    del thing
    show(run)
RunHandle._ipython_display_ = interrupted_where_python_ignores_it
"""


@pytest.mark.kernels
def test_an_interrupt_that_strikes_while_the_view_is_made_is_not_lost(kernel: Kernel) -> None:
    kernel.run("%reload_ext agentnb")
    kernel.run(LOSE_ONE)
    _, reply = kernel.finish(kernel.send("%%agent shell --wait --name lost --as lost\nsleep 20"))
    assert reply.get("ename") == "KeyboardInterrupt", reply
    assert kernel.run("RunHandle._ipython_display_ = show; lost.wait().status.value") == "'cancelled'"
