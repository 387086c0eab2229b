"""session.validate and session.estimate: a launch is looked at, and nothing is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.agents import model_file


def messages(issues: list[nb.Issue]) -> list[str]:
    return [f"{issue.check}: {issue.message}" for issue in issues]


def test_a_good_launch_has_no_issues_and_starts_nothing(session: nb.Session) -> None:
    handlers: dict[str, Any] = {"on_failure": "echo x", "cleanup": nb.Handler(nb.Command(["ls"]), condition="exit_code == 1")}
    assert session.validate(nb.Shell("touch {{x}}"), params={"x": "made"}, timeout="5m", env={"A": "b"}, **handlers) == []
    assert session.validate(nb.Python(print, "x")) == []
    assert session.validate(print) == []
    assert session.runs == []
    assert len(session.runs_df()) == 0
    assert not Path("made").exists()


def test_all_issues_are_told_at_once(session: nb.Session) -> None:
    found = session.validate(
        nb.Command(["no-such-program"]),
        timeout="soon",
        colour="red",
        env={"A": object()},
        params=3,
        name=" ",
        limits=nb.Limits(max_network_bytes=1),
        on_failure=nb.Command(["no-such-handler"]),
        cleanup=nb.Handler("x", condition="stat == 1"),
        validation=nb.Validation(),
        artifacts=3,
    )
    text = "\n".join(messages(found))
    for part in ("timeout:", "'colour'", "env['A']", "params:", "name:", "max_network_bytes", "'stat'", "checks nothing", "artifacts"):
        assert text.count(part) >= 1, part
    assert "program: the program 'no-such-program' is not on the PATH" in text
    assert "program: the program 'no-such-handler' is not on the PATH" in text
    assert {issue.severity for issue in found} == {"error"}
    assert len(set(text.splitlines())) == len(found)


@pytest.mark.parametrize("target", ["ls", ["ls"], 3, None, nb.Shell, object()])
def test_what_is_no_target_is_an_issue(session: nb.Session, target: Any) -> None:
    [issue] = session.validate(target)
    assert issue.check == "target"


def test_each_issue_of_one_launch_is_what_the_launch_would_raise(session: nb.Session) -> None:
    launches: list[tuple[Any, dict[str, Any]]] = [
        (nb.Shell("echo {{x}}"), {"params": {"y": 1}}),
        (nb.Shell("true", working_dir="/no/such"), {}),
        (nb.Shell("true"), {"on_success": nb.Shell("true", working_dir="/no/such")}),
        (nb.Python(lambda a: a), {}),
        (nb.LocalModel("x", model="/no/such.gguf"), {}),
        (nb.LocalModel(), {}),
        (nb.Test("true", validation_script="true"), {"validation": nb.Validation(script="true")}),
        (nb.Shell("true"), {"capture": "stderr", "validation": nb.Validation(expected_pattern="x")}),
        (nb.Shell("true"), {"cwd": "/"}),
        (nb.Shell("true"), {"on_failure": nb.Handler("true", condition="True")}),
    ]
    for target, options in launches:
        issues = session.validate(target, **options)
        with pytest.raises(nb.AgentnbError) as caught:
            session.launch(target, **options)
        assert str(caught.value) == "\n".join(issue.message for issue in issues), issues
    assert session.runs == []


def test_programs_are_looked_for_on_the_path_of_the_child(session: nb.Session, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    spec = nb.Command(["tool"])
    assert "not on the PATH" in session.validate(spec)[0].message
    assert "not executable" in session.validate(spec, env={"PATH": str(tool.parent)})[0].message
    tool.chmod(0o755)
    assert session.validate(spec, env={"PATH": str(tool.parent)}) == []
    assert session.validate(nb.Command(["./bin/tool"])) == []
    assert session.validate(nb.Command(["./tool"]), working_dir=str(tool.parent)) == []
    assert "is not there" in session.validate(nb.Command(["./tool"]))[0].message
    assert "'no-shell'" in session.validate(nb.Shell("true", shell="no-shell -x"))[0].message


def test_a_missing_model_is_an_issue(session: nb.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentnb.agents.model_file.missing", lambda: "no model; run: agentnb model install")
    assert messages(session.validate(nb.LocalModel("x"))) == ["launch: no model; run: agentnb model install"]
    assert model_file.missing() is None or session.runs == []


def test_objects_that_fail_when_they_are_looked_at_are_issues(session: nb.Session) -> None:
    class Evil:
        def __str__(self) -> str:
            raise RuntimeError("evil")

        __repr__ = __str__

        def keys(self) -> None:
            raise RuntimeError("evil")

    assert session.validate(nb.Shell("true"), timeout=Evil(), params={"x": Evil()}, tags={"x": Evil()})
    assert session.validate(Evil())


def test_an_ended_session_is_an_issue(new_session: Callable[..., nb.Session]) -> None:
    session = new_session()
    session.end()
    assert "has ended" in session.validate(nb.Shell("true"))[0].message
    assert session.validate(nb.Shell("true"))[0].check == "session"


def test_an_estimate_learns_from_the_runs_of_this_store(session: nb.Session) -> None:
    before = session.estimate(nb.Shell("sleep 0.1; exit {{n}}"), params={"n": 0})
    assert (before.source, before.duration, before.n) == ("default", 10.0, 0)
    session.map(nb.Shell("sleep 0.1; exit {{n}}"), nb.grid(n=[0, 1]), repeats=3).wait()
    after = session.estimate(nb.Shell("sleep 0.1; exit {{n}}"), params={"n": 0})
    assert (after.source, after.n, after.confidence) == ("history", 3, 3 / 7)
    assert after.duration is not None
    assert after.duration_p90 is not None
    assert 0.1 <= after.duration <= after.duration_p90 < 5
    assert after.peak_memory_bytes
    assert session.estimate(nb.Shell("sleep 0.1; exit {{n}}"), params={"n": 1}).source == "default"


def test_a_timeout_bounds_an_estimate_and_bad_options_are_refused(session: nb.Session) -> None:
    assert session.estimate(nb.Shell("make"), timeout="3s").duration == 3.0
    assert session.estimate(nb.Handler("make"), timeout=60).duration == 2.0
    with pytest.raises(nb.ConfigError, match="colour"):
        session.estimate(nb.Shell("make"), colour=1)
    with pytest.raises(nb.ConfigError, match="no target"):
        session.estimate("make")
    with pytest.raises(nb.TemplateError):
        session.estimate(nb.Shell("make {{x}}"), params={"y": 1})
