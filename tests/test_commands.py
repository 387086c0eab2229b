from __future__ import annotations

import copy
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb import commands as c
from agentnb import data, results
from agentnb import execution as e
from agentnb import prompts as p
from agentnb.errors import ConfigError
from agentnb.states import ErrorKind, RunStatus

BAD: list[tuple[Any, str]] = [
    (lambda: c.Shell(""), "command"),
    (lambda: c.Shell("  \n"), "is empty"),
    (lambda: c.Shell("echo \0"), "NUL"),
    (lambda: c.Shell(3), "command: 3 is of type int, not text"),
    (lambda: c.Shell(b"ls"), "is of type bytes, not text"),
    (lambda: c.Shell("ls", working_dir=4), "^working_dir: 4 is of type int; give the folder"),
    (lambda: e.ExecutionConfig(working_dir=b"/"), "^working_dir: .*give the folder"),
    (lambda: e.ExecutionConfig(stdin=b"in"), "^stdin: it is bytes; decode them"),
    (lambda: e.ExecutionConfig(stdin=4), "^stdin: 4 is of type int; give text"),
    (lambda: c.Shell("ls", comand="x"), "did you mean 'command'"),
    (lambda: c.Shell("ls", env={"A=B": "x"}), "'A=B' is not a usable variable name"),
    (lambda: e.Validation(expected_pattern=4), "4 is of type int; write the regular expression as text"),
    (lambda: e.Validation(forbidden_patterns=["a", b"b"]), "is of type bytes; write"),
    (lambda: c.Shell("ls", env={"A": None}), r"env\['A'\]"),
    (lambda: c.Shell("ls", env={"A": True}), r"env\['A'\]"),
    (lambda: c.Shell("ls", env={"A": "x\0y"}), "NUL"),
    (lambda: c.Shell("ls", env=["A"]), "not a mapping"),
    (lambda: c.Command("git status"), r"\['git', 'status'\]"),
    (lambda: c.Command([]), "is empty"),
    (lambda: c.Command([""]), "name is empty"),
    (lambda: c.Command(["a\0"]), "NUL"),
    (lambda: c.Command(["ls", None]), "None"),
    (lambda: c.Command(["ls", True]), "True"),
    (lambda: c.Test("pytest", expected_exit_code=256), "expected_exit_code"),
    (lambda: c.Python("not callable"), "is not callable"),
    (lambda: p.LocalModel("hi", temperature=-1), "temperature"),
    (lambda: p.LocalModel("hi", max_tokens=0), "max_tokens"),
    (lambda: p.LocalModel(""), "^prompt: '' is empty; write the question"),
    (lambda: p.LocalModel(3), "^prompt: 3 is of type int"),
    (lambda: e.ExecutionConfig(timeout="soon"), "timeout: 'soon'"),
    (lambda: e.ExecutionConfig(timeout=0), "more than zero"),
    (lambda: e.ExecutionConfig(timeout=float("nan")), "timeout"),
    (lambda: e.ExecutionConfig(capture="some"), "capture"),
    (lambda: e.ExecutionConfig(retries=3), "no option 'retries'"),
    (lambda: e.Retry(max_attempts=0), "max_attempts"),
    (lambda: e.Retry(strategy="hope"), "strategy"),
    (lambda: e.Retry(jitter=2), "jitter"),
    (lambda: e.Limits(max_memory_bytes="lots"), "max_memory_bytes: 'lots'"),
    (lambda: e.Limits(max_memory="1GiB"), "did you mean 'max_memory_bytes'"),
    (lambda: e.Limits(max_processes=0), "max_processes"),
    (lambda: e.Validation(expected_pattern="("), "not a regular expression"),
    (lambda: e.Validation(forbidden_patterns=["ok", "[a"]), "not a regular expression"),
    (lambda: e.Validation(json_schema={"type": "strnig"}), "json_schema"),
    (lambda: e.Validation(streams=["stdin"]), "streams"),
    (lambda: data.Secret(""), "at least one character"),
    (lambda: data.Secret(b"bytes"), "text"),
]


@pytest.mark.parametrize(("make", "says"), BAD)
def test_what_cannot_work_is_refused_before_anything_starts(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_all_bad_options_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        e.ExecutionConfig(timeout="soon", grace=-1, capture="some", bogus=1)
    text = str(caught.value)
    assert all(word in text for word in ("timeout", "grace", "capture", "bogus"))


def test_text_is_kept_as_seconds_and_bytes() -> None:
    config = e.ExecutionConfig(timeout="1h30m", grace="250ms", limits=e.Limits(max_memory_bytes="2GiB", max_cpu_time_s="1m"))
    assert (config.timeout, config.grace) == (5400.0, 0.25)
    assert config.limits
    assert (config.limits.max_memory_bytes, config.limits.max_cpu_time_s) == (2 << 30, 60.0)


def test_sub_second_delays_survive_a_round_trip() -> None:
    retry = e.Retry(initial_delay="50ms", max_delay=0.75)
    assert e.Retry(**retry.model_dump(mode="json")) == retry
    assert (retry.initial_delay, retry.max_delay) == (0.05, 0.75)


@pytest.mark.parametrize(
    "spec",
    [
        c.Shell("make all", shell="bash", working_dir="/", env={"N": 1}),
        c.Command(["git", Path("a b"), 3]),
        c.Test("pytest -q", expected_exit_code=1, validation_script="grep ok"),
        p.LocalModel("Name three", system="One line.", seed=1),
    ],
    ids=lambda s: s.type,
)
def test_a_spec_survives_json(spec: Any) -> None:
    assert type(spec).model_validate_json(spec.model_dump_json()).model_dump(mode="json") == spec.model_dump(mode="json")


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=10), min_size=1, max_size=5)
)
def test_the_display_of_an_argument_vector_reads_back(argv: list[str]) -> None:
    import shlex

    assert shlex.split(c.Command(argv).display) == argv


def test_specs_and_configs_cannot_be_changed() -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        c.Shell("ls").command = "rm"


def test_a_python_call_shows_short_arguments() -> None:
    def agent(*args: object, **kwargs: object) -> None: ...

    spec = c.Python(agent, "x" * 500, depth=2)
    assert spec.display.startswith("test_a_python_call_shows_short_arguments.<locals>.agent('xxx")
    assert spec.display.endswith("..., depth=2)")
    assert len(spec.display) < 160
    assert (spec.args, spec.kwargs) == (("x" * 500,), {"depth": 2})


def test_a_python_call_may_pass_keywords_named_like_its_own_fields() -> None:
    assert c.Python(dict, args=1, kwargs=2, type=3).kwargs == {"args": 1, "kwargs": 2, "type": 3}


@pytest.mark.parametrize(
    "show", [str, repr, "{}".format, lambda s: repr(c.Shell("ls", env={"T": s})), lambda s: repr(e.ExecutionConfig(env={"T": s}))]
)
def test_a_secret_never_shows_its_value(show: Any) -> None:
    assert "hunter2" not in show(data.Secret("hunter2"))


def test_a_secret_is_not_in_the_traceback_of_a_bad_option() -> None:
    secret = data.Secret("".join(["hun", "ter2"]))  # so that no line of source in the traceback holds it
    with pytest.raises(ConfigError) as caught:
        e.ExecutionConfig(env={"T": secret, "BAD": None})
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "hunter2" not in shown
    assert "Secret('***')" in shown


def test_a_secret_cannot_be_pickled_but_reveals_its_value_when_asked() -> None:
    secret = data.Secret("hunter2")
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    assert secret.reveal() == "hunter2"


def test_a_config_laid_over_another_wins_where_it_says_something() -> None:
    base = e.ExecutionConfig(timeout=10, grace=1, env={"A": "1", "B": "1"}, capture="stdout")
    over = e.ExecutionConfig(timeout=20, capture=None, env={"B": "2"}).over(base)
    assert (over.timeout, over.grace, over.capture, over.env) == (20.0, 1.0, e.Capture.STDOUT, {"A": "1", "B": "2"})


def test_laying_an_empty_config_over_another_changes_nothing() -> None:
    base = e.ExecutionConfig(timeout=10, artifacts=("*.txt",), stdin="in", retry=e.Retry(), on_failure=c.Shell("make clean"))
    assert e.ExecutionConfig().over(base) == base


def test_one_artifact_pattern_may_be_plain_text() -> None:
    assert e.ExecutionConfig(artifacts="*.txt").artifacts == ("*.txt",)


@pytest.mark.parametrize(("given_", "kept"), [(True, True), (False, None), ("", ""), ("hi\n", "hi\n"), (None, None)])
def test_stdin_is_text_or_open_or_empty(given_: Any, kept: Any) -> None:
    assert e.ExecutionConfig(stdin=given_).stdin == kept


def test_a_result_says_whether_it_is_good_and_reads_a_newer_peer() -> None:
    result = results.CommandResult(command_id="x", status="completed", command_status="success", usage={"cpu_time": 1.0, "newer": 1})
    assert result.ok
    assert result.status is RunStatus.COMPLETED
    bad = results.CommandResult(command_id="x", status="failed", command_status="failed", error={"kind": "timeout", "message": "m"})
    assert not bad.ok
    assert bad.error
    assert bad.error.kind is ErrorKind.TIMEOUT


def test_a_request_picks_the_spec_by_its_type() -> None:
    request = e.CommandRequest(command_id="x", spec={"type": "test", "command": "pytest"})
    assert isinstance(request.spec, c.Test)
