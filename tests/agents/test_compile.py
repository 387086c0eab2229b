"""Specs and configs become Work: arguments, folders, environments, precedence, checks, handlers, limits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import agentnb as nb
from agentnb.agents.compile import DEFAULT_GRACE_S, compile_work, target_of
from agentnb.execution import ExecutionConfig


def work_of(spec, defaults=None, **options):
    return compile_work(spec, ExecutionConfig(**options), defaults=defaults, env_id=7, params={}, run_id="r")


def test_each_spec_becomes_its_argument_vector() -> None:
    assert work_of(nb.Shell("a | b"))["argv"] == ["sh", "-c", "a | b"]
    assert work_of(nb.Shell("a", shell="bash -e"))["argv"] == ["bash", "-e", "-c", "a"]
    assert work_of(nb.Command(["a", Path("b c"), 3]))["argv"] == ["a", "b c", "3"]
    test = work_of(nb.Test("a", expected_exit_code=3, validation_script="b"))
    assert (test["argv"], test["expected_exit_code"], test["check"]["script"]) == (["sh", "-c", "a"], 3, ["sh", "-c", "b"])
    with pytest.raises(nb.ConfigError, match="shell: it is empty"):
        work_of(nb.Shell("a", shell=" "))


def test_what_is_not_given_has_its_default() -> None:
    work = work_of(nb.Shell("a"))
    assert (work["kind"], work["env_id"], work["env"], work["secrets"], work.get("stdin")) == ("process", 7, {}, [], None)
    assert (work["capture"], work.get("timeout_s"), work["grace_s"], work["expected_exit_code"]) == ("both", None, DEFAULT_GRACE_S, 0)
    assert not {"retry", "limits", "check", "handlers", "artifacts", "payload"} & set(work)
    assert work["cwd"] == str(Path.cwd())
    assert work_of(nb.Shell("a"), grace=0)["grace_s"] == 0


def test_the_launch_wins_over_the_spec_and_that_over_the_defaults(tmp_path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    defaults = ExecutionConfig(working_dir="a", env={"A": "1", "B": "1", "C": "1"}, timeout=1, stdin="x", capture="stdout")
    bare = work_of(nb.Shell("x"), defaults)
    assert (bare["cwd"], bare["env"], bare["timeout_s"], bare["capture"]) == (str(tmp_path / "a"), dict.fromkeys("ABC", "1"), 1, "stdout")
    spec = nb.Shell("x", working_dir=Path("b"), env={"B": "2", "C": "2"})
    assert work_of(spec, defaults)["cwd"] == str(tmp_path / "b")
    work = work_of(spec, defaults, working_dir="c", env={"C": "3"}, timeout="2s", stdin="")
    assert (work["cwd"], work["env"]) == (str(tmp_path / "c"), {"A": "1", "B": "2", "C": "3"})
    assert (work["timeout_s"], work["stdin"]) == (2, "")


def test_folders_are_found_from_the_current_one_and_from_home(tmp_path, monkeypatch) -> None:
    (tmp_path / "home" / "x").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert work_of(nb.Shell("a"), working_dir="~/x")["cwd"] == str(tmp_path / "home" / "x")
    assert work_of(nb.Shell("a"), working_dir="home/../home")["cwd"] == str(tmp_path / "home")
    (tmp_path / "file").touch()
    for bad, says in (("nope", "does not exist"), ("file", "is no directory")):
        with pytest.raises(nb.ConfigError, match=f"working_dir: '{tmp_path}/{bad}' {says}"):
            work_of(nb.Shell("a"), working_dir=bad)


def test_secrets_reach_the_child_and_the_masker_but_not_the_record() -> None:
    spec = nb.Shell("a", env={"TOKEN": nb.Secret("hidden"), "PLAIN": "seen"})
    work = work_of(spec, env={"OTHER": nb.Secret("too")}, cleanup=nb.Command(["c"], env={"THIRD": nb.Secret("third")}))
    assert work["env"] == {"TOKEN": "hidden", "PLAIN": "seen", "OTHER": "too"}
    assert sorted(work["secrets"]) == ["hidden", "third", "too"]
    assert work["handlers"][0]["env"]["THIRD"] == "third"
    recorded = json.dumps(target_of(spec).spec)
    assert "hidden" not in recorded
    assert "seen" in recorded


def test_the_record_of_a_target_is_json() -> None:
    for spec in (
        nb.Shell("a", working_dir=Path("/")),
        nb.Command(["a", "b"]),
        nb.Test("a"),
        nb.LocalModel("hi", model=Path("x")),
        nb.Python(len, []),
    ):
        target = target_of(spec)
        assert json.loads(json.dumps(target.spec)) == target.spec
        assert target.spec["type"] == spec.type
        assert spec.display
    assert target_of(nb.Python(len, [])).spec["function"] == "builtins.len"
    assert nb.Command(["a b", "c"]).display == "'a b' c"


def test_checks_are_planned_and_those_that_cannot_be_made_are_refused() -> None:
    work = work_of(nb.Shell("a"), validation=nb.Validation(expected_pattern="x", forbidden_patterns=["y"], script="z", json_schema={}))
    assert work["check"] == {
        "expected_pattern": "x", "forbidden_patterns": ["y"], "script": ["sh", "-c", "z"], "json_schema": {}, "streams": ["stdout"],
    }  # fmt: skip
    with pytest.raises(nb.ConfigError, match="checks nothing"):
        work_of(nb.Shell("a"), validation=nb.Validation())
    with pytest.raises(nb.ConfigError, match="needs stdout, but capture='stderr'"):
        work_of(nb.Shell("a"), validation=nb.Validation(expected_pattern="x"), capture="stderr")
    with pytest.raises(nb.ConfigError, match="both given"):
        work_of(nb.Test("a", validation_script="b"), validation=nb.Validation(script="c"))


def test_retries_handlers_and_artifacts_are_planned(tmp_path) -> None:
    (tmp_path / "sub").mkdir()
    work = work_of(
        nb.Shell("a", env={"A": "1"}), retry=nb.Retry(max_attempts=5, initial_delay="250ms", on_exit_codes=[3]), artifacts=["*.txt", "b"],
        on_success=nb.Shell("s", env={"B": "2"}), on_failure=nb.Command(["f"], working_dir="sub"), cleanup=nb.Shell("c", shell="bash"),
    )  # fmt: skip
    assert (work["retry"]["max_attempts"], work["retry"]["initial_delay"], work["retry"]["on_exit_codes"]) == (5, 0.25, [3])
    assert work["artifacts"] == ["*.txt", "b"]
    assert [(plan["when"], plan["argv"], Path(plan["cwd"]).name) for plan in work["handlers"]] == [
        ("on_success", ["sh", "-c", "s"], tmp_path.name),
        ("on_failure", ["f"], "sub"),
        ("cleanup", ["bash", "-c", "c"], tmp_path.name),
    ]
    assert work["handlers"][0]["env"] == {"A": "1", "B": "2"}
    with pytest.raises(nb.ConfigError, match="does not exist"):
        work_of(nb.Shell("a"), cleanup=nb.Shell("c", working_dir="nope"))


def test_limits_are_passed_on_and_those_that_this_machine_cannot_keep_are_refused() -> None:
    assert work_of(nb.Shell("a"), limits=nb.Limits(max_output_bytes="1kB"))["limits"] == {"max_output_bytes": 1000}
    with pytest.raises(nb.InvalidLimits, match="max_network_bytes"):
        work_of(nb.Shell("a"), limits=nb.Limits(max_network_bytes=1))
    with pytest.raises(nb.InvalidLimits, match="no limit is given"):
        work_of(nb.Shell("a"), limits=nb.Limits())


async def agent(x: int) -> int:
    return x


def test_an_async_function_is_hosted_and_a_plain_one_is_a_process() -> None:
    assert work_of(nb.Python(agent, 1))["kind"] == "hosted"
    plain = work_of(nb.Python(divmod, 7, 2))
    assert (plain["kind"], plain["channel"]) == ("process", True)
    with pytest.raises(nb.ConfigError, match="missing a required argument: 'x'"):
        work_of(nb.Python(agent))


def test_a_hosted_run_takes_the_defaults_that_it_can_have_and_refuses_what_it_cannot() -> None:
    limits = nb.Limits(max_memory_bytes=1)
    defaults = ExecutionConfig(env={"A": "1"}, working_dir="/", stdin="x", capture="none", limits=limits, timeout=5, grace=1)
    work = work_of(nb.Python(agent, 1), defaults)
    assert (work["env"], work["cwd"], work.get("stdin"), work["capture"]) == ({}, str(Path.cwd()), None, "both")
    assert (work.get("timeout_s"), work["grace_s"]) == (5, 1)
    for given in ({"env": {"A": "1"}}, {"working_dir": "/"}, {"stdin": True}, {"capture": "stderr"}, {"limits": limits}):
        with pytest.raises(nb.ConfigError, match="`async def` agent"):
            work_of(nb.Python(agent, 1), **given)


def test_the_environment_itself_is_not_copied_into_the_work() -> None:
    assert "PATH" in os.environ
    assert "PATH" not in work_of(nb.Shell("a"))["env"]
