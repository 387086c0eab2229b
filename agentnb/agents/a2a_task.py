"""A task of an A2A agent as it is heard, in the child process: text to stdout, artifacts, steps and the verdict to the channel."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from a2a.types import Artifact, Message, Part, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus
from google.protobuf.json_format import MessageToDict

from agentnb.a2a import Conversation
from agentnb.agents.answer import NoAnswer
from agentnb.agents.channel import Channel, write_out

_STEP_ID = "turn"
#: A part of an artifact that is larger is left out, with a warning (bytes): a report is one line of at most 8 MiB.
MAX_PART = 6_000_000
#: An output that is larger as JSON fails the run (bytes).
MAX_OUTPUT = 4 * 1024 * 1024
#: So many artifacts of one task are kept.
MAX_ARTIFACTS = 1000
_MAX_SESSION = 500
_MAX_SAID = 2000

_RUNNING = {TaskState.TASK_STATE_UNSPECIFIED, TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING}
_WAITING = {TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED}


def text_of(parts: Iterable[Part]) -> str:
    """The texts of the parts, one after the other."""
    return "".join(part.text for part in parts if part.HasField("text"))


def content_of(parts: Iterable[Part]) -> Any:
    """What parts say, as JSON data: their data (a list, if there are several), else their text; None when they say nothing."""
    parts = list(parts)
    data = [MessageToDict(part.data) for part in parts if part.HasField("data")]
    if data:
        return _whole(data[0] if len(data) == 1 else data)
    return text_of(parts) or None


def _whole(value: Any) -> Any:
    """Data as it was sent, as far as it can be known: whole numbers travelled as doubles, and the order of keys was lost on the way."""
    if isinstance(value, dict):
        return {name: _whole(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(slots=True)
class Heard:
    """One task, or the one message that an agent answers instead. `name`: of the agent, once its card is read."""

    channel: Channel
    name: str = ""
    stdout: int = 1
    stderr: int = 2
    task_id: str = ""
    context_id: str = ""
    state: int = TaskState.TASK_STATE_UNSPECIFIED
    said: int = 0
    _last: Message = field(default_factory=Message)
    _artifacts: dict[str, Artifact] = field(default_factory=dict)
    _fresh_line: bool = True
    _session: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come of itself."""
        return self.state not in _RUNNING

    def open(self, name: str, shown: dict[str, Any]) -> None:
        """The turn begins; `name`: the agent's own."""
        self.name = name
        self._step("running", name=name, kind="turn", parent=None, input=shown)

    def take(self, event: StreamResponse) -> None:
        """One event of the stream, or one look at the task."""
        if event.HasField("task"):
            self._task(event.task)
        elif event.HasField("message"):
            self._ids(event.message.context_id, event.message.task_id)
            self._hear(event.message)
            self.state = TaskState.TASK_STATE_COMPLETED
        elif event.HasField("status_update"):
            self._ids(event.status_update.context_id, event.status_update.task_id)
            self._status(event.status_update.status)
        elif event.HasField("artifact_update"):
            self._ids(event.artifact_update.context_id, event.artifact_update.task_id)
            self._artifact(event.artifact_update)
        else:
            raise NoAnswer("runtime_error", "the agent sent an event that is neither a task nor a message; is it of this protocol?")
        self._tell_session()

    def _task(self, task: Task) -> None:
        self._ids(task.context_id, task.id)
        for artifact in task.artifacts:  # all of it, again and again: what is new in it is said
            before = text_of(self._artifacts[artifact.artifact_id].parts) if artifact.artifact_id in self._artifacts else ""
            now = text_of(artifact.parts)
            self._keep(artifact)
            self._say(now.removeprefix(before) if now.startswith(before) else now, begins=not before)
        self._status(task.status)

    def _artifact(self, update: TaskArtifactUpdateEvent) -> None:
        new = update.artifact
        known = self._artifacts.get(new.artifact_id) if update.append else None
        if known is None:
            self._keep(new)
        else:
            known.parts.extend(new.parts)
            self._artifacts[new.artifact_id] = self._artifacts.pop(new.artifact_id)  # the last one to grow is the answer
        self._say(text_of(new.parts), begins=known is None)

    def _keep(self, artifact: Artifact) -> None:
        if artifact.artifact_id not in self._artifacts and len(self._artifacts) >= MAX_ARTIFACTS:
            raise NoAnswer("resource_limit_exceeded", f"the agent made more than {MAX_ARTIFACTS} artifacts")
        kept = self._artifacts[artifact.artifact_id] = Artifact()
        kept.CopyFrom(artifact)

    def _status(self, status: TaskStatus) -> None:
        self.state = status.state
        if status.HasField("message"):
            self._hear(status.message)

    def _hear(self, message: Message) -> None:
        if message != self._last:
            self._say(text_of(message.parts), begins=True)
        self._last = Message()
        self._last.CopyFrom(message)

    def _ids(self, context_id: str, task_id: str) -> None:
        self.context_id, self.task_id = context_id or self.context_id, task_id or self.task_id

    def _tell_session(self) -> None:
        session = Conversation.write(self.context_id, self.task_id, waits=self.state in _WAITING)
        if session not in {self._session, "/"} and len(session) <= _MAX_SESSION:
            self._session = session
            self.channel.send({"t": "usage", "turns": 1, "agent_session": session})

    # --- the end

    def fail(self, bad: NoAnswer) -> int:
        """Report why there is no answer; the exit code. What came so far is kept."""
        if self.name:
            self._save()
            output = self._made()
            fits = output is not None and len(_json(output)) <= MAX_OUTPUT
            self._step("failed", error=bad.message, **({"output": output} if fits else {}))
        self.channel.send({"t": "error", "kind": bad.kind, "message": bad.message, "details": bad.details})
        write_out(self.stderr, bad.message + "\n")
        return 1

    def close(self) -> int:
        """Report how the task ended; the exit code."""
        if (bad := self._verdict()) is not None:
            return self.fail(bad)
        output = self._output()
        if (size := len(_json(output))) > MAX_OUTPUT:
            return self.fail(NoAnswer("resource_limit_exceeded", f"the answer has {size} bytes, more than {MAX_OUTPUT}; it is in stdout"))
        self._save()
        self._step("completed", output=output)
        self.channel.send({"t": "result", "output": output})
        return 0

    def _verdict(self) -> NoAnswer | None:
        said = content_of(self._last.parts)
        text = (said if isinstance(said, str) else _json(said).decode() if said is not None else "")[:_MAX_SAID].strip()
        ids = {name: value for name, value in (("context_id", self.context_id), ("task_id", self.task_id)) if value}
        who, told = f"the agent {self.name!r}", f": {text}" if text else ", and did not say why"
        match self.state:
            case TaskState.TASK_STATE_COMPLETED:
                return None
            case TaskState.TASK_STATE_FAILED:
                return NoAnswer("execution_failed", f"{who} failed{told}", **ids)
            case TaskState.TASK_STATE_CANCELED:
                return NoAnswer("cancelled", f"{who} cancelled the task{told}", **ids)
            case TaskState.TASK_STATE_REJECTED:
                return NoAnswer("invalid_config", f"{who} rejected the task{told}", **ids)
            case TaskState.TASK_STATE_INPUT_REQUIRED:
                asks = f"asks: {text}" if text else "needs more input, and did not say which"
                return NoAnswer("execution_failed", f"{who} {asks} (answer with run.reply('...'))", **ids, asks=text)
            case TaskState.TASK_STATE_AUTH_REQUIRED:
                return NoAnswer("invalid_config", f"{who} wants other credentials{told}; give api_key=nb.Secret(...) or headers", **ids)
        return NoAnswer("runtime_error", f"{who} ended in a state that is not known: {self.state}", **ids)

    def _output(self) -> Any:
        """What the last artifact says, else what the last message does."""
        made = self._made()
        return content_of(self._last.parts) if made is None else made

    def _made(self) -> Any:
        for artifact in reversed(self._artifacts.values()):
            if (content := content_of(artifact.parts)) is not None:
                return content
        return None

    def _save(self) -> None:
        for artifact in self._artifacts.values():
            name = artifact.name or artifact.artifact_id or "artifact"
            pieces = list(_pieces(artifact.parts))
            for number, (kind, content, own, is_file) in enumerate(pieces, 1):
                shown = own or (name if len(pieces) == 1 else f"{name}-{number}")
                if len(content) > MAX_PART:
                    self._warn(f"the artifact {shown!r} has {len(content)} bytes, more than {MAX_PART}; it was left out")
                    continue
                data = base64.b64encode(content).decode()
                self.channel.send({"t": "artifact", "name": shown, "content_type": kind, "data": data, "file": is_file})

    def _warn(self, text: str) -> None:
        self.channel.send({"t": "warning", "text": text})

    # --- what is written

    def _say(self, text: str, *, begins: bool) -> None:
        """Text to stdout; `begins`: on a line of its own."""
        if not text:
            return
        text = text.encode("utf-8", "replace").decode()
        write_out(self.stdout, ("" if self._fresh_line or not begins else "\n") + text)
        self._fresh_line = text.endswith("\n")
        self.said += len(text)

    def _step(self, status: str, **fields: Any) -> None:
        self.channel.send({"t": "step", "id": _STEP_ID, "status": status} | fields)


def _pieces(parts: Iterable[Part]) -> Iterable[tuple[str, bytes, str, bool]]:
    """What to keep of an artifact: type, content, its own name, and whether it is a file. Texts that follow each other are one."""
    text, kind = "", ""
    for part in parts:
        if part.HasField("text") and not part.filename:
            text, kind = text + part.text, part.media_type or kind
            continue
        if text:
            yield kind or "text/plain", text.encode("utf-8", "replace"), "", False
            text, kind = "", ""
        if part.HasField("text"):
            yield part.media_type or "text/plain", part.text.encode("utf-8", "replace"), part.filename, False
        elif part.HasField("data"):
            yield part.media_type or "application/json", _json(_whole(MessageToDict(part.data))), part.filename, False
        elif part.HasField("raw"):
            yield part.media_type or "application/octet-stream", part.raw, part.filename, True
        elif part.HasField("url"):  # it is not fetched: the agent chose it, not the user
            yield "text/uri-list", f"{part.url}\r\n".encode("utf-8", "replace"), "", False
    if text:
        yield kind or "text/plain", text.encode("utf-8", "replace"), "", False


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
