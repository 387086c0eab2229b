"""The real claude command line, against a Messages API server on loopback."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.agents import claude_cli
from tests.agents.messages_server import Answer, Json, MessagesServer, prompt_in, results_in, serving, text, tool
from tests.notebook.polling import until

pytestmark = [
    pytest.mark.claude,
    pytest.mark.skipif(not nb.supports("claude"), reason="the claude command line is not installed (pip install 'agentnb[claude]')"),
]
KEY = "ANTHROPIC_API_KEY"


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    """A server that says hello; tests set its script."""
    with serving(lambda _body, _number: Answer(text("Hello there."))) as server:
        yield server


@pytest.fixture
def claude(new_session: Callable[..., nb.Session], server: MessagesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nb.Session:
    """A session whose claude talks to that server, with a configuration of its own."""
    for name in ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", claude_cli.VARIABLE, KEY):
        monkeypatch.delenv(name, raising=False)
    off = dict.fromkeys(
        ("DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING", "DISABLE_AUTOUPDATER", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"), "1"
    )
    env = off | {"ANTHROPIC_BASE_URL": server.url, KEY: nb.Secret("dummy-key-0123456789"), "CLAUDE_CONFIG_DIR": str(tmp_path / "config")}
    for name in ("work", "tmp"):
        (tmp_path / name).mkdir()
    env["TMPDIR"] = str(tmp_path / "tmp")  # the program leaves sockets and folders there
    return new_session(max_parallel=2, env=env, timeout="60s", working_dir=tmp_path / "work")


def once(*first: Json) -> Callable[[Json, int], Answer]:
    """A script that uses tools first, and then says what they gave."""
    return lambda body, _: Answer(text(f"It says: {results_in(body)[0].get('content')}")) if results_in(body) else Answer(*first)


def test_a_text(claude, server: MessagesServer):
    run = claude.claude("Greet me.", model="sonnet")
    result = run.wait()
    assert (result.status, result.output, result.error) == ("completed", "Hello there.", None)
    assert run.stdout == "Hello there.\n"
    assert prompt_in(server.asked[0]).endswith("Greet me.")
    assert "sonnet" in server.asked[0]["model"]
    row = claude.runs_df().iloc[0]
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (100, 25, 30, 20)
    assert row["cost_usd"] > 0
    assert "sonnet" in row["model"]


def test_a_prompt_of_a_megabyte(claude, server: MessagesServer):
    assert claude.claude("x" * 1_000_000 + " end of it").wait().status == "completed"
    assert prompt_in(server.asked[0]).endswith("x end of it")


def test_a_tool_runs_and_is_a_step(claude, server: MessagesServer):
    server.script = once(text("I will look."), tool("Bash", command="echo hi", description="say hi"))
    run = claude.claude("Say hi", tools=["Bash(echo:*)"])
    assert run.wait().output == "It says: hi"
    (step,) = [step for step in run.steps if step.kind == "tool"]
    assert (step.name, step.status, step.output, step.input["command"]) == ("Bash", "completed", "hi", "echo hi")
    turns = [step for step in run.steps if step.kind == "turn"]
    assert step.parent_id == turns[0].id
    assert [turn.tokens for turn in turns] == [{"input": 100, "output": 25, "cache_read": 30, "cache_write": 20}] * 2
    assert sum(turn.cost_usd for turn in turns) == pytest.approx(claude.runs_df()["cost_usd"][0], abs=1e-9)
    assert step.cost_usd == 0


def test_a_file_is_written(claude, server: MessagesServer, tmp_path: Path):
    server.script = once(tool("Write", file_path=str(tmp_path / "work" / "x.txt"), content="written"))
    result = claude.claude("Write it", permission_mode="acceptEdits", artifacts="*.txt").wait()
    assert result.status == "completed", result.error
    assert (tmp_path / "work" / "x.txt").read_text() == "written"
    assert "x.txt" in set(claude.artifacts_df()["name"])


def test_a_denied_tool_is_a_failed_step_and_a_warning(claude, server: MessagesServer, tmp_path: Path):
    server.script = once(tool("Write", file_path=str(tmp_path / "work" / "x.txt"), content="written"))
    run = claude.claude("Write it")
    result = run.wait()
    assert result.status == "completed"
    assert not (tmp_path / "work" / "x.txt").exists()
    assert [step.status for step in run.steps if step.kind == "tool"] == ["failed"]
    assert len(result.warnings) == 1
    assert "the tool Write was denied" in result.warnings[0]


def test_bypassing_permissions_asks_for_nothing(claude, server: MessagesServer):
    server.script = once(tool("Bash", command="echo a && echo b > b.txt", description="both"))
    result = claude.claude("Do it", permission_mode="bypassPermissions").wait()
    assert (result.status, result.output, result.warnings) == ("completed", "It says: a", ())


def test_no_tools_at_all(claude, server: MessagesServer):
    claude.claude("Hi", tools=[]).wait()
    names = {known.get("name") for known in server.asked[0].get("tools", [])}
    assert not names & {"Bash", "Read", "Write", "Edit"}


def test_the_prompts_and_the_context_reach_the_model(claude, server: MessagesServer, tmp_path: Path):
    (tmp_path / "work" / "a note.txt").write_text("the note says 42")
    claude.claude("Hi", system_prompt="You are a parrot.", append_system_prompt="A loud one.", context=["a note.txt"]).wait()
    said = str(server.asked[0])
    assert "You are a parrot." in said
    assert "A loud one." in said
    assert "the note says 42" in said


def test_a_schema_gives_data(claude, server: MessagesServer):
    server.script = lambda body, _: Answer(text("done")) if results_in(body) else Answer(tool("StructuredOutput", n=3))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert claude.claude("Count", json_schema=schema).wait().output == {"n": 3}


def test_turns_are_bounded(claude, server: MessagesServer):
    server.script = lambda _, number: Answer(tool("Bash", number, command="echo hi", description="again"))
    result = claude.claude("Go", tools=["Bash(echo:*)"], max_turns=2).wait()
    assert (result.status, result.error.kind, result.exit_code) == ("failed", "execution_failed", 1)
    assert "max_turns=2" in result.error.message


def test_a_budget_in_dollars_stops_it_on_its_way(claude, server: MessagesServer):
    server.script = lambda _, number: Answer(tool("Bash", number, command="echo hi", description="again"))
    run = claude.claude("Go", tools=["Bash(echo:*)"], budget_usd=0.002)
    result = run.wait()
    assert (result.status, result.error.kind) == ("failed", "budget_exceeded")
    assert 0.002 <= claude.runs_df(run=run.id)["cost_usd"][0] < 0.02
    assert len(server.asked) < 20


def test_a_reply_goes_on(claude, server: MessagesServer):
    server.script = lambda body, _: Answer(text(f"{len(body['messages'])} messages"))
    run = claude.claude("First")
    first = run.wait().output
    reply = run.reply("Second")
    assert reply.wait().status == "completed", reply.error
    assert int(reply.output.split()[0]) > int(first.split()[0])
    assert reply.agent_session == run.agent_session
    assert "First" in str(server.asked[-1])
    assert claude.runs_df()["cost_usd"].nunique() == 1  # the CLI's own figure goes on from the conversation's


def test_a_conversation_that_is_not_here_is_a_clear_error(claude):
    result = claude.claude("Second", resume="01234567-89ab-4def-8123-456789abcdef").wait()
    assert (result.status, result.error.kind) == ("failed", "not_found")
    assert "give that as working_dir" in result.error.message


def test_a_wrong_key_is_refused_at_once(claude, server: MessagesServer):
    server.script = lambda *_: Answer(status=401)
    start = time.monotonic()
    result = claude.claude("Hi").wait()
    assert (result.status, result.error.kind, len(server.asked)) == ("failed", "invalid_config", 1)
    assert "ANTHROPIC_API_KEY" in result.error.message
    assert time.monotonic() - start < 20


def test_no_key_and_no_login_says_what_to_do(claude, server: MessagesServer):
    result = claude.claude("Hi", env={KEY: ""}).wait()
    assert (result.error.kind, server.asked) == ("invalid_config", [])
    assert "/login" in result.error.message


def test_an_overloaded_api_is_tried_again_by_our_policy(claude, server: MessagesServer):
    server.script = lambda _, number: Answer(status=529) if number < 2 else Answer(text("at last"))
    result = claude.claude("Hi", retry=nb.Retry(max_attempts=5, initial_delay=0.05)).wait()
    assert (result.status, result.output) == ("completed", "at last")
    assert result.attempts >= 2


def test_a_rate_limit_is_waited_for(claude, server: MessagesServer):
    resets = int(time.time()) + 4
    headers = {
        "anthropic-ratelimit-unified-reset": str(resets),
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    server.script = lambda *_: Answer(text("at last")) if time.time() >= resets else Answer(status=429, headers=headers)
    env = {KEY: "", "CLAUDE_CODE_OAUTH_TOKEN": nb.Secret("dummy-token-0123456789")}
    run = claude.claude("Hi", env=env, retry=nb.Retry(initial_delay=0.01, max_delay=0.01))
    until(lambda: run.snapshot().note, 30)
    assert "for the rate limit until" in run.snapshot().note
    assert (run.wait().status, run.output) == ("completed", "at last")
    assert time.time() >= resets


def test_a_rate_limit_without_a_reset_is_a_rate_limit(claude, server: MessagesServer):
    server.script = lambda *_: Answer(status=429, headers={"retry-after": "1"})
    result = claude.claude("Hi").wait()
    assert (result.error.kind, result.retryable) == ("rate_limited", True)


def test_a_connection_that_is_cut_can_be_tried_again(claude, server: MessagesServer):
    server.script = lambda *_: Answer(drop=True)
    result = claude.claude("Hi").wait()
    assert (result.status, result.error.kind, result.retryable) == ("failed", "runtime_error", True)


def test_a_stream_that_breaks_off_is_asked_for_again_by_the_program_itself(claude, server: MessagesServer):
    server.script = lambda _, number: Answer(text("Hello there, and so on"), cut=number == 0)
    assert claude.claude("Hi").wait().output == "Hello there, and so on"


def test_text_comes_while_it_is_said_and_a_cancel_ends_it(claude, server: MessagesServer):
    server.script = lambda *_: Answer(text("word " * 400), delay_s=0.1)
    run = claude.claude("Talk")
    until(lambda: "word word" in run.stdout, 30)
    run.cancel("enough")
    result = run.wait()
    assert (result.status, result.error.message) == ("cancelled", "enough")
    assert [step.status for step in run.steps] == ["cancelled", "cancelled"]
    assert claude.runs_df().iloc[0]["input_tokens"] == 100
    assert claude.runs_df().iloc[0]["cost_usd"] > 0  # it was interrupted first, and told


def test_an_interrupt_from_outside_is_a_cancellation(claude, server: MessagesServer):
    server.script = lambda *_: Answer(text("word " * 400), delay_s=0.1)
    run = claude.claude("Talk")
    until(lambda: "word word" in run.stdout, 30)
    os.kill(_pid(claude, run), signal.SIGINT)
    result = run.wait()
    assert (result.status, result.error.kind) == ("cancelled", "cancelled")
    assert "interrupted" in result.error.message


def _pid(session: nb.Session, run: nb.RunHandle) -> int:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(session.store / "history.db")) as db:
        (handle,) = db.execute("SELECT handle FROM runs WHERE id = ?", (run.id,)).fetchone()
    return int(handle.removeprefix("pid:"))


def test_mcp_servers_are_passed_on(claude, tmp_path: Path):
    script = tmp_path / "server.sh"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    script.chmod(0o755)
    claude.claude("Hi", mcp_config={"mcpServers": {"x": {"command": str(script)}}}).wait()
    until((tmp_path / "asked").exists)
    result = claude.claude("Hi", mcp_config={"mcpServers": {"x": {"command": "/no/such/program"}}}).wait()
    assert "the MCP server x is not there" in result.warnings[0]


def test_the_program_tells_its_version():
    assert claude_cli.version(claude_cli.find())[:1].isdigit()
