"""Cache keys: every field of every spec and option is decided on, and what counts is told apart."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents import cache_key
from agentnb.agents.cache_key import COUNTED, LEFT_OUT, RESOLVED, CacheKeys, counted_elsewhere, is_volatile
from agentnb.execution import AnySpec, ExecutionConfig
from tests.repositories import git, repository


def key(spec: Any, params: dict[str, Any] | None = None, *, defaults: ExecutionConfig | None = None, **options: Any) -> str:
    return CacheKeys(ExecutionConfig(**options), defaults or ExecutionConfig()).key(spec, params or {})[0]


def test_every_option_of_a_launch_is_decided_on() -> None:
    # A new option has to be put where it belongs: does it make a difference to what a completed run came to?
    assert {*COUNTED, *RESOLVED, *LEFT_OUT} == set(ExecutionConfig.model_fields)
    assert len(COUNTED) + len(RESOLVED) + len(LEFT_OUT) == len(ExecutionConfig.model_fields)


_PLACE = {"env", "type", "working_dir"}
DECIDED = {
    "shell": ({"command", "shell"}, _PLACE),
    "command": ({"argv"}, _PLACE),
    "test": ({"command", "expected_exit_code", "validation_script"}, _PLACE),
    "python": ({"function", "args", "kwargs"}, {"type"}),
    "local_model": (
        {"prompt", "system", "messages", "seed", "json_schema", "temperature", "top_p", "max_tokens", "model"},
        {"type", "threads", "shared", "keep_alive"},
    ),
    "openai_compatible": (
        {"prompt", "system", "messages", "seed", "json_schema", "temperature", "top_p", "max_tokens", "model", "url", "headers", "extra",
         "usd_per_million_input", "usd_per_million_output"},
        {"type", "api_key"},
    ),
    "a2a": ({"url", "message", "data", "output_modes", "headers", "context_id", "task_id", "refers_to"}, {"type", "api_key"}),
    "claude": (
        {"command", "context", "tools", "output_format", "model", "system_prompt", "append_system_prompt", "permission_mode", "max_turns",
         "resume", "mcp_config", "json_schema"},
        _PLACE,
    ),
    "json_lines": ({"argv", "text", "output"}, _PLACE),
    "replay": ({"path", "speed"}, {"type"}),
    "swarm": ({"input", "sha256"}, {"type", "path", "spec"}),
    "agent": ({"input"}, {"type", "path", "spec", "sha256", "goes_on"}),
}  # fmt: skip


@pytest.mark.parametrize("cls", get_args(AnySpec), ids=lambda cls: cls.__name__)
def test_every_field_of_every_spec_is_decided_on(cls: type[Any]) -> None:
    # A new field counts unless it is left out; this test asks whether that was meant.
    kind = cls.model_fields["type"].default
    counted, elsewhere = DECIDED[kind]
    assert counted | elsewhere == set(cls.model_fields)
    assert counted == set(cls.model_fields) - counted_elsewhere(kind)


def test_what_is_the_same_work_has_the_same_key() -> None:
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", key(nb.Shell("make")))
    assert key(nb.Shell("make")) == key(nb.Shell("make"))
    assert key(nb.Shell("make"), {"a": 1, "b": 2}) == key(nb.Shell("make"), {"b": 2, "a": 1})
    how = {"timeout": 5, "retry": nb.Retry(), "limits": nb.Limits(max_processes=5), "grace": 1, "on_success": "a", "on_failure": "b",
           "rollback": "c", "cleanup": "d"}  # fmt: skip
    assert set(how) == LEFT_OUT
    assert key(nb.Shell("make"), **how) == key(nb.Shell("make"))


DIFFERENT: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (nb.Shell("make"), {}, {}), (nb.Shell("make all"), {}, {}), (nb.Shell("make", shell="bash"), {}, {}), (nb.Test("make"), {}, {}),
    (nb.Test("make", expected_exit_code=1), {}, {}), (nb.Test("make", validation_script="true"), {}, {}), (nb.Command(["make"]), {}, {}),
    (nb.Command(["make", ""]), {}, {}), (nb.Shell("make"), {"a": 1}, {}), (nb.Shell("make"), {"a": "1"}, {}),
    (nb.Shell("make"), {"a": 1.5}, {}), (nb.Shell("make"), {"b": 1}, {}), (nb.Shell("make"), {}, {"stdin": "x"}),
    (nb.Shell("make"), {}, {"capture": "stdout"}),
    (nb.Shell("make"), {}, {"artifacts": "*.txt"}), (nb.Shell("make"), {}, {"validation": nb.Validation(expected_pattern="x")}),
    (nb.Shell("make"), {}, {"validation": nb.Validation(expected_pattern="y")}), (nb.Shell("make"), {}, {"working_dir": "/"}),
    (nb.Shell("make"), {}, {"env": {"A": "1"}}), (nb.Shell("make"), {}, {"env": {"A": "2"}}), (nb.Shell("make"), {}, {"env": {"B": "1"}}),
    (nb.Shell("make"), {}, {"env": {"A": nb.Secret("3")}}), (nb.Claude("make"), {}, {}), (nb.Claude("make", model="opus"), {}, {}),
    (nb.Claude("make", tools=[]), {}, {}), (nb.Claude("make", resume="s"), {}, {}), (nb.LocalModel("make"), {}, {}),
    (nb.LocalModel("make", seed=1), {}, {}), (nb.OpenAICompatible("http://a/v1", "m", "p"), {}, {}),
    (nb.OpenAICompatible("http://b/v1", "m", "p"), {}, {}), (nb.OpenAICompatible("http://a/v1", "m", "p", extra={"top_k": 1}), {}, {}),
    (nb.OpenAICompatible("http://a/v1", "m", "p", headers={"X-A": nb.Secret("1")}), {}, {}), (nb.A2A("http://a", "m"), {}, {}),
    (nb.A2A("http://a", "m", context_id="c"), {}, {}), (nb.JsonLines(["make"]), {}, {}), (nb.JsonLines(["make"], output="x"), {}, {}),
    (nb.Python(len, "a"), {}, {}), (nb.Python(len, "b"), {}, {}), (nb.Python(sorted, "a"), {}, {}), (nb.Python(dict, a=1), {}, {}),
    (nb.Python(dict, b=1), {}, {}), (nb.Python(max, 1, 2), {}, {}), (nb.Python(max, 2, 1), {}, {}),
]  # fmt: skip


def test_what_is_other_work_has_another_key() -> None:
    keys = [key(spec, params, **options) for spec, params, options in DIFFERENT]
    assert len(set(keys)) == len(keys)


def test_where_an_option_is_given_makes_no_difference() -> None:
    given = key(nb.Shell("make"), env={"A": "1"}, working_dir="/")
    assert key(nb.Shell("make", env={"A": "1"}, working_dir="/")) == given
    assert key(nb.Shell("make"), defaults=ExecutionConfig(env={"A": "1"}, working_dir="/")) == given
    assert key(nb.Shell("make", env={"A": "2"}, working_dir="/tmp"), env={"A": "1"}, working_dir="/") == given


def test_who_pays_and_how_it_is_computed_is_left_out() -> None:
    assert key(nb.LocalModel("a")) == key(nb.LocalModel("a", threads=2, shared=True, keep_alive=1))
    assert key(nb.OpenAICompatible("http://a/v1", "m", "p")) == key(nb.OpenAICompatible("http://a/v1", "m", "p", api_key=nb.Secret("x")))


def test_the_environment_counts_but_for_what_tells_of_terminal_login_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(nb.Shell("make"))
    names = ("JPY_PARENT_PID", "SSH_CONNECTION", "TMUX_PANE", "SHLVL", "OLDPWD", "JUPYTERHUB_API_TOKEN", "AGENTNB_RUN_ID", "TRACEPARENT")
    for name in names:
        monkeypatch.setenv(name, "another")
        assert is_volatile(name)
    assert key(nb.Shell("make")) == before
    assert key(nb.Shell("make"), env={"SHLVL": "3"}) != before  # given for the run
    monkeypatch.setenv("SOME_SETTING", "1")
    with_setting = key(nb.Shell("make"))
    monkeypatch.setenv("SOME_SETTING", "2")
    assert len({before, with_setting, key(nb.Shell("make"))}) == 3
    assert not any(map(is_volatile, ("PATH", "HOME", "LANG", "SLURM_ARRAY_TASK_ID", "CUDA_VISIBLE_DEVICES", "PYTHONPATH")))


def test_a_key_gives_nothing_of_a_secret_away(tmp_path: Path) -> None:
    found = key(nb.Shell("make"), env={"TOKEN": nb.Secret("hunter2")})
    assert "hunter2" not in found
    assert found != key(nb.Shell("make"), env={"TOKEN": nb.Secret("hunter3")})


def test_the_contents_of_input_files_count(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1")
    (tmp_path / "model.gguf").write_bytes(b"1")
    before = key(nb.Shell("make"), {"n": "a"}, inputs=["data", "data/{{n}}.csv"])
    assert before != key(nb.Shell("make"), {"n": "a"})
    (tmp_path / "data" / "a.csv").touch()
    assert before == key(nb.Shell("make"), {"n": "a"}, inputs=["data", "data/{{n}}.csv"])
    (tmp_path / "data" / "a.csv").write_text("2")
    assert before != key(nb.Shell("make"), {"n": "a"}, inputs=["data", "data/{{n}}.csv"])
    with pytest.raises(nb.ConfigError, match="inputs: 'gone' is not there"):
        key(nb.Shell("make"), inputs="gone")


def test_files_that_a_spec_names_count_by_their_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("notes.md", "mcp.json", "small.gguf"):
        (tmp_path / name).write_text("{}")
    specs: list[Callable[[], Any]] = [
        lambda: nb.Claude("a", context=["notes.md"]),
        lambda: nb.Claude("a", mcp_config="mcp.json"),
        lambda: nb.LocalModel("a", model="small.gguf"),
    ]
    before = [key(make()) for make in specs]
    assert before == [key(make()) for make in specs]
    for name in ("notes.md", "mcp.json", "small.gguf"):
        (tmp_path / name).write_text("{ }")
    assert not set(before) & {key(make()) for make in specs}
    as_text = key(nb.Claude("a", context="notes.md"))
    (tmp_path / "notes.md").write_text("other")
    assert as_text == key(nb.Claude("a", context="notes.md"))  # that is the text itself
    monkeypatch.setattr(cache_key, "LARGE_MODEL", 1)
    large = key(nb.LocalModel("a", model="small.gguf"))
    os.utime(tmp_path / "small.gguf", (1, 1))
    assert large != key(nb.LocalModel("a", model="small.gguf"))


def test_the_code_and_the_arguments_of_a_python_agent_count() -> None:
    def agent(n: int) -> int:
        return n + offset

    offset = 1
    before = key(nb.Python(agent, 1))
    assert before == key(nb.Python(agent, 1)) != key(nb.Python(agent, 2))
    offset = 2
    assert before != key(nb.Python(agent, 1))
    assert key(nb.Python(agent, [1, {"a": b"x"}])) != key(nb.Python(agent, [1, {"a": "x"}]))
    with pytest.raises(nb.ConfigError, match=r"reuse: argument 1 is a _io\.TextIOWrapper"), open(os.devnull) as file:
        key(nb.Python(agent, file))


def test_a_worktree_counts_by_its_commit_and_a_copy_by_its_files(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    tree, copy = nb.Worktree(repo), nb.TempCopy(repo)
    before = [key(nb.Shell("make"), workspace=space) for space in (tree, copy, nb.Worktree(repo, cleanup="keep"))]
    assert before[0] == before[2] != before[1]
    (repo / "old.txt").write_text("changed\n")  # not committed: it is in the copy only
    after = [key(nb.Shell("make"), workspace=space) for space in (tree, copy)]
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)
    git(repo, "commit", "--all", "-m", "second")
    assert key(nb.Shell("make"), workspace=tree) != before[0]
    assert key(nb.Shell("make"), workspace=nb.Worktree(repo, "HEAD~1")) == before[0]
    git(repo, "clone", str(repo), str(tmp_path / "clone"))
    assert key(nb.Shell("make"), workspace=nb.Worktree(tmp_path / "clone")) == key(nb.Shell("make"), workspace=tree)
    with pytest.raises(nb.ConfigError, match="the files of a worktree are those of its commit"):
        key(nb.Shell("make"), workspace=tree, inputs="old.txt")
    assert key(nb.Shell("make"), workspace=tree, inputs=str(repo / "old.txt")) != before[0]


def test_what_is_never_the_same_twice_is_refused(tmp_path: Path) -> None:
    for options, says in (
        ({"stdin": True}, "what will be sent to an open stdin is not known"),
        ({"workspace": nb.Shared(tmp_path)}, r"works on the folder itself, .* inputs=\["),
    ):
        with pytest.raises(nb.ConfigError, match=f"^reuse: .*{says}"):
            key(nb.Shell("cat"), **options)
    with pytest.raises(nb.ConfigError, match="^reuse: a replay starts nothing"):
        key(nb.Replay("run.jsonl"))
    with pytest.raises(nb.ConfigError, match="does not exist"):
        key(nb.Shell("cat"), working_dir="gone")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), _JSON, max_size=3), st.dictionaries(st.text(), _JSON, max_size=3))
def test_parameters_are_told_apart_whatever_they_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    def plain(params: dict[str, Any]) -> Any:
        return sorted((name, repr(_sorted(value))) for name, value in params.items())

    keys = CacheKeys(ExecutionConfig(), ExecutionConfig())
    assert (keys.key(nb.Shell("a"), one) == keys.key(nb.Shell("a"), other)) == (plain(one) == plain(other))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((name, _sorted(item)) for name, item in value.items())
    return [_sorted(item) for item in value] if isinstance(value, list) else value
