"""Handlers as people write them: texts, commands, conditions, defaults of a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.execution import ExecutionConfig
from tests.notebook.polling import until


def steps(run: nb.RunHandle) -> dict[str, str]:
    return {step.name: step.status.value for step in run.steps if step.kind == "handler"}


def test_handlers_may_be_texts_commands_or_have_a_condition(session: nb.Session) -> None:
    run = session.shell(
        "exit 4",
        on_success="touch no",
        on_failure=nb.Command(["touch", "failed"]),
        rollback=nb.Handler(nb.Shell("touch $K", env={"K": "rolled"}), condition="exit_code in [3, 4] and 'code 4' in error"),
        cleanup=nb.Handler("touch no", condition="status == 'timeout'"),
    )
    assert run.wait().exit_code == 4
    assert steps(run) == {"on_failure": "completed", "rollback": "completed", "cleanup": "skipped"}
    assert Path("failed").exists()
    assert Path("rolled").exists()
    assert not Path("no").exists()
    assert run.result is not None
    assert run.result.warnings == ()


def test_a_cancelled_agent_of_this_process_is_rolled_back(session: nb.Session) -> None:
    import asyncio

    async def agent() -> None:
        await asyncio.sleep(1000)

    run = session.python(agent, rollback=nb.Handler("echo $AGENTNB_STATUS > rolled", condition="status != 'failed'"), on_success="touch no")
    until(lambda: run.status is nb.RunStatus.RUNNING)
    run.cancel()
    assert run.wait(20).status == "cancelled"
    assert Path("rolled").read_text() == "cancelled\n"


def test_a_session_may_have_handlers_for_all_its_runs(new_session: Callable[..., nb.Session]) -> None:
    session = new_session(cleanup=nb.Handler("echo x >> cleaned", condition="status == 'failed'"))
    for code in (0, 1, 0, 2):
        session.shell(f"exit {code}").wait()
    session.shell("exit 1", cleanup="true").wait()
    assert Path("cleaned").read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("status = 'failed'", "cannot be read"),
        ("status == 'done'", "no run ends with"),
        ("__import__('os')", "cannot be"),
        ("", "cannot be read"),
    ],
)
def test_a_bad_condition_is_refused_at_the_launch_and_nothing_runs(session: nb.Session, condition: str, says: str) -> None:
    with pytest.raises(nb.ConfigError, match=f"condition: .*{says}"):
        session.shell("touch ran", rollback=nb.Handler("true", condition=condition))
    assert session.runs == []


@pytest.mark.parametrize("bad", [3, ["ls"], True, print])
def test_what_is_no_command_is_refused(bad: object) -> None:
    with pytest.raises(nb.ConfigError, match="no command"):
        nb.Handler(bad)
    with pytest.raises(nb.ConfigError, match="on_failure: .*no command"):
        ExecutionConfig(on_failure=bad)
    with pytest.raises(nb.ConfigError):
        nb.Handler("true", condition=bad)


def test_handlers_survive_json() -> None:
    config = ExecutionConfig(
        on_success="a", on_failure=nb.Command(["b"]), rollback=nb.Handler("c", condition="error"), cleanup=nb.Handler(nb.Command(["d"]))
    )
    assert ExecutionConfig.model_validate_json(config.model_dump_json()) == config


def test_a_secret_in_the_error_of_a_run_is_masked_in_what_its_handlers_leave(session: nb.Session) -> None:
    run = session.shell("true", env={"K": nb.Secret("hunter2")}, validation=nb.Validation(expected_pattern="hunter2"),
                        rollback=nb.Handler("echo $AGENTNB_ERROR", condition="'hunter2' in error"))  # fmt: skip
    assert run.wait().status == "failed"
    assert "hunter2" not in str([step.model_dump() for step in run.steps if step.kind == "handler"][-1]["output"])


def test_a_handler_may_have_its_own_time(session: nb.Session) -> None:
    run = session.shell("true", cleanup=nb.Handler("sleep 1000", timeout="300ms"))
    assert run.wait(20).warnings == ("the cleanup handler failed: it was still running after 0.3 s",)
    assert steps(run) == {"cleanup": "timeout"}
    for bad, says in ((0, "more than zero"), ("soon", "is not a duration"), (-1, "timeout")):
        with pytest.raises(nb.ConfigError, match=says):
            nb.Handler("true", timeout=bad)
