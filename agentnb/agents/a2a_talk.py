"""Giving an A2A agent a task, in the child process: following it to its end, and cancelling it when the process has to end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import httpx
from a2a.client import A2AClientError, Client
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
)
from a2a.utils import errors
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from agentnb.agents import refusals
from agentnb.agents.a2a_card import CONNECT_S, agent
from agentnb.agents.a2a_task import Heard
from agentnb.agents.answer import NoAnswer
from agentnb.agents.channel import Channel

#: Seconds that the agent has to hear that its task is cancelled.
CANCEL_S = 3.0
#: Seconds between two looks at a task: the first, and the longest.
_POLL_S, _MAX_POLL_S = 0.2, 2.0
_WRONG = (
    errors.UnsupportedOperationError,
    errors.ContentTypeNotSupportedError,
    errors.ExtensionSupportRequiredError,
    errors.VersionNotSupportedError,
    errors.InvalidParamsError,
    errors.InvalidRequestError,
    errors.MethodNotFoundError,
)


class Talk:
    """One task and its agent."""

    def __init__(self, question: dict[str, Any], channel: Channel) -> None:
        """Nothing happens before `hold`."""
        self._question = question
        self._heard = Heard(channel)
        self._channel = channel
        self._url = str(question["url"])
        self._client: Client | None = None
        self._sent = False
        self._known = asyncio.Event()

    async def hold(self) -> int:
        """The exit code; a signal to end ends the process, once the agent has heard of it."""
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[int] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _first, stopped, number)
        work = asyncio.ensure_future(self._work())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        await self._cancel()
        # not by cancelling `work`: nothing of the SDK, and no look-up of a name, shall hold up the end
        signal.signal(stopped.result(), signal.SIG_DFL)
        os.kill(os.getpid(), stopped.result())
        return 1

    async def _work(self) -> int:
        try:
            async with agent(self._question) as (card, self._client):
                self._url = card.supported_interfaces[0].url
                self._heard.open(card.name, _shown(self._question))
                await self._follow(self._client, card)
            return self._heard.close()
        except NoAnswer as bad:
            return self._heard.fail(bad)
        except Exception as bad:  # noqa: BLE001 - what the SDK raises for an odd answer can be anything
            return self._heard.fail(self._why(bad))

    async def _follow(self, client: Client, card: AgentCard) -> None:
        self._sent, cut = True, False
        old = self._question["task_id"] is not None  # a task that is replied to may first be shown in the state that it waited in
        try:
            async with aclosing(client.send_message(_request(self._question))) as stream:  # type: ignore[type-var]
                async for event in stream:
                    self._take(event)
                    old = old and event.HasField("task")
                    if self._heard.over and not old:
                        return
                    old = False
        except (A2AClientError, httpx.HTTPError) as bad:
            if not self._heard.task_id or not _was_cut(bad):
                raise
            cut = True
        if self._heard.over and not cut:
            return
        if not card.capabilities.streaming:
            await self._poll(client)
        elif not await self._again(client):
            raise refusals.lost(self._url, self._so_far, "the stream ended before the task did")

    async def _again(self, client: Client) -> bool:
        """Once more for a stream that was cut: look where the task is, and listen again. Whether it is over then."""
        if not self._heard.task_id:
            return False
        await self._look(client)
        if not self._heard.over:
            await self._listen(client)
            if not self._heard.over:
                await self._look(client)
        return self._heard.over

    async def _listen(self, client: Client) -> None:
        try:
            async with aclosing(client.subscribe(SubscribeToTaskRequest(id=self._heard.task_id))) as stream:  # type: ignore[type-var]
                async for event in stream:
                    self._take(event)
                    if self._heard.over:
                        return
        except errors.UnsupportedOperationError:  # it ended in the meantime
            return

    async def _poll(self, client: Client) -> None:
        pause, failed = _POLL_S, False
        while not self._heard.over:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _MAX_POLL_S)
            try:
                await self._look(client)
                failed = False
            except (A2AClientError, httpx.HTTPError, TimeoutError) as bad:
                if failed or not (_was_cut(bad) or isinstance(bad, TimeoutError)):
                    raise
                failed = True

    async def _look(self, client: Client) -> None:
        async with asyncio.timeout(CONNECT_S):
            task = await client.get_task(GetTaskRequest(id=self._heard.task_id, history_length=0))
        self._take(StreamResponse(task=task))

    def _take(self, event: StreamResponse) -> None:
        self._heard.take(event)
        if self._heard.task_id:
            self._known.set()

    async def _cancel(self) -> None:
        """Tell the agent; it has little time, and what it answers changes nothing."""
        if self._client is None or not self._sent or self._heard.over:
            return
        try:
            async with asyncio.timeout(CANCEL_S):
                if self._question["task_id"] is None:
                    await self._known.wait()
                await self._client.cancel_task(CancelTaskRequest(id=self._heard.task_id or self._question["task_id"]))
        except Exception as bad:  # noqa: BLE001 - the run ends all the same
            if not self._heard.over:
                said = f"it did not answer within {CANCEL_S:g} s" if isinstance(bad, TimeoutError) else self._why(bad).message
                self._channel.send({"t": "warning", "text": f"the agent may go on with its task, as it could not be cancelled: {said}"})

    # --- what went wrong

    @property
    def _so_far(self) -> str:
        return f"{self._heard.said} characters of the answer"

    def _why(self, bad: BaseException) -> NoAnswer:
        cause = bad.__cause__ if isinstance(bad, A2AClientError) else bad
        said = (str(bad) or type(bad).__name__)[: refusals.MAX_SHOWN]
        if isinstance(bad, NoAnswer):
            return bad
        if isinstance(bad, TimeoutError):
            return NoAnswer("runtime_error", f"{self._url} did not answer within {CONNECT_S:g} s")
        if isinstance(cause, httpx.HTTPError | httpx.InvalidURL):
            return refusals.unreached(cause, self._url, self._so_far, "agent")
        if isinstance(bad, errors.TaskNotFoundError):
            return NoAnswer("not_found", f"{self._url} knows no such task or conversation: {said}")
        if isinstance(bad, _WRONG):
            return NoAnswer("invalid_config", f"{self._url} does not take what was asked: {said}")
        if isinstance(bad, errors.A2AError) and not isinstance(bad, A2AClientError):
            return NoAnswer("runtime_error", f"{self._url} failed: {said}")
        error = refusals.error_of(str(bad).encode("utf-8", "replace"))
        if isinstance(bad, A2AClientError) and (error["code"] is not None or said.startswith("JSON-RPC Error ")):
            return NoAnswer("runtime_error", f"{self._url} failed: {error['message']}")
        return NoAnswer("runtime_error", f"{self._url} sent what is no part of an answer: {type(bad).__name__}: {said}")


def _first(stopped: asyncio.Future[int], number: int) -> None:
    if not stopped.done():
        stopped.set_result(number)


def _was_cut(bad: BaseException) -> bool:
    """Whether a connection that was there is no more."""
    cause = bad.__cause__ if isinstance(bad, A2AClientError) else bad
    return isinstance(cause, httpx.TransportError) and not isinstance(cause, httpx.ConnectTimeout | httpx.UnsupportedProtocol)


def _request(question: dict[str, Any]) -> SendMessageRequest:
    parts = [Part(text=question["message"])] if question["message"] is not None else []
    if question["data"] is not None:
        parts.append(Part(data=ParseDict(question["data"], Value()), media_type="application/json"))
    message = Message(message_id=uuid4().hex, role=Role.ROLE_USER, parts=parts, reference_task_ids=question["refers_to"])
    message.context_id, message.task_id = question["context_id"] or "", question["task_id"] or ""
    return SendMessageRequest(message=message)


def _shown(question: dict[str, Any]) -> dict[str, Any]:
    """What was asked, for the record of the turn."""
    names = ("message", "data", "context_id", "task_id", "refers_to")
    return {name: value for name in names if (value := question[name]) not in (None, [])}
