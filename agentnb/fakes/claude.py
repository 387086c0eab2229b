"""A stand-in for the claude command line: same options, same stream of events, no network; standard library only.

Set ``AGENTNB_CLAUDE`` to a program that runs this module (agentnb.fakes.fixtures has a pytest fixture that does), and
``AGENTNB_FAKE_CLAUDE`` to what it shall do, with a number after a colon where one is told below:

| mode | what it does |
|---|---|
| `text` | answers; the default. The answer is AGENTNB_FAKE_CLAUDE_TEXT, else it says what it was asked |
| `tools` | reads a file, which works, runs a command, which fails, and is denied a third tool |
| `think` | thinks before it answers |
| `agent` | has a sub-agent look, whose last message is told with its result only |
| `slow:S` | says a word every S seconds (0.2) until it has said twenty |
| `big_output:N` | says N bytes (100 MB) in events of 64 KiB |
| `long_line:N` | prints one line of N bytes (20 MB), and answers |
| `hang_after_result:S` | answers and stays for S seconds (600) |
| `ignore_term` | prints a word, and cannot be ended by SIGTERM |
| `spawn_daemon` | answers and leaves a process behind that holds its stdout |
| `non_utf8` | prints bytes that are no UTF-8 and lines that are no JSON between its events |
| `unknown` | prints events and fields that nobody knows |
| `cut` | ends in the middle of an event |
| `is_error` | ends well, and says that it failed |
| `rate_limit:S` | is refused by a rate limit that is over in S seconds (2); once that is over, answers |
| `overloaded:N` | is refused by an overloaded API in the first N attempts (1) |
| `no_login` | has no key and no login |
| `max_turns` | does not come to an end within its turns |
| `no_result` | ends well without a result |
| `crash` | ends with code 3 and a message on stderr |
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MESSAGE_BYTES = 64 * 1024
_USAGE = {"input_tokens": 100, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30}
_WORDS = 20


class Fake:
    """One call of the command line."""

    def __init__(self, args: argparse.Namespace, prompt: str) -> None:
        """Begin the conversation, or go on with it."""
        self.args = args
        self.prompt = prompt
        self.session = args.resume or str(uuid.uuid4())
        self.model = args.model or "fake-model"
        self._turns = 0
        self._written = 0

    # --- what it prints

    def line(self, **event: Any) -> None:
        """Print one event."""
        self.raw(json.dumps(event | {"session_id": self.session, "uuid": str(uuid.uuid4())}, separators=(",", ":")).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        """Print bytes as they are."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def begin(self) -> None:
        """Say what it is."""
        mode = self.args.permission_mode or "default"
        self.line(type="system", subtype="init", cwd=str(Path.cwd()), model=self.model, tools=[], mcp_servers=[], permissionMode=mode)

    def partial(self, **event: Any) -> None:
        """Print a piece of a message, if those are wanted."""
        if self.args.include_partial_messages:
            self.line(type="stream_event", event=event, parent_tool_use_id=None)

    def message(self, *blocks: dict[str, Any], pause_s: float = 0.0) -> None:
        """Say one message of the model."""
        self._turns += 1
        head = {"id": f"msg_{uuid.uuid4().hex[:24]}", "type": "message", "role": "assistant", "model": self.model, "stop_reason": None}
        usage = _USAGE | {"output_tokens": 1}
        self.partial(type="message_start", message=head | {"content": [], "usage": usage})
        for index, block in enumerate(blocks):
            self.partial(type="content_block_start", index=index, content_block=block | ({"text": ""} if block["type"] == "text" else {}))
            for word in block.get("text", "").split(" ") if block["type"] == "text" and len(block["text"]) < _MESSAGE_BYTES else ():
                self.partial(type="content_block_delta", index=index, delta={"type": "text_delta", "text": word + " "})
                time.sleep(pause_s)
            self.line(type="assistant", message=head | {"content": [block], "usage": usage}, parent_tool_use_id=None)
            self.partial(type="content_block_stop", index=index)
        self._written += 25
        self.partial(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 25})
        self.partial(type="message_stop")

    def heard_of(self, messages: int) -> None:
        """A sub-agent made so many messages."""
        self._turns += messages
        self._written += 25 * messages

    def tool(self, name: str, result: str, *, is_error: bool = False, **given: Any) -> str:
        """Use a tool; returns the id of the call."""
        call = f"toolu_{uuid.uuid4().hex[:24]}"
        self.message({"type": "tool_use", "id": call, "name": name, "input": given})
        block = {"type": "tool_result", "tool_use_id": call, "content": result, "is_error": is_error}
        self.line(type="user", message={"role": "user", "content": [block]}, parent_tool_use_id=None)
        return call

    def result(self, text: str, **changes: Any) -> None:
        """Tell the result."""
        used = _USAGE | {"output_tokens": self._written}
        used |= {name: count * self._turns for name, count in _USAGE.items()}
        cost = 0.001 * self._turns
        model = self._of_model(self._turns, self._written, cost)
        # a conversation that is gone on with had one turn before, which its sums count, too
        all_of_it = self._of_model(self._turns + 1, self._written + 25, cost + 0.001) if self.args.resume else model
        event = {
            "type": "result", "subtype": "success", "is_error": False, "api_error_status": None, "num_turns": self._turns,
            "duration_ms": 100, "duration_api_ms": 50 * self._turns, "result": text, "total_cost_usd": all_of_it["costUSD"], "usage": used,
            "modelUsage": {self.model: all_of_it}, "model_usage_since_last_result": {self.model: model},
            "permission_denials": [], "terminal_reason": "completed",
        }  # fmt: skip
        if self.args.json_schema is not None and not changes.get("is_error"):
            event["structured_output"] = _sample(json.loads(self.args.json_schema))
        self.line(**event | changes)

    def _of_model(self, turns: int, written: int, cost: float) -> dict[str, Any]:
        read, to_cache, from_cache = (count * turns for count in _USAGE.values())
        tokens = {"inputTokens": read, "outputTokens": written, "cacheReadInputTokens": from_cache, "cacheCreationInputTokens": to_cache}
        return tokens | {"webSearchRequests": 0, "costUSD": cost}

    def answer(self) -> str:
        """What it says."""
        return os.environ.get("AGENTNB_FAKE_CLAUDE_TEXT") or f"You said: {self.prompt.strip()[-200:]}"

    def say(self) -> None:
        """Answer in one message."""
        self.message({"type": "text", "text": self.answer()})
        self.result(self.answer())

    def interrupted(self, *_: Any) -> None:
        """SIGINT: tell what was used, and end well."""
        told = {"subtype": "error_during_execution", "is_error": True, "result": None, "terminal_reason": "aborted_streaming"}
        sys.stdout = os.fdopen(os.dup(1), "w")  # it may be in the middle of a line
        sys.stdout.write("\n")
        sys.stdout.flush()
        self.result("", **told)
        os._exit(0)

    def refuse(self, text: str, error: str, status: int | None) -> int:
        """Say that the API refused; the exit code."""
        message = {"id": str(uuid.uuid4()), "model": "<synthetic>", "role": "assistant", "content": [{"type": "text", "text": text}]}
        self.line(type="assistant", message=message, parent_tool_use_id=None, error=error)
        self.result(text, is_error=True, api_error_status=status, terminal_reason="api_error", total_cost_usd=0)
        return 1


def _sample(schema: dict[str, Any]) -> Any:
    """Some data that fits a simple schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: _sample(inner) for name, inner in schema.get("properties", {}).items()}
    return {"array": [], "integer": 1, "number": 1.5, "boolean": True, "null": None}.get(str(schema.get("type")), "text")


# --- the modes: each returns the exit code


def _text(fake: Fake, _: float | None) -> int:
    fake.say()
    return 0


def _tools(fake: Fake, _: float | None) -> int:
    fake.tool("Read", "1\thello", file_path="README.md")
    fake.tool("Bash", "Exit code 3", is_error=True, command="exit 3")
    call = fake.tool("Write", "permission was not granted", is_error=True, file_path="x.txt", content="x")
    fake.message({"type": "text", "text": fake.answer()})
    denied = {"tool_name": "Write", "tool_use_id": call, "tool_input": {"file_path": "x.txt"}}
    fake.result(fake.answer(), permission_denials=[denied])
    return 0


def _think(fake: Fake, _: float | None) -> int:
    fake.message({"type": "thinking", "thinking": "Let me see.", "signature": ""}, {"type": "text", "text": fake.answer()})
    fake.result(fake.answer())
    return 0


def _agent(fake: Fake, _: float | None) -> int:
    call, look = (f"toolu_{uuid.uuid4().hex[:24]}" for _ in range(2))
    fake.message({"type": "tool_use", "id": call, "name": "Agent", "input": {"prompt": "look"}})
    block = {"type": "tool_use", "id": look, "name": "Bash", "input": {"command": "ls"}}
    head = {"id": f"msg_{uuid.uuid4().hex[:24]}", "role": "assistant", "model": fake.model, "content": [block]}
    fake.line(type="assistant", message=head | {"usage": _USAGE | {"output_tokens": 1}}, parent_tool_use_id=call)
    for tool, text, parent in ((look, "a.txt", call), (call, "I saw a.txt", None)):
        message = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": tool, "content": text}]}
        told = {"usage": _USAGE | {"output_tokens": 25}, "resolvedModel": fake.model} if parent is None else text
        fake.line(type="user", message=message, parent_tool_use_id=parent, tool_use_result=told)
    fake.heard_of(2)
    fake.say()
    return 0


def _slow(fake: Fake, pause: float | None) -> int:
    words = " ".join(["word"] * _WORDS)
    fake.message({"type": "text", "text": words}, pause_s=0.2 if pause is None else pause)
    fake.result(words)
    return 0


def _big_output(fake: Fake, size: float | None) -> int:
    piece = ("0123456789abcde\n" * (_MESSAGE_BYTES // 16))[:_MESSAGE_BYTES]
    for _ in range(int(100e6 if size is None else size) // _MESSAGE_BYTES):
        fake.message({"type": "text", "text": piece})
    fake.result("done")
    return 0


def _long_line(fake: Fake, size: float | None) -> int:
    fake.raw(b'{"type":"assistant","message":{"content":"')
    for _ in range(int(20e6 if size is None else size) // _MESSAGE_BYTES):
        fake.raw(b"x" * _MESSAGE_BYTES)
    fake.raw(b'"}}\n')
    fake.say()
    return 0


def _hang_after_result(fake: Fake, seconds: float | None) -> int:
    fake.say()
    time.sleep(600 if seconds is None else seconds)
    return 0


def _ignore_term(fake: Fake, _: float | None) -> int:
    for ignored in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    fake.message({"type": "text", "text": "I stay."})
    time.sleep(600)
    return 0


def _spawn_daemon(fake: Fake, _: float | None) -> int:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    fake.say()
    return 0


def _non_utf8(fake: Fake, _: float | None) -> int:
    fake.raw(b"\xff\xfe no text\n[1, 2]\n\n   \r\n42\n{not json}\n")
    fake.raw(b'{"type":"assistant","message":{"id":"m1","content":[{"type":"text","text":"caf\xe9"}]}}\n')
    fake.say()
    return 0


def _unknown(fake: Fake, _: float | None) -> int:
    fake.line(type="comet", brightness=[1, {"x": None}])
    fake.line(type="system", subtype="weather", sky="blue")
    fake.line(type=["list"], message=7)
    fake.line(type="assistant", message={"id": 5, "content": "plain text", "mood": "good"})
    fake.line(type="user", message=None)
    fake.line(type="assistant", message={"id": "m2", "content": [{"type": "hologram", "shape": "cube"}, None, 3]})
    fake.say()
    return 0


def _cut(fake: Fake, _: float | None) -> int:
    fake.message({"type": "text", "text": "half"})
    fake.raw(b'{"type":"result","subtype":"succ')
    return 1


def _is_error(fake: Fake, _: float | None) -> int:
    fake.result("something went wrong", is_error=True)
    return 0


def _rate_limit(fake: Fake, seconds: float | None) -> int:
    resets = os.environ.get("AGENTNB_FAKE_CLAUDE_RESETS_AT")
    at = float(resets) if resets else time.time() + (2 if seconds is None else seconds)
    if int(os.environ.get("AGENTNB_ATTEMPT", "1")) > 1 or time.time() >= at:
        fake.say()
        return 0
    fake.line(type="rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": int(at), "rateLimitType": "five_hour"})
    return fake.refuse("You've hit your 5-hour limit", "rate_limit", 429)


def _overloaded(fake: Fake, attempts: float | None) -> int:
    if int(os.environ.get("AGENTNB_ATTEMPT", "1")) > (1 if attempts is None else attempts):
        fake.say()
        return 0
    return fake.refuse("API Error: 529 Overloaded", "server_error", 529)


def _no_login(fake: Fake, _: float | None) -> int:
    return fake.refuse("Not logged in · Please run /login", "authentication_failed", None)


def _max_turns(fake: Fake, _: float | None) -> int:
    fake.tool("Bash", "hi", command="echo hi")
    errors = [f"Reached maximum number of turns ({fake.args.max_turns})"]
    fake.result("", subtype="error_max_turns", is_error=True, errors=errors, terminal_reason="max_turns", result=None)
    return 1


def _no_result(fake: Fake, _: float | None) -> int:
    fake.message({"type": "text", "text": "and then"})
    return 0


def _crash(_: Fake, __: float | None) -> int:
    sys.stderr.write("Segmentation fault, or so\n")
    return 3


MODES: dict[str, Callable[[Fake, float | None], int]] = {
    "text": _text,
    "tools": _tools,
    "think": _think,
    "agent": _agent,
    "slow": _slow,
    "big_output": _big_output,
    "long_line": _long_line,
    "hang_after_result": _hang_after_result,
    "ignore_term": _ignore_term,
    "spawn_daemon": _spawn_daemon,
    "non_utf8": _non_utf8,
    "unknown": _unknown,
    "cut": _cut,
    "is_error": _is_error,
    "rate_limit": _rate_limit,
    "overloaded": _overloaded,
    "no_login": _no_login,
    "max_turns": _max_turns,
    "no_result": _no_result,
    "crash": _crash,
}


def _dollars(text: str) -> float:
    if not float(text) > 0:
        raise argparse.ArgumentTypeError("it must be a number greater than 0")
    return float(text)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="claude")
    parser.add_argument("-v", "--version", action="version", version="0.0.0 (agentnb fake)")
    for flag in ("-p", "--verbose", "--include-partial-messages"):
        parser.add_argument(flag, action="store_true")
    for name in ("--allowedTools", "--tools"):
        parser.add_argument(name, nargs="+")
    for name in (
        "--output-format",
        "--model",
        "--system-prompt",
        "--append-system-prompt",
        "--permission-mode",
        "--resume",
        "--json-schema",
    ):
        parser.add_argument(name)
    parser.add_argument("--mcp-config")
    parser.add_argument("--max-turns", type=int)
    parser.add_argument("--max-budget-usd", type=_dollars)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Do what AGENTNB_FAKE_CLAUDE says; returns the exit code."""
    args = _arguments(argv)
    mode, _, number = os.environ.get("AGENTNB_FAKE_CLAUDE", "text").partition(":")
    if mode not in MODES:
        sys.stderr.write(f"AGENTNB_FAKE_CLAUDE={mode!r} is no mode; there are: {', '.join(MODES)}\n")
        return 2
    fake = Fake(args, sys.stdin.buffer.read().decode("utf-8", "replace"))
    signal.signal(signal.SIGINT, fake.interrupted)
    fake.begin()
    return MODES[mode](fake, float(number) if number else None)


if __name__ == "__main__":
    sys.exit(main())
