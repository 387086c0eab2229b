"""One process that holds a model for several runs: as good as one of its own, and gone when it should be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import agentnb as nb
from agentnb.agents import model_file
from agentnb.agents.local import local_work
from agentnb.prompts import LocalModel

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(model_file.missing() is not None, reason=str(model_file.missing())),
]

LONG = "Write a very long story about the sea."


@pytest.fixture
def session(store: Path) -> Iterator[nb.Session]:
    with nb.Session("shared", store=store, max_parallel=8) as session:
        yield session


def servers(root: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes below that listen on a port: those that hold a model."""
    found = []
    for child in (root or psutil.Process()).children(recursive=True):
        try:
            if any(connection.status == psutil.CONN_LISTEN for connection in child.net_connections("tcp")):
                found.append(child)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], Any], within_s: float = 40) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
    return found


def rests(process: psutil.Process, for_s: float = 0.5) -> bool:
    """Whether a process uses next to no processor for a moment."""
    before = sum(process.cpu_times()[:2])
    time.sleep(for_s)
    return sum(process.cpu_times()[:2]) - before < 0.2 * for_s


def ask(session: nb.Session, prompt: str = "Count to five.", **options: Any) -> nb.RunHandle:
    return session.local(prompt, **({"shared": True, "max_tokens": 12, "threads": 1} | options))


def test_runs_share_one_process_and_each_has_its_own_figures(session: nb.Session) -> None:
    runs = [ask(session, f"Say something about {topic}.") for topic in ("tea", "rain", "ships")]
    session.wait()
    assert [run.error for run in runs] == [None] * 3
    assert len(servers()) == 1
    frame = session.runs_df()
    assert set(frame["output_tokens"]) == {12}
    assert (frame["tokens_per_s"] > 1).all()
    assert set(frame["model"]) == {model_file.FILE_NAME}
    assert all(run.output == run.stdout.strip() != "" for run in runs)


def test_the_same_seed_gives_the_same_text_alone_or_beside_others_shared_or_not(session: nb.Session) -> None:
    options = {"temperature": 1.3, "max_tokens": 40}
    own = session.local("Invent a story.", seed=7, threads=1, shared=False, **options)
    own.wait()
    alone = ask(session, "Invent a story.", seed=7, **options)
    alone.wait()
    others = [ask(session, f"Tell me of {number} ships and {'more ' * number}.", seed=number, **options) for number in range(5)]
    beside = [ask(session, "Invent a story.", seed=seed, **options) for seed in (7, 7, 8)]
    session.wait()
    assert all(run.error is None for run in (*others, *beside))
    assert own.output == alone.output == beside[0].output == beside[1].output != beside[2].output


def test_the_process_ends_after_its_last_use_and_comes_back(session: nb.Session) -> None:
    ask(session, keep_alive=0).wait()
    until(lambda: not servers())
    second = ask(session, keep_alive=60)
    assert second.wait().status == "completed"
    (server,) = servers()
    ask(session, keep_alive=0.2).wait()  # the last one decides
    until(lambda: not server.is_running())


def test_a_cancelled_run_keeps_its_text_and_no_processor_works_on(session: nb.Session) -> None:
    run = ask(session, LONG, max_tokens=4000, seed=1)
    until(lambda: len(run.stdout) > 20)
    (server,) = servers()
    run.cancel()
    assert run.wait(30).status == "cancelled"
    assert run.stdout

    until(lambda: rests(server), 15)
    assert server.is_running()


def test_a_cancelled_run_stops_the_reading_of_its_prompt_too(session: nb.Session) -> None:
    run = ask(session, "ships and the sea " * 1200, max_tokens=5)  # half a minute of reading
    (server,) = until(lambda: run.status == "running" and servers())
    until(lambda: not rests(server, 0.2))
    run.cancel()
    run.wait(30)
    until(lambda: rests(server), 15)
    assert server.is_running()


def test_cancel_while_the_model_is_loaded_ends_the_run_at_once(session: nb.Session) -> None:
    run = ask(session)
    run.cancel()
    assert run.wait(20).status == "cancelled"


def test_a_timeout_covers_the_answer(session: nb.Session) -> None:
    run = ask(session, LONG, max_tokens=4000, timeout=1.5)
    assert run.wait(30).status == "timeout"


def test_a_killed_server_fails_its_runs_by_name_and_a_retry_gets_another_one(session: nb.Session) -> None:
    lost = ask(session, LONG, max_tokens=900, seed=1)
    retried = ask(session, LONG, max_tokens=200, seed=1, retry=nb.Retry(max_attempts=3, initial_delay=0.01))
    until(lambda: len(lost.stdout) > 20 and len(retried.stdout) > 20)
    found = {process.pid: process for process in servers()}
    for process in found.values():
        process.kill()
    lost.wait(30)
    assert lost.error is not None
    assert lost.error.kind == "runtime_error"
    assert any(f"(process {pid}) was lost in the middle of the answer" in lost.error.message for pid in found)
    assert model_file.FILE_NAME in lost.error.message
    assert retried.wait(60).status == "completed", retried.error
    assert not {process.pid for process in servers()} & set(found)


def test_a_model_that_cannot_be_loaded_fails_its_runs_with_the_reason(session: nb.Session, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model_file.model_file().read_bytes()[:200_000])
    runs = [ask(session, model=broken) for _ in range(2)]
    for run in runs:
        run.wait(30)
        assert run.error is not None
        assert run.error.kind == "startup_failed"
        assert "broken.gguf could not be loaded" in run.error.message
    until(lambda: not servers())


def test_a_schema_without_a_grammar_is_refused_and_one_with_is_kept(session: nb.Session) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False}
    good = ask(session, "Ann is 30.", json_schema=schema, max_tokens=60, temperature=0)
    bad = ask(session, "Ann is 30.", json_schema={"type": "string", "minLength": 100_000})
    assert good.wait(60).status == "completed", good.error
    assert isinstance(good.output["age"], int)
    bad.wait(30)
    assert bad.error is not None
    assert bad.error.kind == "invalid_config", bad.error


def test_a_prompt_that_is_too_long_is_the_same_clear_error(session: nb.Session) -> None:
    run = ask(session, "many words " * 20_000)
    run.wait(60)
    assert run.error is not None
    assert run.error.kind == "invalid_config"
    assert "the prompt is too long: it has " in run.error.message


def test_nobody_else_can_ask_it(session: nb.Session) -> None:
    import urllib.error
    import urllib.request

    ask(session).wait()
    (server,) = servers()
    addresses = [c.laddr for c in server.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in addresses} == {"127.0.0.1"}
    request = urllib.request.Request(f"http://127.0.0.1:{addresses[0].port}/v1/chat/completions", b"{}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 401
    caught.value.close()


def test_a_conversation_goes_on_and_remembers(session: nb.Session) -> None:
    first = ask(session, "My name is Ann. Say hello.", temperature=0)
    first.wait()
    second = first.reply("What is my name?")
    assert second.wait().status == "completed"
    (step,) = [step for step in second.steps if step.kind == "turn"]
    assert [message["content"] for message in step.input["messages"]] == ["My name is Ann. Say hello.", first.output]


_NOTEBOOK = """
import sys, time, agentnb as nb
session = nb.Session("x", store=sys.argv[1])
run = session.local("Write a very long story about the sea.", shared=True, max_tokens=4000, threads=1)
while len(run.stdout) < 5: time.sleep(0.02)
print("on", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["kernel", "supervisor", "spawner", "both"])
def test_no_server_outlives_who_started_it(store: Path, victim: str) -> None:
    with subprocess.Popen([sys.executable, "-c", _NOTEBOOK, str(store)], stdout=subprocess.PIPE) as notebook:
        try:
            assert notebook.stdout is not None
            assert notebook.stdout.readline() == b"on\n"
            kernel = psutil.Process(notebook.pid)
            (supervisor,) = kernel.children()
            (spawner,) = supervisor.children()
            (server,) = servers(kernel)
            for target in {"kernel": [kernel], "supervisor": [supervisor], "spawner": [spawner], "both": [supervisor, spawner]}[victim]:
                os.kill(target.pid, signal.SIGKILL)
            until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, 30)
        finally:
            notebook.kill()
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in (supervisor, spawner, server)), 30)


def test_runs_with_other_settings_get_another_process() -> None:
    def key(**options: Any) -> str:
        service = local_work(LocalModel("hi", shared=True, **options))["service"]
        return str(service["key"])

    assert key() == key(seed=1, temperature=1, keep_alive=3)
    assert len({key(), key(threads=3), key(max_tokens=2000)}) == 3


def test_a_run_of_its_own_has_no_service() -> None:
    assert "service" not in local_work(LocalModel("hi"))
