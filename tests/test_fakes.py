"""The stand-in of the claude program keeps to the real one's ways."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from agentnb.fakes import claude
from agentnb.fakes.fixtures import install_fake_claude

#: Those that end by themselves, soon.
SHORT = sorted(set(claude.MODES) - {"hang_after_result", "ignore_term", "spawn_daemon", "big_output", "long_line"})


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    return install_fake_claude(tmp_path)


def call(program: Path, *words: str, mode: str = "text", prompt: str = "hi") -> subprocess.CompletedProcess[str]:
    env = {"AGENTNB_FAKE_CLAUDE": mode, "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [str(program), *words], input=prompt, env=env, capture_output=True, text=True, errors="replace", timeout=30, check=False
    )


def test_its_events_have_the_fields_of_recorded_ones(fake: Path) -> None:
    folder = Path(__file__).parent / "data" / "claude"
    known: dict[str, set[str]] = {}
    recorded = [folder / "2.1.197_partial.jsonl", folder / "2.1.330_agent.jsonl"]
    for line in "".join(path.read_text(encoding="utf-8") for path in recorded).splitlines():
        event = json.loads(line)
        known.setdefault(event["type"], set()).update(event)
    said = call(fake, "-p", "--output-format", "stream-json", "--include-partial-messages", "--verbose", mode="tools")
    assert said.returncode == 0
    events = [json.loads(line) for line in said.stdout.splitlines()]
    assert {event["type"] for event in events} == {"system", "stream_event", "assistant", "user", "result"}
    for event in events:
        assert set(event) <= known[event["type"]], event["type"]


@pytest.mark.parametrize("mode", SHORT)
def test_every_mode_ends_with_the_exit_code_of_the_real_one(fake: Path, mode: str) -> None:
    wanted = {"cut": 1, "rate_limit": 1, "overloaded": 1, "no_login": 1, "max_turns": 1, "crash": 3}
    said = call(fake, "-p", mode=f"{mode}:0.001" if mode == "slow" else f"{mode}:60" if mode == "rate_limit" else mode)
    assert said.returncode == wanted.get(mode, 0), said.stderr
    assert said.stdout.startswith('{"type":"system","subtype":"init"')


def test_it_refuses_options_that_the_real_one_does_not_have(fake: Path) -> None:
    said = call(fake, "-p", "--nonsense")
    assert said.returncode == 2
    assert "--nonsense" in said.stderr


def test_it_goes_on_with_a_conversation(fake: Path) -> None:
    first = json.loads(call(fake, "-p").stdout.splitlines()[0])["session_id"]
    assert json.loads(call(fake, "-p", "--resume", first).stdout.splitlines()[0])["session_id"] == first


def test_it_tells_a_version(fake: Path) -> None:
    assert call(fake, "--version").stdout.startswith("0.0.0")
