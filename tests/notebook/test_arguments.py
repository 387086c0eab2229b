"""Options as text: every field can be given, nothing but a ConfigError comes of nonsense, and text stays text."""

from __future__ import annotations

import shlex
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.commands import Shell
from agentnb.declared import Declared
from agentnb.errors import ConfigError
from agentnb.execution import AnySpec, Capture, ExecutionConfig, Limits, Retry, Validation
from agentnb.notebook.arguments import exact, option_of, options_of, parse, words
from agentnb.notebook.kinds import kinds
from agentnb.notebook.options import RECORD
from agentnb.notebook.verbs import Verbs
from agentnb.programs import Claude
from agentnb.prompts import LocalModel
from agentnb.workspaces import TempCopy, Worktree


def config(line: str) -> ExecutionConfig:
    rest, values = parse(words(line), options_of(ExecutionConfig))
    assert rest == []
    return ExecutionConfig(**values)


def test_every_kind_has_every_option_of_its_spec_and_of_a_launch() -> None:
    known = kinds()
    assert {kind.spec for kind in known.values()} == set(get_args(AnySpec))
    assert {name for name in vars(Verbs) if not name.startswith("_")} - {"launch"} <= set(known)
    for kind in known.values():
        assert {*RECORD, *ExecutionConfig.model_fields, "as", "session", "wait"} <= set(kind.options)
        if kind.name != "python":
            in_the_cell = {"spec", "goes_on"} if issubclass(kind.spec, Declared) else set()
            assert set(kind.spec.model_fields) - {"type", kind.body} - in_the_cell <= set(kind.options)
        assert not any(option.models and not option.choices and option.shape != "data" for option in kind.options.values())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--timeout 5m --grace=250ms", {"timeout": 300.0, "grace": 0.25}),
        ("--capture structured", {"capture": Capture.STRUCTURED}),
        ("--env A=1 --env 'B=x y=z'", {"env": {"A": "1", "B": "x y=z"}}),
        ("""--env '{"A": "1"}' --env B=2""", {"env": {"A": "1", "B": "2"}}),
        ("--stdin", {"stdin": True}),
        ("--stdin 'some text' --timeout 1", {"stdin": "some text", "timeout": 1.0}),
        ("--artifact out.txt --artifacts '*.csv'", {"artifacts": ("out.txt", "*.csv")}),
        ("""--artifacts '["a", "b"]'""", {"artifacts": ("a", "b")}),
        ("--artifact '[ab].txt'", {"artifacts": ("[ab].txt",)}),
        ("--on-failure 'make clean'", {"on_failure": Shell("make clean")}),
        ("--retry.max-attempts 4 --retry.on_exit_codes 1 --retry.on-exit-code 3", {"retry": Retry(max_attempts=4, on_exit_codes=(1, 3))}),
        ("""--retry '{"max_attempts": 4}' --retry.jitter 0""", {"retry": Retry(max_attempts=4, jitter=0)}),
        ("--limits.max-memory-bytes 2GiB", {"limits": Limits(max_memory_bytes="2GiB")}),
        ("--validation.forbidden-pattern '[Ee]rror'", {"validation": Validation(forbidden_patterns=["[Ee]rror"])}),
        ("--workspace worktree --workspace.ref main", {"workspace": Worktree(".", "main")}),
        ("--workspace temp_copy --workspace.folder src --workspace.cleanup keep", {"workspace": TempCopy("src", cleanup="keep")}),
    ],
)
def test_text_becomes_what_the_fields_of_a_config_are(line: str, expected: dict[str, Any]) -> None:
    assert config(line) == ExecutionConfig(**expected)


def test_text_becomes_what_the_fields_of_specs_are() -> None:
    _, values = parse(words("--tool Read --tools 'Bash(git log:*)' --max-turns 3 --context 'some text'"), kinds()["claude"].options)
    assert Claude("x", **values) == Claude("x", tools=["Read", "Bash(git log:*)"], max_turns=3, context="some text")
    _, values = parse(words("""--mcp-config '{"mcpServers": {}}' --context a.md --context b.md"""), kinds()["claude"].options)
    assert Claude("x", **values) == Claude("x", mcp_config={"mcpServers": {}}, context=["a.md", "b.md"])
    said = """--shared --seed 7 --temperature 0 --messages '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'"""
    _, values = parse(words(said), kinds()["local"].options)
    assert (values["shared"], values["seed"], len(values["messages"])) == (True, 7, 2)
    assert LocalModel("x", **values).messages[1]["content"] == "b"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--timeot 3", r"there is no option --timeot; did you mean --timeout\?"),
        ("--zzzz", r"there is no option --zzzz; known: --timeout, --capture"),
        ("--cwd /", r"there is no option --cwd: it is called working_dir"),
        ("--retry.atempts 3", r"did you mean --retry\.max-attempts\?"),
        ("--timeout", r"--timeout needs a value"),
        ("--capture --grace 1", r"--capture needs a value.*\(one of none, stdout"),
        ("--timeout 1 --timeout 2", r"--timeout is given 2 times"),
        ("--timeout soon", r"timeout: 'soon' is not a duration"),
        ("--capture all", r"capture: Input should be 'none'"),
        ("--env A", r"--env: 'A' must be NAME=VALUE, or a JSON object"),
        ("--env '{'", r"--env: '\{' is no JSON"),
        ("--retry 3", r"--retry: '3' cannot be used; set its parts, such as --retry\.max_attempts"),
        ("--workspace tree", r"--workspace: 'tree' cannot be used; it is one of worktree, temp_copy, shared"),
        ("--workspace.ref x", r"--workspace: say which: --workspace worktree, "),
        ("--workspace shared --workspace.ref x", r"Shared: there is no option 'ref'"),
        ("--retry '[1]'", r"--retry: '\[1\]' cannot be used"),
        ("--retry.max-attempts many", r"max_attempts: .*integer"),
        ("--name 'open", r"No closing quotation"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(line)


def test_a_flag_stands_alone() -> None:
    options = {"detach": option_of("detach", bool)}
    assert parse(["--detach", "word"], options) == (["word"], {"detach": True})
    assert parse(["--detach=false"], options) == ([], {"detach": False})
    with pytest.raises(ConfigError, match="--detach is a flag and stands alone"):
        parse(["--detach=maybe"], options)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("-3", -3), ("0.5", 0.5), ("007", "007"), ("1.10", "1.10"), ("true", "true"), ("1e5", "1e5"), ("", "")]
)
def test_a_parameter_is_a_number_only_when_nothing_is_lost(text: str, value: object) -> None:
    assert (exact(text), type(exact(text))) == (value, type(value))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_through_as_it_is(text: str) -> None:
    line = f"--name={shlex.quote(text)} -p x={shlex.quote(text)} --tag={shlex.quote('t=' + text)}"
    rest, values = parse(words(line), kinds()["shell"].options)
    assert rest == []
    assert values["name"] == text
    assert str(values["params"]["x"]) == text
    assert values["tags"] == {"t": text}


_FRAGMENTS = [
    f"{option.shown}{end}" for option in kinds()["claude"].options.values() for end in ("", "=", "=x", " x", " '{}'", " [1]", " a=b")
]


@given(st.lists(st.sampled_from([*_FRAGMENTS, "word", "'", '"', "--", "-", "-p", "--.", "--retry.", "={", "\\", "\x00"]), max_size=6))
def test_nonsense_is_a_config_error_or_values(parts: list[str]) -> None:
    try:
        _, values = parse(words(" ".join(parts)), kinds()["claude"].options)
    except ConfigError:
        return
    assert set(values) <= set(kinds()["claude"].options)


_WORDS = [
    "%%agent",
    "%runs",
    "%cancel",
    "x =",
    "shell",
    "claude",
    "python",
    "--",
    "--retry.",
    "--workspace",
    "--permission-mode=",
    "-p",
    "'",
    "\\",
    "\t",
    "\n",
    "=",
]


@given(st.lists(st.one_of(st.sampled_from(_WORDS), st.text(max_size=4)), max_size=7).map(" ".join), st.integers(0, 60))
def test_completion_bears_any_text_and_says_what_it_replaces(text: str, at: int) -> None:
    pytest.importorskip("IPython")
    from IPython.core.completer import CompletionContext

    from agentnb.notebook.completion import Arguments

    at = min(at, len(text))
    line, column = text[:at].count("\n"), at - (text[:at].rfind("\n") + 1)
    found = Arguments({"f": lambda: None, "": None}, {}).match(CompletionContext("", text, column, line, None))
    fragment = found["matched_fragment"]
    assert text[:at].endswith(fragment)
    assert found["suppress"] == bool(found["completions"])
    assert all(one.text.startswith((fragment, fragment.replace("_", "-"))) for one in found["completions"])
