"""A2A agents: a real one of the SDK, and ones that say anything."""

from __future__ import annotations

import base64
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.a2a import Conversation
from agentnb.agents.a2a import A2A_AGENT
from agentnb.agents.adapters import Asked, Finished
from agentnb.errors import ConfigError, RuntimeUnavailable, TemplateError
from tests.agents.a2a_server import Agent
from tests.agents.chat_server import ChatServer, Handler, flood, ok, reset, status
from tests.agents.children import Child, run
from tests.agents.nursery import Nursery

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60
SECRET = "k-hunter2-9"
#: To import the SDK takes ten times as long as what most tests are about. Runs of a session start without it, as they do everywhere.
NURSERY = Nursery("agentnb.agents.a2a_talk")


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent() as found:
        yield found


@pytest.fixture(scope="module", autouse=True)
def nursery() -> Iterator[None]:
    with NURSERY:
        yield


@pytest.fixture
def session(store: Path) -> Iterator[nb.Session]:
    with nb.Session("a2a", store=store, grace=10) as opened:
        yield opened


def work(url: str, message: str | None = None, **fields: Any) -> dict[str, Any]:
    return A2A_AGENT.work(nb.A2A(url, message, **fields), Asked("r", {}, "/", {}))


def ask(url: str, message: str | None = None, **fields: Any) -> Child:
    return run(work(url, message, **fields), nursery=NURSERY)


def error_of(child: Child) -> dict[str, Any]:
    """The one error that a child reports, which it also prints."""
    (error,) = child.all("error")
    assert child.code == 1
    assert error["message"] in child.stderr.decode()
    assert [step["status"] for step in child.all("step")] in ([], ["running", "failed"])
    return error


def artifacts(child: Child) -> dict[str, tuple[str, bytes]]:
    return {found["name"]: (found["content_type"], base64.b64decode(found["data"])) for found in child.all("artifact")}


# --- a real agent; "" streams, "/plain" is looked at in turns, "/rest" is HTTP+JSON, "/old" is protocol 0.3

EVERY = pytest.mark.parametrize("path", ["", "/plain", "/rest", "/old"])
TWO = pytest.mark.parametrize("path", ["", "/plain"])


@EVERY
def test_a_text_comes_back_as_output_artifact_and_step(agent: Agent, path: str) -> None:
    child = ask(agent.url + path, "echo hello you")
    assert (child.code, child.stdout, child.stderr) == (0, b"hello you", b"")
    assert child.all("result") == [{"t": "result", "output": "hello you"}]
    assert artifacts(child) == {"echo": ("text/plain", b"hello you")}
    opened, closed = child.all("step")
    assert (opened["name"], opened["kind"], opened["input"]) == ("tester", "turn", {"message": "echo hello you"})
    assert (closed["status"], closed["output"]) == ("completed", "hello you")
    context_id, task_id, waits = Conversation.read(child.all("usage")[-1]["agent_session"])
    assert (bool(context_id), bool(task_id), waits) == (True, True, False)


def test_what_it_says_streams_in_pieces_and_each_message_has_a_line(agent: Agent) -> None:
    child = ask(agent.url, "stream one two three")
    assert child.stdout == b"thinking\none two three"
    assert child.all("result")[0]["output"] == "one two three"
    assert artifacts(child) == {"words": ("text/plain", b"one two three")}


@EVERY
def test_a_message_instead_of_a_task_and_a_last_message_are_outputs_too(agent: Agent, path: str) -> None:
    for order in ("message hi", "say hi"):
        child = ask(agent.url + path, order)
        assert (child.stdout, child.all("result")[0]["output"], child.all("artifact")) == (b"hi", "hi", [])


@EVERY
def test_data_goes_there_and_comes_back(agent: Agent, path: str) -> None:
    child = ask(agent.url + path, "data", data={"path": "src", "depth": [1, 2.5, None, True]})
    facts = {"n": 3, "sent": [{"depth": [1, 2.5, None, True], "path": "src"}], "x": 0.5}
    assert child.all("result")[0]["output"] == facts
    assert type(child.all("result")[0]["output"]["n"]) is int
    assert child.stdout == b"here it is"
    kept = artifacts(child)
    assert kept["facts-1"] == ("text/plain", b"here it is")
    assert json.loads(kept["facts-2"][1]) == facts


def test_files_are_kept_as_they_are_and_addresses_are_not_fetched(agent: Agent) -> None:
    child = ask(agent.url, "files")
    assert artifacts(child) == {"dot.png": ("image/png", b"\x89PNG\xff"), "pictures-2": ("text/uri-list", b"https://example.org/x\r\n")}
    assert [found["file"] for found in child.all("artifact")] == [True, False]
    assert child.all("result")[0]["output"] == "two pictures"


def test_a_part_that_is_too_large_is_left_out_with_a_warning(agent: Agent) -> None:
    child = ask(agent.url, "big")
    assert (child.code, child.all("artifact")) == (0, [])
    (warning,) = child.all("warning")
    assert "'big.zip' has 7000000 bytes" in warning["text"]


@TWO
@pytest.mark.parametrize(
    ("order", "kind", "message"),
    [
        ("fail no disk", "execution_failed", "the agent 'tester' failed: no disk"),
        ("reject not mine", "invalid_config", "the agent 'tester' rejected the task: not mine"),
        ("quit enough", "cancelled", "the agent 'tester' cancelled the task: enough"),
        ("auth a token", "invalid_config", "wants other credentials: a token; give api_key=nb.Secret(...)"),
        ("ask which one?", "execution_failed", "the agent 'tester' asks: which one? (answer with run.reply('...'))"),
    ],
)
def test_each_end_of_a_task_is_one_of_the_run(agent: Agent, path: str, order: str, kind: str, message: str) -> None:
    error = error_of(ask(agent.url + path, order))
    assert error["kind"] == kind
    assert message in error["message"]


@EVERY
def test_an_agent_that_breaks_down_fails_the_run(agent: Agent, path: str) -> None:
    assert error_of(ask(agent.url + path, "raise boom"))["kind"] in {"runtime_error", "execution_failed"}  # it may call the task failed


@EVERY
def test_a_reply_answers_the_task_that_waits_and_then_goes_on_in_the_context(agent: Agent, path: str) -> None:
    spec = nb.A2A(agent.url + path, "ask which colour?", data={"a": 1})
    asking = run(A2A_AGENT.work(spec, Asked("r", {}, "/")), nursery=NURSERY)
    context_id, task_id, waits = Conversation.read(name := asking.all("usage")[-1]["agent_session"])
    assert waits
    answer = A2A_AGENT.reply(spec, "echo blue", Finished(None, name))
    assert (answer.message, answer.data, answer.context_id, answer.task_id) == ("echo blue", None, context_id, task_id)
    answered = run(A2A_AGENT.work(answer, Asked("r", {}, "/")), nursery=NURSERY)
    assert answered.all("result")[0]["output"] == "blue"
    name = answered.all("usage")[-1]["agent_session"]
    assert Conversation.read(name) == (context_id, task_id, False)
    again = run(A2A_AGENT.work(A2A_AGENT.reply(answer, "echo green", Finished("blue", name)), Asked("r", {}, "/")), nursery=NURSERY)
    assert again.all("result")[0]["output"] == "green"
    told = agent.told("order", "echo green")
    assert (told["context"], told["references"]) == (context_id, [task_id])


@pytest.mark.parametrize(
    ("path", "number"),
    [("", signal.SIGTERM), ("", signal.SIGINT), ("/plain", signal.SIGTERM), ("/rest", signal.SIGTERM), ("/old", signal.SIGTERM)],
)
def test_a_signal_cancels_the_task_at_the_agent_before_the_end(agent: Agent, path: str, number: int) -> None:
    child = Child.start(work(agent.url + path, "hang"), nursery=NURSERY)
    child.until("usage")
    child.process.send_signal(number)
    assert child.wait() == -number
    task_id = Conversation.read(child.all("usage")[-1]["agent_session"])[1]
    assert agent.told("cancelled", task_id)
    assert child.all("warning") == []


def test_a_task_that_does_not_exist_is_not_found(agent: Agent) -> None:
    error = error_of(ask(agent.url, "echo x", task_id="nothing"))
    assert (error["kind"], "nothing" in error["message"]) == ("not_found", True)


@pytest.mark.parametrize(
    ("path", "words"),
    [("/grpc", "speaks GRPC 1.0; what can be spoken here is JSONRPC and HTTP+JSON"), ("/future", "speaks JSONRPC 2.0")],
)
def test_an_agent_of_another_transport_or_version_is_told(agent: Agent, path: str, words: str) -> None:
    error = error_of(ask(agent.url + path, "echo"))
    assert error["kind"] == "invalid_config"
    assert words in error["message"]


def test_a_key_goes_as_the_card_asks_and_other_headers_with_it(agent: Agent) -> None:
    fields = {"api_key": nb.Secret(SECRET), "headers": {"X-Study": "s", "X-Other": nb.Secret("hidden")}}
    assert ask(agent.url, "echo x", **fields).code == 0
    while (sent := agent.told("path", "/rpc")["headers"]).get("x-study") != "s":
        pass
    assert (sent["authorization"], sent["x-other"]) == (f"Bearer {SECRET}", "hidden")
    assert ask(agent.url + "/keyed", "echo x", **fields).code == 0
    sent = agent.told("path", "/keyed/rpc")["headers"]
    assert (sent["x-agent-key"], sent.get("authorization")) == (SECRET, None)


def test_a_key_is_not_sent_to_another_server_that_a_card_names(agent: Agent) -> None:
    error = error_of(ask(agent.url + "/away", "echo x", api_key=nb.Secret(SECRET)))
    assert error["kind"] == "invalid_config"
    assert "http://192.0.2.1:9/rpc, another server" in error["message"]


@pytest.mark.parametrize(
    ("card", "fields", "words"),
    [
        ("http://[::1", {}, "no address"),
        ("http://127.0.0.1:1/" + "x" * 3000, {}, "no address"),
        ("http://localhost:1/", {"api_key": nb.Secret(SECRET)}, "another server"),
    ],
)
def test_where_a_card_sends_to_is_looked_at(card: str, fields: dict[str, Any], words: str) -> None:
    with ChatServer(answer({"name": "x", "supportedInterfaces": [{"url": card, "protocolBinding": "JSONRPC"}]})) as server:
        error = error_of(ask(at(server), "Hi", **fields))
    assert (error["kind"], words in error["message"]) == ("invalid_config", True)


def test_a_distant_card_sends_nothing_to_this_machine() -> None:
    question = {"url": "https://far.example", "loopback": False, "key": None, "headers": {}}
    code = f"from agentnb.agents import a2a_card; a2a_card._same_house({question!r}, 'http://localhost:9/rpc')"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "this machine; that is not followed" in done.stderr


def test_no_proxy_leads_to_this_machine(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(agent.url, "echo x").code == 0


# --- servers that say anything


def answer(body: Any) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ok(data, content_type="application/json")


def card_of(server: ChatServer, *, streaming: bool = True, **changes: Any) -> bytes:
    where = {"url": f"http://127.0.0.1:{server.port}/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    return answer({"name": "odd", "supportedInterfaces": [where], "capabilities": {"streaming": streaming}} | changes)


def event(**result: Any) -> bytes:
    return b"data: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode() + b"\n\n"


def task(state: str, **more: Any) -> dict[str, Any]:
    return {"id": "t", "contextId": "c", "status": {"state": f"TASK_STATE_{state}"} | more}


WORKING = event(task=task("WORKING"))


def at(server: ChatServer) -> str:
    return server.url.removesuffix("/v1")


def talk(*answers: bytes | Handler, streaming: bool = True, **fields: Any) -> tuple[Child, ChatServer]:
    """What comes of a card that is right, and these answers after it."""
    with ChatServer(b"") as server:
        server.answers = [card_of(server, streaming=streaming), *answers]
        return ask(at(server), "Hi", **fields), server


def test_no_server_there_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error = error_of(ask(f"http://127.0.0.1:{port}", "Hi"))
    assert error["kind"] == "runtime_error"
    assert "no connection to" in error["message"]
    assert "start the agent" in error["message"]


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (status(404), "not_found", ["/.well-known/agent-card.json answered 404", "check the url"]),
        (status(401, {"error": "who?"}), "execution_failed", ["401: who?", "give api_key=nb.Secret(...)"]),
        (status(302, Location="http://127.0.0.1:1/"), "invalid_config", ["redirect to 'http://127.0.0.1:1/'"]),
        (status(503), "runtime_error", ["503", "retry=nb.Retry()"]),
        (status(429, retry_after="5"), "rate_limited", ["429", "it takes more from"]),
        (answer(b"<html>hello</html>"), "invalid_config", ["is no card of an A2A agent"]),
        (answer(b"\xff\xfe\x00"), "invalid_config", ["is no card of an A2A agent"]),
        (answer([1]), "invalid_config", ["is no card of an A2A agent"]),
        (answer({}), "invalid_config", ["is no card of an A2A agent", "no name"]),
        (answer({"name": "x"}), "invalid_config", ["supportedInterfaces"]),
        (answer({"name": "x", "skills": 5}), "invalid_config", ["is no card of an A2A agent"]),
        (answer(b"[" * 100_000), "invalid_config", ["is no card of an A2A agent"]),
        (
            answer({"name": "x", "supportedInterfaces": [{"url": "file:///etc", "protocolBinding": "JSONRPC"}]}),
            "invalid_config",
            ["no address"],
        ),
        (b"this is no HTTP\r\n\r\n", "runtime_error", ["was lost after 0 bytes of the agent's card"]),
        (reset(), "runtime_error", ["was lost"]),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nx", "runtime_error", ["compressed"]),
    ],
)
def test_what_is_no_agent_is_told_apart(reply: Any, kind: str, words: list[str]) -> None:
    with ChatServer(reply) as server:
        error = error_of(ask(at(server), "Hi"))
    assert error["kind"] == kind, error
    assert [word for word in words if word not in error["message"]] == [], error


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (status(401), "execution_failed", ["/rpc answered 401", "give api_key"]),
        (status(403, b"no"), "execution_failed", ["403: no"]),
        (status(429, {"error": {"message": "slow down"}}, retry_after="9"), "rate_limited", ["429: slow down"]),
        (status(500, b"\xff"), "runtime_error", ["500"]),
        (status(404), "not_found", ["404", "check the url"]),
        (ok(b"<html></html>", content_type="text/html"), "runtime_error", ["no part of an answer"]),
        (ok(b"data: {nonsense}\n\n"), "runtime_error", ["no part of an answer"]),
        (ok(b"data: [1]\n\n"), "runtime_error", ["no part of an answer"]),
        (ok(b"data: \xff\xff\n\n"), "runtime_error", ["no part of an answer"]),
        (ok(event(task={"id": 5, "status": []})), "runtime_error", ["no part of an answer"]),
        (ok(event()), "runtime_error", ["neither a task nor a message"]),
        (ok(b'data: {"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"what?"}}\n\n'), "invalid_config", ["what?"]),
        (ok(b'data: {"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"broken"}}\n\n'), "runtime_error", ["broken"]),
        (ok(b'data: {"jsonrpc":"2.0","id":1,"error":"odd"}\n\n'), "runtime_error", ["odd"]),
        (answer({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "inside"}}), "runtime_error", ["inside"]),
        (ok(b""), "runtime_error", ["stream ended before the task did"]),
        (reset(), "runtime_error", ["was lost after 0 characters"]),
    ],
)
def test_every_fault_of_an_agent_has_a_name(reply: Any, kind: str, words: list[str]) -> None:
    child, _ = talk(reply)
    error = error_of(child)
    assert error["kind"] == kind, error
    assert [word for word in words if word not in error["message"]] == [], error


def test_a_rate_limit_says_when_it_is_over() -> None:
    before = time.time()
    child, _ = talk(status(429, retry_after="7"))
    assert before + 7 <= error_of(child)["details"]["resets_at"] <= time.time() + 7


def test_a_stream_that_is_cut_is_taken_up_once() -> None:
    looked = answer({"jsonrpc": "2.0", "id": 1, "result": task("WORKING")})
    piece = {"taskId": "t", "contextId": "c", "artifact": {"artifactId": "a", "name": "a", "parts": [{"text": "one "}]}}
    rest = piece | {"append": True, "artifact": {"artifactId": "a", "parts": [{"text": "two"}]}}
    done = {"taskId": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
    ends = (reset(ok(WORKING, event(artifactUpdate=piece))), looked, ok(event(artifactUpdate=rest), event(statusUpdate=done)))
    child, server = talk(*ends)
    assert child.all("result") == [{"t": "result", "output": "one two"}]
    assert child.stdout == b"one two"
    assert [body.get("method") for _, _, body in server.requests] == [None, "SendStreamingMessage", "GetTask", "SubscribeToTask"]


def test_a_state_that_is_not_known_is_waited_out() -> None:
    child, _ = talk(ok(event(task=task("UNHEARD_OF")), event(task=task("COMPLETED"))))
    assert (child.code, child.all("result")) == (0, [{"t": "result", "output": None}])


def test_a_stream_that_is_cut_again_fails_and_may_be_tried_again() -> None:
    looked = answer({"jsonrpc": "2.0", "id": 1, "result": task("WORKING")})
    child, _ = talk(reset(ok(WORKING)), looked, reset(ok(WORKING)))
    error = error_of(child)
    assert error["kind"] == "runtime_error"
    assert "was lost after 0 characters of the answer" in error["message"]


def test_a_task_that_ended_while_the_stream_was_cut_is_found_so() -> None:
    ended = {"artifacts": [{"artifactId": "a", "parts": [{"text": "late"}]}]} | task("COMPLETED")
    child, _ = talk(reset(ok(WORKING)), answer({"jsonrpc": "2.0", "id": 1, "result": ended}))
    assert child.all("result")[0]["output"] == "late"


def test_a_task_that_is_looked_at_says_each_thing_once() -> None:
    def look(state: str, said: str, *texts: str) -> bytes:
        parts = [{"artifactId": str(n), "parts": [{"text": text}]} for n, text in enumerate(texts)]
        message = {"messageId": said, "role": "ROLE_AGENT", "parts": [{"text": said}]}
        return answer({"jsonrpc": "2.0", "id": 1, "result": task(state, message=message) | {"artifacts": parts}})

    first = answer({"jsonrpc": "2.0", "id": 1, "result": {"task": task("SUBMITTED")}})
    looks = (look("WORKING", "hm", "one"), look("WORKING", "hm", "one more"), look("COMPLETED", "done", "one more", "two"))
    child, server = talk(first, *looks, streaming=False)
    assert child.stdout == b"one\nhm more\ntwo\ndone"
    assert child.all("result")[0]["output"] == "two"
    assert server.requests[1][2]["params"]["configuration"]["returnImmediately"] is True


def test_what_waited_before_a_reply_is_not_taken_for_its_answer() -> None:
    asked = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "which?"}]}
    old = event(task=task("INPUT_REQUIRED", message=asked))
    done = event(statusUpdate={"taskId": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED", "message": asked}})
    child, _ = talk(ok(old, done), task_id="t", context_id="c")
    assert child.code == 0


def test_the_accepted_types_and_the_ids_are_in_the_request() -> None:
    child, server = talk(ok(event(message={"parts": [{"text": "ok"}]})), output_modes=["text/plain"], context_id="c 1", refers_to=["x"])
    assert child.code == 0
    sent = server.asked["params"]
    assert sent["configuration"]["acceptedOutputModes"] == ["text/plain"]
    assert (sent["message"]["contextId"], sent["message"]["referenceTaskIds"]) == ("c 1", ["x"])


def test_a_flood_is_cut_off_in_bounded_memory() -> None:
    child, _ = talk(flood([ok(), *[b"data: " + b"x" * 65536] * 1100]))
    assert error_of(child)["kind"] == "resource_limit_exceeded"


def test_an_agent_that_never_answers_delays_the_end_of_a_cancelled_run_a_little_only() -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1)

    with ChatServer(b"") as server:
        server.answers = [card_of(server), silent]
        child = Child.start(work(at(server), "Hi"), nursery=NURSERY)
        child.until("step")
        start = time.monotonic()
        child.process.terminate()
        assert child.wait() == -signal.SIGTERM
    assert time.monotonic() - start < WAIT_S / 2
    assert ["could not be cancelled" in warning["text"] for warning in child.all("warning")] in ([True], [])


# --- in a session


def test_a_session_gives_tasks_and_goes_on_with_them(agent: Agent, session: nb.Session) -> None:
    run = session.a2a(agent.url, "stream {{what}} b", params={"what": "a"})
    run.wait(WAIT_S)
    assert (run.status, run.output, run.stdout) == ("completed", "a b", "thinking\na b")
    assert [(step.kind, step.name) for step in run.steps][1:] == [("turn", "tester")]
    assert [(found.name, found.content_type) for found in run.artifacts] == [("words", "text/plain")]
    asking = session.a2a(agent.url, "ask which?")
    assert asking.wait(WAIT_S).status == "failed"
    assert asking.error is not None
    assert "run.reply" in str(asking.error)
    assert asking.reply("echo {{this}}").wait(WAIT_S).output == "{{this}}"
    frame = session.runs_df()
    assert set(frame["kind"]) == {"a2a"}
    assert frame["agent_session"].notna().all()


def test_cancelling_a_run_cancels_its_task(agent: Agent, session: nb.Session) -> None:
    run = session.a2a(agent.url, "hang")
    while "hanging" not in run.stdout:
        assert not run.done
        time.sleep(0.01)
    run.cancel()
    assert run.wait(WAIT_S).status == "cancelled"
    assert agent.told("cancelled", Conversation.read(run.agent_session)[1])


def test_a_task_that_the_agent_cancels_is_a_cancelled_run(agent: Agent, session: nb.Session) -> None:
    assert session.a2a(agent.url, "quit enough").wait(WAIT_S).status == "cancelled"


def test_twenty_at_once_get_their_own_answers(agent: Agent, session: nb.Session) -> None:
    group = session.map(nb.A2A(agent.url, "echo {{n}}"), [{"n": number} for number in range(20)], max_parallel=20)
    group.wait(2 * WAIT_S)
    assert [run.output for run in group] == [str(number) for number in range(20)]
    assert len({run.agent_session for run in group}) == 20


def test_secrets_are_nowhere_in_the_record(agent: Agent, session: nb.Session, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_KEY", SECRET)
    runs = [
        session.a2a(agent.url, order, data={"k": SECRET}, **fields)
        for fields in ({"api_key": nb.Secret(SECRET)}, {"api_key": "AGENT_KEY"}, {"headers": {"X-Key": nb.Secret(SECRET)}})
        for order in (f"echo {SECRET}", f"fail {SECRET}", f"data {SECRET}")
    ]
    for one in runs:
        one.wait(2 * WAIT_S)
        assert "hunter2" not in repr([one, one.spec, one.stdout, one.stderr, one.result, one.steps, one.output])
    session.end()
    assert [path for path in store.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()] == []
    with closing(sqlite3.connect(store / "history.db")) as db:
        assert not [
            row for table in ("runs", "steps", "events", "logs") for row in db.execute(f"SELECT * FROM {table}") if "hunter2" in repr(row)
        ]


# --- before anything starts


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "ftp://x"}, "no address of a server"),
        ({"url": 5}, "of type int"),
        ({"url": "http://me:pw@host"}, "would be stored"),
        ({"message": ""}, "is empty"),
        ({"message": 5}, "of type int"),
        ({"data": [1]}, "no mapping"),
        ({"data": {"x": {1, 2}}}, "no JSON data"),
        ({"data": {"x": float("nan")}}, "no JSON data"),
        ({"data": {"x": [{"y": 2**60}]}}, "53 bits"),
        ({"output_modes": "text"}, "no media type"),
        ({"output_modes": 5}, "no media type"),
        ({"context_id": " "}, "no id"),
        ({"api_key": "sk-abc"}, "no name of an environment variable"),
        ({"api_key": "NO_SUCH_VARIABLE"}, "is not set"),
        ({"headers": {"Host": "x"}}, "set by the request itself"),
        ({"mesage": "x"}, "did you mean 'message'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        A2A_AGENT.work(nb.A2A(**({"url": "http://127.0.0.1:1", "message": "Hi"} | fields)), Asked("r", {}, "/"))
    assert "sk-abc" not in str(caught.value)
    assert "pw@" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/.well-known/agent-card.json"])
def test_an_address_is_that_of_the_agent_or_of_its_card(url: str) -> None:
    assert nb.A2A(url).url == "http://h:1"


def test_message_and_data_are_templates_and_a_lone_value_keeps_its_type() -> None:
    spec = nb.A2A("http://h", "Look at {{path}}", data={"path": "{{path}}", "depth": ["{{n}}", 1], "note": "n is {{n}}"})
    filled = A2A_AGENT.fill(spec, {"path": "a {{b}}", "n": 3})
    assert filled.message == "Look at a {{b}}"
    assert filled.data == {"path": "a {{b}}", "depth": [3, 1], "note": "n is 3"}
    assert nb.A2A("http://h").asks
    assert nb.A2A("http://h", data={"a": 1}).message is None
    with pytest.raises(TemplateError, match="nothing"):
        A2A_AGENT.fill(nb.A2A("http://h", data={"a": "{{nothing}}"}), {"b": 1})


def test_a_run_without_a_conversation_cannot_be_replied_to() -> None:
    with pytest.raises(ConfigError, match="named no conversation"):
        A2A_AGENT.reply(nb.A2A("http://h", "Hi"), "more", Finished("x", None))


@given(st.text(), st.text(), st.booleans())
def test_a_conversation_is_read_as_it_was_written(context_id: str, task_id: str, waits: bool) -> None:
    assert Conversation.read(Conversation.write(context_id, task_id, waits=waits)) == (context_id or None, task_id or None, waits)


def test_a_machine_without_the_sdk_says_what_to_install(monkeypatch: pytest.MonkeyPatch, session: nb.Session) -> None:
    def gone(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", gone)
    with pytest.raises(RuntimeUnavailable, match=r'pip install "agentnb\[a2a\]"'):
        session.a2a("http://127.0.0.1:1", "Hi")
    assert not nb.supports("a2a")
    monkeypatch.setattr(metadata, "version", lambda name: "0.3.9")
    with pytest.raises(RuntimeUnavailable, match="a2a-sdk 0.3.9 .* is too old"):
        session.a2a("http://127.0.0.1:1", "Hi")


def test_an_sdk_that_does_not_load_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a2a.py").write_text("raise ImportError('two versions of it')")
    monkeypatch.syspath_prepend(tmp_path)
    error = error_of(run(work("http://127.0.0.1:1", "Hi")))
    assert error["kind"] == "startup_failed"
    assert "two versions of it; run: pip install --upgrade" in error["message"]


def test_types_of_the_sdk_stay_in_the_child(agent: Agent, session: nb.Session) -> None:
    session.a2a(agent.url, "echo x").wait(WAIT_S)
    assert not [name for name in sys.modules if name == "a2a" or name.startswith("a2a.")]
