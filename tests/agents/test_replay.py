"""Recordings as targets: what is wrong with a file, or asked of its replay, is said before anything starts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from agentnb.agents.adapters import adapter_of
from agentnb.agents.compile import compile_work, target_of
from agentnb.agents.fill import fill
from agentnb.commands import Shell
from agentnb.data import Secret
from agentnb.engine.work import Work
from agentnb.errors import ConfigError, TemplateError
from agentnb.execution import ExecutionConfig, Limits, Retry, Validation
from agentnb.replay import Replay
from agentnb.states import TargetKind
from tests.history.recordings.lines import HEAD, output, whole, write


def work(spec: Replay, config: ExecutionConfig | None = None, defaults: ExecutionConfig | None = None) -> Work:
    """Its work."""
    return compile_work(spec, config or ExecutionConfig(), defaults=defaults, env_id=0, params={}, run_id="r")


def test_the_engine_gets_the_file_and_the_client_what_was_recorded() -> None:
    run = HEAD["run"] | {"params": {"n": 1}, "tags": {"t": "x"}, "input": [1]}
    file = write([HEAD | {"run": run}, *whole()[1:]])
    made = work(Replay(file.name, speed=10))
    assert (made["kind"], made["argv"], made["replay"]) == ("replay", [], {"path": str(file), "speed": 10.0})
    told = {"name": "reviewer", "command": "review src", "params": {"n": 1}, "tags": {"t": "x"}, "input": [1], "replay_of": "origin"}
    assert made["record"] == told
    assert target_of(Replay("x.jsonl")).kind is TargetKind.REPLAY


def test_a_bad_file_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory; give the path of a file that run\.export\(\)"):
        work(Replay("nowhere.jsonl"))
    file = write(whole(output(0.1, "x"), {"t": -1, "type": "output"}))
    with pytest.raises(ConfigError, match=rf"^{file}:5: `t` must be the seconds"):
        work(Replay(file))
    with pytest.raises(ConfigError, match=rf"^{write(whole()[:-1])}:4: the recording is cut off"):
        work(Replay("run.jsonl"))


@pytest.mark.parametrize("speed", [0, -1, math.nan, True, "fast", [1], 10**400])
def test_a_speed_is_a_positive_number_or_none(speed: Any) -> None:
    with pytest.raises(ConfigError, match="speed"):
        Replay("x", speed=speed)


def test_an_infinite_speed_waits_for_nothing() -> None:
    assert (Replay("x", speed=math.inf).speed, Replay("x", speed=None).speed, Replay("x").speed) == (None, None, 1.0)


@pytest.mark.parametrize("path", ["", "  ", None, 3, "a\0b", b"x"])
def test_a_path_is_a_path(path: Any) -> None:
    with pytest.raises(ConfigError, match="is no path"):
        Replay(path)


def test_parameters_name_the_file_and_the_speed() -> None:
    spec = fill(Replay(Path("{{folder}}/{{file}}.jsonl")), {"folder": "a b", "file": "$(c)", "speed": 5})
    assert (spec.path, spec.speed) == ("a b/$(c).jsonl", 5.0)
    assert fill(Replay("x", speed=2), {"speed": 5}).speed == 2.0
    with pytest.raises(TemplateError):
        fill(Replay("{{nothing}}"), {"x": 1})


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"A": "1"}},
        {"stdin": "x"},
        {"working_dir": "."},
        {"capture": "stdout"},
        {"limits": Limits(max_memory_bytes="1GiB")},
        {"retry": Retry(max_attempts=2)},
        {"validation": Validation(expected_pattern="x")},
        {"artifacts": ["*.txt"]},
        {"on_success": Shell("true")},
        {"cleanup": Shell("true")},
    ],
)
def test_what_only_a_process_can_have_is_refused(options: dict[str, Any]) -> None:
    file = write(whole())
    with pytest.raises(ConfigError, match=rf"{next(iter(options))}: a replay starts no process"):
        work(Replay(file), ExecutionConfig(**options))
    assert "handlers" not in work(Replay(file), defaults=ExecutionConfig(**options))  # a session's defaults are for its other runs


def test_time_and_secrets_count_for_a_replay_too() -> None:
    made = work(Replay(write(whole())), ExecutionConfig(timeout=5), ExecutionConfig(timeout=9, grace=1, env={"K": Secret("hush")}))
    assert (made["timeout_s"], made["grace_s"], made["env"], made["secrets"]) == (5.0, 1.0, {}, ["hush"])


def test_it_needs_nothing_of_the_machine() -> None:
    assert adapter_of(Replay("x")).missing() == ""
