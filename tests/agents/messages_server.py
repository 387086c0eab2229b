"""A small Messages API server on loopback, scripted by the test: what the real claude CLI talks to here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
#: What the server sends back to one request: from its body, and the number of model requests so far (from 0).
Script = Callable[[Json, int], "Answer"]


class Answer:
    """One reply of the model: content blocks, or an HTTP error, or a connection that is cut."""

    def __init__(
        self,
        *blocks: Json,
        status: int = 200,
        headers: dict[str, str] | None = None,
        delay_s: float = 0.0,
        cut: bool = False,
        drop: bool = False,
        usage: Json | None = None,
    ) -> None:
        """`delay_s`: before each piece of text. `cut`: the connection ends in the middle of the message; `drop`: before it."""
        self.blocks = blocks
        self.status = status
        self.headers = headers or {}
        self.delay_s = delay_s
        self.cut = cut
        self.drop = drop
        self.usage = {"input_tokens": 100, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 25} | (
            usage or {}
        )


def text(words: str) -> Json:
    """A text block."""
    return {"type": "text", "text": words}


def tool(name: str, number: int = 1, /, **given: Any) -> Json:
    """A tool call."""
    return {"type": "tool_use", "id": f"toolu_{number:024d}", "name": name, "input": given}


def results_in(body: Json) -> list[Json]:
    """The tool results that a request carries in its last message."""
    content = body["messages"][-1]["content"] if body.get("messages") else []
    return [block for block in content if isinstance(block, dict) and block.get("type") == "tool_result"]


def prompt_in(body: Json) -> str:
    """All text of the first user message."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content if isinstance(block, dict))


class MessagesServer:
    """Answers POST /v1/messages by a script; keeps what it was asked."""

    def __init__(self, script: Script) -> None:
        """`script` may be replaced at any time."""
        self.script = script
        self.asked: list[Json] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="messages-server")
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class of small methods
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_HEAD  # noqa: N815

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
                if "count_tokens" in self.path:
                    self._json(200, {"input_tokens": 10}, {})
                    return
                with owner._lock:
                    number = len(owner.asked)
                    owner.asked.append(body)
                try:
                    self._answer(body, owner.script(body, number))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _answer(self, body: Json, answer: Answer) -> None:
                if answer.drop:
                    self.close_connection = True
                    self.connection.close()
                elif answer.status != 200:
                    kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(answer.status, "api_error")
                    self._json(answer.status, {"type": "error", "error": {"type": kind, "message": f"scripted {kind}"}}, answer.headers)
                elif body.get("stream"):
                    self._stream(body, answer)
                else:
                    self._json(200, _message(body, answer), answer.headers)

            def _json(self, status: int, data: Json, headers: dict[str, str]) -> None:
                content = json.dumps(data).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", "content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def _stream(self, body: Json, answer: Answer) -> None:
                self.send_response(200)
                for name, value in {"content-type": "text/event-stream", "transfer-encoding": "chunked", **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for event in _events(body, answer):
                    data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                    self.wfile.flush()
                    if answer.delay_s and event["type"] == "content_block_delta":
                        time.sleep(answer.delay_s)
                if answer.cut:
                    self.close_connection = True
                    self.connection.close()
                else:
                    self.wfile.write(b"0\r\n\r\n")

        return Handler


def _message(body: Json, answer: Answer) -> Json:
    stop = "tool_use" if any(block["type"] == "tool_use" for block in answer.blocks) else "end_turn"
    return {
        "id": f"msg_{time.time_ns():024d}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "claude-test"),
        "content": list(answer.blocks),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": answer.usage,
    }


def _events(body: Json, answer: Answer) -> Iterator[Json]:
    message = _message(body, answer)
    yield {"type": "message_start", "message": message | {"content": [], "stop_reason": None, "usage": answer.usage | {"output_tokens": 1}}}
    for index, block in enumerate(answer.blocks):
        if block["type"] == "text":
            start: Json = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
        else:
            start = block | {"input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        if answer.cut:
            return
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": answer.usage["output_tokens"]}}
    yield {"type": "message_stop"}


def _pieces(words: str) -> list[str]:
    return [words[at : at + 12] for at in range(0, len(words), 12)] or [""]


@contextmanager
def serving(script: Script) -> Iterator[MessagesServer]:
    """A server for a block."""
    server = MessagesServer(script)
    try:
        yield server
    finally:
        server.close()
