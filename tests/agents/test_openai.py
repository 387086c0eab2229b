"""Servers by URL: what is asked, what comes back, and what every fault is called."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.agents import openai, refusals, sse
from agentnb.agents.adapters import Asked, Finished
from agentnb.agents.openai import OPENAI_COMPATIBLE, is_loopback
from agentnb.errors import ConfigError, RuntimeUnavailable, TemplateError
from agentnb.prompts import OpenAICompatible
from tests.agents.chat_server import DONE, ChatServer, event, flood, ok, reset, status, text
from tests.agents.children import Child, run
from tests.agents.nursery import Nursery

#: Runs of a session start without it, as they do everywhere.
NURSERY = Nursery("agentnb.agents.openai_child")
HELLO = ok(text("Hel"), text("lo", "stop"), event(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 3}), DONE)


@pytest.fixture(scope="module", autouse=True)
def nursery() -> Iterator[None]:
    with NURSERY:
        yield


def work(server: ChatServer, prompt: str = "Hi", **options: Any) -> dict[str, Any]:
    spec = OpenAICompatible(options.pop("url", server.url), options.pop("model", "m"), prompt, **options)
    return OPENAI_COMPATIBLE.work(spec, Asked("r", {}, "/", {}))


def ask(server: ChatServer, prompt: str = "Hi", **options: Any) -> Child:
    env = options.pop("env", dict(os.environ))
    return run(work(server, prompt, **options), nursery=NURSERY, env=env)


def fault(answer: Any, **options: Any) -> dict[str, Any]:
    """The error that an answer of the server becomes."""
    with ChatServer(answer) as server:
        child = ask(server, **options)
    (error,) = child.all("error")
    assert child.code == 1
    assert child.all("step")[-1]["status"] == "failed"
    assert error["message"] in child.stderr.decode()
    return error


def test_an_answer_streams_and_is_counted_and_priced() -> None:
    with ChatServer(HELLO) as server:
        child = ask(server, usd_per_million_input=1, usd_per_million_output=2)
    assert (child.code, child.stdout, child.stderr) == (0, b"Hello", b"")
    assert child.all("result")[0]["output"] == "Hello"
    usage = child.all("usage")[-1]
    assert (usage["model"], usage["input_tokens"], usage["output_tokens"]) == ("m", 9, 3)
    assert usage["cost_usd"] == pytest.approx(15e-6)
    opened, closed = child.all("step")
    assert opened["input"] == {"prompt": "Hi"}
    assert (closed["status"], closed["tokens"], closed["output"]) == ("completed", {"input": 9, "output": 3}, "Hello")


def test_every_field_is_in_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k-123")
    schema = {"type": "object"}
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    fields = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "seed": 3}
    more: dict[str, Any] = {"json_schema": schema, "api_key": "SOME_KEY", "extra": {"top_k": 4, "stream_options": None}}
    more["headers"] = {"X-Title": "t", "X-Other": nb.Secret("hidden")}
    with ChatServer(ok(text("{}", "stop"), DONE)) as server:
        child = ask(server, system="S", messages=history, **fields, **more)
        line, headers, body = server.requests[0]
    assert child.all("result")[0]["output"] == {}
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert (headers["authorization"], headers["x-title"], headers["x-other"]) == ("Bearer k-123", "t", "hidden")
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "S"}, *history, {"role": "user", "content": "Hi"}],
        "stream": True,
        "top_k": 4,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
        **fields,
    }


def test_what_is_not_given_is_left_to_the_server() -> None:
    with ChatServer(HELLO) as server:
        ask(server)
    assert sorted(server.asked) == ["messages", "model", "stream", "stream_options"]
    assert "authorization" not in server.requests[0][1]


def test_tokens_from_a_cache_are_counted_once_and_paid() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    with ChatServer(ok(text("Hello", "stop"), event(choices=[], usage=usage), DONE)) as server:
        child = ask(server, usd_per_million_input=1, usd_per_million_output=2)
    last = child.all("usage")[-1]
    assert (last["input_tokens"], last["cache_read_tokens"], last["output_tokens"]) == (5, 4, 3)
    assert last["cost_usd"] == pytest.approx(15e-6)
    assert child.all("step")[-1]["tokens"] == {"input": 5, "cache_read": 4, "output": 3}


def test_an_answer_that_is_there_is_kept_although_its_server_does_not_say_that_it_is_done() -> None:
    def stay(connection: socket.socket) -> None:
        connection.sendall(ok(text("Hello", "stop")))
        connection.settimeout(60)
        connection.recv(1)

    with ChatServer(stay) as server, Nursery("tests.agents.hasty") as hasty:
        child = run(work(server), nursery=hasty)
    assert (child.code, child.all("result")) == (0, [{"t": "result", "output": "Hello"}])


def test_a_server_that_is_gone_without_a_word_is_noticed() -> None:
    timers = list[str]()

    def look(connection: socket.socket) -> None:
        port = f":{connection.getpeername()[1]:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        timers.extend(line[5].partition(":")[0] for line in lines if line[1].endswith(port))
        connection.sendall(HELLO)

    with ChatServer(look) as server:
        assert ask(server).code == 0
    assert timers == ["02"]  # the system's timer that asks for signs of life


def test_an_answer_in_parts_is_an_answer() -> None:
    parts = [{"type": "thinking", "text": "hm"}, {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, 5, {"type": "text"}]
    with ChatServer(ok(event(choices=[{"delta": {"content": parts}, "finish_reason": "stop"}]), DONE)) as server:
        assert ask(server).all("result")[0]["output"] == "Hello"


def test_a_server_that_does_not_stream_answers_as_well() -> None:
    body = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    with ChatServer(ok(json.dumps(body).encode(), content_type="application/json")) as server:
        child = ask(server)
    assert (child.stdout, child.all("result")[0]["output"]) == (b"whole", "whole")


def test_the_stream_may_be_silly() -> None:
    odd = b": ping\n\nevent: x\nid: 1\ndata:  " + json.dumps({"choices": None, "unknown": 1}).encode() + b"\r\n\r\n"
    odd += event(choices=[{"delta": {"role": "assistant", "content": None}}]) + event(choices=[], usage={"prompt_tokens": "x"})
    with ChatServer(ok(odd, text("a\u20ac"), b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n', text("", "stop"))) as server:
        child = ask(server)
    assert child.code == 0
    assert child.stdout.decode() == "a\u20ac\ufffd"


def test_tokens_are_counted_and_timed_when_the_server_does_neither() -> None:
    def slowly(connection: socket.socket) -> None:
        connection.sendall(ok(text("a")))
        time.sleep(0.5)
        connection.sendall(text("b") + text("c", "stop") + DONE)

    with ChatServer(slowly) as server:
        usage = ask(server).all("usage")[-1]
    assert usage["output_tokens"] == 3
    assert 0.1 < usage["tokens_per_s"] <= 4.1


# --- faults


def test_no_server_there_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    child = run(OPENAI_COMPATIBLE.work(OpenAICompatible(f"http://127.0.0.1:{port}", "m", "Hi"), Asked("r", {}, "/")))
    (error,) = child.all("error")
    assert error["kind"] == "runtime_error"
    assert "no connection to" in error["message"]
    assert "start the server" in error["message"]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (status(401, {"error": {"message": "no key"}}), "execution_failed", ["401", "no key", "give api_key=nb.Secret(...)"]),
        (status(403, b"<html>no</html>"), "execution_failed", ["403", "<html>no</html>"]),
        (status(404, {"error": "model 'm' not found"}), "not_found", ["404", "model 'm' not found", "check the model"]),
        (status(400, {"error": {"message": "bad schema"}}), "invalid_config", ["400: bad schema"]),
        (status(400, {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 5}}), "invalid_config", ["too long"]),
        (status(500, b"\xff\xfe"), "runtime_error", ["500", "retry=nb.Retry()"]),
        (status(529, {"error": {"message": "overloaded"}}), "runtime_error", ["529: overloaded"]),
        (status(418), "execution_failed", ["418"]),
        (status(302, Location="http://127.0.0.1:1/loop"), "invalid_config", ["redirect to 'http://127.0.0.1:1/loop'", "not followed"]),
        (status(429, {"error": {"message": "pay", "code": "insufficient_quota"}}), "execution_failed", ["429: pay"]),
        (status(429), "rate_limited", ["does not say when"]),
        (reset(ok(text("partial"))), "runtime_error", ["was lost after 7 characters"]),
        (reset(), "runtime_error", ["was lost after 0 characters"]),
        (ok(text("partial")), "runtime_error", ["the stream ended before the answer did"]),
        (ok(b"data: {"), "runtime_error", ["was lost after 0 characters"]),
        (ok(text("a"), event(error={"message": "slow down", "code": 429})), "rate_limited", ["slow down"]),
        (ok(text("a"), event(error={"message": "busy", "type": "overloaded_error"})), "runtime_error", ["busy"]),
        (ok(text("", "length"), DONE), "execution_failed", ["no word of its answer"]),
        (ok(b"data: {nonsense}\n\n"), "runtime_error", ["no part of an answer", "{nonsense}"]),
        (ok(b"data: [1]\n\n"), "runtime_error", ["no part of an answer"]),
        (ok(b"data: " + b"[" * 100_000 + b"\n\n"), "runtime_error", ["no part of an answer"]),
        (ok(event(error={"message": "out of memory"})), "execution_failed", ["out of memory"]),
        (ok(b"{}", content_type="application/json"), "runtime_error", ["holds no answer"]),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx", "runtime_error", ["compressed"]),
        (b"this is no HTTP\r\n\r\n", "runtime_error", ["was lost"]),
        (ok(b"<html>hello</html>", content_type="text/html"), "invalid_config", ["text/html instead of a stream", "check the url"]),
        (ok(text("a", "content_filter"), DONE), "execution_failed", ["content filter"]),
        (ok(text("", "tool_calls"), DONE), "execution_failed", ["asked for a tool"]),
        (ok(event(choices=[5])), "runtime_error", ["no part of an answer"]),
        (ok(event(choices=5)), "runtime_error", ["no part of an answer"]),
    ],
)
def test_every_fault_has_a_name_and_advice(answer: Any, kind: str, words: list[str]) -> None:
    error = fault(answer)
    assert error["kind"] == kind, error
    assert [word for word in words if word not in error["message"]] == [], error


def test_a_wrong_key_is_told_and_not_repeated() -> None:
    error = fault(status(401, {"error": {"message": "bad key"}}), api_key=nb.Secret("k-secret-9"))
    assert "check api_key" in error["message"]
    assert "k-secret-9" not in str(error)


def test_a_rate_limit_says_when_it_is_over() -> None:
    before = time.time()
    error = fault(status(429, retry_after="7"))
    assert error["kind"] == "rate_limited"
    assert before + 7 <= error["details"]["resets_at"] <= time.time() + 7


def test_what_came_before_the_cut_is_kept() -> None:
    with ChatServer(reset(ok(text("par"), text("tial")))) as server:
        child = ask(server)
    assert child.stdout == b"partial"
    assert child.all("step")[-1]["output"] == "partial"


def test_a_flood_is_cut_off_in_bounded_memory() -> None:
    endless = flood([ok(), *[b"data: " + b"x" * 65536] * 200])
    error = fault(endless)
    assert f"more than {sse.MAX_EVENT} bytes" in error["message"]


def test_json_that_was_cut_or_does_not_fit_fails_clearly() -> None:
    schema = {"type": "object", "required": ["a"]}
    cut = fault(ok(text('{"a": "x', "length"), DONE), json_schema=schema, max_tokens=5)
    assert (cut["kind"], "cut at max_tokens=5" in cut["message"]) == ("validation_error", True)
    assert "no JSON" in fault(ok(text("Sure! NaN", "stop"), DONE), json_schema=schema)["message"]
    assert "NaN is no JSON" in fault(ok(text("NaN", "stop"), DONE), json_schema=schema)["message"]
    assert "does not fit json_schema: 'a' is a required property" in fault(ok(text("{}", "stop"), DONE), json_schema=schema)["message"]


def test_a_proxy_is_never_asked_for_this_machine_but_for_others() -> None:
    with ChatServer(HELLO) as server, ChatServer(status(502)) as proxy:
        env = os.environ | {"HTTP_PROXY": f"http://127.0.0.1:{proxy.port}", "http_proxy": f"http://127.0.0.1:{proxy.port}"}
        env = {name: value for name, value in env.items() if name.lower() not in {"no_proxy", "all_proxy"}}
        assert ask(server, env=env).code == 0
        assert proxy.requests == []
        other = run(work(server, url="http://model.invalid/v1"), env=env)
    assert other.code == 1
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("url", "yes"),
    [
        ("http://127.0.0.1:8", True),
        ("http://[::1]/v1", True),
        ("http://localhost", True),
        ("http://a.localhost", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example", False),
        ("https://127.0.0.1.example", False),
    ],
)
def test_addresses_of_this_machine_are_known(url: str, yes: bool) -> None:
    assert is_loopback(url) is yes


# --- when a limit is over


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": formatdate(1_000_000_060, usegmt=True)}, 60),
        ({"retry-after": formatdate(0, usegmt=True)}, 0),
        ({"x-ratelimit-reset": "1000000090"}, 90),
        ({"x-ratelimit-reset": "1000000090000"}, 90),
        ({"x-ratelimit-reset": "12"}, 12),
        ({"x-ratelimit-reset-requests": "1m30s", "x-ratelimit-reset-tokens": "250ms"}, 90),
        ({"x-ratelimit-reset": "2001-09-09T01:47:40Z"}, 60),
        ({"retry-after": "soon", "x-ratelimit-reset": "5"}, 5),
        ({"retry-after": "1e300"}, None),
        ({"x-ratelimit-reset": "-1"}, None),
        ({"x-ratelimit-reset": "6m0s!"}, None),
        ({}, None),
    ],
)
def test_the_headers_of_a_limit_are_understood(headers: dict[str, str], seconds: float | None) -> None:
    now = 1_000_000_000.0
    found = refusals.resets(headers, now)
    assert found == (None if seconds is None else pytest.approx(now + seconds))


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]), st.text(max_size=20)))
def test_nonsense_about_a_limit_is_no_fault(headers: dict[str, str]) -> None:
    found = refusals.resets(headers, 1e9)
    assert found is None or 1e9 <= found <= 1e9 + 367 * 86_400


# --- before anything starts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "ftp://x/v1"}, "no address of a server"),
        ({"url": "127.0.0.1:80"}, "no address of a server"),
        ({"url": "http://x y"}, "no address of a server"),
        ({"url": "http://x:99999"}, "no address of a server"),
        ({"url": 5}, "of type int"),
        ({"url": "http://me:pw@host/v1"}, "would be stored"),
        ({"url": "http://host/v1#x"}, "never sent"),
        ({"model": ""}, "is empty"),
        ({"api_key": "sk-abc"}, "no name of an environment variable"),
        ({"api_key": 5}, "neither"),
        ({"api_key": "NO_SUCH_VARIABLE"}, "is not set"),
        ({"api_key": nb.Secret("a\nb")}, "line breaks"),
        ({"headers": {"a b": "x"}}, "no name of a header"),
        ({"headers": {"Host": "x"}}, "set by the request itself"),
        ({"headers": {"x": "a\r\nEvil: 1"}}, "plain ASCII text"),
        ({"headers": {"x": nb.Secret("a\nb")}}, "plain ASCII text"),
        ({"extra": {"messages": []}}, "set by a field"),
        ({"extra": {"n": 2}}, "repeats=n"),
        ({"extra": {"x": {1, 2}}}, "no JSON data"),
        ({"extra": {"x": float("nan")}}, "no JSON data"),
        ({"usd_per_million_input": 1}, "go together"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"temperature": 3}, "temperature"),
        ({"max_token": 3}, "did you mean 'max_tokens'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(fields: dict[str, Any], words: str) -> None:
    wanted = {"url": "http://127.0.0.1:1", "model": "m", "prompt": "Hi"} | fields
    with pytest.raises(ConfigError, match=words) as caught:
        OPENAI_COMPATIBLE.work(OpenAICompatible(**wanted), Asked("r", {}, "/"))
    assert "sk-abc" not in str(caught.value)
    assert "pw@" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h/", "http://h/v1/chat/completions"),
        ("https://h/api/v3/", "https://h/api/v3/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/openai?api-version=1", "https://h/openai/chat/completions?api-version=1"),
    ],
)
def test_an_address_is_completed(url: str, endpoint: str) -> None:
    assert OpenAICompatible(url, "m").url == endpoint


def test_a_machine_without_httpx_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "find_spec", lambda name: None)
    assert 'pip install "agentnb[openai]"' in OPENAI_COMPATIBLE.missing()
    with pytest.raises(RuntimeUnavailable, match="httpx"):
        OPENAI_COMPATIBLE.work(OpenAICompatible("http://h", "m", "Hi"), Asked("r", {}, "/"))


def test_prompt_system_and_model_are_templates_and_history_is_not() -> None:
    said = [{"role": "user", "content": "{{x}}"}, {"role": "assistant", "content": "{{y}}"}]
    spec = OpenAICompatible("http://h", "{{m}}", "Say {{x}}", system="{{x}}!", messages=said)
    filled = OPENAI_COMPATIBLE.fill(spec, {"x": "1", "m": "big", "temperature": 0.5})
    assert (filled.model, filled.prompt, filled.system, filled.temperature) == ("big", "Say 1", "1!", 0.5)
    assert filled.messages == tuple(said)
    with pytest.raises(TemplateError, match="model"):
        OPENAI_COMPATIBLE.fill(spec, {"x": "1"})


def test_a_reply_goes_on_after_the_answer_and_expands_nothing() -> None:
    spec = OpenAICompatible("http://h", "m", "One?", system="S", api_key=nb.Secret("k"))
    again = OPENAI_COMPATIBLE.reply(spec, "Two?", Finished("{{one}}"))
    third = OPENAI_COMPATIBLE.reply(again, "Three?", Finished({"two": 2}))
    assert [message["content"] for message in third.conversation()] == ["S", "One?", "{{one}}", "Two?", '{"two": 2}', "Three?"]
    assert third.api_key is spec.api_key
    with pytest.raises(ConfigError, match="no answer to go on from"):
        OPENAI_COMPATIBLE.reply(spec, "Two?", Finished(None))


# --- through the engine


@pytest.fixture
def session(store: Path) -> Iterator[nb.Session]:
    with nb.Session("openai", store=store) as session:
        yield session


def test_a_run_has_its_model_tokens_cost_and_no_key_anywhere(session: nb.Session) -> None:
    key = "k-top-secret-77"
    echo = ok(text(f"your key is {key}", "stop"), event(choices=[], usage={"prompt_tokens": 4, "completion_tokens": 6}), DONE)
    with ChatServer(echo) as server:
        target = nb.OpenAICompatible(
            server.url, "tiny", f"What is {key}?", api_key=nb.Secret(key), headers={"X-K": nb.Secret("h-secret-5")}
        )
        run = session.launch(target.model_copy(update={"usd_per_million_input": 1.0, "usd_per_million_output": 1.0}))
        result = run.wait()
        assert server.requests[0][1]["authorization"] == f"Bearer {key}"
    assert run.output == "your key is ***"
    assert (result.status, run.stdout) == ("completed", "your key is ***")
    row = session.runs_df().iloc[0]
    assert (row["model"], row["input_tokens"], row["output_tokens"], row["cost_usd"]) == ("tiny", 4, 6, pytest.approx(10e-6))
    session.end()
    stored = b"".join(path.read_bytes() for path in session.store.rglob("*") if path.is_file())
    assert key.encode() not in stored
    assert b"h-secret-5" not in stored


def test_a_key_by_the_name_of_its_variable_is_masked_too(session: nb.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_MODEL_KEY", "k-by-name-66")
    with ChatServer(ok(text("k-by-name-66", "stop"), DONE)) as server:
        run = session.launch(nb.OpenAICompatible(server.url, "m", "say k-by-name-66", api_key="SOME_MODEL_KEY"))
        run.wait()
    assert (run.output, run.name) == ("***", "say ***")


def test_a_failing_server_is_tried_again(session: nb.Session) -> None:
    with ChatServer(status(503), HELLO) as server:
        target = nb.OpenAICompatible(server.url, "m", "Hi")
        run = session.launch(target, retry=nb.Retry(max_attempts=2, initial_delay=0.01))
        assert run.wait().status == "completed"
    assert [step.status for step in run.steps if step.kind == "attempt"] == ["failed", "completed"]


def test_a_rate_limit_is_waited_for(session: nb.Session) -> None:
    with ChatServer(status(429, retry_after="2"), HELLO) as server:
        run = session.launch(nb.OpenAICompatible(server.url, "m", "Hi"), retry=nb.Retry(max_attempts=2, initial_delay=0.01, jitter=0))
        began = time.monotonic()
        assert run.wait(60).status == "completed"
    assert time.monotonic() - began >= 1.9


def test_cancel_keeps_what_came_and_ends_the_connection(session: nb.Session) -> None:
    gone: list[float] = []

    def slow(connection: socket.socket) -> None:
        connection.sendall(ok(text("so far")))
        while connection.recv(1000):
            pass
        gone.append(time.monotonic())

    with ChatServer(slow) as server:
        run = session.launch(nb.OpenAICompatible(server.url, "m", "Hi"))
        deadline = time.monotonic() + 30
        while run.stdout != "so far" and time.monotonic() < deadline:
            time.sleep(0.02)
        run.cancel()
        assert run.wait(30).status == "cancelled"
        assert run.stdout == "so far"
    assert gone


def test_a_grid_over_models_and_temperatures(session: nb.Session) -> None:
    with ChatServer(HELLO) as server:
        group = session.map(
            nb.OpenAICompatible(server.url, "{{model}}", "Say {{word}}"),
            nb.grid(model=["a", "b"], temperature=[0.0, 1.0], word=["x"]),
        )
        group.wait()
        asked = {(body["model"], body["temperature"], body["messages"][0]["content"]) for _, _, body in server.requests}
    assert asked == {(model, temperature, "Say x") for model in "ab" for temperature in (0.0, 1.0)}
    assert set(group.df()["status"]) == {"completed"}


def test_a_conversation_goes_on(session: nb.Session) -> None:
    with ChatServer(HELLO) as server:
        first = session.launch(nb.OpenAICompatible(server.url, "m", "Hi", system="S"))
        first.wait()
        second = first.reply("And?")
        second.wait()
        assert [message["content"] for message in server.asked["messages"]] == ["S", "Hi", "Hello", "And?"]


def test_nothing_of_httpx_is_loaded_in_the_notebook(session: nb.Session) -> None:
    code = "import sys, agentnb as nb; nb.OpenAICompatible('http://h', 'm'); assert 'httpx' not in sys.modules, 'httpx'"
    assert session.command([sys.executable, "-c", code]).wait().status == "completed"
