"""The supervisor's end of the socket: order, backlog, and clients that talk nonsense."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from agentnb import events, requests, wire
from agentnb.engine.peer import Peer


class Pair:
    """A peer and the client's bare socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.client, theirs = socket.socketpair()
        self.got: list[events.Message] = []
        self.gone = 0
        self.faults: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.peer = Peer(loop, theirs, self.take, self.end)

    def take(self, message: events.Message) -> None:
        self.got.append(message)
        if isinstance(message, requests.Cancel):
            raise KeyError("no such run")

    def end(self) -> None:
        self.gone += 1

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.002)

    def close(self) -> None:
        self.peer.close()
        self.client.close()


def drive(scene: Callable[[Pair], Any]) -> None:
    async def play() -> None:
        pair = Pair(asyncio.get_running_loop())
        try:
            await scene(pair)
        finally:
            pair.close()

    asyncio.run(play())


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def test_messages_come_in_order_and_the_end_is_seen_once() -> None:
    async def scene(pair: Pair) -> None:
        pings = [requests.Ping(n) for n in range(50)]
        pair.client.sendall(b"".join(wire.encode([ping]) for ping in pings))
        await pair.until(lambda: len(pair.got) == 50)
        assert pair.got == pings
        pair.client.close()
        await pair.until(lambda: pair.gone)
        pair.peer.send([events.Reply(1)])
        await asyncio.sleep(0)
        assert pair.gone == 1

    drive(scene)


def test_what_a_client_had_sent_is_taken_although_it_hears_no_answers_any_more() -> None:
    async def scene(pair: Pair) -> None:
        pings = [requests.Ping(n) for n in range(3000)]
        pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        pair.client.sendall(b"".join(wire.encode([ping]) for ping in pings))
        pair.client.close()
        pair.peer.send([events.Reply(1)])  # fails
        assert not pair.gone
        assert pair.peer.backlog == 0
        await pair.until(lambda: pair.gone)
        assert pair.got == pings

    drive(scene)


def test_what_a_client_that_has_ended_had_sent_is_taken_while_somebody_holds_its_socket() -> None:
    async def scene(pair: Pair) -> None:
        pings = [requests.Ping(n) for n in range(100)]
        pair.client.sendall(b"".join(wire.encode([ping]) for ping in pings))
        pair.peer.finish()
        assert (pair.got, pair.gone) == (pings, 1)

    drive(scene)


def test_what_is_no_frame_ends_the_connection() -> None:
    async def scene(pair: Pair) -> None:
        pair.client.sendall(frame(b"nonsense"))
        await pair.until(lambda: pair.gone)

    drive(scene)


def test_a_malformed_message_a_failing_one_and_an_unknown_one_do_not_take_others_with_them() -> None:
    async def scene(pair: Pair) -> None:
        pair.client.sendall(
            frame(
                b'[{"type":"launch"},{"type":[]},{"type":"later"},{"type":"cancel","run_ids":[],"reason":""},{"type":"ping","request_id":7}]'
            )
        )
        await pair.until(lambda: pair.got and pair.got[-1] == requests.Ping(7))
        assert pair.gone == 0
        assert len(pair.faults) == 3

    drive(scene)


def test_a_client_that_does_not_read_blocks_nobody_and_gets_all_in_order_later() -> None:
    async def scene(pair: Pair) -> None:
        for n in range(3000):
            pair.peer.send([events.Reply(n, {"x": "y" * 1000})])
        assert pair.peer.backlog > 1_000_000
        decoder, found = wire.Decoder(), list[events.Json]()
        pair.client.setblocking(False)
        while len(found) < 3000:
            try:
                found += decoder.feed(pair.client.recv(1 << 20))
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert [item["request_id"] for item in found] == list(range(3000))
        assert pair.peer.backlog == 0

    drive(scene)


@pytest.mark.parametrize("bad", [{"x": object()}, {"x": {1, 2}}])
def test_a_message_that_is_no_json_does_not_take_others_with_it(bad: dict[str, object]) -> None:
    async def scene(pair: Pair) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        pair.peer.send([events.Reply(1), events.Reply(2, bad), events.Reply(3, {"x": deep}), events.Reply(4)])
        await asyncio.sleep(0)
        found = wire.Decoder().feed(pair.client.recv(1 << 20))
        assert [item["request_id"] for item in found] == [1, 4]
        assert len(pair.faults) == 2
        while deep:
            deep = deep.pop()

    drive(scene)
