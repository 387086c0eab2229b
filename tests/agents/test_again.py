"""What a record keeps of a launch, and the launch that is made of it again."""

from __future__ import annotations

import functools
import json
import sys
import types
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents.again import NoValues, call_of, check_values, config_of, target_again, written
from agentnb.agents.compile import target_of
from agentnb.agents.fill import fill
from agentnb.execution import AnySpec, ExecutionConfig

FULL: dict[str, Any] = {
    "timeout": 5, "capture": "structured", "working_dir": "/tmp", "env": {"A": "1", "B": nb.Secret("hunter2")}, "stdin": "text",
    "workspace": nb.Worktree("/tmp", "main", cleanup="keep"), "retry": nb.Retry(max_attempts=2, on_exit_codes=(3,)),
    "limits": nb.Limits(max_memory_bytes="1GiB"), "validation": nb.Validation(expected_pattern="x", json_schema={"type": "object"}),
    "grace": 1, "artifacts": ("*.txt",), "inputs": ("a.csv",), "on_success": "echo a", "on_failure": nb.Command(["echo", "b"]),
    "rollback": nb.Handler("echo c", condition="exit_code == 3", timeout=2), "cleanup": nb.Shell("echo d", env={"X": "y"}),
}  # fmt: skip


def test_every_option_is_put_down_as_json_and_comes_back() -> None:
    assert set(FULL) == set(ExecutionConfig.model_fields)  # a new option has to come back, too
    config = ExecutionConfig(**FULL)
    record = json.loads(json.dumps(written(config)))
    assert "hunter2" not in str(record)
    assert config_of(record, FULL["env"] | {"OTHER": "x"}) == config
    for space in (nb.TempCopy("/tmp"), nb.Shared("/tmp")):
        assert config_of(written(ExecutionConfig(workspace=space)), {}).workspace == space


def test_what_is_not_set_is_not_put_down() -> None:
    assert written(ExecutionConfig()) == {}
    assert written(ExecutionConfig(timeout=None, env={})) == {}
    assert config_of({}, {}) == ExecutionConfig()


def test_what_is_too_large_or_secret_is_named_when_it_is_needed() -> None:
    large = written(ExecutionConfig(stdin="x" * 100_000))
    secret = written(ExecutionConfig(cleanup=nb.Shell("a", env={"X": nb.Secret("hunter2")}), on_failure=nb.Handler("echo '***'")))
    assert len(json.dumps(large)) < 200
    assert "hunter2" not in str(secret)
    assert secret["on_failure"]["command"]["command"] == "echo '***'"  # is what it is
    for record, says in ((large, "its stdin has more than 64 KiB"), (secret, "its cleanup has a secret")):
        with pytest.raises(nb.ConfigError, match=says):
            config_of(record, {})


def test_values_of_variables_have_to_be_given() -> None:
    again = {"config": written(ExecutionConfig(env={"B": "1", "A": "2"})), "defaults": written(ExecutionConfig(env={"C": "3"}))}
    target = {"spec": target_of(nb.Shell("a", env={"D": nb.Secret("x"), "E": "plain"})).spec}
    check_values(target, again, {"A", "B", "C", "D"})
    with pytest.raises(NoValues, match=r"give them: resume\(env=\{'A': \.\.\., 'D': \.\.\.\}\)"):
        check_values(target, again, {"B", "C"})


HEAD: dict[str, Any] = {"apiVersion": "v1", "id": "a"}
LINE = {"type": "shell", "command": "a {{input.x}}"}
SPECS: list[Any] = [
    nb.Shell("echo {x} '{{not}} a template'", shell="bash", working_dir="/tmp", env={"A": "1"}), nb.Command(["a", "b c"]),
    nb.Test("make", expected_exit_code=3, validation_script="true"), nb.LocalModel("hi", temperature=0.5, seed=3, messages=[
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
    nb.OpenAICompatible("http://a/v1", "m", "p", api_key="SOME_KEY", extra={"top_k": 1}), nb.A2A("http://a", "hi", data={"a": [1]}),
    nb.Replay("run.jsonl", speed=None), nb.Claude("hi", tools=["Read"], context=["a.md"], mcp_config={"mcpServers": {}}),
    nb.JsonLines(["agent", "--json"], output="a.b"),
    fill(nb.Agent(HEAD | {"kind": "Agent", "command": LINE}, input={"x": 1}), {}),
    fill(nb.Swarm(HEAD | {"kind": "Swarm", "workers": [{"name": "a", "command": LINE}]}, input={"x": 1}), {}),
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
def test_every_kind_of_target_comes_back_from_its_record(spec: Any) -> None:
    record = json.loads(json.dumps({"spec": target_of(spec).spec}))
    again = target_again(record, {}, {})
    assert (type(again), again.model_dump()) == (type(spec), spec.model_dump())
    assert {cls.model_fields["type"].default for cls in get_args(AnySpec)} == {spec.type for spec in SPECS} | {"python"}


def test_a_target_whose_secrets_are_masked_is_refused() -> None:
    keyed = target_of(nb.OpenAICompatible("http://a/v1", "m", "p", api_key=nb.Secret("x"))).spec
    header = target_of(nb.A2A("http://a", "m", headers={"X": nb.Secret("x")})).spec
    for spec in (keyed, header):
        with pytest.raises(nb.ConfigError, match="its key or a header is a secret"):
            target_again({"spec": spec}, {}, {})
    with pytest.raises(nb.ConfigError, match="a secret was in its command"):
        target_again({"spec": target_of(nb.Shell("a")).spec}, {"masked": True}, {})
    given = target_again({"spec": target_of(nb.Shell("a", env={"K": nb.Secret("x"), "L": "l"})).spec}, {}, {"K": nb.Secret("y")})
    assert isinstance(given, nb.Shell)
    assert (given.env["L"], given.env["K"].reveal()) == ("l", "y")  # type: ignore[union-attr]
    with pytest.raises(nb.ConfigError, match="targets of type 'theirs' are of another package"):
        target_again({"spec": {"type": "theirs"}}, {}, {})


# --- Python functions


def triple(n: int, *, by: int = 3) -> int:
    return n * by


class Holder:
    @staticmethod
    def inner(n: int) -> int:
        return n

    def method(self) -> None: ...


def again(spec: nb.Python) -> nb.Python:
    call = json.loads(json.dumps(call_of(spec)))
    found = target_again({"spec": {"type": "python"}}, {"call": call}, {})
    assert isinstance(found, nb.Python)
    return found


def test_a_call_comes_back_with_its_arguments() -> None:
    found = again(nb.Python(triple, 2, by=4))
    assert (found.function, found.args, found.kwargs) == (triple, (2,), {"by": 4})
    nested = again(nb.Python(Holder.inner, [1, {"a": [None, True, 1.5, "x"]}]))
    assert (nested.function, nested.args) == (Holder.inner, ([1, {"a": [None, True, 1.5, "x"]}],))


NO_JSON = [(1,), b"x", {1: 2}, {1}, object(), "x" * 100_000, [[0]] * 20_000, nb.Secret("x")]


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: type(value).__name__)
def test_arguments_that_json_would_change_are_not_put_down(value: Any) -> None:
    call = call_of(nb.Python(triple, value))
    assert len(json.dumps(call)) < 1000
    with pytest.raises(nb.ConfigError, match="its arguments are no plain data of at most 64 KiB"):
        target_again({"spec": {"type": "python"}}, {"call": call}, {})


def test_what_cannot_be_found_by_its_name_is_refused() -> None:
    def local() -> None: ...

    for function in (local, lambda: 1):
        with pytest.raises(nb.ConfigError, match="is not there; define it first"):
            again(nb.Python(function))
    others: list[Any] = [functools.partial(triple, 1), Holder().method, len]
    for other, kind in zip(others, ("partial", "method", "builtin_function_or_method"), strict=True):
        with pytest.raises(nb.ConfigError, match=f"a {kind} cannot be found again by its name"):
            again(nb.Python(other))


@pytest.fixture
def cell() -> Iterator[types.ModuleType]:
    """A module that stands for a notebook."""
    made = types.ModuleType("a_notebook")
    sys.modules["a_notebook"] = made
    yield made
    del sys.modules["a_notebook"]


def test_a_function_that_was_changed_or_is_gone_is_refused(cell: types.ModuleType) -> None:
    exec("def agent(n): return n + 1", cell.__dict__)
    call = call_of(nb.Python(cell.agent, 1))
    exec("def agent(n):\n    # the same\n    return n + 1", cell.__dict__)
    assert target_again({"spec": {"type": "python"}}, {"call": call}, {}).function is cell.agent  # type: ignore[attr-defined]
    exec("def agent(n): return n + 2", cell.__dict__)
    with pytest.raises(nb.ConfigError, match="its code has changed; launch it anew"):
        target_again({"spec": {"type": "python"}}, {"call": call}, {})
    del cell.agent
    with pytest.raises(nb.ConfigError, match=r"the function a_notebook\.agent is not there"):
        target_again({"spec": {"type": "python"}}, {"call": call}, {})
    with pytest.raises(nb.ConfigError, match="its module 'gone_for_good' cannot be imported: ModuleNotFoundError"):
        target_again({"spec": {"type": "python"}}, {"call": call | {"module": "gone_for_good"}}, {})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(_JSON, max_size=3))
def test_json_arguments_come_back_as_they_were(args: list[Any]) -> None:
    found = again(nb.Python(print_all, *args))
    assert (list(found.args), repr(list(found.args))) == (args, repr(args))


def print_all(*args: Any) -> None: ...
