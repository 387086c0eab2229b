"""Runs of claude from a session, with the stand-in of agentnb.fakes in place of the program."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.agents import claude as claude_agent
from agentnb.agents import claude_cli
from tests.engine.driver import peak_memory
from tests.notebook.polling import until

Fake = Callable[..., None]


def test_the_answer_is_the_output_and_the_turns_are_steps(session, fake_claude: Fake):
    run = session.claude("Summarise README.md", model="sonnet", tools=["Read"], timeout="5m")
    result = run.wait()
    assert (result.status, result.output, result.error) == ("completed", "You said: Summarise README.md", None)
    assert run.stdout.strip() == "You said: Summarise README.md"
    steps = session.steps_df(run=run.id)
    assert list(steps["kind"]) == ["attempt", "turn"]
    row = session.runs_df().iloc[0]
    assert (row["kind"], row["model"], row["turns"], row["input_tokens"], row["output_tokens"]) == ("claude", "sonnet", 1, 100, 25)
    assert (row["cache_read_tokens"], row["cache_write_tokens"], row["cost_usd"]) == (30, 20, 0.001)
    assert row["agent_session"] == run.agent_session
    snapshot = run.snapshot()
    assert (snapshot.model, snapshot.turns, snapshot.cost_usd) == ("sonnet", 1, 0.001)


def test_turns_and_sub_agents_have_their_share_of_the_cost_and_show_it(session, fake_claude: Fake, tmp_path: Path):
    from agentnb.notebook import figures, sources

    fake_claude("agent")
    run = session.claude("hi")
    run.wait()
    replay = session.replay(run.export(tmp_path / "run.jsonl"))
    replay.wait()
    for one in (run, replay):
        steps = session.steps_df(run=one.id).set_index("name")
        assert steps["cost_usd"].to_dict() == pytest.approx(
            {"attempt 1": 0.004, "turn 1": 0.001, "Agent": 0.002, "turn 2": 0.001, "Bash": 0.0, "turn 3": 0.001}
        )
        assert (steps["input_tokens"]["Agent"], steps["output_tokens"]["Bash"], steps["output_tokens"]["turn 3"]) == (200, 0, 25)
        assert [step.cost_usd for step in one.steps] == list(steps["cost_usd"])
        shown = sources.RunSource(one._run).snapshot()
        assert [figures.step_used(step) for step in shown.steps if step.kind == "turn"] == [
            "100 / 25 tokens · $0.0010", "100 / ? tokens · $0.0010", "100 / 25 tokens · $0.0010"
        ]  # fmt: skip
        assert [figures.step_used(step) for step in shown.steps if step.kind == "tool"] == ["200 / ? tokens · $0.0020", ""]


def test_a_reply_costs_what_it_used_itself_and_not_the_conversation_again(session, fake_claude: Fake):
    run = session.claude("hi")
    run.wait()
    reply = run.reply("more", budget_usd=0.0015)
    assert reply.wait().status == "completed"
    assert list(session.runs_df()["cost_usd"]) == [0.001, 0.001]
    assert list(session.runs_df()["input_tokens"]) == [100, 100]
    assert session.sessions_df()["cost_usd"][0] == pytest.approx(0.002)


def test_the_raw_stream_is_an_artifact(session, fake_claude: Fake, store: Path):
    run = session.claude("hi")
    run.wait()
    (artifact,) = run.artifacts
    assert artifact.name == "stream.jsonl"
    lines = (store / artifact.location.path).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["subtype"] == "init"
    assert json.loads(lines[-1])["type"] == "result"


def test_a_reply_goes_on_with_the_conversation_and_the_options_of_the_run(session, fake_claude: Fake):
    run = session.claude("Say {{what}}", params={"what": "hi"}, model="opus", timeout="2m", tags={"topic": "x"})
    run.wait()
    shorter = run.reply("Shorter, and no {{template}}.")
    assert shorter.wait().output == "You said: Shorter, and no {{template}}."
    assert shorter.agent_session == run.agent_session
    assert shorter.params == {"what": "hi"}
    rows = session.runs_df()
    assert list(rows["timeout_s"]) == [120, 120]
    assert list(rows["model"]) == ["opus", "opus"]
    assert list(rows["tag.reply_to"].fillna("")) == ["", run.id]
    other = shorter.reply("Again", model="haiku", name="third")
    assert other.wait().output == "You said: Again"
    assert (other.name, session.runs_df(limit=1).iloc[0]["model"]) == ("third", "haiku")


def test_a_reply_stays_in_the_folder_of_the_run(session, fake_claude: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").mkdir()
    run = session.claude("hi", working_dir="a")
    run.wait()
    reply = run.reply("more")
    assert reply.wait().metadata.working_directory == str(tmp_path / "a")
    with pytest.raises(nb.ConfigError, match="goes on in the folder where it began"):
        run.reply("more", working_dir=tmp_path)
    assert run.reply("more", working_dir="a").wait().output == "You said: more"


def test_a_reply_to_a_run_in_a_workspace_works_there_if_it_is_kept(session, fake_claude: Fake, tmp_path: Path):
    (tmp_path / "files").mkdir()
    run = session.claude("hi", workspace=nb.TempCopy("files", cleanup="keep"))
    run.wait()
    reply = run.reply("more")
    assert reply.wait().metadata.working_directory == run.result.metadata.working_directory != str(tmp_path / "files")
    gone = session.claude("hi", workspace=nb.TempCopy("files"))
    gone.wait()
    with pytest.raises(nb.ConfigError, match="cleanup='keep'"):
        gone.reply("more")


def test_what_cannot_be_replied_to_says_why(session, fake_claude: Fake):
    fake_claude("slow:30")
    run = session.claude("hi")
    with pytest.raises(nb.ConfigError, match="has not ended yet"):
        run.reply("more")
    run.cancel()
    run.wait()
    shell = session.shell("true")
    shell.wait()
    with pytest.raises(nb.ConfigError, match="no conversation"):
        shell.reply("more")
    fake_claude("crash")
    crashed = session.command(["true"])
    crashed.wait()
    with pytest.raises(nb.ConfigError, match="empty"):
        shell.reply("")


def test_a_run_that_never_had_a_conversation_cannot_be_replied_to(session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    run = session.claude("hi", env={"AGENTNB_CLAUDE": str(program)})
    assert "ended without a result" in run.wait().error.message
    with pytest.raises(nb.ConfigError, match="did not come so far"):
        run.reply("more")


def test_a_run_of_another_process_tells_the_conversation_to_resume(session, fake_claude: Fake, store: Path):
    run = session.claude("hi")
    run.wait()
    again = nb.attach(run.id, store=store)
    assert again.agent_session == run.agent_session
    with pytest.raises(nb.ConfigError, match=r"resume=run\.agent_session"):
        again.reply("more")
    resumed = session.claude("more", resume=again.agent_session)
    resumed.wait()
    assert resumed.agent_session == run.agent_session


def test_a_map_fills_prompts_as_plain_text_and_joins_the_answers(session, fake_claude: Fake):
    import pandas as pd

    df = pd.DataFrame({"path": ["a b.txt", "$(rm -rf x)"], "model": ["opus", "haiku"]})
    group = session.map(nb.Claude("Document {{path}}"), df)
    group.wait()
    found = group.df()
    assert [json.loads(text) for text in found["output"]] == ["You said: Document a b.txt", "You said: Document $(rm -rf x)"]
    assert list(found["model"]) == ["opus", "haiku"]


def test_a_long_prompt_and_one_full_of_shell_signs_arrive_as_they_are(session, fake_claude: Fake, tmp_path: Path):
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\ncat > asked.txt\n")
    program.chmod(0o755)
    prompt = "$(touch x) `y` \\ \"'\n" + "é" * 1_000_000
    session.claude(prompt, env={"AGENTNB_CLAUDE": str(program)}).wait()
    assert (tmp_path / "asked.txt").read_text(encoding="utf-8") == prompt
    assert not (tmp_path / "x").exists()


def test_tools_are_steps_with_input_output_and_error(session, fake_claude: Fake):
    fake_claude("tools")
    run = session.claude("hi")
    result = run.wait()
    tools = [step for step in run.steps if step.kind == "tool"]
    assert [(step.name, step.status) for step in tools] == [("Read", "completed"), ("Bash", "failed"), ("Write", "failed")]
    assert tools[0].input == {"file_path": "README.md"}
    assert tools[0].output == "1\thello"
    assert tools[1].error.message == "Exit code 3"
    turns = {step.id: step for step in run.steps if step.kind == "turn"}
    assert all(step.parent_id in turns for step in tools)
    assert "→ Read: README.md" in run.stdout
    assert result.warnings == ("the tool Write was denied; allow it with tools=['Write', ...], or choose a permission_mode",)
    assert result.status == "completed"


def test_text_comes_while_it_is_said(session, fake_claude: Fake):
    fake_claude("slow:0.3")
    run = session.claude("hi")
    until(lambda: "word word" in run.stdout)
    assert not run.done
    run.cancel()
    assert run.wait().status == "cancelled"
    assert run.output is None


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_a_run_that_is_stopped_is_interrupted_first_and_tells_what_it_cost(session, fake_claude: Fake, how: str):
    fake_claude("slow:30")
    run = session.claude("hi", budget_usd=5, **({"timeout": 1} if how == "timeout" else {}))
    until(lambda: "word" in run.stdout or run.done)
    if how == "cancel":
        run.cancel("enough")
    result = run.wait("30s")
    assert (result.status, result.exit_code) == ("cancelled" if how == "cancel" else "timeout", 0)
    assert "enough" in result.error.message or "1 s" in result.error.message
    assert session.runs_df()["cost_usd"][0] == 0.001
    assert run.budget.spent["usd"] == 0.001
    assert session.steps_df().set_index("kind")["cost_usd"]["turn"] == 0.001


def test_a_result_that_was_told_before_a_budget_is_crossed_is_kept(new_session: Callable[..., nb.Session], fake_claude: Fake):
    session = new_session(budget_usd=0.0015, max_parallel=2)
    fake_claude("hang_after_result")
    first = session.claude("hi")
    until(lambda: session.runs_df(run=first.id)["cost_usd"].notna().all())
    fake_claude("text")
    second = session.claude("ho")
    with pytest.raises(nb.BudgetExceeded):
        second.wait("30s").raise_for_status()
    assert second.output == "You said: ho"
    result = first.wait("30s")
    assert (result.status, result.output, result.warnings) == (
        "completed",
        "You said: hi",
        ("it did not exit after its result; it was ended",),
    )


def test_the_last_crumbs_of_a_budget_are_no_fault_of_the_program(new_session: Callable[..., nb.Session], fake_claude: Fake):
    session = new_session(budget_usd=0.0010002)
    assert session.claude("hi").wait("30s").status == "completed"
    with pytest.raises(nb.BudgetExceeded):
        session.claude("ho").wait("30s").raise_for_status()


def test_an_answer_of_many_megabytes_costs_the_supervisor_little_memory(session, fake_claude: Fake):
    session.claude("hi").wait()
    before = peak_memory(session._engine.process.pid)
    fake_claude("big_output:30000000")
    run = session.claude("hi", timeout="2m")
    result = run.wait()
    assert result.status == "completed", result.error
    assert result.stdout_bytes > 29_000_000
    assert run.artifacts[0].size > 29_000_000
    assert peak_memory(session._engine.process.pid) - before < 48 * 1024 * 1024


def test_a_line_that_is_too_long_is_left_out_with_a_warning_and_kept_in_the_stream(session, fake_claude: Fake):
    fake_claude("long_line:20000000")
    result = (run := session.claude("hi")).wait()
    assert result.status == "completed"
    assert "1 lines of the stream were too long" in result.warnings[0]
    assert run.artifacts[0].size > 19_900_000


def test_a_program_that_stays_after_its_result_is_ended_and_the_result_kept(session, fake_claude: Fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claude_agent, "LINGER_S", 0.3)
    fake_claude("hang_after_result")
    run = session.claude("hi")
    result = run.wait("30s")
    assert (result.status, result.output) == ("completed", "You said: hi")
    assert result.warnings == ("it did not exit after its result; it was ended",)


def test_a_timeout_after_the_result_loses_nothing(session, fake_claude: Fake):
    fake_claude("hang_after_result")
    result = session.claude("hi", timeout=2).wait("30s")
    assert (result.status, result.output) == ("completed", "You said: hi")


def test_a_program_that_ignores_sigterm_is_killed(session, fake_claude: Fake):
    fake_claude("ignore_term")
    run = session.claude("hi", grace=0.3)
    until(lambda: "I stay." in run.stdout)
    run.cancel("enough")
    result = run.wait("30s")
    assert (result.status, result.error.message, result.signal) == ("cancelled", "enough", signal.SIGKILL)
    assert [step.status for step in run.steps] == ["cancelled", "cancelled"]


def test_a_process_left_behind_that_holds_the_output_is_ended(session, fake_claude: Fake):
    fake_claude("spawn_daemon")
    result = session.claude("hi", grace=0.3).wait("30s")
    assert (result.status, result.output) == ("completed", "You said: hi")
    assert "background processes that outlived the command were ended: 1" in result.warnings


def test_bytes_that_are_no_utf8_and_lines_that_are_no_events_are_output(session, fake_claude: Fake):
    fake_claude("non_utf8")
    run = session.claude("hi")
    assert run.wait().output == "You said: hi"
    assert "� no text" in run.stdout
    assert "caf�" in run.stdout
    assert "{not json}" in run.stdout


@pytest.mark.parametrize("mode", ["unknown", "think"])
def test_events_that_nobody_knows_change_nothing(session, fake_claude: Fake, mode: str):
    fake_claude(mode)
    result = session.claude("hi").wait()
    assert (result.status, result.output, result.warnings) == ("completed", "You said: hi", ())


@pytest.mark.parametrize(
    ("mode", "kind", "says"),
    [
        ("is_error", "execution_failed", "something went wrong"),
        ("cut", "execution_failed", "ended without a result"),
        ("no_result", "execution_failed", "ended without a result"),
        ("crash", "execution_failed", "Segmentation fault, or so"),
        ("no_login", "invalid_config", "ANTHROPIC_API_KEY"),
        ("max_turns", "execution_failed", "max_turns=2"),
        ("rate_limit:3600", "rate_limited", "rate limit"),
        ("overloaded", "runtime_error", "overloaded"),
        ("nonsense", "execution_failed", "is no mode"),
    ],
)
def test_each_failure_says_what_happened_and_what_to_do(session, fake_claude: Fake, mode: str, kind: str, says: str):
    fake_claude(mode)
    result = session.claude("hi", max_turns=2).wait()
    assert (result.status, result.error.kind) == ("failed", kind)
    assert says in result.error.message


def test_an_overloaded_api_is_tried_again_and_every_attempt_counts(session, fake_claude: Fake):
    fake_claude("overloaded:2")
    run = session.claude("hi", retry=nb.Retry(max_attempts=3, initial_delay=0.01))
    result = run.wait()
    assert (result.status, result.attempts, result.output) == ("completed", 3, "You said: hi")
    assert [artifact.name for artifact in run.artifacts] == ["stream.jsonl", "stream.2.jsonl", "stream.3.jsonl"]
    assert [step.attempt for step in run.steps if step.kind == "turn"] == [3]


def test_a_key_that_is_missing_is_not_tried_again(session, fake_claude: Fake):
    fake_claude("no_login")
    assert session.claude("hi", retry=nb.Retry(initial_delay=0.01)).wait().attempts == 1


def test_a_rate_limit_is_waited_for_until_its_reset_and_the_views_say_so(session, fake_claude: Fake, monkeypatch: pytest.MonkeyPatch):
    from agentnb.notebook import render

    resets = int(time.time()) + 3
    monkeypatch.setenv("AGENTNB_FAKE_CLAUDE_RESETS_AT", str(resets))
    fake_claude("rate_limit")
    run = session.claude("hi", retry=nb.Retry(max_delay=0.01, initial_delay=0.01))
    until(lambda: run.snapshot().note)
    assert re.fullmatch(r"for the rate limit until \d\d:\d\d:\d\d", run.snapshot().note)
    assert "waits for the rate limit until" in render.to_text(run.snapshot())
    assert "for the rate limit until" in render.to_html(run.snapshot())
    assert "waits for the rate limit until" in render.to_text(session.snapshot())
    assert run.wait().output == "You said: hi"
    assert time.time() >= resets
    assert run.snapshot().note == ""


def test_a_rate_limit_whose_reset_is_later_than_the_timeout_is_not_waited_for(session, fake_claude: Fake):
    fake_claude("rate_limit:3600")
    result = session.claude("hi", timeout=20, retry=nb.Retry()).wait("20s")
    assert (result.status, result.attempts, result.error.kind) == ("failed", 1, "rate_limited")
    assert "later than the timeout of 20 s" in result.warnings[0]


def test_a_wait_for_a_rate_limit_can_be_cancelled(session, fake_claude: Fake):
    fake_claude("rate_limit:3600")
    run = session.claude("hi", retry=nb.Retry())
    until(lambda: run.snapshot().note)
    run.cancel()
    assert run.wait("10s").status == "cancelled"


def test_an_interrupt_from_outside_is_a_cancellation(session, tmp_path: Path):
    program = tmp_path / "claude"
    event = {"type": "result", "subtype": "error_during_execution", "is_error": True, "terminal_reason": "aborted_streaming"}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(event)}'\n")
    program.chmod(0o755)
    result = session.claude("hi", env={"AGENTNB_CLAUDE": str(program)}).wait()
    assert (result.status, result.error.message) == ("cancelled", "claude was interrupted (SIGINT)")


def test_a_schema_gives_data_and_a_json_format_what_is_in_the_text(session, fake_claude: Fake):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert session.claude("hi", json_schema=schema).wait().output == {"n": 1}
    fake_claude(text='```json\n{"a": [1]}\n```')
    assert session.claude("hi", output_format="json").wait().output == {"a": [1]}
    fake_claude(text="no data")
    assert session.claude("hi", output_format="json").wait().error.kind == "validation_error"


def test_secrets_are_masked_everywhere(session, fake_claude: Fake, store: Path):
    fake_claude(text="the key is hunter2-hunter2")
    run = session.claude("my key is hunter2-hunter2", env={"KEY": nb.Secret("hunter2-hunter2")})
    result = run.wait()
    assert result.output == "the key is ***"
    session.end()
    for path in store.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_output_that_is_not_captured_is_not_kept_and_the_result_is_known_all_the_same(session, fake_claude: Fake):
    run = session.claude("hi", capture="stderr")
    result = run.wait()
    assert (result.output, run.stdout, run.artifacts) == ("You said: hi", "", [])


def test_a_limit_on_output_counts_the_raw_stream(session, fake_claude: Fake):
    fake_claude("big_output:30000000")
    result = session.claude("hi", limits=nb.Limits(max_output_bytes="1MB"), grace=0.3).wait()
    assert (result.status, result.error.kind) == ("failed", "resource_limit_exceeded")


# --- options


def argv(store, spec):
    from agentnb.agents.adapters import Asked

    return claude_agent.CLAUDE.work(spec, Asked("run", {}, os.getcwd()))["argv"]


def test_each_option_reaches_the_command_line(fake_claude: Fake, store: Path, tmp_path: Path):
    (tmp_path / "mcp.json").write_text("{}")
    spec = nb.Claude(
        "hi", model="opus", tools=["Read", "Bash(git log:*)"], system_prompt="Be brief.", append_system_prompt="And kind.",
        permission_mode="plan", max_turns=3, resume="abc", mcp_config="mcp.json", json_schema={"type": "object"},
    )  # fmt: skip
    words = argv(store, spec)
    assert words[1:] == [
        "-p", "--allowedTools", "Read", "Bash(git log:*)", "--model", "opus", "--system-prompt", "Be brief.", "--append-system-prompt",
        "And kind.", "--permission-mode", "plan", "--max-turns", "3", "--resume", "abc", "--json-schema", '{"type": "object"}',
        "--mcp-config", str(tmp_path / "mcp.json"), "--output-format", "stream-json", "--include-partial-messages", "--verbose",
    ]  # fmt: skip
    assert argv(store, nb.Claude("hi", tools=[]))[2:4] == ["--tools", ""]
    assert json.loads(argv(store, nb.Claude("hi", mcp_config={"mcpServers": {}}))[3]) == {"mcpServers": {}}


def test_permissions_are_never_skipped_unasked(fake_claude: Fake, store: Path):
    assert not [word for word in argv(store, nb.Claude("hi")) if "permission" in word]


def test_only_the_mode_that_asks_for_nothing_tells_the_program_of_a_sandbox(fake_claude: Fake, monkeypatch: pytest.MonkeyPatch):
    from agentnb.agents.adapters import Asked

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    asked = Asked("run", {}, os.getcwd())
    assert "IS_SANDBOX" not in claude_agent.CLAUDE.work(nb.Claude("hi", permission_mode="acceptEdits"), asked)["env"]
    assert claude_agent.CLAUDE.work(nb.Claude("hi", permission_mode="bypassPermissions"), asked)["env"]["IS_SANDBOX"] == "1"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "IS_SANDBOX" not in claude_agent.CLAUDE.work(nb.Claude("hi", permission_mode="bypassPermissions"), asked)["env"]


def test_context_is_text_before_the_prompt_or_files_that_go_with_it(session, tmp_path: Path):
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\ncat > asked.txt\n")
    program.chmod(0o755)
    (tmp_path / "a b.md").write_text("x")
    (tmp_path / "c.md").write_text("x")
    env = {"AGENTNB_CLAUDE": str(program)}
    session.claude("Go.", context="The {{thing}}.", params={"thing": "house"}, env=env).wait()
    assert (tmp_path / "asked.txt").read_text() == "The house.\n\nGo."
    session.claude("Go.", context=["a b.md", tmp_path / "c.md"], env=env).wait()
    assert (tmp_path / "asked.txt").read_text() == f'@"a b.md"\n@{tmp_path}/c.md\n\nGo.'
    with pytest.raises(nb.ConfigError, match=r"context: there is no file 'd.md'"):
        session.claude("Go.", context=["d.md"], env=env)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": "Read"}, "is no list"),
        ({"tools": ["--evil"]}, "is no tool"),
        ({"tools": [1]}, "no usable text"),
        ({"output_format": "stream-json"}, "stream.jsonl"),
        ({"output_format": "xml"}, "output_format"),
        ({"model": "--evil"}, "taken for an option"),
        ({"resume": "-c"}, "taken for an option"),
        ({"permission_mode": "yolo"}, "permission_mode"),
        ({"max_turns": 0}, "max_turns"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"json_schema": {"type": "object"}, "output_format": "json"}, "both given"),
        ({"mcp_config": {"servers": {}}}, "mcpServers"),
        ({"mcp_config": {"mcpServers": {"x": {"env": {"KEY": nb.Secret("hunter2-hunter2")}}}}}, "write '${NAME}', and give env"),
        ({"mcp_config": {"mcpServers": {"x": float("nan")}}}, "no JSON data"),
        ({"system_prompt": "a\0b"}, "NUL"),
        ({"mcp_config": "no.json"}, "there is no file"),
        ({"context": [""]}, "no usable text"),
        ({"stdin": "x"}, "gets its prompt there"),
        ({"tool": ["Read"]}, "did you mean 'tools'"),
    ],
)
def test_bad_options_are_refused_before_anything_starts(session, fake_claude: Fake, options: dict, says: str):
    with pytest.raises(nb.ConfigError, match=re.escape(says)):
        session.claude("hi", **options)
    assert not session.runs


@pytest.mark.parametrize("prompt", ["", "  ", None, 3, "a\0b"])
def test_bad_prompts_are_refused(session, fake_claude: Fake, prompt: object):
    with pytest.raises(nb.ConfigError, match="prompt"):
        session.claude(prompt)


# --- the program


def test_a_program_that_is_missing_says_how_to_get_it(session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(claude_cli, "_bundled", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("AGENTNB_CLAUDE", raising=False)
    with pytest.raises(nb.RuntimeUnavailable, match=r"pip install 'agentnb\[claude\]'"):
        session.claude("hi")
    assert "agentnb[claude]" in nb.capabilities()["targets"]["claude"]["why_not"]
    assert not nb.supports("claude")


def test_the_variable_wins_over_the_path_and_the_path_over_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "claude").write_text("#!/bin/sh\n")
        (tmp_path / name / "claude").chmod(0o755)
    monkeypatch.delenv("AGENTNB_CLAUDE", raising=False)
    assert claude_cli.find({"PATH": str(tmp_path / "one")}) == str(tmp_path / "one" / "claude")
    assert claude_cli.find({"PATH": str(tmp_path / "one"), "AGENTNB_CLAUDE": str(tmp_path / "two" / "claude")}) == str(
        tmp_path / "two" / "claude"
    )
    with pytest.raises(nb.RuntimeUnavailable, match="AGENTNB_CLAUDE names 'nowhere'"):
        claude_cli.find({"AGENTNB_CLAUDE": "nowhere"})


def test_a_run_finds_the_program_on_its_own_path(session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AGENTNB_CLAUDE", raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").write_text("#!/bin/sh\necho mine >&2\n")
    (tmp_path / "bin" / "claude").chmod(0o755)
    result = session.claude("hi", env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}).wait()
    assert result.stderr == "mine\n"


def test_keys_and_logins_are_seen_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    home = {"CLAUDE_CONFIG_DIR": str(tmp_path)}
    assert claude_cli.credentials(home) == ""
    assert claude_cli.credentials(home | {"ANTHROPIC_API_KEY": "x"}) == "ANTHROPIC_API_KEY"
    (tmp_path / ".credentials.json").write_text("{}")
    assert claude_cli.credentials(home) == "login"
