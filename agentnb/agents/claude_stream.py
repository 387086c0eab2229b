"""The claude CLI's stream of events (``--output-format stream-json --verbose``) as reports of a run; standard library only.

A turn step for each message of the model, a tool step for each tool call below its turn (a sub-agent's turns below the tool that
started it), the text as it comes, totals, warnings for what was denied, and the verdict. Types and fields that are not known change
nothing: they are in the raw stream, which is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agentnb.agents import claude_verdict
from agentnb.agents.claude_blocks import brief, described, flat, length, mapping, text_of, texts
from agentnb.agents.claude_shares import Ledger, call
from agentnb.agents.claude_totals import Totals
from agentnb.agents.claude_turn import Turn
from agentnb.events import Json

_NOTHING: tuple[Json, ...] = ()
#: What the CLI says of an MCP server that cannot be used.
_MISSING = ("failed", "needs-auth")


class ClaudeStream:
    """Makes reports of the events of one process; see engine/parsing.py for the protocol."""

    def __init__(self, *, wants: str = "text", max_turns: int | None = None, resume: str | None = None) -> None:
        """`wants`: what the output is to be: "text", "json" (found in the final text) or "schema" (structured output)."""
        self._asked = claude_verdict.Asked(wants, max_turns, resume)
        self._seen = claude_verdict.Seen()
        self._turns: dict[str | None, Turn] = {}
        self._complete: set[str] = set()
        self._streamed: set[str] = set()
        self._tools: dict[str, str | None] = {}
        self._over: set[str] = set()
        self._background: set[str] = set()
        self._ledger = Ledger()
        self._models: Json = {}
        self._totals = Totals(resumed=resume is not None)
        self._denied: set[str] = set()
        self._warned: set[str] = set()
        self._numbers = 0
        self._current: str | None = None
        self._line_open = False
        self._verdict: Json | None = None

    def feed(self, event: Json) -> Iterable[Json]:
        """The reports of one event."""
        kind = event.get("type")
        if kind == "stream_event":
            found = self._partial(event)
        elif kind == "assistant":
            found = self._assistant(event)
        elif kind == "user":
            found = self._user(event)
        elif kind == "result":
            return self._end_result(event)
        elif kind == "system":
            found = self._system(event)
        elif kind == "rate_limit_event":
            found = self._rate_limit(event)
        else:
            return _NOTHING
        return found if self._verdict is None else [*found, {"t": "done"}]  # it goes on after a result: its time begins anew

    def end(self, exit_code: int | None, signal: int | None, stderr: str) -> Iterable[Json]:
        """What steps turned out to use, and the verdict: that of the last result, for there may be several."""
        return [*self._ledger.used(self._models), self._verdict or claude_verdict.without_result(self._asked, exit_code, signal, stderr)]

    # --- text while it comes

    def _partial(self, event: Json) -> Iterable[Json]:
        inner = event.get("event")
        if type(inner) is not dict:
            return _NOTHING
        kind = inner.get("type")
        if kind == "content_block_delta":
            delta = inner.get("delta")
            if type(delta) is dict and type(text := delta.get("text")) is str and event.get("parent_tool_use_id") is None:
                self._line_open = text[-1:] != "\n"
                if self._current is not None:
                    self._streamed.add(self._current)
                return ({"t": "output", "text": text},)
            return _NOTHING
        if event.get("parent_tool_use_id") is not None:
            return _NOTHING
        if kind == "message_start":
            message = mapping(inner.get("message"))
            self._current = text_of(message.get("id"))
            return self._begin_turn(None, self._current, message) if self._current else _NOTHING
        if kind == "content_block_start":
            return self._new_line() if mapping(inner.get("content_block")).get("type") == "text" else _NOTHING
        if kind == "message_delta" and self._current is not None and (turn := self._turns.get(None)) is not None:
            self._complete.add(self._current)
            return self._count(turn, mapping(inner.get("usage")))
        return _NOTHING

    def _new_line(self) -> Iterable[Json]:
        if not self._line_open:
            return _NOTHING
        self._line_open = False
        return ({"t": "output", "text": "\n"},)

    def _print(self, line: str) -> Iterable[Json]:
        return [*self._new_line(), {"t": "output", "text": line if line.endswith("\n") else line + "\n"}]

    # --- turns

    def _assistant(self, event: Json) -> Iterable[Json]:
        message = mapping(event.get("message"))
        self._seen.note(event, message)
        if message.get("model") == "<synthetic>":  # the CLI's own words, such as those about an API error
            return _NOTHING
        parent = text_of(event.get("parent_tool_use_id"))
        number = text_of(message.get("id")) or text_of(event.get("uuid")) or f"message {self._numbers + 1}"
        reports = list(self._begin_turn(parent, number, message))
        turn = self._turns[parent]
        content = message.get("content")
        for block in content if isinstance(content, list) else (content,):
            reports += self._block(turn, parent, block)
        return reports

    def _begin_turn(self, parent: str | None, message_id: str, message: Json) -> Iterable[Json]:
        turn = self._turns.get(parent)
        if turn is not None and turn.message == message_id:
            return self._count(turn, mapping(message.get("usage")), start=True)
        reports = self._end_turn(parent)
        self._numbers += 1
        turn = self._turns[parent] = Turn(f"turn {self._numbers}", message_id, text_of(message.get("model")) or "")
        start: Json = {"t": "step", "id": turn.id, "kind": "turn", "name": turn.id, "status": "running"}
        if parent in self._tools:
            start["parent"] = parent
        return [*reports, start, *self._count(turn, mapping(message.get("usage")), start=True)]

    def _end_turn(self, parent: str | None, status: str = "completed") -> list[Json]:
        turn = self._turns.pop(parent, None)
        if turn is None:
            return []
        end: Json = {"t": "step", "id": turn.id, "status": status}
        if output := turn.output():
            end["output"] = output
        final = turn.message in self._complete
        if tokens := turn.tokens(final=final):
            end["tokens"] = tokens
            self._ledger.add(call(turn.id, turn.model, turn.told, final=final, length=turn.length), parent)
        self._complete.discard(turn.message)
        self._streamed.discard(turn.message)
        return [end]

    def _block(self, turn: Turn, parent: str | None, block: Any) -> Iterable[Json]:
        data = {"type": "text", "text": block} if isinstance(block, str) else mapping(block)
        kind, text = data.get("type"), data.get("text")
        turn.length += length(data)
        if kind == "text" and isinstance(text, str):
            turn.text.append(text)
            return self._print(text) if parent is None and turn.message not in self._streamed and text else _NOTHING
        if kind == "thinking" and isinstance(data.get("thinking"), str):
            turn.thinking.append(data["thinking"])
        elif kind == "tool_use" and (tool := text_of(data.get("id"))):
            return self._begin_tool(turn, parent, tool, data)
        elif data:
            turn.extra.append(brief(data))
        return _NOTHING

    # --- tools

    def _begin_tool(self, turn: Turn, parent: str | None, tool: str, block: Json) -> Iterable[Json]:
        turn.tools += 1
        if tool in self._tools or tool in self._over:
            return _NOTHING
        name = text_of(block.get("name")) or "tool"
        self._tools[tool] = parent
        self._ledger.tool(tool, parent)
        start = {
            "t": "step",
            "id": tool,
            "kind": "tool",
            "name": name,
            "status": "running",
            "parent": turn.id,
            "input": brief(block.get("input")),
        }
        return [start, *(self._print(f"→ {described(name, block.get('input'))}") if parent is None else ())]

    def _user(self, event: Json) -> Iterable[Json]:
        content = mapping(event.get("message")).get("content")
        reports: list[Json] = []
        for block in content if isinstance(content, list) else ():
            data = mapping(block)
            tool = text_of(data.get("tool_use_id"))
            if data.get("type") == "tool_result" and tool in self._tools:
                if tool in self._background and data.get("is_error") is not True:
                    continue  # it works on, and a notification will tell of its end
                self._last_word(tool, mapping(event.get("tool_use_result")))
                reports += self._end_tool(tool, data)
        return reports

    def _last_word(self, tool: str, told: Json) -> None:
        """What a sub-agent's last message used is told with its result; the message itself may not be in the stream."""
        usage, turn = told.get("usage"), self._turns.get(tool)
        if type(usage) is not dict:
            return
        if turn is None or turn.tools:
            self._ledger.add(call(tool, told.get("resolvedModel"), usage, final=True), tool)
        else:
            self._complete.add(turn.message)
            turn.told = turn.told | usage
            if type(written := usage.get("output_tokens")) is int and written >= 0:
                turn.usage["output_tokens"] = written

    def _end_tool(self, tool: str, block: Json) -> list[Json]:
        reports = self._end_turn(tool)  # of a sub-agent that it was
        parent = self._tools.pop(tool)
        self._over.add(tool)
        result = flat(block.get("content"))
        end: Json = {"t": "step", "id": tool, "status": "completed", "output": result}
        if not self._ledger.is_agent(tool):
            end |= {"tokens": {"input": 0, "output": 0}, "cost_usd": 0.0}
        if block.get("is_error") is True:
            said = result if isinstance(result, str) else "the tool failed"
            end |= {"status": "failed", "error": said or "the tool failed"}
            if parent is None:
                reports += self._print(f"  ✗ {texts(said)}")
        return [*reports, end]

    def _deny(self, tool: str, name: str, why: str) -> Iterable[Json]:
        if tool in self._denied:
            return _NOTHING
        self._denied.add(tool)
        advice = f"allow it with tools=[{name!r}, ...], or choose a permission_mode"
        return ({"t": "warning", "text": f"the tool {name} was denied{': ' + why.rstrip('.') if why else ''}; {advice}"},)

    # --- what is said of the run

    def _system(self, event: Json) -> Iterable[Json]:
        kind = event.get("subtype")
        if kind == "init":
            found = {"model": text_of(event.get("model")), "agent_session": text_of(event.get("session_id"))}
            return [{"t": "usage"} | {name: value for name, value in found.items() if value}, *self._missing_servers(event)]
        if kind == "permission_denied":
            name = text_of(event.get("tool_name")) or "tool"
            return self._deny(text_of(event.get("tool_use_id")) or name, name, text_of(event.get("message")) or "")
        if kind == "task_started":
            tool = text_of(event.get("tool_use_id"))
            if tool in self._tools and event.get("is_backgrounded") is True and event.get("task_type") == "local_agent":
                self._background.add(tool)
        if kind == "task_notification" and (tool := text_of(event.get("tool_use_id"))) in self._background and tool in self._tools:
            said = {"content": event.get("summary"), "is_error": event.get("status") != "completed"}
            return self._end_tool(tool, said)
        if kind == "api_retry":
            return ({"t": "warning", "text": f"the claude CLI tried a request again ({event.get('error_status')}: {event.get('error')})"},)
        return _NOTHING

    def _missing_servers(self, event: Json) -> Iterable[Json]:
        """Warnings for MCP servers that were asked for and are not there: the CLI goes on without them."""
        servers, faults = event.get("mcp_servers"), event.get("mcp_server_errors")
        told = [mapping(server) for server in servers] if isinstance(servers, list) else []
        missing = [
            f"the MCP server {server.get('name')} is not there ({server['status']}): claude goes on without its tools; check mcp_config"
            for server in told
            if server.get("status") in _MISSING
        ]
        missing += [f"mcp_config has a fault: {texts(json.dumps(fault))}" for fault in (faults if isinstance(faults, list) else ())]
        new = [text for text in missing if text not in self._warned]
        self._warned.update(new)
        return [{"t": "warning", "text": text} for text in new]

    def _rate_limit(self, event: Json) -> Iterable[Json]:
        info = mapping(event.get("rate_limit_info"))
        self._seen.limit(info)
        if info.get("status") == "allowed_warning":
            return ({"t": "warning", "text": f"the rate limit is near ({texts(str(info.get('rateLimitType') or ''))})"},)
        return _NOTHING

    def _count(self, turn: Turn, usage: Json, *, start: bool = False) -> Iterable[Json]:
        report = self._totals.count(turn, usage, start=start)
        return _NOTHING if report is None else (report,)

    # --- the end

    def _end_result(self, event: Json) -> Iterable[Json]:
        verdict = self._verdict = claude_verdict.of_result(self._asked, self._seen, event)
        reports: list[Json] = []
        denials = event.get("permission_denials")
        for denial in denials if isinstance(denials, list) else ():
            told = mapping(denial)
            name = text_of(told.get("tool_name")) or "tool"
            reports += self._deny(text_of(told.get("tool_use_id")) or name, name, "")
        for parent in [*reversed(self._turns)]:
            if verdict.get("kind") == "cancelled":  # it told what it had written by then, which may not be what is paid
                self._complete.discard(self._turns[parent].message)
            reports += self._end_turn(parent, "cancelled" if verdict.get("kind") == "cancelled" else "completed")
        models = self._models = self._totals.models(event)
        return [*self._new_line(), *reports, self._totals.report(event, models), {"t": "done"}]
