"""An A2A agent on loopback, of the real SDK: it does what the message says, and ends with its stdin. Started by a2a_server.py.

It prints one line of JSON with its port, and then one for each thing that a test may want to know.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from typing import Any

import uvicorn
from a2a.helpers import (
    get_data_parts,
    new_data_part,
    new_raw_part,
    new_task_from_user_message,
    new_text_message,
    new_text_part,
    new_url_part,
)
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette

#: Seconds after which everything that hangs on purpose has ended.
WAIT_S = 60


def tell(**what: Any) -> None:
    """Print one thing for the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def cards(base: str) -> dict[str, Any]:
    """By path: the agent's cards. All but those of ``/plain`` stream; ``/rest`` is HTTP+JSON, ``/old`` protocol 0.3."""

    def card(path: str, binding: str = "JSONRPC", version: str = "1.0", *, streaming: bool = True, url: str = "") -> AgentCard:
        where = AgentInterface(url=url or f"{base}{path}/rpc", protocol_binding=binding, protocol_version=version)
        return AgentCard(
            name="tester",
            description="does as it is told",
            version="1",
            supported_interfaces=[where],
            capabilities=AgentCapabilities(streaming=streaming),
            skills=[AgentSkill(id="t", name="t", description="t", tags=["t"])],
            default_input_modes=["text/plain"],
            default_output_modes=["text/plain"],
        )

    keyed = card("/keyed")
    keyed.security_schemes["k"].api_key_security_scheme.location = "header"
    keyed.security_schemes["k"].api_key_security_scheme.name = "X-Agent-Key"
    return {
        "": card(""),
        "/plain": card("/plain", streaming=False),
        "/old": card("/old", version="0.3.0"),
        "/grpc": card("/grpc", "GRPC"),
        "/future": card("/future", version="2.0"),
        "/away": card("/away", url="http://192.0.2.1:9/rpc"),
        "/keyed": keyed,
        "/rest": card("/rest", "HTTP+JSON"),  # the last one: its routes take everything that is left
    }


class Executor(AgentExecutor):
    """Does what the first word of the message says."""

    async def execute(self, context: Any, event_queue: Any) -> None:
        order = context.get_user_input()
        word, _, rest = order.partition(" ")
        if word == "message":
            await event_queue.enqueue_event(new_text_message(rest, context_id=context.context_id))
            return
        if context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
        task = TaskUpdater(event_queue, context.task_id, context.context_id)
        tell(task=context.task_id, context=context.context_id, references=list(context.message.reference_task_ids), order=order)
        await task.start_work()
        await getattr(self, f"_{word}", self._echo)(task, rest or word, context)

    @staticmethod
    def _says(task: Any, text: str) -> Any:
        return task.new_agent_message([new_text_part(text)])

    async def _echo(self, task: Any, rest: str, context: Any) -> None:
        await task.add_artifact([new_text_part(rest)], name="echo")
        await task.complete()

    async def _say(self, task: Any, rest: str, context: Any) -> None:
        await task.complete(self._says(task, rest))

    async def _stream(self, task: Any, rest: str, context: Any) -> None:
        await task.start_work(self._says(task, "thinking"))
        words = rest.split()
        for number, word in enumerate(words):
            last = number == len(words) - 1
            await task.add_artifact([new_text_part(word + " " * (not last))], "a", "words", append=number > 0, last_chunk=last)
        await task.complete()

    async def _data(self, task: Any, rest: str, context: Any) -> None:
        sent = get_data_parts(context.message.parts)
        await task.add_artifact([new_text_part("here it is"), new_data_part({"n": 3, "x": 0.5, "sent": sent})], name="facts")
        await task.complete()

    async def _files(self, task: Any, rest: str, context: Any) -> None:
        parts = [new_raw_part(b"\x89PNG\xff", "image/png", "dot.png"), new_url_part("https://example.org/x", filename="x")]
        await task.add_artifact(parts, name="pictures")
        await task.complete(self._says(task, "two pictures"))

    async def _big(self, task: Any, rest: str, context: Any) -> None:
        await task.add_artifact([new_raw_part(b"x" * 7_000_000, "application/zip", "big.zip")], name="big")
        await task.complete(self._says(task, "done"))

    async def _fail(self, task: Any, rest: str, context: Any) -> None:
        await task.failed(self._says(task, rest))

    async def _reject(self, task: Any, rest: str, context: Any) -> None:
        await task.reject(self._says(task, rest))

    async def _quit(self, task: Any, rest: str, context: Any) -> None:
        await task.cancel(self._says(task, rest))

    async def _auth(self, task: Any, rest: str, context: Any) -> None:
        await task.requires_auth(self._says(task, rest))

    async def _ask(self, task: Any, rest: str, context: Any) -> None:
        await task.requires_input(self._says(task, rest))

    async def _raise(self, task: Any, rest: str, context: Any) -> None:
        raise RuntimeError(rest)

    async def _hang(self, task: Any, rest: str, context: Any) -> None:
        await task.start_work(self._says(task, "hanging"))
        await asyncio.sleep(WAIT_S)
        await task.complete()

    async def cancel(self, context: Any, event_queue: Any) -> None:
        tell(cancelled=context.task_id)
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def _app(base: str) -> Any:
    routes: list[Any] = []
    for path, card in cards(base).items():
        handler = DefaultRequestHandler(Executor(), InMemoryTaskStore(), card)
        routes += create_agent_card_routes(card, card_url=f"{path}/.well-known/agent-card.json")
        if path == "/rest":
            routes += create_rest_routes(handler, path_prefix=f"{path}/rpc")
        else:
            routes += create_jsonrpc_routes(handler, f"{path}/rpc", enable_v0_3_compat=path == "/old")

    inner = Starlette(routes=routes)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            tell(path=scope["path"], headers={name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        await inner(scope, receive, send)

    return app


def _serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = _app(f"http://127.0.0.1:{port}")
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, lifespan="off", ws="none"))

        def until_stdin_ends() -> None:
            sys.stdin.read()
            server.should_exit = True
            threading.Timer(10, os._exit, [1]).start()

        threading.Thread(target=until_stdin_ends, daemon=True).start()
        tell(port=port)
        server.run(sockets=[listener])
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _serve()
