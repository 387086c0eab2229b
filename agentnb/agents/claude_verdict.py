"""What became of a run of the claude CLI: its result event, or that there was none, as the run's output or its error.

`is_error` decides, then the exit code: an API error exits with 1 and subtype "success", an interrupt with 0.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from agentnb.agents.claude_blocks import mapping, text_of
from agentnb.engine.checks import structured
from agentnb.events import Json

_LOGIN = (
    "set ANTHROPIC_API_KEY (for one session or run: env={'ANTHROPIC_API_KEY': nb.Secret(...)}), or run `claude` in a terminal and log in "
    "with /login"
)
_ENDS_AT = re.compile(r"\|(\d{10})\b")
_MAX_TEXT = 4000


class Asked(NamedTuple):
    """What the launch asked for. `wants`: "text", "json" or "schema"."""

    wants: str = "text"
    max_turns: int | None = None
    resume: str | None = None


class Seen:
    """What earlier events told of an error."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.error = ""
        self.resets_at: int | None = None

    def note(self, event: Json, message: Json) -> None:
        """An assistant event, which may tell of an API error."""
        if (error := text_of(event.get("error"))) and message.get("model") == "<synthetic>":
            self.error = error
            self.limit(mapping(mapping(event.get("api_error_params")).get("rate_limit_info")))

    def limit(self, info: Json) -> None:
        """The state of a rate limit."""
        at = info.get("resetsAt")
        if info.get("status") == "rejected" and isinstance(at, int | float) and 0 < at < 1e11:
            self.resets_at = int(at)


def of_result(asked: Asked, seen: Seen, event: Json) -> Json:
    """The report of a result event: the run's output, or an error."""
    said = _said(event)
    if event.get("is_error") is not True and text_of(event.get("subtype")) in {"success", None}:
        return _output(asked, event, said)
    kind, message = _fault(asked, seen, event, said)
    details: Json = {name: event[name] for name in ("subtype", "api_error_status", "terminal_reason") if event.get(name) is not None}
    if kind == "rate_limited" and (at := seen.resets_at or _reset_in(said)) is not None:
        details["resets_at"] = at
    return {"t": "error", "kind": kind, "message": message[:_MAX_TEXT], "details": details}


def without_result(asked: Asked, exit_code: int | None, signal: int | None, stderr: str) -> Json:
    """The report of a process that ended without a result event."""
    how = f"signal {signal}" if signal else f"exit code {exit_code}"
    last = stderr.strip()[-1000:]
    message = f"the stream ended without a result ({how})" + (
        f": {last}" if last else "; stream.jsonl among its artifacts has what it printed"
    )
    return {"t": "error", "kind": "not_found" if _no_conversation(last) else "execution_failed", "message": _resume(asked, message)}


def _said(event: Json) -> str:
    errors = event.get("errors")
    told = [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []
    result = event.get("result")
    return result if isinstance(result, str) else "; ".join(told)


def _output(asked: Asked, event: Json, said: str) -> Json:
    if asked.wants == "schema":
        if "structured_output" in event:
            return {"t": "result", "output": event["structured_output"]}
        return _invalid(f"claude gave no output that fits json_schema; it said: {said}")
    if asked.wants == "json":
        found = structured(said)
        if found is None:
            return _invalid(f"output_format='json': there is no JSON in what claude said: {said}")
        return {"t": "result", "output": found[0]}
    return {"t": "result", "output": said}


def _invalid(message: str) -> Json:
    return {"t": "error", "kind": "validation_error", "message": message[:_MAX_TEXT]}


def _fault(asked: Asked, seen: Seen, event: Json, said: str) -> tuple[str, str]:
    kind = text_of(event.get("subtype"))
    if kind == "error_max_turns":
        bound = f"max_turns={asked.max_turns}" if asked.max_turns else "the bound on turns"
        return "execution_failed", f"claude did not finish within {bound}: {said}; give more max_turns, or go on with run.reply(...)"
    if kind == "error_max_budget_usd":
        return "budget_exceeded", f"claude stopped at its budget: {said}"
    if kind == "error_max_structured_output_retries":
        return "validation_error", f"claude gave no output that fits json_schema: {said}"
    if kind == "error_during_execution" and str(event.get("terminal_reason")).startswith("aborted"):
        return "cancelled", "claude was interrupted (SIGINT)"
    if kind not in {"success", None}:
        return ("not_found" if _no_conversation(said) else "execution_failed"), _resume(asked, f"claude failed ({kind}): {said}")
    status = event.get("api_error_status")
    return _api_fault(seen, status if isinstance(status, int) else None, said, str(event.get("terminal_reason")))


def _api_fault(seen: Seen, status: int | None, said: str, reason: str) -> tuple[str, str]:
    """What is_error of a result means whose subtype is "success"."""
    if status in {401, 403} or seen.error == "authentication_failed" or "/login" in said:
        return "invalid_config", f"claude has no valid key or login: {said}; {_LOGIN}"
    if status == 429 or seen.error == "rate_limit":
        return "rate_limited", f"the rate limit was reached: {said}; with retry=nb.Retry() the run waits for its reset"
    if seen.error == "billing_error" or status == 402:
        return "invalid_config", f"the API account cannot pay: {said}"
    if status == 404 or seen.error == "model_not_found":
        return "invalid_config", f"the API does not know that model or address: {said}; check `model` and ANTHROPIC_BASE_URL"
    if status is not None and 400 <= status < 500 and status != 408:
        return "execution_failed", f"the API refused the request ({status}): {said}"
    if status == 529:
        return "runtime_error", f"the API is overloaded (529): {said}"
    if status is not None:
        return "runtime_error", f"the API failed ({status}): {said}"
    if seen.error in {"server_error", "unknown"} or reason == "api_error" or said.startswith("API Error"):
        return "runtime_error", f"the API could not be reached, or broke off: {said}"
    return "execution_failed", f"claude failed: {said}"


def _no_conversation(said: str) -> bool:
    return "No conversation found" in said


def _resume(asked: Asked, message: str) -> str:
    if asked.resume is None or not _no_conversation(message):
        return message
    return f"{message}; it is kept on the machine, and by some versions for the folder, where it began: give that as working_dir"


def _reset_in(said: str) -> int | None:
    found = _ENDS_AT.search(said)
    return int(found[1]) if found else None
